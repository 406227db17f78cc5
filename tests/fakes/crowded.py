"""A service that is asked by chance and answers by chance, behind a limit on what it has in hand.

Time is simulated: events are played in the order of their times, so minutes pass in a moment.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from random import Random

from gateway.core.adaptive import AdaptiveLimit

_QUEUE = 32
_QUEUE_WAIT_S = 0.25


@dataclass(slots=True)
class Outcome:
    """What became of the requests, and the limits on the way."""

    offered: int = 0
    answered: int = 0
    late: int = 0
    limits: list[int] = field(default_factory=list)

    @property
    def refused(self) -> int:
        """Those that there was no room for."""
        return self.offered - self.answered - self.late


@dataclass(slots=True, eq=False)
class _Asked:
    began_s: float
    is_over: bool = False


class CrowdedService:
    """`per_s` requests a second for a service with so many `workers`; each takes `takes_s` of one.

    The share `hangs` of them is never answered; all are given up after `timeout_s`.
    """

    def __init__(
        self,
        *,
        per_s: float,
        takes_s: Callable[[Random], float],
        workers: int = 1_000_000,
        hangs: float = 0.0,
        timeout_s: float = 1.0,
    ) -> None:
        self.workers = workers
        self._per_s = per_s
        self._takes_s = takes_s
        self._hangs = hangs
        self._timeout_s = timeout_s
        self._random = Random(7)
        self._limit = AdaptiveLimit()
        self._now_s = 1000.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._in_hand = self._busy = 0
        self._queue: deque[float] = deque()
        self._backlog: deque[_Asked] = deque()
        self._outcome = Outcome()
        self._later(0.0, self._arrive)

    def play(self, seconds: float) -> Outcome:
        """Go on for so many seconds; give what became of the requests in them."""
        self._outcome = outcome = Outcome()
        until_s = self._now_s + seconds
        while self._events[0][0] <= until_s:
            self._now_s, _, happen = heapq.heappop(self._events)
            happen()
        return outcome

    def _later(self, after_s: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now_s + after_s, next(self._order), happen))

    def _arrive(self) -> None:
        self._outcome.offered += 1
        self._outcome.limits.append(self._limit.limit)
        if len(self._queue) < _QUEUE:
            self._queue.append(self._now_s)
        self._let_in()
        self._later(self._random.expovariate(self._per_s), self._arrive)

    def _let_in(self) -> None:
        while self._queue and self._queue[0] < self._now_s - _QUEUE_WAIT_S:
            self._queue.popleft()
        while self._queue and self._in_hand < self._limit.limit:
            self._queue.popleft()
            self._in_hand += 1
            one = _Asked(self._now_s)
            self._later(self._timeout_s, partial(self._give_up, one))
            if self._random.random() >= self._hangs:
                self._backlog.append(one)
        self._work()

    def _work(self) -> None:
        while self._backlog and self._busy < self.workers:
            one = self._backlog.popleft()
            if not one.is_over:
                self._busy += 1
                self._later(self._takes_s(self._random), partial(self._answer, one))

    def _answer(self, one: _Asked) -> None:
        self._busy -= 1
        if not one.is_over:
            one.is_over = True
            self._outcome.answered += 1
            self._limit.answered(self._now_s - one.began_s, self._in_hand, self._now_s)
            self._in_hand -= 1
        self._let_in()

    def _give_up(self, one: _Asked) -> None:
        if not one.is_over:
            one.is_over = True
            self._outcome.late += 1
            self._limit.timed_out()
            self._in_hand -= 1
            self._let_in()
