"""Any legal order of events, one Exchange after the other, three instances: the laws that hold.

1.  The client hears: interim answers, then a head, pieces, and an end or a cut; or a cut alone.
2.  Nobody is in flight, no Permit is out and no deadline is watched once the Exchange has settled,
    and it settles once.
3.  What is not idempotent begins on one connection at most.
4.  What each instance reads is the client's request, in the eyes of a parser that is not ours; it
    is whole only if the client's was.
5.  Nobody waits for ever: there is a deadline, and whoever is not waited for is not paused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import inf

import h11
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.core.failure import Failure
from gateway.core.policy import BreakerPolicy, RetryPolicy, Timeouts
from gateway.proxy.phase import Phase
from tests.fakes.engine import Policies, Stage
from tests.fakes.sides import FakeConnection, FakePool

pytestmark = pytest.mark.timeout(1800)  # the nightly profile plays for minutes

POLICIES = Policies(
    timeouts=Timeouts(connect_s=2.0, response_s=15.0, idle_s=60.0, request_s=200.0),
    retry=RetryPolicy(attempts=3, buffer_bytes=10),
    breaker=BreakerPolicy(consecutive_failures=2, open_for_s=10.0),
    client_body_timeout_s=30.0,
)
SAID = re.compile(r"(interim )*(head (body )*(end|abort) |abort )")
REFUSALS = st.sampled_from([Failure.CONNECT_FAILED, Failure.TLS_FAILED])
LOSSES = st.sampled_from(
    [Failure.DISCONNECTED_EARLY, Failure.BAD_RESPONSE, Failure.STALE_CONNECTION]
)


def read_by_h11(sent: bytes) -> tuple[h11.Request, bytes, bool]:
    """Read a request as an instance would: its head, its body so far, and whether it is whole."""
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(sent)
    request = parser.next_event()
    assert isinstance(request, h11.Request)
    body = b""
    while isinstance(event := parser.next_event(), h11.Data):
        body += event.data
    assert parser.trailing_data[0] == b""
    return request, body, isinstance(event, h11.EndOfMessage)


class ExchangeMachine(RuleBasedStateMachine):
    """Plays all sides of one Exchange after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage("abc", POLICIES)
        self.play = self.stage.begin()
        self.play.exchange.client_gone(self.stage.clock())
        self.draw: st.DataObject

    # --- Where things stand ----------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self.play.exchange.phase is not Phase.SETTLED

    @property
    def connections(self) -> list[FakeConnection]:
        all_made = [one for pool in self.stage.pools.values() for one in pool.made]
        return [one for one in all_made if one.exchange is self.play.exchange]

    @property
    def current(self) -> FakeConnection | None:
        return next((one for one in self.connections if one.ending is None), None)

    @property
    def waiting(self) -> FakePool | None:
        return next((pool for pool in self.stage.pools.values() if pool.waiting), None)

    # --- What may happen -------------------------------------------------------------------------

    @precondition(lambda self: not self.is_open)
    @rule(
        method=st.sampled_from([b"GET", b"PUT", b"POST"]),
        length=st.sampled_from([0, 5, 30, None]),
        warm=st.sets(st.sampled_from("abc")),
        open_ones=st.sets(st.sampled_from("abc"), max_size=1),
        later_s=st.sampled_from([0.0, 300.0]),
    )
    def begin(
        self,
        method: bytes,
        length: int | None,
        warm: set[str],
        open_ones: set[str],
        later_s: float,
    ) -> None:
        self.stage.clock.advance(300.0)
        for key in sorted(open_ones):
            self.stage.open_breaker(key)
        self.stage.clock.advance(later_s)
        for key, pool in self.stage.pools.items():
            pool.warm.clear()
            if key in warm:
                pool.warm_up()
        self.length = length
        self.body = b""
        self.left_bytes = 60 if length is None else length
        self.has_ended = length == 0
        self.client_takes = True
        self.has_head = False
        self.play = self.stage.begin(method, length)

    @precondition(lambda self: self.is_open)
    @rule(draw=st.data())
    def something_happens(self, draw: st.DataObject) -> None:
        self.draw = draw
        rare = (self.client_leaves, self.we_make_a_mistake, self.client_breaks_its_promise)
        usual = [self.time_passes, *self.of_the_client(), *self.of_the_instance()]
        before = self.current
        draw.draw(st.sampled_from([*usual * 4, *rare]))()
        if self.current is not before:
            self.has_head = False

    def of_the_client(self) -> list[Callable[[], None]]:
        """List what the client may do now."""
        events = [self.client_takes_no_more if self.client_takes else self.client_takes_more]
        if not self.has_ended and self.left_bytes:
            events.append(self.client_sends)
        if not self.has_ended and (self.length is None or not self.left_bytes):
            events.append(self.client_ends)
        return events

    def of_the_instance(self) -> list[Callable[[], None]]:
        """List what the instance may do now."""
        if self.current is None:
            return [self.connection_stands, self.connection_stands, self.connection_is_refused]
        events = [self.instance_is_lost]
        if not self.current.takes:
            events.append(self.instance_takes_more)
        elif not self.has_ended:
            events.append(self.instance_takes_no_more)
        if self.has_head:
            return [*events, self.instance_sends, self.instance_ends]
        return [*events, self.instance_answers_for_now, self.instance_answers]

    # --- The client ------------------------------------------------------------------------------

    def client_sends(self) -> None:
        chunk = self.draw.draw(st.binary(max_size=12))[: self.left_bytes]
        self.left_bytes -= len(chunk)
        self.body += chunk
        self.stage.send(self.play, chunk)

    def client_ends(self) -> None:
        self.has_ended = True
        self.stage.send_end(self.play)

    def client_breaks_its_promise(self) -> None:
        if self.length is None:
            self.play.exchange.client_failed(Failure.BAD_REQUEST, "garbage", self.stage.clock())
        elif self.draw.draw(st.booleans()) and not self.has_ended:
            self.stage.send(self.play, b"x" * (self.left_bytes + 1))
        elif self.left_bytes:
            self.stage.send_end(self.play)

    def client_takes_no_more(self) -> None:
        self.client_takes = False
        self.play.exchange.client_paused()

    def client_takes_more(self) -> None:
        self.client_takes = True
        self.play.exchange.client_resumed(self.stage.clock())

    def client_leaves(self) -> None:
        self.play.exchange.client_gone(self.stage.clock())

    # --- The instance ----------------------------------------------------------------------------

    def connection_stands(self) -> None:
        assert self.waiting is not None
        self.waiting.connect(chokes=self.draw.draw(st.booleans()))

    def connection_is_refused(self) -> None:
        assert self.waiting is not None
        self.waiting.refuse(self.draw.draw(REFUSALS))

    def instance_takes_no_more(self) -> None:
        self.carried().pauses()

    def instance_takes_more(self) -> None:
        self.carried().resumes()

    def instance_answers_for_now(self) -> None:
        self.carried().interim()

    def instance_answers(self) -> None:
        self.has_head = True
        self.carried().head(self.draw.draw(st.sampled_from([200, 200, 404, 503])))

    def instance_sends(self) -> None:
        self.carried().body()

    def instance_ends(self) -> None:
        self.carried().end()

    def instance_is_lost(self) -> None:
        failure = Failure.UPSTREAM_BROKE_OFF if self.has_head else self.draw.draw(LOSSES)
        self.carried().fail(failure)

    def carried(self) -> FakeConnection:
        assert self.current is not None
        return self.current

    # --- The clock, and we -----------------------------------------------------------------------

    def time_passes(self) -> None:
        self.stage.pass_time(self.draw.draw(st.sampled_from([0.1, 0.1, 0.1, 1.9, 2.0, 15.0, 60.0])))

    def we_make_a_mistake(self) -> None:
        self.play.exchange.break_down(self.stage.clock())

    # --- The laws --------------------------------------------------------------------------------

    @invariant()
    def what_the_client_hears_is_an_answer(self) -> None:
        said = "".join(f"{word.split()[0]} " for word in self.play.client.said)
        if self.is_open:
            assert SAID.match(said) is None
        else:
            assert SAID.fullmatch(said)

    @invariant()
    def in_flight_is_what_is_in_hand(self) -> None:
        in_flight = [self.stage.member(key).in_flight for key in "abc"]
        assert sorted(in_flight) == ([0, 0, 1] if self.is_open else [0, 0, 0])

    @invariant()
    def nothing_is_left_once_it_has_settled(self) -> None:
        if not self.is_open:
            self.stage.assert_all_is_settled()
            assert self.play.exchange is self.stage.observer.settled_ones[-1]

    @invariant()
    def what_is_not_idempotent_begins_once_at_most(self) -> None:
        assert self.play.exchange.request.method != b"POST" or len(self.connections) <= 1

    @invariant()
    def what_cannot_be_replayed_is_not_sent_again(self) -> None:
        bodies = [read_by_h11(bytes(one.sent))[1] for one in self.connections]
        assert sum(len(body) > POLICIES.retry.buffer_bytes for body in bodies) <= 1

    @invariant()
    def nobody_waits_for_ever(self) -> None:
        if self.is_open:
            assert self.stage.clock() <= self.play.exchange.deadline_s < inf
            assert {self.play.exchange} == self.stage.deadlines.watched
            assert (self.current is None) == (self.waiting is not None)

    @invariant()
    def whoever_is_not_waited_for_is_read(self) -> None:
        if (connection := self.current) is None:
            return
        if connection.takes:
            assert not self.play.client.is_paused
        elif not self.has_ended:
            assert self.play.client.is_paused
        assert connection.is_paused == (self.has_head and not self.client_takes)

    @invariant()
    def what_is_kept_is_bounded(self) -> None:
        upload = self.play.exchange.upload
        if self.is_open and upload is not None and upload.is_over_buffer:
            assert self.current is None
            assert self.play.client.is_paused

    @invariant()
    def each_instance_reads_the_clients_request(self) -> None:
        heads = set()
        for connection in self.connections:
            request, body, is_whole = read_by_h11(bytes(connection.sent))
            heads.add((request.method, request.target, tuple(request.headers.raw_items())))
            assert self.body.startswith(body)
            if is_whole:
                assert self.body == body
                assert len(body) == self.length or self.has_ended
            if connection.ending == "reusable":
                assert is_whole
        assert len(heads) <= 1

    def teardown(self) -> None:
        if self.is_open:
            self.play.exchange.client_gone(self.stage.clock())
        self.stage.assert_all_is_settled()


TestExchangeMachine = ExchangeMachine.TestCase
TestExchangeMachine.settings = settings(stateful_step_count=150)
