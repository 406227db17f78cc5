"""What an exchange learns of instances, and how clients are kept with theirs."""

from __future__ import annotations

import pytest

from gateway.core.failure import Failure
from gateway.core.message import Request, lines_of
from gateway.core.policy import BalancingPolicy, BreakerPolicy, HashOn, StickyPolicy
from tests.fakes.engine import Play, Policies, Stage
from tests.fakes.sides import FakeClient

STICKY = Policies(
    balancing=BalancingPolicy(sticky=StickyPolicy(cookie="route")),
    breaker=BreakerPolicy(consecutive_failures=1),
)
SLOWLY = Policies(
    balancing=BalancingPolicy(slow_start_s=30.0), breaker=BreakerPolicy(consecutive_failures=1)
)


def begin(stage: Stage, *fields: tuple[bytes, bytes], request: Request | None = None) -> Play:
    """Let a client send a request with these fields."""
    request = request or stage.request()
    request.lines += lines_of(list(fields))
    client = FakeClient()
    exchange = stage.engine.exchange(request, client)
    exchange.begin(stage.clock())
    return Play(exchange=exchange, client=client)


def cookie_for(stage: Stage, key: str) -> tuple[bytes, bytes]:
    return b"Cookie", b"theme=dark; route=" + stage.member(key).token


def cookies_of(play: Play) -> list[bytes]:
    assert play.client.head is not None
    return [value for name, value in play.client.head.fields if name == b"Set-Cookie"]


def serving(stage: Stage) -> str:
    """Name the one that has a request in hand."""
    (key,) = [key for key, one in stage.fleet.members.items() if one.in_flight]
    return key


# --- Latency -------------------------------------------------------------------------------------


def test_an_instance_is_known_by_how_long_its_answers_take_to_begin() -> None:
    stage = Stage("a")
    _, connection = stage.sending()

    stage.clock.advance(0.3)
    connection.head()
    stage.clock.advance(5.0)
    connection.body()
    connection.end()

    assert stage.member("a").latency_s == pytest.approx(0.3)


def test_an_instance_is_not_slow_because_its_client_is() -> None:
    stage = Stage("a")
    play, connection = stage.sending(b"POST", 4)

    stage.clock.advance(10.0)
    stage.send(play, b"body")
    stage.send_end(play)
    stage.clock.advance(0.2)
    connection.answer()

    assert stage.member("a").latency_s == pytest.approx(0.2)


def test_a_failure_is_kept_with_its_reason() -> None:
    stage = Stage("ab")
    _, connection = stage.sending()
    stage.clock.advance(1.5)

    connection.fail(Failure.DISCONNECTED_EARLY, "it hung up")

    (kept,) = stage.member("a").failures
    assert (stage.clock(), "disconnected_early", "it hung up") == kept
    assert stage.member("a").latency_s == pytest.approx(1.5)


def test_one_that_is_nobodys_fault_is_not_kept() -> None:
    stage = Stage("a")
    _, connection = stage.sending()

    connection.fail(Failure.STALE_CONNECTION)

    assert not stage.member("a").failures


def test_an_instance_whose_trial_went_well_starts_slowly() -> None:
    stage = Stage("ab", SLOWLY)
    stage.open_breaker("a")
    stage.clock.advance(10.0)
    _, connection = stage.sending()

    connection.answer()

    assert (0.1, 1.0) == (stage.member("a").weight, stage.member("b").weight)


# --- Hashing -------------------------------------------------------------------------------------


def test_a_hashed_request_goes_where_all_of_its_kind_go() -> None:
    policies = Policies(
        balancing=BalancingPolicy(balance="hash", hash_on=HashOn("header", "X-User"))
    )
    served: dict[bytes, set[str]] = {}
    for user in (b"%d" % number for number in range(12)):
        for _ in range(3):
            stage = Stage("abc", policies)
            begin(stage, (b"X-User", user))
            served.setdefault(user, set()).add(serving(stage))

    assert {1} == {len(keys) for keys in served.values()}
    assert {"a", "b", "c"} == set().union(*served.values())


# --- Sticky clients ------------------------------------------------------------------------------


def test_a_client_without_a_cookie_gets_one_that_says_nothing_of_the_instance() -> None:
    stage = Stage("a", STICKY)
    play = begin(stage)

    stage.pools["a"].connect().answer()

    (cookie,) = cookies_of(play)
    assert cookie == b"route=%b; Path=/; HttpOnly; SameSite=Lax" % stage.member("a").token


def test_a_client_comes_back_to_its_instance_and_gets_no_other_cookie() -> None:
    stage = Stage("abc", STICKY)
    play = begin(stage, cookie_for(stage, "c"))

    stage.pools["c"].connect().answer()

    assert [] == cookies_of(play)


def test_a_client_over_tls_gets_a_secure_one() -> None:
    stage = Stage("a", STICKY)
    request = stage.request()
    request.peer.scheme = b"https"
    play = begin(stage, request=request)

    stage.pools["a"].connect().answer()

    assert cookies_of(play)[0].endswith(b"; Secure")


def test_a_client_whose_instance_is_left_alone_gets_another_one_and_its_cookie() -> None:
    stage = Stage("ab", STICKY)
    stage.open_breaker("b")
    play = begin(stage, cookie_for(stage, "b"))

    stage.pools["a"].connect().answer()

    (cookie,) = cookies_of(play)
    assert cookie.startswith(b"route=" + stage.member("a").token)


def test_a_client_whose_instance_just_failed_gets_the_cookie_of_the_one_that_answered() -> None:
    stage = Stage("ab", STICKY)
    play = begin(stage, cookie_for(stage, "b"))

    stage.pools["b"].connect().fail()
    stage.pools["a"].connect().answer()

    assert cookies_of(play)[0].startswith(b"route=" + stage.member("a").token)


def test_nobody_is_kept_with_an_instance_that_answers_with_failures() -> None:
    stage = Stage("a", STICKY)
    play = begin(stage)

    stage.pools["a"].connect().answer(503)

    assert [] == cookies_of(play)


def test_a_policy_that_changes_meanwhile_leaves_running_requests_alone() -> None:
    stage = Stage("a", STICKY)
    play = begin(stage)

    stage.fleet.balance_by(BalancingPolicy())
    stage.pools["a"].connect().answer()

    assert [] == cookies_of(play)
