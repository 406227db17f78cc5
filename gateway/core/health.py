"""What the gateway's own health checks say of one instance, as a value.

                 one passed                    unhealthy_after failed in a row
    unknown ───────────────────▶ healthy ────────────────────────────────────────▶ unhealthy
       │                            ▲                                                │  ▲
       │                            └────────────────────────────────────────────────┘  │
       │                                     healthy_after passed in a row              │
       └────────────────────────────────────────────────────────────────────────────────┘
                                unhealthy_after failed in a row

The one rule: a check only ever takes an instance away. Unknown is as the registry says, and an
instance that the registry or its Breaker refuses stays refused however well its checks go.

Nothing here knows a clock, a socket or chance: whoever checks tells what came of it, and is told
how long to wait until the next one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from gateway.core.policy import HealthCheckPolicy

# Outages are short or long: after so many checks at the quick pace, an instance that still fails
# is down for longer, and a fleet of them is not to be checked at five times the usual cost.
_QUICK_CHECKS = 10
_QUICKER = 5
_SHORTEST_QUICK_S = 1.0
_JITTER = 0.1


class Opinion(Enum):
    """The three states of the drawing above."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckState:
    """What is known of an instance by its checks.

    `why` is the last failure in words, None when there was none since it was healthy without doubt.
    `changed_at_s` is the instant of the last change of opinion (monotonic), None while unknown. Of
    `passed_in_a_row` and `failed_in_a_row` one is always 0.
    """

    opinion: Opinion = Opinion.UNKNOWN
    passed_in_a_row: int = 0
    failed_in_a_row: int = 0
    why: str | None = None
    changed_at_s: float | None = None

    @property
    def is_failing(self) -> bool:
        """Whether the instance is to get no traffic."""
        return self.opinion is Opinion.UNHEALTHY

    def passed(self, policy: HealthCheckPolicy, now_s: float) -> CheckState:
        """Take a check that passed."""
        count = self.passed_in_a_row + 1
        is_enough = not self.is_failing or count >= policy.healthy_after
        counted = replace(self, passed_in_a_row=count, failed_in_a_row=0)
        return replace(_turned(counted, Opinion.HEALTHY, now_s), why=None) if is_enough else counted

    def failed(self, why: str, policy: HealthCheckPolicy, now_s: float) -> CheckState:
        """Take a check that failed; `why` says in words what was wrong."""
        count = self.failed_in_a_row + 1
        counted = replace(self, passed_in_a_row=0, failed_in_a_row=count, why=why)
        is_enough = count >= policy.unhealthy_after
        return _turned(counted, Opinion.UNHEALTHY, now_s) if is_enough else counted

    def delay_s(self, policy: HealthCheckPolicy, chance: float) -> float:
        """Tell how long to wait until the next check; `chance` in [0, 1) spreads it a little.

        Quicker while the last results contradict the opinion, and in the first time of an outage.
        """
        delay_s = policy.interval_s
        if self._is_in_doubt(policy):
            delay_s = min(delay_s, max(delay_s / _QUICKER, _SHORTEST_QUICK_S))
        return delay_s * (1 - _JITTER + 2 * _JITTER * chance)

    def _is_in_doubt(self, policy: HealthCheckPolicy) -> bool:
        if not self.is_failing:
            return self.failed_in_a_row > 0
        return self.failed_in_a_row < policy.unhealthy_after + _QUICK_CHECKS


UNKNOWN = CheckState()


def _turned(state: CheckState, opinion: Opinion, now_s: float) -> CheckState:
    if state.opinion is opinion:
        return state
    return replace(state, opinion=opinion, changed_at_s=now_s)


def first_delay_s(policy: HealthCheckPolicy, chance: float) -> float:
    """Tell how long to wait until the first check: those of many instances spread evenly."""
    return policy.interval_s * chance
