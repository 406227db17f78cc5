"""Models to values of the core: merging, defaults, instances."""

from __future__ import annotations

import pytest

from gateway.config import parse_routes
from gateway.core.config import RoutingConfig, ServiceConfig
from gateway.core.model import Instance
from gateway.core.policy import (
    BreakerPolicy,
    ConcurrencyPolicy,
    Hedge,
    PriorityClass,
    RetryPolicy,
    Timeouts,
    WhenAllOpen,
)
from gateway.core.routing import Route, RouteMatch


def compiled(text: str) -> RoutingConfig:
    return parse_routes("version: 1\n" + text, env={})


def test_a_route_that_says_nothing_gets_the_defaults_of_the_core() -> None:
    config = compiled("routes: [{match: {path_prefix: /api}, service: users}]")

    assert config == RoutingConfig(
        routes=(Route(id="api", match=RouteMatch(path=b"/api"), service="users"),),
        services={"users": ServiceConfig(name="users")},
    )


def test_a_route_that_says_everything_gets_what_it_says() -> None:
    config = compiled("""
routes:
  - id: all
    match: {path: /a, hosts: [A.test, "*.b.test"], methods: [get, PUT]}
    service: users
    strip_prefix: true
    add_prefix: /v1
    preserve_host: false
    timeouts: {connect: 1s, response: 2s, idle: 3s, tunnel: 5s, request: 4s, min_rate: 2KiB}
    retry: {attempts: 1, statuses: [500], methods: [POST], buffer: 1KiB}
""")

    assert config.routes == (
        Route(
            id="all",
            match=RouteMatch(
                path=b"/a",
                is_prefix=False,
                hosts=("a.test", "*.b.test"),
                methods=frozenset({b"GET", b"PUT"}),
            ),
            service="users",
            strip_prefix=True,
            add_prefix=b"/v1",
            preserve_host=False,
            timeouts=Timeouts(
                connect_s=1.0,
                response_s=2.0,
                idle_s=3.0,
                tunnel_s=5.0,
                request_s=4.0,
                min_rate_bytes=2048,
            ),
            retry=RetryPolicy(
                attempts=1,
                statuses=frozenset({500}),
                methods=frozenset({b"POST"}),
                buffer_bytes=1024,
            ),
        ),
    )


def test_policies_are_merged_key_by_key_from_the_route_outwards() -> None:
    config = compiled("""
defaults:
  timeouts: {connect: 1s, response: 1s, idle: 1s}
  retry: {attempts: 9, buffer: 9}
services:
  users:
    timeouts: {response: 2s, idle: 2s}
    retry: {attempts: 5}
routes:
  - match: {path: /a}
    service: users
    timeouts: {idle: off, tunnel: off, min_rate: off}
  - match: {path: /b}
    service: orders
""")

    of_users, of_orders = config.routes

    assert of_users.timeouts == Timeouts(
        connect_s=1.0, response_s=2.0, idle_s=None, tunnel_s=None, min_rate_bytes=None
    )
    assert of_users.retry == RetryPolicy(attempts=5, buffer_bytes=9)
    assert of_orders.timeouts == Timeouts(connect_s=1.0, response_s=1.0, idle_s=1.0)
    assert of_orders.retry == RetryPolicy(attempts=9, buffer_bytes=9)


@pytest.mark.parametrize(
    ("defaults", "own", "expected"),
    [
        ("", "", True),
        ("preserve_host: false", "", False),
        ("preserve_host: false", "preserve_host: true", True),
        ("", "preserve_host: false", False),
    ],
)
def test_the_host_is_preserved_unless_the_route_or_else_the_defaults_say_no(
    defaults: str, own: str, *, expected: bool
) -> None:
    config = compiled(
        f"defaults: {{{defaults}}}\nroutes: [{{match: {{path: /}}, service: x, {own}}}]"
    )

    assert expected == config.routes[0].preserve_host


def test_the_breaker_of_a_service_is_merged_with_the_defaults() -> None:
    config = compiled("""
defaults: {circuit_breaker: {consecutive_failures: 3, window: 5s}}
services: {a: {circuit_breaker: {consecutive_failures: 2, failure_ratio: 1}}}
routes: [{match: {path: /a}, service: a}, {match: {path: /b}, service: b}]
""")

    a, b = config.services.values()

    assert a.breaker == BreakerPolicy(consecutive_failures=2, failure_ratio=1.0, window_s=5.0)
    assert b.breaker == BreakerPolicy(consecutive_failures=3, window_s=5.0)


