"""Places that are shared fairly by those who come: nobody is kept out by one who takes them all.

When there is one too many, whoever has most of them loses the newest; of several who have as many,
the one who has had so many for longest. So a newcomer always gets a place unless it has most
itself, and what was begun first is finished. All of it takes constant time, however many come.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class FairPlaces(Generic[T]):
    """At most `most` (a number) of whatever is added, by owner."""

    __slots__ = ("_by_count", "_by_owner", "_top", "count", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = 0
        # What each owner has, in the order in which it came; and the owners of so many.
        self._by_owner: dict[Hashable, dict[T, None]] = {}
        self._by_count: dict[int, dict[Hashable, None]] = {}
        self._top = 0

    def __repr__(self) -> str:
        return f"<FairPlaces {self.count} of {self.most}, {len(self._by_owner)} owners>"

    def add(self, one: T, owner: Hashable) -> T | None:
        """Give a place to a new one; return who has to leave for it, maybe itself, or None."""
        owned = self._by_owner.setdefault(owner, {})
        owned[one] = None
        self.count += 1
        self._move(owner, len(owned) - 1, len(owned))
        if self.count <= self.most:
            return None
        greedy = next(iter(self._by_count[self._top]))
        newest = next(reversed(self._by_owner[greedy]))
        self.discard(newest, greedy)
        return newest

    def discard(self, one: T, owner: Hashable) -> None:
        """Take the place back, if it has one."""
        owned = self._by_owner.get(owner)
        if owned is None or one not in owned:
            return
        del owned[one]
        self.count -= 1
        self._move(owner, len(owned) + 1, len(owned))
        if not owned:
            del self._by_owner[owner]

    def _move(self, owner: Hashable, before: int, after: int) -> None:
        """Note that an owner has one more, or one less."""
        if before:
            peers = self._by_count[before]
            del peers[owner]
            if not peers:
                del self._by_count[before]
        if after:
            self._by_count.setdefault(after, {})[owner] = None
        if after > self._top or self._top not in self._by_count:
            self._top = after
