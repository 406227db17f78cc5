"""What is shown, and how the state of one thing becomes the state of the whole."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from gateway import __version__
from gateway.admin import report
from gateway.admin.steps import all_at_once
from gateway.core.gate import Gate
from gateway.core.model import Status
from gateway.core.policy import BalancingPolicy, ConcurrencyPolicy, RetryPolicy, Timeouts
from gateway.core.registry import RegistryHealth
from gateway.core.routing import RouteMatch
from tests.fakes.admin import FakeEntry, FakeRegistry, FakeView, instance, route

QUIET = {"withheld": False, "resting": False, "failures_in_a_row": 0, "retry_in_s": None}
WELL = RegistryHealth(name="consul", reachable=True, since_s=940.0)


def view_of(*services: str) -> FakeView:
    view = FakeView([route(service, service) for service in services])
    view.registries = [FakeRegistry(WELL)]
    return view


def test_a_gateway_where_all_is_well() -> None:
    view = view_of("users")
    view.publish("users", instance("user-1"), instance("user-2"), confirmed_at_s=998.5)

    health = all_at_once(report.health(view, 1000.0))

    assert health == {
        "status": "ok",
        "version": __version__,
        "uptime_s": 100.0,
        "draining": False,
        "config": {"sha256": "5a", "age_s": 100.0},
        "late_names": [],
        "registries": [
            {"name": "consul", "reachable": True, "since_s": 60.0, "detail": None, "address": None}
        ],
        "services": {
            "users": {
                "status": "ok",
                "instances": 2,
                "passing": 2,
                "warning": 0,
                "critical": 0,
                "maintenance": 0,
                "untagged": 0,
                "held": 0,
                "failing_checks": 0,
                "in_flight": 0,
                "errors": {"count": 0, "of": 0, "share": 0.0},
                "snapshot": {"source": "consul", "index": 7, "fresh": True, "age_s": 1.5},
                "breakers": {"open": 0, "half_open": 0},
                "open": [],
            }
        },
    }


def test_a_registry_that_is_away_degrades_and_says_since_when_and_why() -> None:
    view = view_of("users")
    view.publish("users", instance("user-1"))
    view.registries = [
        FakeRegistry(
            replace(
                WELL,
                address="http://10.0.0.1:8500",
                reachable=False,
                since_s=995.0,
                detail="connection refused",
            )
        )
    ]

    health = all_at_once(report.health(view, 1000.0))

    assert health["status"] == "degraded"
    assert health["registries"] == [
        {
            "name": "consul",
            "address": "http://10.0.0.1:8500",
            "reachable": False,
            "since_s": 5.0,
            "detail": "connection refused",
        }
    ]


def test_a_registry_that_has_denied_everything_since_the_start_is_not_ready() -> None:
    """What is known is from an earlier run: a rollout must not replace those that know more."""
    view = view_of("users")
    view.publish("users", instance("user-1"))
    view.registries = [FakeRegistry(replace(WELL, detail="no rights", is_blind=True))]

    assert report.readiness(view) == {
        "ready": False,
        "draining": False,
        "missing_snapshots": [],
        "blind_registries": {"consul": "no rights"},
    }


def test_a_registry_that_was_not_asked_yet_is_not_all_well() -> None:
    view = view_of("users")
    view.publish("users", instance("user-1"))
    view.registries = [FakeRegistry(replace(WELL, reachable=None))]

    assert all_at_once(report.health(view, 1000.0))["status"] == "degraded"


def test_no_services_and_no_registries_are_no_trouble() -> None:
    assert all_at_once(report.health(FakeView(), 1000.0))["status"] == "ok"


def test_it_is_down_only_when_every_service_is() -> None:
    view = view_of("users", "orders")
    view.publish("users", instance("user-1"))

    one_left = all_at_once(report.health(view, 1000.0))["status"]
    view.publish("users")
    none_left = all_at_once(report.health(view, 1000.0))["status"]

    assert (one_left, none_left) == ("degraded", "down")


def test_a_service_that_was_never_heard_of_has_no_snapshot_and_is_down() -> None:
    service = all_at_once(report.health(view_of("users"), 1000.0))["services"]["users"]

    assert (service["status"], service["snapshot"], service["instances"]) == ("down", None, 0)


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([Status.PASSING, Status.CRITICAL], "ok"),
        ([Status.WARNING], "ok"),
        ([Status.PASSING, Status.MAINTENANCE], "ok"),
        ([Status.CRITICAL, Status.MAINTENANCE], "down"),
        ([], "down"),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(one.value for one in value),
)
def test_what_the_registry_takes_out_is_its_business_while_others_are_left(
    statuses: list[Status], expected: str
) -> None:
    view = view_of("users")
    view.publish("users", *(instance(str(n), status=status) for n, status in enumerate(statuses)))

    service = all_at_once(report.health(view, 1000.0))["services"]["users"]

    assert service["status"] == expected
    for status in Status:
        assert statuses.count(status) == service[status.value]


def test_a_snapshot_from_disk_is_stale_and_has_no_age() -> None:
    view = view_of("users")
    view.publish("users", instance("user-1"), source="disk", index=0, confirmed_at_s=None)

    service = all_at_once(report.health(view, 1000.0))["services"]["users"]

    assert service["status"] == "degraded"
    assert service["snapshot"] == {"source": "disk", "index": 0, "fresh": False, "age_s": None}


def test_a_snapshot_that_the_registry_cannot_confirm_any_more_keeps_its_age() -> None:
    view = view_of("users")
    view.publish("users", instance("user-1"))
    view.catalog["users"] = FakeEntry(confirmed_at_s=970.0, is_stale=True)

    snapshot = all_at_once(report.health(view, 1000.0))["services"]["users"]["snapshot"]

    assert (snapshot["fresh"], snapshot["age_s"]) == (False, 30.0)


def test_a_snapshot_that_the_catalog_does_not_know_is_not_called_fresh() -> None:
    view = view_of("users")
    view.publish("users", instance("user-1"))
    view.catalog.clear()

    snapshot = all_at_once(report.health(view, 1000.0))["services"]["users"]["snapshot"]

    assert (snapshot["fresh"], snapshot["age_s"]) == (False, None)


def test_held_instances_are_counted_and_degrade() -> None:
    view = view_of("users")
    view.publish("users", instance("user-1"), instance("user-2", held=True))

    service = all_at_once(report.health(view, 1000.0))["services"]["users"]

    assert (service["status"], service["held"]) == ("degraded", 1)


def test_an_open_breaker_is_shown_with_its_reason_and_its_next_trial() -> None:
    view = view_of("users")
    view.publish("users", instance("user-1"), instance("user-2"))
    view.trip("users", "user-2")

    service = all_at_once(report.health(view, 1002.0))["services"]["users"]

    assert (service["status"], service["breakers"]) == ("degraded", {"open": 1, "half_open": 0})
    assert service["open"] == [
        {
            "instance": "user-2",
            "state": "open",
            "since_s": 2.0,
            "why": "connect_failed",
            **QUIET,
            "retry_in_s": 7.0,
        }
    ]


def test_a_service_whose_breakers_are_all_open_is_down_until_a_trial_is_due() -> None:
    view = view_of("users")
    view.publish("users", instance("user-1"))
    view.trip("users", "user-1")

    open_ = all_at_once(report.health(view, 1008.0))["services"]["users"]
    half_open = all_at_once(report.health(view, 1009.0))["services"]["users"]

    assert (open_["status"], half_open["status"]) == ("down", "degraded")
    assert half_open["breakers"] == {"open": 0, "half_open": 1}
    assert (half_open["open"][0]["state"], half_open["open"][0]["retry_in_s"]) == ("half_open", 0.0)


def test_requests_in_flight_are_counted_over_all_instances() -> None:
    view = view_of("users")
    view.publish("users", instance("user-1"), instance("user-2"))
    for count, member in enumerate(view.engine.fleets["users"].members.values(), 1):
        member.in_flight = count

    assert all_at_once(report.health(view, 1000.0))["services"]["users"]["in_flight"] == 3
    shown = all_at_once(report.service(view, "users", 1000.0))["instances"]
    assert [one["in_flight"] for one in shown] == [1, 2]


def test_a_service_is_shown_with_all_that_is_known_of_its_instances() -> None:
    view = view_of("users")
    view.publish(
        "users",
        instance("user-1", host="::1", scheme="https", weight=3, tags=("v2",), zone="a"),
    )

    service = all_at_once(report.service(view, "users", 1000.0))

    assert (service["name"], service["status"]) == ("users", "ok")
    assert service["instances"] == [
        {
            "id": "user-1",
            "address": "[::1]:8000",
            "scheme": "https",
            "status": "passing",
            "weight": 3,
            "tags": ("v2",),
            "zone": "a",
            "priority": 0,
            "held": False,
            "effective_weight": 3.0,
            "tier": 0,
            "in_flight": 0,
            "latency_ms": None,
            "errors": {"count": 0, "of": 0, "share": 0.0},
            "breaker": {"state": "closed", "since_s": None, "why": None, **QUIET},
            "health_check": {"opinion": "unknown", "since_s": None, "why": None},
            "refused_by": [],
            "failures": [],
        }
    ]


def test_a_service_is_degraded_while_one_of_its_instances_answers_many_requests_with_errors() -> (
    None
):
    view = view_of("users")
    view.publish("users", *(instance(f"user-{number}") for number in range(20)))
    bad = view.engine.fleets["users"].members["user-3"]
    for _ in range(4):
        bad.note_server_error(500, 990.0)
    few = all_at_once(report.health(view, 1000.0))["services"]["users"]
    bad.note_server_error(501, 995.0)
    many = all_at_once(report.health(view, 1000.0))["services"]["users"]
    later = all_at_once(report.health(view, 1055.0))["services"]["users"]

    assert [one["status"] for one in (few, many, later)] == ["ok", "degraded", "ok"]
    assert many["errors"] == {"count": 5, "of": 5, "share": 1.0}
    assert shown(view, "user-3")["errors"] == {"count": 5, "of": 5, "share": 1.0}
    assert shown(view, "user-3")["failures"][0] == {
        "age_s": 5.0,
        "reason": "server_error",
        "detail": "the instance answered 501",
    }
    assert shown(view, "user-4")["errors"]["count"] == 0


def shown(view: FakeView, key: str, now_s: float = 1000.0) -> dict[str, Any]:
    instances = all_at_once(report.service(view, "users", now_s))["instances"]
    (found,) = [one for one in instances if one["id"] == key]
    assert isinstance(found, dict)
    return found


def test_a_name_without_an_answer_is_shown_until_it_has_one_or_nobody_asks() -> None:
    view = view_of("users")
    view.publish("users", instance("user-1"))
    late = view.names.late

    late.note("web.internal", "Temporary failure in name resolution", 990.0)
    late.note("web.internal", "no answer within 2 s", 998.0)
    health = all_at_once(report.health(view, 1000.0))
    later = all_at_once(report.health(view, 1058.5))
    late.note("web.internal", "no answer within 2 s", 1060.0)
    late.clear("web.internal", 1061.0)
    answered = all_at_once(report.health(view, 1062.0))

    assert health["status"] == "degraded"
    assert health["late_names"] == [
        {"name": "web.internal", "since_s": 10.0, "why": "no answer within 2 s"}
    ]
    assert (later["status"], later["late_names"]) == ("ok", [])
    assert (answered["status"], answered["late_names"]) == ("ok", [])


def test_tiers_are_counted_from_the_first_and_whoever_is_in_none_is_refused_by_the_registry() -> (
    None
):
    view = view_of("users")
    statuses = {"good": Status.PASSING, "worn": Status.WARNING, "sick": Status.CRITICAL}
    view.publish("users", *(instance(name, status=one) for name, one in statuses.items()))

    assert [shown(view, name)["tier"] for name in statuses] == [0, 1, None]
    assert [shown(view, name)["refused_by"] for name in statuses] == [
        [],
        [],
        [{"who": "registry", "why": "critical"}],
    ]


def test_a_breaker_that_is_open_refuses_too() -> None:
    view = view_of("users")
    view.publish("users", instance("user-1"), instance("user-2"))
    view.trip("users", "user-1")

    assert shown(view, "user-1")["refused_by"] == [{"who": "breaker", "why": "connect_failed"}]
    assert shown(view, "user-1", now_s=1009.0)["refused_by"] == []


def test_an_instance_shows_its_latency_and_its_last_failures_newest_first() -> None:
    view = view_of("users")
    view.publish("users", instance("user-1"))
    member = view.engine.fleets["users"].members["user-1"]
    member.observe(0.0123, 990.0)
    member.note_failure("connect_failed", "refused", 0.001, 995.0)
    member.note_failure("head_timeout", "late", 0.001, 999.0)

    assert shown(view, "user-1")["latency_ms"] == 12.3
    assert shown(view, "user-1")["failures"] == [
        {"age_s": 1.0, "reason": "head_timeout", "detail": "late"},
        {"age_s": 5.0, "reason": "connect_failed", "detail": "refused"},
    ]


def test_an_instance_that_starts_slowly_shows_both_weights() -> None:
    view = view_of("users")
    view.engine.fleets["users"].balance_by(BalancingPolicy(slow_start_s=30.0))
    view.publish("users", instance("user-1", weight=2))
    view.publish("users", instance("user-1", weight=2), instance("user-2", weight=2))

    assert [shown(view, key)["effective_weight"] for key in ("user-1", "user-2")] == [2.0, 0.2]
    assert shown(view, "user-2")["weight"] == 2


def test_a_service_that_only_panic_keeps_up_is_degraded() -> None:
    view = view_of("users")
    view.engine.fleets["users"].balance_by(BalancingPolicy(panic=True))
    view.publish("users", instance("user-1", status=Status.CRITICAL))

    assert all_at_once(report.health(view, 1000.0))["services"]["users"]["status"] == "degraded"
    assert shown(view, "user-1")["tier"] == 0


def test_a_breaker_that_closed_again_keeps_no_old_reason() -> None:
    view = view_of("users")
    view.publish("users", instance("user-1"))
    view.trip("users", "user-1")
    breaker = view.engine.fleets["users"].members["user-1"].breaker
    trial = breaker.admit_trial(1010.0)
    assert trial is not None
    breaker.succeeded(trial, 1010.0)

    shown = all_at_once(report.service(view, "users", 1012.0))["instances"][0]["breaker"]

    assert shown == {"state": "closed", "since_s": 2.0, "why": None, **QUIET}


def test_a_breaker_that_may_not_open_says_so_and_why_it_would() -> None:
    view = view_of("users")
    view.publish("users", *(instance(f"user-{number}") for number in range(3)))
    for member in list(view.engine.fleets["users"].members.values())[:2]:
        for _ in range(5):
            permit = member.breaker.admit_anyway()
            member.breaker.failed(permit, 1000.0, why="head_timeout", chance=0.0)

    shown = [
        one["breaker"] for one in all_at_once(report.service(view, "users", 1000.0))["instances"]
    ]

    assert [one["state"] for one in shown] == ["open", "closed", "closed"]
    assert (shown[1]["withheld"], shown[1]["why"]) == (True, "head_timeout")
    assert shown[1]["failures_in_a_row"] == 5


def test_the_load_of_a_service_is_shown_with_its_limit_and_what_was_sent_again() -> None:
    view = view_of("users")
    loads = view.engine.loads
    budget = loads.services["users"].budget
    budget.answered = 100
    budget.spend(1000.0, share=0.2, per_s=1.0)

    unlimited = all_at_once(report.service(view, "users", 1000.0))["load"]
    loads.gates["users"] = Gate("service 'users'", ConcurrencyPolicy(limit=3))
    loads.tunnels["users"] = Gate("service 'users'", ConcurrencyPolicy(limit=5, queue=0))
    limited = all_at_once(report.service(view, "users", 1000.0))["load"]

    counted = {"answered": 100, "sent_again": 1, "without_budget": 0}
    assert unlimited == {"limit": None, "tunnels": None, **counted}
    assert limited["tunnels"] == {"max_tunnels": 5, "open": 0, "refused": 0}
    assert limited["limit"] == {
        "max_concurrency": 3,
        "adaptive": False,
        "in_hand": 0,
        "waiting": 0,
        "refused": 0,
    }


def test_a_service_that_no_route_goes_to_is_not_shown() -> None:
    with pytest.raises(KeyError):
        all_at_once(report.service(view_of("users"), "orders", 1000.0))


def test_a_route_is_shown_with_all_that_holds_for_it() -> None:
    view = FakeView(
        [
            route(
                "orders-write",
                "orders",
                match=RouteMatch(
                    path=b"/api/caf%C3%A9",
                    hosts=("api.example.com",),
                    methods=frozenset({b"PUT", b"POST"}),
                ),
                strip_prefix=True,
                add_prefix=b"/v2",
                preserve_host=False,
                timeouts=Timeouts(
                    connect_s=1.0, response_s=None, idle_s=3.0, tunnel_s=5.0, request_s=4.0
                ),
                retry=RetryPolicy(
                    attempts=2,
                    statuses=frozenset({503, 502}),
                    methods=frozenset({b"GET"}),
                    buffer_bytes=10,
                ),
            )
        ]
    )

    assert all_at_once(report.routes(view)) == [
        {
            "id": "orders-write",
            "match": {
                "path_prefix": "/api/caf%C3%A9",
                "hosts": ("api.example.com",),
                "methods": ["POST", "PUT"],
            },
            "service": "orders",
            "app": None,
            "middleware": [],
            "strip_prefix": True,
            "add_prefix": "/v2",
            "preserve_host": False,
            "timeouts": {
                "connect_s": 1.0,
                "response_s": None,
                "idle_s": 3.0,
                "tunnel_s": 5.0,
                "request_s": 4.0,
                "min_rate_bytes": 1024,
            },
            "retry": {
                "attempts": 2,
                "statuses": [502, 503],
                "methods": ["GET"],
                "buffer_bytes": 10,
            },
        }
    ]


def test_a_route_for_one_path_and_any_method_says_so() -> None:
    view = FakeView([route("home", "web", match=RouteMatch(path=b"/home", is_prefix=False))])

    (shown,) = all_at_once(report.routes(view))

    assert shown["match"] == {"path": "/home", "hosts": (), "methods": None}


def test_all_of_it_can_be_written_as_json() -> None:
    view = view_of("users", "orders")
    view.publish("users", instance("user-1"), instance("user-2"))
    view.trip("users", "user-1")

    for shown in (
        report.readiness(view),
        all_at_once(report.health(view, 1001.0)),
        all_at_once(report.routes(view)),
        all_at_once(report.services(view, 1001.0)),
    ):
        assert json.dumps(shown)
