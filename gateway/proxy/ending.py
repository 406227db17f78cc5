"""How an Exchange ends: with an answer of the gateway's own, cut short, or well; always once.

What every end has in common stands here, beside the state that outlives it: the log reads that of
an Exchange that is over. How an Exchange gets there is told in `gateway.proxy.exchange`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from gateway.core.failure import ABOUT_THE_REQUEST, Failure
from gateway.core.message import Fields, Request
from gateway.proxy.admission import Admission
from gateway.proxy.attempts import Attempts
from gateway.proxy.hedging import Hedge
from gateway.proxy.phase import Phase
from gateway.proxy.refusal import come_again, refuse, say
from gateway.proxy.sides import ClientSide, Connection
from gateway.proxy.target import Target
from gateway.proxy.upload import Upload

if TYPE_CHECKING:
    from gateway.proxy.engine import Engine

# Looked up once: a member of an Enum costs as much as a small call.
_, _, _, _, _, _, _RELAYING, _, _SETTLED = Phase


class Ending(ABC):
    """What an Exchange is when it is over, and the ways to get there.

    `failure` is why it did not go well, None if it did; `detail` says more, also while it waits.
    `status` is what the client was told, 0 for nothing. `connection` is the one that carries the
    request just now, None while there is none. `target` and `attempts` exist once
    `is_routed`. An Exchange sets all of it when it is made: one call for each request, not two.
    """

    __slots__ = (
        "admission",
        "answered_at_s",
        "attempts",
        "client",
        "connection",
        "deadline_s",
        "detail",
        "engine",
        "failure",
        "hedge",
        "is_routed",
        "phase",
        "request",
        "sent_bytes",
        "status",
        "target",
        "upload",
    )

    engine: Engine
    request: Request
    client: ClientSide
    connection: Connection | None
    phase: Phase
    deadline_s: float
    target: Target
    attempts: Attempts
    is_routed: bool
    failure: Failure | None
    detail: str
    status: int
    answered_at_s: float
    sent_bytes: int
    admission: Admission | None
    hedge: Hedge | None
    upload: Upload | None

    def reject(self, failure: Failure, detail: str, now_s: float) -> None:
        """End at Station 1, for a reason that the face found; called in place of `begin`."""
        self.request.started_at_s = now_s
        self.give_up(failure, detail, now_s)

    def break_down(self, now_s: float) -> None:
        """End because of a mistake of ours; whoever caught the error lets it surface."""
        self.client_failed(Failure.INTERNAL_ERROR, "the gateway's log says more", now_s)

    def client_failed(self, failure: Failure, detail: str, now_s: float) -> None:
        """Hear that what the client sends cannot be read any further."""
        if self.phase is not _SETTLED:
            self._leave(failure, detail, now_s)

    def _leave(self, failure: Failure, detail: str, now_s: float) -> None:
        """End because of the client: nobody else is blamed."""
        self.drop_connection()
        if self.phase >= _RELAYING or failure is Failure.CLIENT_GONE:
            self.abort(failure, detail, now_s)
        else:
            self.give_up(failure, detail, now_s)

    def give_up(self, failure: Failure, detail: str, now_s: float) -> None:
        """Answer with a failure: nothing else can be done."""
        fleet = self.target.fleet if self.is_routed else None
        self._refuse(failure, detail, come_again(failure, fleet, now_s), now_s)

    def _refuse(self, failure: Failure, detail: str, extra: Fields, now_s: float) -> None:
        """Answer in the gateway's own name."""
        engine = self.engine
        date = (b"Date", engine.http_date())
        is_told = engine.tells_details or failure in ABOUT_THE_REQUEST
        told = detail if is_told else ""
        head, body = refuse(failure, told, self.request, extra=[*extra, date])
        self.status = head.status
        self.sent_bytes = len(body)
        self._settle(now_s, failure, detail)
        say(self.client, head, body)

    def abort(self, failure: Failure, detail: str, now_s: float) -> None:
        """Cut the client off, so that it can tell that the answer is not whole."""
        self._settle(now_s, failure, detail)
        self.client.abort()

    def _settle(self, now_s: float, failure: Failure | None = None, detail: str = "") -> None:
        """Be over, and let it be known, once."""
        self.phase = _SETTLED
        self.failure = failure
        self.detail = detail
        self.engine.deadlines.watched.discard(self)
        if self.is_routed:
            if self.hedge is not None:
                self.hedge.drop()
            if self.attempts.is_in_hand:
                self.attempts.end()
        self.engine.observer.settled(self, now_s)
        if self.admission is not None:
            self._make_room(now_s)

    def _make_room(self, now_s: float) -> None:
        """Give up the place under the limits; whoever waits for it may begin."""
        admission, self.admission = self.admission, None
        if admission is not None:
            admission.leave(now_s)

    @abstractmethod
    def drop_connection(self) -> None:
        """Let go of the instance in the middle, or of the wait for it."""
