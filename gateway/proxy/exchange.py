"""One request from its head to its last byte, with all its attempts: the engine.

An Exchange is moved by callbacks. The client side tells it what the client does, the connection to
the instance tells it what the instance does, the clock tells it that it waited too long, and it
tells both sides what to do. It never touches a socket, a parser or the loop.

          begin             acquired          answer's head         answer's end
    NEW ────────▶ CONNECTING ───────▶ SENDING ─────────────▶ RELAYING ───────▶ SETTLED
   (GATHERING)        ▲                  │                       │
     (QUEUED)         └── next attempt ──┘ └─ 101: TUNNEL         └─ broke off: abort
       (BACKING_OFF)

GATHERING is only where something limits how many are in hand: a body that is not here yet takes no
place before it is whole, or the route's buffer is full of it. Otherwise whoever sends a byte now
and then could hold all places, and no instance would even be asked.

Once the head of an answer went to the client there is no way back: RELAYING never fails over.
Whatever happens, each Permit is reported to its Breaker exactly once, and SETTLED is reached once.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from gateway.core.failure import VERDICTS, Failure, Side
from gateway.core.fleet import Member
from gateway.core.headers import interim_fields, trailer_fields, without_alike
from gateway.core.message import NO_FIELDS, AnswerHead, Fields, Request
from gateway.core.pace import Pace
from gateway.core.paths import PathError
from gateway.core.routing import NoMatch
from gateway.proxy.attempts import Attempts
from gateway.proxy.ending import Ending
from gateway.proxy.phase import Phase, Wait, cut_inside_upload
from gateway.proxy.refusal import unmatched
from gateway.proxy.sides import ClientSide, Connection, ConnectionPool
from gateway.proxy.target import closing_lines
from gateway.proxy.tunnel import Tunnel
from gateway.proxy.upload import Upload

if TYPE_CHECKING:
    from gateway.proxy.engine import Engine

# Looked up once: a member of an Enum costs as much as a small call.
_CONTINUE, _PROCESSING = 100, 102
_NEW, _GATHERING, _, _, _CONNECTING, _SENDING, _RELAYING, _TUNNEL, _SETTLED = Phase


class Exchange(Ending):
    """The state of one request. Whoever made it must tell `client_gone` if its client leaves."""

    __slots__ = (
        "_body_ended",
        "_client_writable",
        "_limit_s",
        "_lines",
        "_upstream_writable",
        "anything_sent",
        "taking",
        "tunnel",
    )

    def __init__(self, engine: Engine, request: Request, client: ClientSide) -> None:
        self.engine = engine
        self.request = request
        self.client = client
        self.phase = _NEW
        self.deadline_s = inf
        self.is_routed = False
        self.failure = None
        self.detail = ""
        self.status = 0
        self.answered_at_s = 0.0
        self.sent_bytes = 0
        self.connection = None
        self.upload = None
        self.tunnel: Tunnel
        self.taking: Pace | None  # of the client; set while it does not take more of its answer
        self._limit_s = inf
        self._lines = b""
        self._body_ended = request.length == 0 or request.body != b""
        self.anything_sent = False
        self.admission = None
        self.hedge = None
        self._client_writable = True
        self._upstream_writable = True

    def __repr__(self) -> str:
        attempts = repr(self.attempts) if self.is_routed else "no route"
        return f"<Exchange {self.request!r} {self.phase.name}, {attempts}>"

    @property
    def is_repeatable(self) -> bool:
        """Whether the request, with its body, may be sent again after something was sent."""
        is_kept = self.upload is None or self.upload.stays_kept
        return is_kept and self.target.may_repeat(self.request)

    # --- Stations 2 to 6: from the request's head to an instance ---------------------------------

    def begin(self, now_s: float) -> None:
        """Take the request on its way. Station 1 (Accept) is what the face did before this."""
        request, engine = self.request, self.engine
        request.started_at_s = now_s
        engine.deadlines.watched.add(self)
        # :: Station 2: Match
        try:
            target = engine.match(request)
        except PathError as error:
            self.give_up(Failure.BAD_REQUEST, str(error), now_s)
            return
        if isinstance(target, NoMatch):
            asked_before = engine.match_preflight(request)
            if asked_before is None:
                self._refuse(*unmatched(target, request.path), now_s)
                return
            target = asked_before
        self.target = target
        if target.in_process is not None:
            target.in_process(self, now_s)
            return
        self.attempts = Attempts(target.fleet, engine.random, engine.observer, request)
        self.is_routed = True
        self._limit_s = now_s + target.request_s
        if target.removed:
            self._limit_s = min(self._limit_s, target.take_out(request))
        # :: Station 3: Filter -- what of the request crosses; routes have no other filters yet
        if (request.length != 0 or request.upgrade) and not self._takes_more(now_s):
            return
        self._lines = closing_lines(request, engine.via, target.prefix_line)
        # :: Station 4: Resolve -- the Fleet follows the newest Snapshot; nobody waits for it
        if target.door is None or target.door.lets_in(self, now_s):
            self.admitted(now_s)

    def _takes_more(self, now_s: float) -> bool:
        """Get ready for a body, or another protocol; True if it is all here: `begin` goes on."""
        request = self.request
        if (problem := self.target.problem(request)) is not None:
            self.give_up(*problem, now_s)
            return False
        self.upload = upload = self.target.upload(request)
        if upload is None and not request.upgrade:
            return True
        self._begin_with_more(now_s)
        return False

    def _begin_with_more(self, now_s: float) -> None:
        """Go on as `begin` does, where more is to come than was sent with the head."""
        request, target = self.request, self.target
        self._lines = closing_lines(request, self.engine.via, target.prefix_line)
        if target.door is not None and self._waits_for_body:
            self.phase = _GATHERING
            self._wait_on(now_s)
        else:
            self._enter(now_s)

    @property
    def _waits_for_body(self) -> bool:
        """Whether the client has still to send what is sent on first; not so if it waits itself."""
        upload = self.upload
        is_enough = self._body_ended or upload is None or upload.is_over_buffer
        return not (is_enough or self._is_held_back)

    def _enter(self, now_s: float) -> None:
        """Ask for a place, where something limits them."""
        target = self.target
        door = target.tunnel_door if self.request.upgrade else target.door
        if door is None or door.lets_in(self, now_s):
            self.admitted(now_s)

    def hold(self, phase: Phase, until_s: float) -> None:
        """Hear that it has to wait: for room (QUEUED), or before a failover (BACKING_OFF)."""
        self.phase = phase
        self._wait(until_s)

    def admitted(self, now_s: float) -> None:
        """Hear that there is room: choose an instance."""
        # :: Station 5: Choose
        member = self.attempts.take_next(now_s, self.target.attempts)
        if member is not None:
            self.attempt(member, now_s)
        elif not self.target.failover.waits_for_trial(self, now_s):
            self.give_up(*self.attempts.verdict(now_s), now_s)

    def attempt_afresh(self, member: Member[ConnectionPool], now_s: float) -> None:
        """Send the request to this instance over a connection that was never used before."""
        self.phase = _CONNECTING
        self._wait(now_s + self.target.connect_s)
        member.pool.open_for(self)

    def attempt(self, member: Member[ConnectionPool], now_s: float) -> None:
        """Send the request to this instance."""
        # :: Station 6: Forward
        self.phase = _CONNECTING
        connection = member.pool.acquire(self, now_s)
        if connection is not None:
            self.upstream_ready(connection, now_s)
        else:
            self._wait(now_s + self.target.connect_s)

    def upstream_ready(self, connection: Connection, now_s: float) -> None:
        """Hear that a connection stands; the request goes out on it."""
        request, upload, target = self.request, self.upload, self.target
        self.connection = connection
        self.phase = _SENDING
        self.anything_sent = True
        self._upstream_writable = True
        closing = self.closing_lines(now_s) if target.deadline_header else self._lines
        if upload is not None:
            closing += upload.so_far()
            upload.pace = None
            self._wait_on(now_s)
        else:
            until_s, limit_s = now_s + target.response_s, self._limit_s
            self.deadline_s = until_s if until_s < limit_s else limit_s  # noqa: FURB136 -- hot path
        connection.begin(self, target.head(request, self.attempts.member.instance, closing))
        if target.hedging is not None:
            target.hedging.watch(self, now_s)
        if upload is not None and self._upstream_writable:
            self.client.resume_reading()  # the wait for a connection, or an earlier one, paused it

    def closing_lines(self, now_s: float) -> bytes:
        """End the head of the request; with the time that is left, where the route tells it."""
        target = self.target
        if not target.deadline_header:
            return self._lines
        return target.time_left_line(self._limit_s - now_s) + self._lines

    def goes_on_with(self, connection: Connection, sent_at_s: float) -> None:
        """Take this connection in place of the one before; it has the same request since then."""
        self.connection = connection
        self._wait(sent_at_s + self.target.response_s)

    # --- The client tells ------------------------------------------------------------------------

    def client_body(self, chunk: bytes, now_s: float) -> None:
        """Take a piece of the request's body."""
        upload = self.upload
        if self.phase is _SETTLED or upload is None:
            return  # the answer is out already; nobody wants the rest
        framed = upload.add(chunk)
        if (problem := upload.problem()) is not None:
            self._leave(*problem, now_s)
        elif self.connection is None:
            self._keep(upload, now_s)
        else:
            if upload.is_over_buffer:
                upload.forget()
            self._wait_on(now_s)
            self.connection.write(framed)

    def _keep(self, upload: Upload, now_s: float) -> None:
        """Keep a piece of the body for later; all of it must be sent once there is a connection."""
        if upload.is_over_buffer:
            self.client.pause_reading()
        if self.phase is not _GATHERING:
            return
        if upload.is_over_buffer:
            self._enter(now_s)
        else:
            self._wait_on(now_s)

    def client_end(self, trailers: Fields, now_s: float) -> None:
        """Hear that the request's body is whole."""
        upload = self.upload
        if self.phase is _SETTLED or upload is None or self._body_ended:
            return
        if trailers:
            trailers = without_alike(trailers, self.target.removed)
        if not upload.end(trailers):
            self._leave(Failure.BAD_REQUEST, "the body is shorter than it says", now_s)
            return
        self._body_ended = True
        if self.phase is _GATHERING:
            self._enter(now_s)
        elif self.connection is not None:
            self._wait_on(now_s)
            if upload.last_bytes:
                self.connection.write(upload.last_bytes)

    def client_gone(self, now_s: float) -> None:
        """Hear that the client left; the attempt is cancelled and nobody is blamed."""
        if self.phase is _TUNNEL:
            self.upstream_end(NO_FIELDS, now_s)  # either side may end a tunnel; it is no failure
        else:
            self.client_failed(Failure.CLIENT_GONE, "the client left", now_s)

    def client_paused(self) -> None:
        """Hear that the client does not take more for now: the answer is read no further."""
        self._client_writable = False
        if self.phase >= _RELAYING and self.connection is not None:
            self.connection.pause_reading()
            if self.phase is _RELAYING:
                self._watch_taking(self.engine.deadlines.now_s)

    def client_resumed(self, now_s: float) -> None:
        """Hear that the client takes more again."""
        self._client_writable = True
        if self.phase >= _RELAYING and self.connection is not None:
            self._wait_on(now_s)
            self.connection.resume_reading()

    # --- The instance tells ----------------------------------------------------------------------

    def upstream_paused(self) -> None:
        """Hear that the instance does not take more for now: the client is read no further."""
        self._upstream_writable = False
        if not self._body_ended:
            self.client.pause_reading()

    def upstream_resumed(self, now_s: float) -> None:
        """Hear that the instance takes more again."""
        self._upstream_writable = True
        if self.upload is not None:
            self.upload.pace = None
            self._wait_on(now_s)
            self.client.resume_reading()  # even if its body is here: it must be seen to leave

    def upstream_interim(self, status: int, fields: Fields, now_s: float) -> None:
        """Relay an interim answer; after a 100 it is the client who is waited for.

        After a 102 the instance is waited for anew: it says that it works on (RFC 2518 §10.1). A
        client that takes no more is not sent them, except for the 100 that it may wait for.
        """
        if self.upload is not None and self.upload.is_asked_for_by(status):
            self._wait_on(now_s)
        elif status == _PROCESSING and self._body_ended:
            self._wait(now_s + self.target.response_s)
        if self._client_writable or status == _CONTINUE:
            self.client.send_interim(status, interim_fields(fields))

    def upstream_answer(self, head: AnswerHead, body: bytes, now_s: float) -> None:
        """Take an answer that has come whole, head and body at once."""
        if not self._takes_answer(head, now_s):
            return
        self.phase = _RELAYING
        self.sent_bytes = len(body)
        self._let_go(now_s)
        if self.admission is not None:
            self._make_room(now_s)  # the client's next request may follow at once
        self.client.send_answer(head, body)
        self._settle(now_s)

    def upstream_head(self, head: AnswerHead, now_s: float) -> None:
        """Take the head of the final answer; more of it is to come."""
        if not self._takes_answer(head, now_s):
            return
        self.phase = _RELAYING
        if self.upload is not None:
            self.upload.forget()
        elif self.request.body:
            self.upload = Upload.gone(len(self.request.body))
            self.request.body = self._lines = b""
        self._wait(now_s + self.target.idle_s)
        if not self._client_writable and self.connection is not None:
            self.connection.pause_reading()
            self._watch_taking(now_s)
        self.client.send_head(head)

    def _takes_answer(self, head: AnswerHead, now_s: float) -> bool:
        """Judge an answer by its head; False if the request is on its way to another instance."""
        # :: Station 7: Judge -- an answer
        target = self.target
        if head.status not in target.noted_statuses:
            target.budget.answered += 1
            if target.stopwatch is not None:
                target.stopwatch.answered(self.attempts, self.request, now_s)
            self.attempts.answered(head, self.request, now_s)
        elif not self._takes_noted(head, now_s):
            return False
        if self.hedge is not None:
            self.hedge.drop()
        # :: Station 8: Relay and settle -- from here on there is no way back
        self.answered_at_s = now_s
        self.status = head.status
        if not head.has_date:
            head.lines += b"\r\nDate: " + self.engine.http_date()
        return True

    def _takes_noted(self, head: AnswerHead, now_s: float) -> bool:
        """Judge an answer whose status is retriable or 5xx, as `_takes_answer`."""
        target = self.target
        if head.status in target.statuses:
            return not target.failover.leaves_for_another(self, head, now_s)
        target.budget.answered += 1
        if target.stopwatch is not None:
            target.stopwatch.answered(self.attempts, self.request, now_s)
        self.attempts.answered(head, self.request, now_s)
        self.attempts.member.note_server_error(head.status, now_s)
        return True

    def upstream_switched(self, head: AnswerHead, now_s: float) -> None:
        """Take a 101: from here on both directions are bytes without an end of their own."""
        self.target.budget.answered += 1
        self.attempts.answered(head, self.request, now_s)
        self.phase, self.tunnel = _TUNNEL, Tunnel(self.request.upgrade)
        self.answered_at_s, self.status = now_s, head.status
        self._body_ended, self.upload = False, self.tunnel
        self._limit_s = inf
        self._wait_on(now_s)
        if not self._client_writable:
            self.client_paused()
        assert self.admission is not None, "whoever asks for another protocol passes a Door"
        self.admission.switched(self.attempts.member, now_s)
        self.client.send_head(head)

    def upstream_body(self, chunk: bytes, now_s: float) -> None:
        """Take a piece of the answer's body."""
        self.sent_bytes += len(chunk)
        target = self.target
        self._wait(now_s + (target.tunnel_s if self.phase is _TUNNEL else target.idle_s))
        self.client.send_body(chunk)

    def upstream_end(self, trailers: Fields, now_s: float) -> None:
        """Hear that the answer is whole."""
        self._let_go(now_s)
        self._settle(now_s)
        self.client.send_end(trailer_fields(trailers))

    def _let_go(self, now_s: float) -> None:
        """Let the instance go: it has answered."""
        connection = self.connection
        assert connection is not None
        self.connection = None
        if self._body_ended and self._upstream_writable:
            connection.finish(now_s)
        else:  # an answer that came before the request was read leaves it in the middle of it
            connection.leave()
        self.attempts.succeed(now_s)

    def upstream_failed(self, failure: Failure, detail: str, now_s: float) -> None:
        """Hear that the attempt failed; its connection is gone already."""
        self.connection = None
        is_sent = self._body_ended and self._upstream_writable
        if failure is Failure.DISCONNECTED_EARLY and not is_sent:
            silent_s = now_s - self.attempts.owed_since_s if self._upstream_writable else 0.0
            failure = cut_inside_upload(silent_s)
        self.target.failover.judge(self, failure, detail, now_s)

    # --- The clock tells -------------------------------------------------------------------------

    def expire(self, now_s: float) -> None:
        """Hear that the deadline has passed."""
        if self._goes_on(now_s) or self._goes_on_taking(now_s):
            return
        failure, detail = Wait(
            phase=self.phase,
            has_whole_request=self._body_ended or self._is_held_back,
            is_held_back=self._is_held_back,
            client_takes_more=self._client_writable,
            instance_takes_more=self._upstream_writable,
            is_over_limit=now_s >= self._limit_s,
            is_limit_of_client=self._limit_s < self.request.started_at_s + self.target.request_s,
            limits=self.target.limits,
        ).failure()
        if VERDICTS[failure].side is Side.UPSTREAM and self.phase >= _CONNECTING:
            self.drop_connection()
            self.target.failover.judge(self, failure, detail, now_s)
        else:
            self._leave(failure, self.detail or detail, now_s)

    def _wait(self, until_s: float) -> None:
        limit_s = self._limit_s
        self.deadline_s = until_s if until_s < limit_s else limit_s  # noqa: FURB136 -- hot path

    def _wait_on(self, now_s: float) -> None:
        """Wait anew, because something moved: for the answer, or for more of the request."""
        target = self.target
        if self.phase >= _RELAYING:
            self._wait(now_s + (target.tunnel_s if self.phase is _TUNNEL else target.idle_s))
        else:
            self.attempts.owed_since_s = now_s
            upload = self.upload
            if upload is None or self._body_ended or upload.is_held_back:
                self._wait(now_s + target.response_s)
            else:
                self._wait_for_body(upload, now_s)

    def _wait_for_body(self, upload: Upload, now_s: float) -> None:
        """Wait for more of the request's body, and to see how much of it comes in a minute."""
        target, pace = self.target, upload.pace
        until_s = now_s + target.client_idle_s
        if target.least_bytes is not None:
            if pace is None:
                pace = upload.pace = Pace(target.least_bytes, upload.received_bytes, now_s)
            pace.until_s = until_s
            until_s = min(until_s, pace.due_s)
        self._wait(until_s)

    def _goes_on(self, now_s: float) -> bool:
        """Judge the pace of a body if only that is due; True if there is nothing more to do."""
        upload = self.upload
        pace = None if upload is None else upload.pace
        is_for_body = self.phase is _GATHERING or self.phase is _SENDING
        if upload is None or pace is None or self._body_ended or not is_for_body:
            return False
        if now_s >= min(pace.until_s, self._limit_s):
            return False
        if not pace.is_too_slow(upload.received_bytes, now_s) or not self._upstream_writable:
            self._wait(min(pace.until_s, pace.due_s))
        else:
            self._leave(Failure.REQUEST_TIMEOUT, "the body comes slower than min_rate", now_s)
        return True

    def _watch_taking(self, now_s: float) -> None:
        """See from now on how much of its answer the client takes; where nobody can tell, do not.

        Twice as long as with a request: what the client's system has taken shows in steps.
        """
        least_bytes, unsent_bytes = self.target.least_bytes, self.client.unsent_bytes()
        if least_bytes is None or unsent_bytes is None:
            self.taking = None
            return
        pace = self.taking = Pace(least_bytes, self.sent_bytes - unsent_bytes, now_s, minutes=2)
        self.deadline_s = min(self.deadline_s, pace.due_s)

    def _goes_on_taking(self, now_s: float) -> bool:
        """Judge how fast the client takes its answer, if that is due; True if nothing else is."""
        is_taking = self.phase is _RELAYING and not self._client_writable
        if not is_taking or self.connection is None or now_s >= self._limit_s:
            return False
        pace, unsent_bytes = self.taking, self.client.unsent_bytes()
        if pace is None or unsent_bytes is None or now_s < pace.due_s:
            return False
        if pace.is_too_slow(self.sent_bytes - unsent_bytes, now_s):
            self._leave(Failure.CLIENT_GONE, "the client reads slower than min_rate", now_s)
        else:
            self._wait(min(now_s + self.target.idle_s, pace.due_s))
        return True

    @property
    def _is_held_back(self) -> bool:
        return self.upload is not None and self.upload.is_held_back

    def drop_connection(self) -> None:
        """Let go of the instance in the middle, or of the wait for it."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abort()
        elif self.phase is _CONNECTING:
            self.attempts.member.pool.abandon(self)
