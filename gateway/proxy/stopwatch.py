"""Who wants to know how long an answer took: hedges, adaptive limits, Breakers that mind slowness.

Most routes have none of them, and then nobody looks at the clock.
"""

from __future__ import annotations

from math import inf

from gateway.core.gate import Gate
from gateway.core.latencies import Latencies
from gateway.core.message import Request
from gateway.proxy.admission import Admission
from gateway.proxy.attempts import Attempts


class Stopwatch:
    """Tells those of one route; `latencies` None if nobody hedges by them.

    `slow_after_s` is when an answer is slow, `inf` for never.
    """

    __slots__ = ("_gates", "_latencies", "_slow_after_s")

    def __init__(
        self,
        gates: tuple[Gate[Admission], ...],
        latencies: Latencies | None,
        *,
        slow_after_s: float | None,
    ) -> None:
        self._gates = tuple(gate for gate in gates if gate.policy.is_adaptive)
        self._latencies = latencies
        self._slow_after_s = inf if slow_after_s is None else slow_after_s

    @property
    def is_needed(self) -> bool:
        """Whether anybody wants to know."""
        return bool(self._gates) or self._latencies is not None or self._slow_after_s < inf

    def answered(self, attempts: Attempts, request: Request, now_s: float) -> None:
        """Tell them of a good answer whose head has just come."""
        latency_s = now_s - attempts.owed_since_s
        for gate in self._gates:
            gate.answered(latency_s, now_s)
        if self._latencies is not None:
            self._latencies.add(latency_s)
        if latency_s > self._slow_after_s:
            attempts.slow(request, now_s)
