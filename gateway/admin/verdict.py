"""Who says no to an instance: the registry, a health check, its Breaker. Any "no" wins.

See docs/health.md for the rule; this is where it is shown.
"""

from __future__ import annotations

from typing import Any

from gateway.core.fleet import Member
from gateway.core.health import CheckState


def verdict(member: Member[Any], now_s: float) -> dict[str, Any]:
    """Show what health checks found, and everybody who refuses the instance now, with the reason.

    `refused_by` is empty for one that may have traffic.
    """
    return {
        "health_check": _check(member.check, now_s),
        "refused_by": [{"who": who, "why": why} for who, why in _refusals(member, now_s)],
    }


def _check(check: CheckState, now_s: float) -> dict[str, Any]:
    since_s = None if check.changed_at_s is None else round(now_s - check.changed_at_s, 3)
    return {"opinion": check.opinion.value, "since_s": since_s, "why": check.why}


def _refusals(member: Member[Any], now_s: float) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    if not member.instance.is_routable:
        found.append(("registry", member.instance.status.value))
    if member.check.is_failing:
        found.append(("health_check", member.check.why))
    if not member.breaker.would_admit(now_s):
        found.append(("breaker", member.breaker.last_failure))
    return found
