"""Who says no is shown, with the reason; and what that makes of the service's status."""

from __future__ import annotations

from gateway.admin import report
from gateway.admin.steps import all_at_once
from gateway.core.health import CheckState, Opinion
from gateway.core.model import Status
from tests.fakes.admin import FakeView, instance, route

FAILING = CheckState(opinion=Opinion.UNHEALTHY, why="/health: 503", changed_at_s=990.0)
HEALTHY = CheckState(opinion=Opinion.HEALTHY, changed_at_s=990.0)


def view_of() -> FakeView:
    return FakeView([route("users", "users")])


def status_of(view: FakeView) -> str:
    status: str = all_at_once(report.health(view, 1000.0))["services"]["users"]["status"]
    return status


def test_everybody_who_says_no_is_named_with_the_reason() -> None:
    view = view_of()
    view.publish("users", instance("user-1", status=Status.CRITICAL), instance("user-2"))
    view.engine.fleets["users"].checked("user-1", FAILING)
    view.engine.fleets["users"].checked("user-2", HEALTHY)
    view.trip("users", "user-1")

    refused, well = all_at_once(report.service(view, "users", 1000.0))["instances"]

    assert refused["refused_by"] == [
        {"who": "registry", "why": "critical"},
        {"who": "health_check", "why": "/health: 503"},
        {"who": "breaker", "why": "connect_failed"},
    ]
    assert refused["health_check"] == {
        "opinion": "unhealthy",
        "since_s": 10.0,
        "why": "/health: 503",
    }
    assert well["refused_by"] == []
    assert well["health_check"] == {"opinion": "healthy", "since_s": 10.0, "why": None}


def test_a_check_against_the_registry_degrades_and_one_against_all_is_down() -> None:
    view = view_of()
    view.publish("users", instance("user-1"), instance("user-2"))
    assert status_of(view) == "ok"

    view.engine.fleets["users"].checked("user-1", FAILING)
    assert status_of(view) == "degraded"
    assert all_at_once(report.health(view, 1000.0))["services"]["users"]["failing_checks"] == 1

    view.engine.fleets["users"].checked("user-2", FAILING)
    assert status_of(view) == "down"


def test_a_check_that_agrees_with_the_registry_is_no_reason_for_a_look() -> None:
    view = view_of()
    view.publish("users", instance("user-1", status=Status.CRITICAL), instance("user-2"))
    view.engine.fleets["users"].checked("user-1", FAILING)

    assert status_of(view) == "ok"


def test_a_service_that_only_another_datacenter_serves_is_degraded() -> None:
    view = view_of()
    view.publish("users", instance("user-1"), instance("user-2", priority=1))
    assert status_of(view) == "ok"

    view.publish("users", instance("user-2", priority=1))
    assert status_of(view) == "degraded"
