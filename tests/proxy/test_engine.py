"""What all exchanges share: what stays across configurations and snapshots, and what goes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from gateway.core.breaker import BreakerState
from gateway.core.config import RoutingConfig, ServiceConfig
from gateway.core.model import Snapshot
from gateway.core.policy import BalancingPolicy, BreakerPolicy
from gateway.core.routing import NoMatch, Route, RouteConflictError, RouteMatch
from gateway.proxy.deadlines import Deadlines
from gateway.proxy.engine import Engine
from gateway.proxy.target import Target
from tests.fakes.clock import FakeClock
from tests.fakes.engine import SERVICE, Policies, Stage, instance
from tests.fakes.sides import FakePool, RecordingObserver

OTHER = "order-service"
ORDERS = Route(id="orders", match=RouteMatch(path=b"/orders"), service=OTHER)


def use(stage: Stage, *routes: Route, breaker: BreakerPolicy | None = None) -> None:
    policy = breaker or BreakerPolicy()
    services = {
        route.service: ServiceConfig(name=route.service, breaker=policy) for route in routes
    }
    config = RoutingConfig(routes=routes, services=services)
    stage.engine.use(config, client_body_timeout_s=60.0)


def target(stage: Stage, path: bytes) -> Target:
    found = stage.engine.routes.match(b"example.com", path, b"GET")
    assert isinstance(found, Target)
    return found


def test_routes_lead_to_the_fleet_of_their_service() -> None:
    stage = Stage()

    use(stage, stage.api(), ORDERS)

    assert stage.engine.fleets[SERVICE] is target(stage, b"/api/x").fleet
    assert stage.engine.fleets[OTHER] is target(stage, b"/orders").fleet
    assert ["api", "orders"] == [one.route.id for one in stage.engine.targets]


def test_what_was_learned_stays_across_configurations() -> None:
    stage = Stage("ab")
    stage.open_breaker("b")
    _, connection = stage.sending()
    fleet, member, pool = stage.fleet, stage.member("a"), stage.pools["a"]

    use(stage, replace(stage.api(), id="again"), ORDERS)

    assert fleet is stage.fleet
    assert member is stage.member("a")
    assert 1 == member.in_flight
    assert BreakerState.OPEN is stage.breaker_state("b")
    assert not pool.is_retired
    connection.answer()
    stage.assert_all_is_settled()


def test_a_new_breaker_policy_holds_for_old_and_new_instances() -> None:
    stage = Stage("a")

    use(stage, stage.api(), breaker=BreakerPolicy(consecutive_failures=1, min_requests=1))
    stage.publish([instance("a"), instance("b")])
    for key in "ab":
        permit = stage.member(key).breaker.admit(stage.clock())
        assert permit is not None
        stage.member(key).breaker.failed(permit, stage.clock(), why="test", chance=0.0)

    assert BreakerState.OPEN is stage.breaker_state("a")
    assert BreakerState.OPEN is stage.breaker_state("b")


def test_a_service_that_no_route_uses_any_more_closes_its_connections() -> None:
    stage = Stage("ab")

    use(stage, ORDERS)

    assert [OTHER] == list(stage.engine.fleets)
    assert [True, True] == [pool.is_retired for pool in stage.pools.values()]
    assert isinstance(stage.engine.routes.match(b"a", b"/api/x", b"GET"), NoMatch)


def test_an_exchange_ends_on_the_route_that_it_began_on() -> None:
    stage = Stage("ab")
    play, connection = stage.sending()

    use(stage, ORDERS)
    connection.fail()
    stage.pools["b"].connect().answer()

    assert ["head 200", "body", "end"] == play.client.said
    assert "api" == play.exchange.target.route.id
    assert set() == stage.deadlines.watched


def test_a_configuration_that_cannot_be_used_changes_nothing() -> None:
    stage = Stage("ab")
    fleet = stage.fleet

    with pytest.raises(RouteConflictError):
        use(stage, ORDERS, replace(ORDERS, id="twice"))

    assert fleet is stage.engine.fleets[SERVICE]
    assert [SERVICE] == list(stage.engine.fleets)
    assert ["api"] == [one.route.id for one in stage.engine.targets]
    assert "api" == target(stage, b"/api/x").route.id
    assert [False, False] == [pool.is_retired for pool in stage.pools.values()]


def test_an_instance_that_is_gone_closes_its_connections_and_finishes_what_it_has() -> None:
    stage = Stage("ab")
    play, connection = stage.sending()

    stage.publish([instance("b")])
    connection.answer()

    assert stage.pools["a"].is_retired
    assert not stage.pools["b"].is_retired
    assert ["head 200", "body", "end"] == play.client.said
    assert 0 == play.exchange.attempts.member.in_flight
    assert play.exchange.attempts.member.is_gone


def test_an_instance_that_is_new_gets_a_pool_of_its_own() -> None:
    stage = Stage("a")
    pool = stage.pools["a"]

    stage.publish([instance("a"), instance("b")])

    assert ["a", "b"] == list(stage.pools)
    assert pool is stage.pools["a"]


def test_a_snapshot_of_a_service_that_no_route_uses_is_ignored() -> None:
    stage = Stage("a")

    stage.engine.follow(Snapshot(service=OTHER, instances=(instance("x"),), source="test"))

    assert ["a"] == list(stage.pools)


def test_an_engine_that_is_pinned_to_a_target_is_not_told_the_time() -> None:
    """It has no Fleets; and who made it does not say when it is needed no longer."""
    stage = Stage("a")
    swept = set(stage.deadlines.swept)

    stage.engine.pinned_to(target(stage, b"/api/x"))

    assert swept == stage.deadlines.swept
    assert stage.engine in swept


def test_closing_closes_all_connections() -> None:
    stage = Stage("ab", Policies())

    stage.engine.close()

    assert [True, True] == [pool.is_retired for pool in stage.pools.values()]


def test_request_ids_are_unique_and_of_one_length() -> None:
    engine = Stage().engine

    ids = [engine.next_request_id() for _ in range(1000)]

    assert 1000 == len(set(ids))
    assert {20} == {len(one) for one in ids}


def test_request_ids_do_not_tell_how_many_others_there_were() -> None:
    """Neither their order nor what lies between two of them follows from how many were given."""
    engine = Stage().engine

    ids = [int(engine.next_request_id(), 16) for _ in range(1000)]

    steps = [later - earlier for earlier, later in pairwise(ids)]
    assert len(steps) == len(set(steps))
    assert len(steps) == len({step % 2**64 for step in steps})
    assert 300 < sum(step > 0 for step in steps) < 700
    low_bits = sum(one & 1 for one in ids)
    assert 300 < low_bits < 700


def test_request_ids_of_two_gateways_differ_whatever_chance_they_choose_by() -> None:
    first, second = (engine_with(chance=0.5) for _ in range(2))

    given = {engine.next_request_id() for engine in (first, second) for _ in range(600)}

    assert 1200 == len(given)


def test_the_date_is_made_anew_once_a_second() -> None:
    clock = FakeClock(784111777.9)
    engine = engine_with(clock=clock)
    date = engine.http_date()

    again = engine.http_date()
    clock.advance(0.1)
    later = engine.http_date()

    assert b"Sun, 06 Nov 1994 08:49:37 GMT" == date
    assert date is again
    assert b"Sun, 06 Nov 1994 08:49:38 GMT" == later


def engine_with(*, chance: float = 0.0, clock: FakeClock | None = None) -> Engine:
    wall_clock = clock or FakeClock()
    return Engine(
        lambda _service, one: FakePool(wall_clock, one),
        random=lambda: chance,
        wall_clock=wall_clock,
        observer=RecordingObserver(),
        deadlines=Deadlines(),
    )


# --- Balancing -----------------------------------------------------------------------------------


def chosen(stage: Stage, count: int) -> list[str]:
    choices = [stage.fleet.choose((), stage.clock(), lambda: 0.0) for _ in range(count)]
    return [choice[0].instance.key for choice in choices if choice is not None]


def test_the_policy_of_a_service_reaches_its_fleet() -> None:
    stage = Stage("abc", Policies(balancing=BalancingPolicy(balance="round_robin")))

    assert ["a", "b", "c", "a"] == chosen(stage, 4)


def test_the_zone_of_the_gateway_reaches_all_fleets() -> None:
    stage = Stage(None)
    stage.engine.zone = "east"
    stage.route()

    stage.publish([instance("a"), replace(instance("b"), zone="east")])

    assert ["b"] == chosen(stage, 1)


def test_what_changes_with_time_follows_the_coarse_clock() -> None:
    stage = Stage("a", Policies(balancing=BalancingPolicy(slow_start_s=30.0)))
    stage.pass_time(0.0)
    stage.publish([instance("a"), instance("new")])
    before = stage.member("new").weight

    stage.clock.advance(15.0)
    for _ in range(10):
        stage.pass_time(0.0)

    assert (0.1, 0.5) == (before, stage.member("new").weight)
