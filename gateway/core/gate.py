"""A Gate lets so many requests through at once; a few more may wait, and the rest is refused.

A long queue helps nobody: whoever waited in it for seconds gets an answer that it no longer wants,
and so does everybody behind it. So the queue is short, and its time is limited.

- **Who matters more goes first**, whoever waits: critical, then normal. Where the queue is full,
  one that matters less has to leave for one that matters more. What is sheddable never waits, and
  leaves a fifth of the places to the others.
- **Among equals the first comes first, until there is pressure.** When the oldest has waited for
  half of its time, the queue no longer drains, and the newest is served first: it is the one whose
  client is surely still there. The oldest ones run into their limit, which they would have anyway.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Final, Generic, TypeVar

from gateway.core.adaptive import MOST_LIMIT, AdaptiveLimit
from gateway.core.policy import ConcurrencyPolicy, PriorityClass

T = TypeVar("T")

_SHEDDABLE_SHARE: Final = 0.8
_PRESSED_AFTER: Final = 0.5


class Entry(Enum):
    """What a Gate says to one that wants in."""

    ENTERED = "entered"
    WAITS = "waits"
    REFUSED = "refused"


class Gate(Generic[T]):
    """One limit with its queue; `T` is whoever waits. All times are monotonic seconds.

    `name` says whose limit it is. `in_flight` are those that are through and have not left,
    `refused` how many there was no room for, also after a wait.
    """

    __slots__ = (
        "_adaptive",
        "_is_filling",
        "_queues",
        "in_flight",
        "limit",
        "name",
        "policy",
        "refused",
    )

    def __init__(self, name: str, policy: ConcurrencyPolicy) -> None:
        self.name = name
        self.in_flight = 0
        self.refused = 0
        self._is_filling = False
        self._adaptive: AdaptiveLimit | None = None
        self._queues: dict[PriorityClass, deque[tuple[float, T]]] = {
            PriorityClass.CRITICAL: deque(),
            PriorityClass.NORMAL: deque(),
        }
        self.adopt(policy)

    def __repr__(self) -> str:
        return f"<Gate {self.in_flight} of {self.limit}, {self.waiting} waiting>"

    def adopt(self, policy: ConcurrencyPolicy) -> None:
        """Follow another policy from now on; who is in or waits stays."""
        self.policy = policy
        if not policy.is_adaptive:
            self._adaptive = None
            self.limit = policy.limit or MOST_LIMIT
        elif self._adaptive is None:
            self._adaptive = AdaptiveLimit()
            self.limit = self._adaptive.limit

    def answered(self, latency_s: float, now_s: float) -> None:
        """Hear how long an answer took; an adaptive limit follows it."""
        if self._adaptive is not None:
            self._adaptive.answered(latency_s, self.in_flight, now_s)
            self.limit = self._adaptive.limit

    def timed_out(self) -> None:
        """Hear that an answer did not come in time."""
        if self._adaptive is not None:
            self._adaptive.timed_out()
            self.limit = self._adaptive.limit

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._queues.values()))

    def enter(self, one: T, priority_class: PriorityClass, now_s: float) -> tuple[Entry, T | None]:
        """Let one in, let it wait, or refuse it; with it goes whoever has to leave the queue."""
        if priority_class is PriorityClass.SHEDDABLE:
            has_room = self.in_flight < max(self.limit * _SHEDDABLE_SHARE, 1) and not self.waiting
            return self._let_in() if has_room else self._refuse()
        if self.in_flight < self.limit and not self._is_waited_for(priority_class):
            return self._let_in()
        queue = self._queues[priority_class]
        pushed_out = None
        if self.waiting >= self.policy.queue:
            if (
                priority_class is not PriorityClass.CRITICAL
                or not self._queues[PriorityClass.NORMAL]
            ):
                return self._refuse()
            _, pushed_out = self._queues[PriorityClass.NORMAL].popleft()
            self.refused += 1
        queue.append((now_s, one))
        return Entry.WAITS, pushed_out

    def leave(self) -> None:
        """Give a place back; `next` tells whose it is now."""
        self.in_flight -= 1

    def fill(self, let_in: Callable[[T], None], now_s: float) -> None:
        """Let in those that wait, as many as there is room for, and tell each of them.

        One that is let in may be done at once, and leave while this goes on; then it is left to
        this call, however many they are.
        """
        if self._is_filling:
            return
        self._is_filling = True
        try:
            while (one := self.next(now_s)) is not None:
                let_in(one)
        finally:
            self._is_filling = False

    def next(self, now_s: float) -> T | None:
        """Let the next one in that waits, None if there is nobody or no place."""
        if self.in_flight >= self.limit:
            return None
        for queue in self._queues.values():
            if queue:
                is_pressed = now_s - queue[0][0] >= self.policy.queue_wait_s * _PRESSED_AFTER
                _, one = queue.pop() if is_pressed else queue.popleft()
                self.in_flight += 1
                return one
        return None

    def withdraw(self, one: T, *, in_vain: bool) -> None:
        """Take one out of the queue that has left, or waited for too long: in vain."""
        self.refused += in_vain
        for queue in self._queues.values():
            for entry in queue:
                if entry[1] is one:
                    queue.remove(entry)
                    return

    def _is_waited_for(self, priority_class: PriorityClass) -> bool:
        return any(queue for rank, queue in self._queues.items() if rank <= priority_class)

    def _let_in(self) -> tuple[Entry, T | None]:
        self.in_flight += 1
        return Entry.ENTERED, None

    def _refuse(self) -> tuple[Entry, T | None]:
        self.refused += 1
        return Entry.REFUSED, None
