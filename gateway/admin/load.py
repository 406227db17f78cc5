"""What the admin port shows of the load of one service: its limit, and what was sent again."""

from __future__ import annotations

from typing import Any

from gateway.core.gate import Gate
from gateway.proxy.load import Loads

Json = dict[str, Any]


def load_of(loads: Loads, service: str) -> Json:
    """Show the Gates of a service, None where there is none, and its Budget.

    The counts are since the start: requests that were `answered` well, those `sent_again` (hedges
    too), and those that were not because there was no `budget` left.
    """
    budget = loads.services[service].budget
    return {
        "limit": _gate(loads.gates.get(service)),
        "tunnels": _tunnels(loads.tunnels.get(service)),
        "answered": budget.answered,
        "sent_again": budget.spent,
        "without_budget": budget.refused,
    }


def _gate(gate: Gate[Any] | None) -> Json | None:
    if gate is None:
        return None
    return {
        "max_concurrency": gate.limit,
        "adaptive": gate.policy.is_adaptive,
        "in_hand": gate.in_flight,
        "waiting": gate.waiting,
        "refused": gate.refused,
    }


def _tunnels(gate: Gate[Any] | None) -> Json | None:
    if gate is None:
        return None
    return {"max_tunnels": gate.limit, "open": gate.in_flight, "refused": gate.refused}
