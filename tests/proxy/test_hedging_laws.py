"""Whatever two instances, the client and the clock do to a hedged request: the laws that hold."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.failure import Failure
from gateway.core.policy import BreakerPolicy, Hedge, RetryPolicy, Timeouts
from tests.fakes.engine import Play, Policies, Stage
from tests.fakes.sides import FakeConnection

POLICIES = Policies(
    timeouts=Timeouts(connect_s=2.0, response_s=1.0, idle_s=5.0, request_s=20.0),
    retry=RetryPolicy(attempts=3, hedge=Hedge(after_s=0.2), backoff_s=0.1),
    breaker=BreakerPolicy(consecutive_failures=3),
)
SAID = re.compile(r"(interim 103 )*(head \d+ (body )*(end|abort) |abort )")
events = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("connect", "refuse", "fail", "stale", "time", "leave"),
                *("interim", "head", "busy", "body", "end"),
            ]
        ),
        st.integers(0, 5),
    ),
    max_size=30,
)

beginnings = st.sampled_from(
    [[], ["connect"], ["connect", "time"], ["connect", "stale", "connect"]]
)


def connections(stage: Stage) -> list[FakeConnection]:
    made = [one for pool in stage.pools.values() for one in pool.made]
    return [one for one in made if one.ending is None]


def happens(stage: Stage, play: Play, event: str, which: int, headed: set[int]) -> None:
    """Let an event happen to one of those that it can happen to."""
    waiting = [pool for pool in stage.pools.values() if pool.waiting]
    if event == "time":
        stage.pass_time(0.25)
    elif event == "leave" and which == 0 and not play.client.is_over:
        play.exchange.client_gone(stage.clock())
    elif event in {"connect", "refuse"} and waiting:
        pool = waiting[which % len(waiting)]
        if event == "connect":
            pool.connect()
        else:
            pool.refuse()
    elif open_ones := connections(stage):
        plays(open_ones[which % len(open_ones)], event, headed)


def plays(connection: FakeConnection, event: str, headed: set[int]) -> None:
    has_head = id(connection) in headed
    if event == "fail":
        connection.fail(Failure.DISCONNECTED_EARLY)
    elif event == "stale" and not has_head:
        connection.fail(Failure.STALE_CONNECTION)
    elif event == "interim" and not has_head:
        connection.interim()
    elif event in {"head", "busy"} and not has_head:
        headed.add(id(connection))
        connection.head(200 if event == "head" else 503)
    elif event == "body" and has_head:
        connection.body()
    elif event == "end" and has_head:
        connection.end()


@given(beginnings, events)
def test_the_client_hears_one_answer_and_nothing_is_left_behind(
    beginning: list[str], course: list[tuple[str, int]]
) -> None:
    stage = Stage("abc", POLICIES)
    play = stage.begin()
    headed: set[int] = set()

    for event, which in [*((event, 0) for event in beginning), *course]:
        happens(stage, play, event, which, headed)
        assert len(connections(stage)) <= 2
        assert sum(member.in_flight for member in stage.fleet.members.values()) <= 2
    for _ in range(100):
        if not play.client.is_over:
            stage.pass_time(1.0)

    assert SAID.fullmatch("".join(f"{word} " for word in play.client.said))
    assert len(stage.observer.settled_ones) == 1
    stage.assert_all_is_settled()
