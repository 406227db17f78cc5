"""Whether a failure is an instance's, or the doing of the client that asked.

A client may ask for a report that takes longer than the gateway waits, or again and again for what
answers 503. That others were served meanwhile is what tells such a failure from one of the
instance: then it is doubted, and counts only once it met several clients.

Witnesses, the clients that were served, are noted when a failure is recorded and about once a
second. A response costs no more than a comparison, unless the one before went to another peer.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_MOST_CLIENTS: Final = 64  # so many make a row or a window certain; more need not be told apart


class Witnesses:
    """The two clients that were noted last, and when; of two one is always another client."""

    __slots__ = ("_served_at_s",)

    def __init__(self) -> None:
        self._served_at_s: dict[bytes, float] = {}

    def __repr__(self) -> str:
        return f"<Witnesses {len(self._served_at_s)}>"

    def note(self, client: bytes, at_s: float) -> None:
        """Note that a client was served; `at_s` (monotonic) never goes back."""
        served_at_s = self._served_at_s
        served_at_s.pop(client, None)
        served_at_s[client] = at_s
        if len(served_at_s) > 2:  # noqa: PLR2004 -- as above
            del served_at_s[next(iter(served_at_s))]

    def has_other(self, client: bytes, *, since_s: float) -> bool:
        """Return whether a client other than this one was served since then."""
        return any(other != client and at_s >= since_s for other, at_s in self._served_at_s.items())


class Asker(NamedTuple):
    """Whose request failed; `is_doubted` says that others were served, so it may be its doing."""

    client: bytes
    is_doubted: bool


class _ByClient:
    """Failures by client.

    `beyond` is what one client met beyond what all others together did and one more, or all of it
    if there are no others; `doubted` are those of it that are doubted.
    """

    __slots__ = ("_by_client", "_count", "_doubted", "_first")

    def __init__(self) -> None:
        self._by_client: dict[bytes, int] = {}
        self._doubted: dict[bytes, int] = {}
        self._count = 0
        self._first = b""

    @property
    def _most(self) -> int:
        return self._by_client.get(self._first, 0)

    @property
    def beyond(self) -> int:
        others = self._count - self._most
        return max(0, self._most - others - 1) if others else self._most

    @property
    def doubted(self) -> int:
        return min(self.beyond, self._doubted.get(self._first, 0))

    @property
    def is_of_several(self) -> bool:
        return self._most < self._count

    def add(self, asker: Asker) -> None:
        self._count += 1
        client, by_client = asker.client, self._by_client
        if client in by_client or len(by_client) < _MOST_CLIENTS:
            by_client[client] = by_client.get(client, 0) + 1
            self._doubted[client] = self._doubted.get(client, 0) + asker.is_doubted
            if by_client[client] > self._most:
                self._first = client


class Doubts:
    """Which failures of a row or a window are left out, by what they are to decide.

    Once a connect has failed none is doubted.
    """

    __slots__ = ("_closed", "_closed_count", "_is_believed", "_others", "_together")

    def __init__(self) -> None:
        self._together = _ByClient()
        self._closed = _ByClient()
        self._others = _ByClient()
        self._closed_count = 0
        self._is_believed = False

    @property
    def doubted(self) -> int:
        """How many never count."""
        return 0 if self._is_believed else self._together.doubted

    @property
    def not_for_the_only(self) -> int:
        """How many do not shut out the only instance that takes connections."""
        return self._closed_count + (0 if self._is_believed else self._others.doubted)

    @property
    def not_beyond_need(self) -> int:
        """How many shut out no instance that cannot be spared."""
        return 0 if self._is_believed else self._closed.beyond + self._others.doubted

    def are_of_one(self, asker: Asker | None) -> bool:
        """Tell whether the failure of this one is doubted, and they have met no other client."""
        return asker is not None and asker.is_doubted and not self._together.is_of_several

    def add(
        self, asker: Asker | None, *, was_reached: bool = True, has_closed: bool = False
    ) -> None:
        """Add a failure; `asker` is None for one that no request brings about."""
        self._is_believed |= not was_reached
        self._closed_count += has_closed
        if asker is not None:
            self._together.add(asker)
            (self._closed if has_closed else self._others).add(asker)
