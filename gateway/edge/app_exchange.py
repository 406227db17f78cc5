"""One request that an app of this process answers, in the place of an instance.

To the client's side it is an Exchange like any other, so that framing, order, keep-alive and the
log are the same. To the app it is the `receive` and `send` of ASGI. The app runs as one task.

          begin           first body, or a turn of the loop later          last body
    NEW ────────▶ SENDING ─────────────────────────────────────▶ RELAYING ───────────▶ SETTLED

The head is held until then, so that it leaves with the body, and so that an app that fails between
the two can still be answered for. When it is SETTLED in another way than by a whole answer, the app
is told (`http.disconnect`, and ClientLeftError from `send`) and gets a moment to end by itself.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from math import inf
from typing import TYPE_CHECKING, Final

import structlog

from gateway.core.failure import Failure
from gateway.core.message import NO_FIELDS, AnswerHead, Fields
from gateway.edge.app_answer import AppMistakeError, read_body, read_start
from gateway.edge.app_scope import http_scope
from gateway.edge.asgi import AnswerBrokenOffError, Message, Scope
from gateway.edge.inbox import Inbox
from gateway.proxy.attempts import Attempts
from gateway.proxy.exchange import Exchange
from gateway.proxy.phase import Phase, Wait
from gateway.proxy.target import remove_fields
from gateway.proxy.upload import Upload

if TYPE_CHECKING:
    from gateway.edge.mounts import Mounted

_log = structlog.get_logger()

# Where the scope says which Exchange a request through middleware belongs to.
EXCHANGE_KEY = "gateway.exchange"
_MOMENT_S = 2.0
# A response of an app is written in pieces of this size, as long as the client takes them.
_MOST_AT_ONCE_BYTES: Final = 16 * 1024


class ClientLeftError(OSError):
    """Tells an app that nobody listens any more (ASGI HTTP 2.4)."""


class AppExchange(Exchange):
    """The state of one request with an app. Made of the Exchange that came to the app's route.

    `proxied` is the Exchange inside of the route's middleware, None until there is one.
    """

    def __init__(self, begun: Exchange, mounted: Mounted) -> None:
        super().__init__(begun.engine, begun.request, begun.client)
        self.target = mounted.target
        self.attempts = Attempts(
            self.target.fleet, self.engine.random, self.engine.observer, self.request
        )
        self.is_routed = True
        self.proxied: Exchange | None = None
        self._mounted = mounted
        self._clock = mounted.clock
        # What comes over the connection next must not run in the context of this app.
        self._context = copy_context()
        self._inbox = Inbox(is_whole=self._body_ended)
        self._may_send = asyncio.Event()
        self._may_send.set()
        self._held_head: AnswerHead | None = None
        self._left_bytes: float = inf
        self._has_body = True
        self._is_over_length = False
        self._is_cut = False
        self._owes_continue = not self._body_ended and _expects_continue(self.request.fields)
        self._task: asyncio.Task[None] | None = None

    def begin(self, now_s: float) -> None:
        """Start the app; Stations 1 and 2 are behind the request."""
        request, mounted = self.request, self._mounted
        self.engine.deadlines.watched.add(self)
        self._limit_s = now_s + mounted.request_s
        if not self._body_ended:
            limit = self.target.max_body_bytes
            self.upload = Upload(request.length, buffer_bytes=0, max_bytes=limit)
            self.upload.forget()
        if (problem := self.target.problem(request)) is not None:
            self.give_up(*problem, now_s)
            return
        if request.body:
            self._inbox.put(request.body)
            self.upload, request.body = Upload.gone(len(request.body)), b""
        # :: Station 3: Filter
        # What is inside of middleware believes what it is told.
        is_believed = request.peer.is_trusted
        removed = self.target.route.removed_fields if is_believed else self.target.removed
        if removed:
            remove_fields(request, removed)
        scope = http_scope(request, self.target.route, mounted.state)
        scope[EXCHANGE_KEY] = self
        # :: Station 6: Forward -- to the app
        self.phase = Phase.SENDING
        self._wait_on(now_s)
        self._task = mounted.spawn(self._run(scope), name=f"app:{self.target.route.id}")
        self._task.add_done_callback(self._app_is_done)

    # --- The client tells ------------------------------------------------------------------------

    def client_body(self, chunk: bytes, now_s: float) -> None:
        """Take a piece of the request's body."""
        upload = self.upload
        if self.phase is Phase.SETTLED or upload is None:
            return
        upload.add(chunk)
        if (problem := upload.problem()) is not None:
            self._leave(*problem, now_s)
            return
        self._owes_continue = False
        self._inbox.put(chunk)
        self._wait_on(now_s)
        if self._inbox.is_full:
            self.client.pause_reading()

    def client_end(self, trailers: Fields, now_s: float) -> None:
        """Hear that the request's body is whole; apps are not told of trailers."""
        upload = self.upload
        if self.phase is Phase.SETTLED or upload is None or self._body_ended:
            return
        if not upload.end(trailers):
            self._leave(Failure.BAD_REQUEST, "the body is shorter than it says", now_s)
            return
        self._body_ended = True
        self._inbox.end()
        self._wait_on(now_s)
        self.client.resume_reading()  # it must be seen to leave

    def client_paused(self) -> None:
        """Hear that the client does not take more for now: the app has to wait."""
        super().client_paused()
        self._may_send.clear()

    def client_resumed(self, now_s: float) -> None:
        """Hear that the client takes more again."""
        super().client_resumed(now_s)
        self._may_send.set()
        if self.phase is not Phase.SETTLED:
            self._wait_on(now_s)

    # --- The app asks, and answers ---------------------------------------------------------------

    async def _receive(self) -> Message:
        message = await self._inbox.next(self._app_waits)
        if self.phase is not Phase.SETTLED:
            self.client.resume_reading()
            self._wait_on(self._clock())
        return message

    def _app_waits(self) -> None:
        if self._owes_continue:
            self._owes_continue = False
            self.client.send_interim(100, NO_FIELDS)
            self.client.flush()
        self._wait_on(self._clock())

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._expect_listener()
            self._hold_head(message)
            return
        chunk, has_more = read_body(message)
        await self._may_send.wait()
        self._expect_listener()
        self._expect_head(len(chunk), has_more=has_more)
        if len(chunk) > _MOST_AT_ONCE_BYTES:
            await self._relay_in_pieces(chunk)
        else:
            self._relay(chunk)
        if not has_more:
            self._end()
        self.client.flush()

    def _expect_listener(self) -> None:
        if self.phase is Phase.SETTLED:
            if self._is_cut:
                raise ClientLeftError(self.detail)
            raise AppMistakeError("the answer is whole already")

    def _hold_head(self, message: Message) -> None:
        if self._held_head is not None or self.phase is Phase.RELAYING:
            raise AppMistakeError("an answer has one http.response.start")
        self._held_head, closes = read_start(message, self.request.method)
        if closes:
            self.client.shutdown()
        asyncio.get_running_loop().call_soon(self._let_head_go)

    def _let_head_go(self) -> None:
        if self._held_head is not None and self.phase is Phase.SENDING:
            self._send_head(self._held_head)
            self.client.flush()

    def _send_head(self, head: AnswerHead) -> None:
        # :: Station 8: Relay and settle -- from here on there is no way back
        self._held_head = None
        self._owes_continue = False  # behind a head a 100 would be part of the body
        self.phase = Phase.RELAYING
        self.status = head.status
        if not head.has_date:
            head.lines += b"\r\nDate: " + self.engine.http_date()
        self._has_body = head.has_body
        if head.has_body and head.length is not None:
            self._left_bytes = head.length
        self._wait_on(self._clock())
        self.client.send_head(head)

    async def _relay_in_pieces(self, chunk: bytes) -> None:
        """Pass a large piece on bit by bit: the app holds it anyway, so little is held beside."""
        for start in range(0, len(chunk), _MOST_AT_ONCE_BYTES):
            await self._may_send.wait()
            self._expect_listener()
            self._relay(chunk[start : start + _MOST_AT_ONCE_BYTES])
            self.client.flush()

    def _expect_head(self, size_bytes: int, *, has_more: bool) -> None:
        """Let the head go in front of so much body, with its length if that is all."""
        if (head := self._held_head) is not None:
            if not has_more and head.has_body and head.length is None:
                head.length = size_bytes
                head.lines += b"\r\nContent-Length: %d" % head.length
            self._send_head(head)
        elif self.phase is not Phase.RELAYING:
            raise AppMistakeError("a body needs http.response.start before it")

    def _relay(self, chunk: bytes) -> None:
        if not self._has_body:
            return
        if len(chunk) > self._left_bytes:
            if not self._is_over_length:
                self._is_over_length = True
                self._tell("its body is longer than its Content-Length, and was cut there")
            chunk = chunk[: int(self._left_bytes)]
        if chunk:
            self._left_bytes -= len(chunk)
            self.sent_bytes += len(chunk)
            self._wait_on(self._clock())
            self.client.send_body(chunk)

    def _end(self) -> None:
        now_s, proxied = self._clock(), self.proxied
        has_begun = proxied is not None and proxied.answered_at_s and proxied.status == self.status
        if proxied is not None and proxied.failure is not None and has_begun:
            # Middleware has taken the end of what broke off for the end of the answer.
            self._leave(proxied.failure, proxied.detail, now_s)
            return
        if 0 < self._left_bytes < inf:
            self._fail("its body is shorter than its Content-Length", now_s)
            return
        self._settle(now_s)
        self._context.run(self.client.send_end, NO_FIELDS)

    # --- The app ends ----------------------------------------------------------------------------

    async def _run(self, scope: Scope) -> None:
        try:
            await self._mounted.app(scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is told with its traceback
            self._context.run(self._app_raised, error)
        else:
            if self.phase is not Phase.SETTLED:
                self._context.run(self._fail, "it ended before its answer did", self._clock())

    def _app_raised(self, error: Exception) -> None:
        now_s, proxied = self._clock(), self.proxied
        if self.phase is Phase.SETTLED and self._is_cut:
            return  # it was told that nobody listens
        if proxied is not None and proxied.failure is not None and _is_broken_off(error):
            if self.phase is not Phase.SETTLED:  # the connection may have another request by now
                self._leave(proxied.failure, proxied.detail, now_s)
        elif self.phase is Phase.SETTLED:
            self._tell("it raised after its answer", error)
        else:
            self._fail("it raised an exception", now_s, error)

    def _app_is_done(self, task: asyncio.Task[None]) -> None:
        now_s = self._clock()
        if self.phase is not Phase.SETTLED:
            assert task.cancelled(), "whatever else ends an app is told before"
            self._fail("it was cancelled", now_s)
        self._task = None
        self.engine.deadlines.watched.discard(self)

    def _fail(self, why: str, now_s: float, error: Exception | None = None) -> None:
        """End because of the app: who asked is told little, the log all."""
        self._tell(why, error)
        self._leave(Failure.APP_FAILED, f"the app of this route failed: {why}", now_s)

    def _tell(self, why: str, error: Exception | None = None) -> None:
        request_id = self.request.request_id.decode("latin-1")
        route = self.target.route.id
        _log.error("app_failed", route=route, request_id=request_id, why=why, exc_info=error)

    # --- The clock tells -------------------------------------------------------------------------

    def expire(self, now_s: float) -> None:
        """Hear that the deadline has passed: of the request, or of the moment to end in."""
        if self.phase is Phase.SETTLED:
            self.deadline_s = inf
            if self._task is not None:
                self._task.cancel()
            return
        wait = Wait(
            phase=self.phase,
            has_whole_request=not self._inbox.is_awaited,
            client_takes_more=self._client_writable,
            instance_takes_more=True,
            is_over_limit=now_s >= self._limit_s,
        )
        failure, detail = wait.failure()
        if failure is Failure.UPSTREAM_BROKE_OFF:
            failure = Failure.APP_FAILED
        self._leave(failure, detail, now_s)

    def _wait_on(self, now_s: float) -> None:
        if self.phase >= Phase.RELAYING:
            self._wait(now_s + self._mounted.idle_s)
        elif self._inbox.is_awaited:
            self._wait(now_s + self.target.client_idle_s)
        else:
            self._wait(now_s + self._mounted.response_s)

    # --- Ends ------------------------------------------------------------------------------------

    def _settle(self, now_s: float, failure: Failure | None = None, detail: str = "") -> None:
        self._is_cut = failure is not None
        if (proxied := self.proxied) is not None:
            self.answered_at_s = proxied.answered_at_s
            if proxied.is_routed:
                self.attempts = proxied.attempts
            if failure is None and proxied.status == self.status:
                failure, detail = proxied.failure, proxied.detail
        super()._settle(now_s, failure, detail)
        self._inbox.leave()
        self._may_send.set()
        if self._is_cut and self._task is not None:
            self.deadline_s = now_s + _MOMENT_S
            self.engine.deadlines.watched.add(self)


def _expects_continue(fields: Fields) -> bool:
    return any(
        name.lower() == b"expect" and value.lower() == b"100-continue" for name, value in fields
    )


def _is_broken_off(error: BaseException) -> bool:
    """Tell whether this is the proxying inside that could not bring its answer to an end."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_broken_off, error.exceptions))
    return isinstance(error, AnswerBrokenOffError)
