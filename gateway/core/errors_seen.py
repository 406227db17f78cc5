"""How many of the latest requests to an instance went wrong, counted only when one does.

Nothing is done for a request that goes well: how many ended is read from a count that the Breaker
keeps anyway. The window is made of two slices. A slice begins with an error; so the window reaches
back over one to two slices from the last error, and there is none when two slices passed without.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

_SLICE_S = 30.0
_NEVER = float("-inf")
# Fewer say nothing: a single request that fails at night is no reason to wake anybody.
_LEAST_ERRORS = 5
_LEAST_SHARE = 0.1


class ErrorShare(NamedTuple):
    """`errors` of `ended` requests got a response with a 5xx, or another retriable, status."""

    errors: int
    ended: int

    @property
    def share(self) -> float:
        """The share of those that went wrong, 0 where none ended."""
        return self.errors / self.ended if self.ended else 0.0

    @property
    def is_high(self) -> bool:
        """Whether somebody should have a look."""
        return self.errors >= _LEAST_ERRORS and self.share >= _LEAST_SHARE


NO_ERRORS = ErrorShare(0, 0)


class ErrorsSeen:
    """The errors of one instance in the window; `ended` counts its requests since it is known."""

    __slots__ = ("_before", "_ended_at", "_errors", "_from_s")

    def __init__(self) -> None:
        self._from_s = _NEVER
        self._ended_at = 0
        self._errors = 0
        self._before = NO_ERRORS

    def note(self, now_s: float, ended: int) -> None:
        """Count an error; its request may be one of the `ended` already or not yet."""
        age_s = now_s - self._from_s
        if age_s >= _SLICE_S:
            is_next = age_s < 2 * _SLICE_S
            self._before = self._slice(ended) if is_next else NO_ERRORS
            self._from_s, self._ended_at, self._errors = now_s, ended, 0
        self._errors += 1

    def share(self, now_s: float, ended: int) -> ErrorShare:
        """Tell how many went wrong of those that ended in the window."""
        if now_s - self._from_s >= 2 * _SLICE_S:
            return NO_ERRORS
        return sum_of((self._before, self._slice(ended)))

    def _slice(self, ended: int) -> ErrorShare:
        return ErrorShare(self._errors, max(ended - self._ended_at, self._errors))


def sum_of(shares: Iterable[ErrorShare]) -> ErrorShare:
    """Add the windows of several instances up."""
    errors = ended = 0
    for one in shares:
        errors, ended = errors + one.errors, ended + one.ended
    return ErrorShare(errors, ended)
