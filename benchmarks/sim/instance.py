"""An instance that is played: it works off a queue, and can die in each way that instances do.

    state      a new connection    a request that comes      connections that stand
    UP         is taken            waits for a worker        stay
    FAILING    is taken            503 at once               stay
    FROZEN     is taken            waits until it thaws      stay
    STOPPING   is refused          waits for a worker        closed when idle, or answered
    DOWN       is refused          -                         broken at once
    GONE       nothing comes back  nothing comes back        nothing comes back

What was begun is done, whether or not somebody still waits for it: that is the worst case.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from random import Random
from typing import Protocol

from benchmarks.sim.timeline import Timeline

OK, UNAVAILABLE = 200, 503


class State(Enum):
    """What it does with connections and requests."""

    UP = "up"
    FAILING = "failing"
    FROZEN = "frozen"
    STOPPING = "stopping"
    DOWN = "down"
    GONE = "gone"


TAKES_CONNECTIONS = frozenset({State.UP, State.FAILING, State.FROZEN})


class Asking(Protocol):
    """One end of a connection to it."""

    def answer(self, status: int, *, keeps_alive: bool) -> None:
        """Send an answer on its way."""
        ...

    def lose(self) -> None:
        """Send the end of the connection on its way."""
        ...


class PlayedInstance:
    """One instance. `workers` requests are worked on at once, for about `work_s` each.

    `slowness` is by how much it takes longer than that. How long an answer takes grows with the
    load: who comes when all workers are busy waits.
    """

    def __init__(
        self, key: str, timeline: Timeline, random: Random, *, workers: int, work_s: float
    ) -> None:
        self.key = key
        self.state = State.UP
        self.slowness = 1.0
        self._timeline = timeline
        self._random = random
        self._workers = workers
        self._work_s = work_s
        self._life = 0
        self._busy = 0
        self._queue: deque[Asking] = deque()
        self._stalled: list[Asking] = []
        self._open: dict[Asking, bool] = {}  # whether it has a request

    def __repr__(self) -> str:
        return f"<PlayedInstance {self.key} {self.state.value}, {len(self._queue)} wait>"

    # --- What is done to it ----------------------------------------------------------------------

    def crash(self) -> None:
        """Let the process die: the kernel refuses and resets in its place."""
        lost = list(self._open)
        self._begin_anew(State.DOWN)
        for link in lost:
            link.lose()

    def vanish(self) -> None:
        """Let the machine or the network to it be gone: nothing comes back."""
        self._begin_anew(State.GONE)

    def freeze(self) -> None:
        """Stop the process: the kernel still takes connections."""
        self.state = State.FROZEN

    def fail(self) -> None:
        """Answer everything that comes with 503."""
        self.state = State.FAILING

    def stop(self) -> None:
        """Shut down in order: what is in hand is answered."""
        self.state = State.STOPPING
        for link in [link for link, has_request in self._open.items() if not has_request]:
            del self._open[link]
            link.lose()

    def restore(self) -> None:
        """Let it be well again; after a crash or a stop it is a new process."""
        if self.state in TAKES_CONNECTIONS:
            self.state = State.UP
            stalled, self._stalled = self._stalled, []
            for link in stalled:
                self._done(link, self._life)
            self._work()
        else:
            self._begin_anew(State.UP)

    # --- What comes over the network -------------------------------------------------------------

    def connect(self, link: Asking) -> bool | None:
        """Take a new connection; False refuses it, None says nothing."""
        if self.state in TAKES_CONNECTIONS:
            self._open[link] = False
            return True
        return None if self.state is State.GONE else False

    def receive(self, link: Asking) -> None:
        """Take a request."""
        if link not in self._open:
            if self.state is not State.GONE:
                link.lose()
        elif self.state is State.FAILING:
            link.answer(UNAVAILABLE, keeps_alive=True)
        else:
            self._open[link] = True
            self._queue.append(link)
            self._work()

    def forget(self, link: Asking) -> None:
        """Hear that the other end closed; what it asked for is worked on all the same."""
        self._open.pop(link, None)

    # --- Work ------------------------------------------------------------------------------------

    def _work(self) -> None:
        while self._queue and self._busy < self._workers and self.state is not State.FROZEN:
            self._busy += 1
            takes_s = self._work_s * self.slowness * (0.5 + 0.5 * self._random.expovariate(1))
            self._timeline.call_later(takes_s, self._done, self._queue.popleft(), self._life)

    def _done(self, link: Asking, life: int) -> None:
        if life != self._life:
            return  # the process that worked on it is dead
        if self.state is State.FROZEN:
            self._stalled.append(link)
            return
        self._busy -= 1
        if link in self._open:
            is_stopping = self.state is State.STOPPING
            self._open[link] = False
            link.answer(OK, keeps_alive=not is_stopping)
            if is_stopping:
                del self._open[link]
        self._work()

    def _begin_anew(self, state: State) -> None:
        self.state = state
        self._life += 1
        self._busy = 0
        self._queue.clear()
        self._stalled.clear()
        self._open.clear()