def test_configured_servers_become_instances_sorted_by_key() -> None:
    config = compiled("""
services:
  legacy: {servers: [{url: "https://[::1]", weight: 7, zone: east}, "http://127.0.0.1:9001"]}
routes: [{match: {path: /}, service: legacy}]
""")

    assert config.services["legacy"].instances == (
        Instance(key="static/127.0.0.1:9001", id="127.0.0.1:9001", host="127.0.0.1", port=9001),
        Instance(
            key="static/[::1]:443",
            id="[::1]:443",
            host="::1",
            port=443,
            scheme="https",
            weight=7,
            zone="east",
        ),
    )


def test_exactly_the_services_that_are_routed_are_there_and_cannot_be_changed() -> None:
    config = compiled("""
services: {unused: {}, a: {}}
routes: [{match: {path: /a}, service: a}, {match: {path: /b}, service: b}]
""")

    assert sorted(config.services) == ["a", "b"]
    with pytest.raises(TypeError):
        config.services["c"] = ServiceConfig(name="c")  # type: ignore[index] # that is the point
    assert [problem.key for problem in config.warnings] == ["services.unused"]


# --- Failing over, and limits ---------------------------------------------------------------------


def test_all_keys_of_failover_and_breakers_reach_the_core() -> None:
    config = compiled("""
defaults:
  circuit_breaker: {slow_after: 2s, slow_ratio: 0.8, max_open_ratio: 1, when_all_open: route_anyway}
routes:
  - match: {path_prefix: /a}
    service: users
    retry:
      {on: [connect], idempotency_key: true, repeat: true, backoff: 1ms, max_backoff: 2ms,
       max_retry_after: off, budget: 0.5, budget_min: 1, per_try: 1s, hedge: p99}
""")

    assert config.routes[0].retry == RetryPolicy(
        on=frozenset({"connect"}),
        idempotency_key=True,
        repeat=True,
        backoff_s=0.001,
        max_backoff_s=0.002,
        max_retry_after_s=None,
        budget=0.5,
        budget_min=1.0,
        per_try_s=1.0,
        hedge=Hedge(quantile=0.99),
    )
    assert config.services["users"].breaker == BreakerPolicy(
        slow_after_s=2.0,
        slow_ratio=0.8,
        max_open_ratio=1.0,
        when_all_open=WhenAllOpen.ROUTE_ANYWAY,
    )


def test_a_limit_of_the_defaults_is_for_each_service_and_its_queue_for_routes_too() -> None:
    config = compiled("""
defaults: {max_concurrency: 50, max_queue: 5, max_concurrency_per_instance: 9, max_connections: 8,
  max_tunnels: 4}
services:
  users: {max_concurrency: auto, max_connections: 3, max_tunnels: 2}
routes:
  - {match: {path_prefix: /a}, service: users, max_concurrency: 7, max_queue_wait: 1s,
     max_tunnels: 1}
  - {match: {path_prefix: /b}, service: orders, priority_class: sheddable,
     deadline_header: X-Request-Timeout-Ms}
""")

    users, orders = config.services["users"], config.services["orders"]
    assert users.limit == ConcurrencyPolicy(is_adaptive=True, queue=5)
    assert orders.limit == ConcurrencyPolicy(limit=50, queue=5)
    assert (users.max_per_instance, users.max_connections) == (9, 3)
    assert (orders.max_per_instance, orders.max_connections) == (9, 8)
    assert (users.max_tunnels, orders.max_tunnels) == (2, 4)
    first, second = config.routes
    assert (first.max_tunnels, second.max_tunnels) == (1, None)
    assert first.limit == ConcurrencyPolicy(limit=7, queue=5, queue_wait_s=1.0)
    assert second.limit == ConcurrencyPolicy(queue=5)
    assert (first.priority_class, second.priority_class) == (
        PriorityClass.NORMAL,
        PriorityClass.SHEDDABLE,
    )
    assert (first.deadline_header, second.deadline_header) == (b"", b"x-request-timeout-ms")


def test_fields_that_are_left_out_are_known_in_one_spelling_and_a_route_says_which() -> None:
    config = compiled("""
defaults: {remove_request_fields: [X_Client.Ip, True-Client-IP]}
routes:
  - {match: {path_prefix: /a}, service: users}
  - {match: {path_prefix: /b}, service: users, remove_request_fields: [X-Debug]}
""")

    assert [route.removed_fields for route in config.routes] == [
        frozenset({b"x-client-ip", b"true-client-ip"}),
        frozenset({b"x-debug"}),
    ]
