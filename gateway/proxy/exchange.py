"""One request from its head to its last byte, with all its attempts: the engine.

An Exchange is moved by callbacks. The client side tells it what the client does, the connection to
the instance tells it what the instance does, the clock tells it that it waited too long, and it
tells both sides what to do. It never touches a socket, a parser or the loop.

          begin             acquired          answer's head         answer's end
    NEW ────────▶ CONNECTING ───────▶ SENDING ─────────────▶ RELAYING ───────▶ SETTLED
                      ▲                  │                       │
                      └── next attempt ──┘ └─ 101: TUNNEL         └─ broke off: abort

Once the head of an answer went to the client there is no way back: RELAYING never fails over.
Whatever happens, each Permit is reported to its Breaker exactly once, and SETTLED is reached once.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from gateway.core.failover import may_send_again
from gateway.core.failure import VERDICTS, Failure, Side
from gateway.core.fleet import Member
from gateway.core.headers import interim_fields, request_lines, trailer_fields
from gateway.core.message import NO_FIELDS, AnswerHead, Fields, Request
from gateway.core.paths import PathError, normalize
from gateway.core.routing import NoMatch
from gateway.proxy.attempts import Attempts
from gateway.proxy.phase import Phase, Wait
from gateway.proxy.refusal import come_again, refuse, unmatched
from gateway.proxy.sides import ClientSide, Connection, ConnectionPool
from gateway.proxy.target import Target, framing
from gateway.proxy.tunnel import offer_lines, tunnel_upload
from gateway.proxy.upload import Upload

if TYPE_CHECKING:
    from gateway.proxy.engine import Engine


class Exchange:
    """The state of one request. Whoever made it must tell `client_gone` if its client leaves.

    `failure` is why it did not go well, None if it did; `status` is what the client was told, 0 for
    nothing. `target` and `attempts` exist once `is_routed`.
    """

    def __init__(self, engine: Engine, request: Request, client: ClientSide) -> None:
        self.engine = engine
        self.request = request
        self.client = client
        self.phase = Phase.NEW
        self.deadline_s = inf
        self.target: Target
        self.attempts: Attempts
        self.is_routed = False
        self.failure: Failure | None = None
        self.detail = ""
        self.status = 0
        self.answered_at_s = 0.0
        self.upload: Upload | None = None
        self.sent_bytes = 0
        self._connection: Connection | None = None
        self._limit_s = inf
        self._lines = b""
        self._body_ended = request.length == 0
        self._anything_sent = False
        self._client_writable = True
        self._upstream_writable = True

    def __repr__(self) -> str:
        attempts = repr(self.attempts) if self.is_routed else "no route"
        return f"<Exchange {self.request!r} {self.phase.name}, {attempts}>"

    @property
    def is_repeatable(self) -> bool:
        """Whether the request may be sent again after something was sent."""
        return self.request.method in self.target.idempotent

    def reject(self, failure: Failure, detail: str, now_s: float) -> None:
        """End at Station 1, for a reason that the face found; called in place of `begin`."""
        self.request.started_at_s = now_s
        self._give_up(failure, detail, now_s)

    # --- Stations 2 to 6: from the request's head to an instance ---------------------------------

    def begin(self, now_s: float) -> None:
        """Take the request on its way. Station 1 (Accept) is what the face did before this."""
        request, engine = self.request, self.engine
        request.started_at_s = now_s
        engine.deadlines.watched.add(self)
        # :: Station 2: Match
        try:
            request.path = normalize(request.path)
        except PathError as error:
            self._give_up(Failure.BAD_REQUEST, str(error), now_s)
            return
        target = engine.routes.match(request.host, request.path, request.method)
        if isinstance(target, NoMatch):
            self._refuse(*unmatched(target, request.path), now_s)
            return
        self.target = target
        self.attempts = Attempts(target.fleet, engine.random, engine.observer)
        self.is_routed = True
        self._limit_s = now_s + target.request_s
        # :: Station 3: Filter -- what of the request crosses; routes have no other filters yet
        if not self._body_ended:
            limit, kept = target.max_body_bytes, target.buffer_bytes
            self.upload = Upload(request.length, buffer_bytes=kept, max_bytes=limit)
        if (self.upload or request.upgrade) and (problem := target.problem(request)) is not None:
            self._give_up(*problem, now_s)
            return
        self._lines = request_lines(request, engine.via) + offer_lines(request)
        # :: Station 4: Resolve -- the Fleet follows the newest Snapshot; nobody waits for it
        self._next_attempt(now_s)

    def _next_attempt(self, now_s: float) -> None:
        # :: Station 5: Choose
        member = self.attempts.take_next(now_s, at_most=self.target.attempts)
        if member is not None:
            self._attempt(member, now_s, is_fresh=False)
        else:
            self._give_up(*self.attempts.verdict(now_s), now_s)

    def _attempt(self, member: Member[ConnectionPool], now_s: float, *, is_fresh: bool) -> None:
        # :: Station 6: Forward
        self.phase = Phase.CONNECTING
        self._wait(now_s + self.target.connect_s)
        connection = member.pool.acquire(self, now_s, is_fresh=is_fresh)
        if connection is not None:
            self.upstream_ready(connection, now_s)

    def upstream_ready(self, connection: Connection, now_s: float) -> None:
        """Hear that a connection stands; the request goes out on it."""
        request, upload = self.request, self.upload
        self._connection = connection
        self.phase = Phase.SENDING
        self._anything_sent = True
        self._upstream_writable = True
        authority = self.attempts.member.instance.authority
        head = self.target.start_line(request, authority) + self._lines + framing(request)
        body = b"" if upload is None else upload.so_far()
        self._wait_on(now_s)
        connection.begin(self, head + body, to_head=request.method == b"HEAD")
        if upload is not None and self._upstream_writable:
            self.client.resume_reading()  # the wait for a connection, or an earlier one, paused it

    # --- The client tells ------------------------------------------------------------------------

    def client_body(self, chunk: bytes, now_s: float) -> None:
        """Take a piece of the request's body."""
        upload = self.upload
        if self.phase is Phase.SETTLED or upload is None:
            return  # the answer is out already; nobody wants the rest
        framed = upload.add(chunk)
        if (problem := upload.problem()) is not None:
            self._leave(*problem, now_s)
        elif self._connection is None:
            if upload.is_over_buffer:
                self.client.pause_reading()  # all of it must be sent once there is a connection
        else:
            if upload.is_over_buffer:
                upload.forget()
            self._wait_on(now_s)
            self._connection.write(framed)

    def client_end(self, trailers: Fields, now_s: float) -> None:
        """Hear that the request's body is whole."""
        upload = self.upload
        if self.phase is Phase.SETTLED or upload is None or self._body_ended:
            return
        if not upload.end(trailers):
            self._leave(Failure.BAD_REQUEST, "the body is shorter than it says", now_s)
            return
        self._body_ended = True
        if self._connection is not None:
            self._wait_on(now_s)
            if upload.last_bytes:
                self._connection.write(upload.last_bytes)

    def client_gone(self, now_s: float) -> None:
        """Hear that the client left; the attempt is cancelled and nobody is blamed."""
        if self.phase is Phase.TUNNEL:
            self.upstream_end(NO_FIELDS, now_s)  # either side may end a tunnel; it is no failure
        else:
            self.client_failed(Failure.CLIENT_GONE, "the client left", now_s)

    def client_failed(self, failure: Failure, detail: str, now_s: float) -> None:
        """Hear that what the client sends cannot be read any further."""
        if self.phase is not Phase.SETTLED:
            self._leave(failure, detail, now_s)

    def client_paused(self) -> None:
        """Hear that the client does not take more for now: the answer is read no further."""
        self._client_writable = False
        if self.phase >= Phase.RELAYING and self._connection is not None:
            self._connection.pause_reading()

    def client_resumed(self, now_s: float) -> None:
        """Hear that the client takes more again."""
        self._client_writable = True
        if self.phase >= Phase.RELAYING and self._connection is not None:
            self._wait_on(now_s)
            self._connection.resume_reading()

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
            self._wait_on(now_s)
            self.client.resume_reading()  # even if its body is here: it must be seen to leave

    def upstream_interim(self, status: int, fields: Fields) -> None:
        """Relay an interim answer, 100 or 103."""
        self.client.send_interim(status, interim_fields(fields))

    def upstream_head(self, head: AnswerHead, now_s: float) -> None:
        """Take the head of the final answer."""
        # :: Station 7: Judge -- an answer
        if head.status in self.target.statuses:
            if self._leaves_for_another(head.status, now_s):
                return
        else:
            self.attempts.praise_trial(now_s)
        # :: Station 8: Relay and settle -- from here on there is no way back
        self.phase = Phase.RELAYING
        if self.upload is not None:
            self.upload.forget()
        self.answered_at_s = now_s
        self.status = head.status
        if not head.has_date:
            head.fields.append((b"Date", self.engine.http_date()))
        self._wait(now_s + self.target.idle_s)
        if not self._client_writable and self._connection is not None:
            self._connection.pause_reading()
        self.client.send_head(head)

    def upstream_switched(self, head: AnswerHead, now_s: float) -> None:
        """Take a 101: from here on both directions are bytes without an end of their own."""
        self.attempts.praise_trial(now_s)
        self.phase = Phase.TUNNEL
        self.answered_at_s, self.status = now_s, head.status
        self._body_ended, self.upload = False, tunnel_upload()
        self._limit_s = inf
        self._wait_on(now_s)
        if not self._client_writable:
            self.client_paused()
        self.client.send_head(head)

    def _leaves_for_another(self, status: int, now_s: float) -> bool:
        """Blame a retriable status; True if the request is on its way to another instance."""
        attempts = self.attempts
        attempts.blame(Failure.RETRIABLE_STATUS, f"the instance answered {status}", now_s)
        if not self._may_send_again(Failure.RETRIABLE_STATUS):
            return False
        member = attempts.take_next(now_s, at_most=self.target.attempts)
        if member is None:
            return False  # nobody else may be asked: the answer goes to the client as it is
        self._drop_connection()
        self._attempt(member, now_s, is_fresh=False)
        return True

    def upstream_body(self, chunk: bytes, now_s: float) -> None:
        """Take a piece of the answer's body."""
        self.sent_bytes += len(chunk)
        self._wait(now_s + self.target.idle_s)
        self.client.send_body(chunk)

    def upstream_end(self, trailers: Fields, now_s: float) -> None:
        """Hear that the answer is whole."""
        self.attempts.praise(now_s)
        connection, self._connection = self._connection, None
        assert connection is not None
        # An answer that came before the request was read leaves the connection in the middle of it.
        connection.finish(is_reusable=self._body_ended and self._upstream_writable)
        self._settle(now_s)
        self.client.send_end(trailer_fields(trailers))

    def upstream_failed(self, failure: Failure, detail: str, now_s: float) -> None:
        """Hear that the attempt failed; its connection is gone already."""
        self._connection = None
        if failure is Failure.DISCONNECTED_EARLY and not self._body_ended:
            failure = Failure.SEND_FAILED
        self._judge(failure, detail, now_s)

    # --- Station 7: Judge ------------------------------------------------------------------------

    def _judge(self, failure: Failure, detail: str, now_s: float) -> None:
        # :: Station 7: Judge -- a failure
        attempts, is_relaying = self.attempts, self.phase >= Phase.RELAYING
        if is_relaying:
            failure = Failure.UPSTREAM_BROKE_OFF
        attempts.blame(failure, detail, now_s)
        attempts.end()
        if is_relaying:
            self._abort(failure, detail, now_s)
        elif not self._may_send_again(failure):
            self._give_up(failure, detail, now_s)
        elif failure is Failure.STALE_CONNECTION and (same := attempts.take_same_again(now_s)):
            self._attempt(same, now_s, is_fresh=True)
        else:
            self._next_attempt(now_s)

    def _may_send_again(self, failure: Failure) -> bool:
        return may_send_again(
            VERDICTS[failure].again,
            anything_sent=self._anything_sent,
            is_idempotent=self.is_repeatable,
            body_is_kept=self.upload is None or self.upload.is_kept,
        )

    # --- The clock tells -------------------------------------------------------------------------

    def expire(self, now_s: float) -> None:
        """Hear that the deadline has passed."""
        wait = Wait(
            phase=self.phase,
            has_whole_request=self._body_ended,
            client_takes_more=self._client_writable,
            instance_takes_more=self._upstream_writable,
            is_over_limit=now_s >= self._limit_s,
        )
        failure, detail = wait.failure()
        if VERDICTS[failure].side is Side.UPSTREAM:
            self._drop_connection()
            self._judge(failure, detail, now_s)
        else:
            self._leave(failure, detail, now_s)

    def _wait(self, until_s: float) -> None:
        limit_s = self._limit_s
        self.deadline_s = until_s if until_s < limit_s else limit_s  # noqa: FURB136 -- hot path

    def _wait_on(self, now_s: float) -> None:
        """Wait anew, because something moved: for the answer, or for more of the request."""
        target = self.target
        if self.phase >= Phase.RELAYING:
            self._wait(now_s + target.idle_s)
        else:
            self._wait(now_s + (target.response_s if self._body_ended else target.client_idle_s))

    # --- Ends ------------------------------------------------------------------------------------

    def break_down(self, now_s: float) -> None:
        """End because of a mistake of ours; whoever caught the error lets it surface."""
        if self.phase is not Phase.SETTLED:
            self._leave(Failure.INTERNAL_ERROR, "the gateway's log says more", now_s)

    def _leave(self, failure: Failure, detail: str, now_s: float) -> None:
        """End because of the client: nobody else is blamed."""
        self._drop_connection()
        if self.phase >= Phase.RELAYING or failure is Failure.CLIENT_GONE:
            self._abort(failure, detail, now_s)
        else:
            self._give_up(failure, detail, now_s)

    def _give_up(self, failure: Failure, detail: str, now_s: float) -> None:
        fleet = self.target.fleet if self.is_routed else None
        self._refuse(failure, detail, come_again(failure, fleet, now_s), now_s)

    def _refuse(self, failure: Failure, detail: str, extra: Fields, now_s: float) -> None:
        """Answer in the gateway's own name."""
        date = (b"Date", self.engine.http_date())
        head, body = refuse(failure, detail, self.request, extra=[*extra, date])
        self.status = head.status
        self.sent_bytes = len(body)
        self._settle(now_s, failure, detail)
        self.client.send_head(head)
        if body:
            self.client.send_body(body)
        self.client.send_end(NO_FIELDS)
        self.client.flush()

    def _abort(self, failure: Failure, detail: str, now_s: float) -> None:
        self._settle(now_s, failure, detail)
        self.client.abort()

    def _settle(self, now_s: float, failure: Failure | None = None, detail: str = "") -> None:
        self.phase = Phase.SETTLED
        self.failure, self.detail = failure, detail
        self.deadline_s = inf
        self.engine.deadlines.watched.discard(self)
        if self.is_routed:
            self.attempts.end()
        self.engine.observer.settled(self, now_s)

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        elif self.phase is Phase.CONNECTING:
            self.attempts.member.pool.abandon(self)
