"""Who gives way when all places are taken: the one that has been idle for longest.

Nothing is kept in order while places come and go, because what is idle changes with each request.
Only when somebody has to give way all are looked through, those that have been idle for longest are
noted, and whoever needs a place after that takes the next one noted. How many are looked at in one
tick of the clock has a bound, so a flood of newcomers costs no more than a few; where there are
more than that bound, they are looked at in turns, and the choice is the longest idle of a turn.
"""

from __future__ import annotations

from heapq import nsmallest
from itertools import islice
from math import inf
from typing import Final, Generic, Protocol, TypeVar

# How many are looked at in one tick, and how many of them are noted.
MOST_LOOKED_AT: Final = 4096
MOST_NOTED: Final = 512


class Sparing(Protocol):
    """Something that may be idle: `spare_since_s` (monotonic), inf while it may not be ended."""

    @property
    def spare_since_s(self) -> float:
        """Since when it has been idle."""
        ...


T = TypeVar("T", bound=Sparing)


class Room(Generic[T]):
    """All that hold a place, in the order in which they came; `tick` is any number of the tick."""

    __slots__ = ("_looked_at_count", "_noted", "_tick", "holders")

    def __init__(self) -> None:
        self.holders: dict[T, None] = {}
        self._noted: list[tuple[float, T]] = []
        self._tick = -inf
        self._looked_at_count = 0

    def __repr__(self) -> str:
        return f"<Room {len(self.holders)} in it, {len(self._noted)} noted>"

    def add(self, one: T) -> None:
        """Take note of one that has a place now."""
        self.holders[one] = None

    def discard(self, one: T) -> None:
        """Forget one that has left, if it is known."""
        self.holders.pop(one, None)

    def longest_idle(self, tick: float) -> T | None:
        """Find who gives way; None where nobody is idle, or enough were looked at in this tick.

        The same one is not found again before it was in use.
        """
        while True:
            while self._noted:
                since_s, one = self._noted.pop()
                if one in self.holders and one.spare_since_s == since_s:
                    return one
            if not self._look(tick):
                return None

    def _look(self, tick: float) -> bool:
        """Note those that have been idle for longest; False if there is nobody to be found."""
        if tick != self._tick:
            self._tick, self._looked_at_count = tick, 0
        count = min(len(self.holders), MOST_LOOKED_AT)
        self._looked_at_count += count
        if self._looked_at_count > MOST_LOOKED_AT:
            return False
        looked_at = list(islice(self.holders, count))
        if count < len(self.holders):
            for one in looked_at:
                del self.holders[one]
                self.holders[one] = None
        idle = [(since_s, one) for one in looked_at if (since_s := one.spare_since_s) < inf]
        self._noted = nsmallest(MOST_NOTED, idle, key=_since_s)
        self._noted.reverse()
        return bool(self._noted)


def _since_s(noted: tuple[float, object]) -> float:
    return noted[0]
