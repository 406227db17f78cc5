"""How long an instance keeps an idle connection: what it says of it, and what was seen.

A request that meets a connection which is just being closed gets no answer, and one that may not be
sent twice then fails for nothing. So idle connections are let go a little before the instance would
close them. Many application servers close after 5 s or less and do not say so.
"""

from __future__ import annotations

from typing import Final

UNKNOWN_S: Final = 60.0
SHORTEST_S: Final = 1.0
_FORGET_AFTER_S: Final = 600.0
_MARGIN: Final = 0.8
# Whatever an instance says or was seen to do, a connection may be idle for so long.
ALWAYS_USABLE_S: Final = SHORTEST_S * _MARGIN


class IdleLimit:
    """What is known of one instance. All times are seconds, instants are monotonic.

    What was seen is believed for ten minutes: an instance may close connections because it is
    restarted, and come back with another configuration.
    """

    __slots__ = ("_kept_s", "_learned_at_s")

    def __init__(self) -> None:
        self._kept_s = UNKNOWN_S
        self._learned_at_s = float("-inf")

    def __repr__(self) -> str:
        return f"<IdleLimit {self._kept_s:.1f} s>"

    def said(self, timeout_s: float, now_s: float) -> None:
        """Believe `Keep-Alive: timeout=` (RFC 2068 §19.7.1.1; servers still send it)."""
        self._learn(timeout_s, now_s)

    def seen(self, idle_s: float, now_s: float) -> None:
        """Hear that the instance closed a connection that had been idle for so long."""
        if idle_s < self.kept_s(now_s):
            self._learn(idle_s, now_s)

    def kept_s(self, now_s: float) -> float:
        """Tell how long it keeps idle connections, as far as is known."""
        if now_s - self._learned_at_s > _FORGET_AFTER_S:
            return UNKNOWN_S
        return self._kept_s

    def usable_s(self, now_s: float) -> float:
        """Tell how long one may be idle and still be used: a little less than it is kept."""
        return self.kept_s(now_s) * _MARGIN

    def _learn(self, kept_s: float, now_s: float) -> None:
        self._kept_s = min(max(kept_s, SHORTEST_S), UNKNOWN_S)
        self._learned_at_s = now_s
