"""Asking a second instance when the first takes long, and taking the answer that comes first.

A few answers out of a hundred take much longer than the rest, mostly by chance; another instance
would have answered meanwhile. A Hedge is that second attempt: towards its connection it stands for
the Exchange, and when it is the first to have an answer, the Exchange goes on with it.

        the first answers before `after`         ──▶ there is no Hedge
        the first answers, or the client leaves  ──▶ the Hedge is dropped, nobody is blamed
        the Hedge has a good answer first        ──▶ the first is dropped, nobody is blamed
        the first fails                          ──▶ the Exchange goes on with the Hedge
        the Hedge fails                          ──▶ it is blamed, and the first is waited for

Only for what may be sent twice and has no body, and each one counts against the Budget.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from gateway.core.failover import failure_of
from gateway.core.failure import Failure
from gateway.core.latencies import Latencies
from gateway.core.message import AnswerHead, Fields
from gateway.core.policy import Hedge as HedgePolicy
from gateway.core.policy import RetryPolicy
from gateway.proxy.attempts import Beside
from gateway.proxy.load import Load
from gateway.proxy.phase import Phase
from gateway.proxy.sides import Connection
from gateway.proxy.tunnel import Tunnel

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange

_ENOUGH_LATENCIES: Final = 50


class Hedging:
    """When one route hedges."""

    __slots__ = ("_after", "_load", "_policy")

    def __init__(self, after: HedgePolicy, policy: RetryPolicy, load: Load) -> None:
        self._after = after
        self._policy = policy
        self._load = load

    @property
    def after_s(self) -> float | None:
        """After how long a second instance is asked now, None as long as nobody can know."""
        if self._after.quantile is None:
            return self._after.after_s
        latencies = self._load.latencies
        if latencies.count < _ENOUGH_LATENCIES:
            return None
        return latencies.quantile_s(self._after.quantile)

    def watch(self, exchange: Exchange, now_s: float) -> None:
        """See to it that a request that has just been sent is hedged if it takes too long."""
        request = exchange.request
        may_be_sent_twice = request.length == 0 and exchange.target.may_repeat(request)
        if request.upgrade or not may_be_sent_twice or exchange.hedge is not None:
            return
        after_s = self.after_s
        if after_s is not None:
            exchange.engine.deadlines.alarms.set(
                now_s + after_s,
                partial(self._ask_another, exchange, exchange.connection),
                break_down=exchange.break_down,
            )

    def _ask_another(self, exchange: Exchange, connection: Connection | None, now_s: float) -> None:
        """Ask another instance, if an answer is still waited for on the same connection."""
        policy, budget = self._policy, self._load.budget
        if exchange.phase is not Phase.SENDING or exchange.connection is not connection:
            return
        if not budget.has_room(now_s, share=policy.budget, per_s=policy.budget_min):
            return
        beside = exchange.attempts.take_beside(now_s, at_most=policy.attempts)
        if beside is not None:
            budget.spend(now_s, share=policy.budget, per_s=policy.budget_min)
            exchange.hedge = hedge = Hedge(exchange, beside, self._load.latencies)
            hedge.begin(now_s)


class Hedge:
    """One second attempt; towards pool and connection it has the face of an Exchange."""

    __slots__ = (
        "_beside",
        "_connection",
        "_exchange",
        "_has_won",
        "_latencies",
        "_sent_at_s",
        "anything_sent",
        "client",
        "is_repeatable",
        "request",
    )

    def __init__(self, exchange: Exchange, beside: Beside, latencies: Latencies) -> None:
        self.request = exchange.request
        self.client = exchange.client
        self.is_repeatable = True
        self._exchange = exchange
        self._beside = beside
        self._latencies = latencies
        self._connection: Connection | None = None
        self._has_won = False
        self._sent_at_s = 0.0
        self.anything_sent = True

    def __repr__(self) -> str:
        return f"<Hedge {self._beside.member.instance.key}, has won: {self._has_won}>"

    @property
    def is_under_way(self) -> bool:
        """Whether the request is on its way to the second instance."""
        return self._connection is not None

    @property
    def deadline_s(self) -> float:
        """Until when the Exchange waits."""
        return self._exchange.deadline_s

    @property
    def tunnel(self) -> Tunnel:
        """What bytes pass through once the protocol has switched."""
        return self._exchange.tunnel

    def begin(self, now_s: float) -> None:
        """Get a connection, and send."""
        connection = self._beside.member.pool.acquire(self, now_s)
        if connection is not None:
            self.upstream_ready(connection, now_s)

    def takes_over(self, now_s: float) -> bool:
        """Take the place of the first one, which has failed; False if it is not there yet."""
        if self._connection is None:
            self.drop()
            return False
        self._win(self._connection, now_s)
        return True

    def drop(self) -> None:
        """End because it is not needed: nobody is blamed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        else:
            self._beside.member.pool.abandon(self)
        self._exchange.attempts.put_back(self._beside, was_sent=connection is not None)
        self._exchange.hedge = None

    def _win(self, connection: Connection, now_s: float) -> None:
        self._has_won = True
        self._exchange.hedge = None
        self._exchange.attempts.change_over(self._beside, self.request, now_s)
        self._exchange.goes_on_with(connection, self._sent_at_s)

    # --- The instance tells ----------------------------------------------------------------------

    def upstream_ready(self, connection: Connection, now_s: float) -> None:
        """Hear that a connection stands; the request goes out on it."""
        self._connection, self._sent_at_s = connection, now_s
        exchange = self._exchange
        instance, closing = self._beside.member.instance, exchange.closing_lines(now_s)
        connection.begin(self, exchange.target.head(self.request, instance, closing))

    def upstream_head(self, head: AnswerHead, now_s: float) -> None:
        """Take the head of an answer: a good one before the first has any wins."""
        if self._is_taken(head, now_s):
            self._exchange.upstream_head(head, now_s)

    def upstream_answer(self, head: AnswerHead, body: bytes, now_s: float) -> None:
        """Take a whole answer: as above."""
        if self._is_taken(head, now_s):
            self._exchange.upstream_answer(head, body, now_s)

    def _is_taken(self, head: AnswerHead, now_s: float) -> bool:
        """Judge an answer by its head; True if the Exchange goes on with it."""
        exchange, connection = self._exchange, self._connection
        if self._has_won:
            return True
        assert connection is not None
        if head.status in exchange.target.statuses:
            connection.abort()
            self.upstream_failed(
                failure_of(head.status), f"the instance answered {head.status}", now_s
            )
            return False
        exchange.drop_connection()
        # The first has taken so long at least. Were only the second counted, the service would look
        # faster than it is, and more and more of its requests would be hedged.
        self._latencies.add(now_s - exchange.attempts.owed_since_s)
        self._win(connection, now_s)
        return True

    def upstream_failed(self, failure: Failure, detail: str, now_s: float) -> None:
        """Hear that it failed; the first one is waited for."""
        exchange = self._exchange
        if self._has_won:
            exchange.upstream_failed(failure, detail, now_s)
            return
        exchange.hedge = None
        exchange.attempts.blame_beside(self._beside, failure, detail, exchange.request, now_s)

    def upstream_interim(self, status: int, fields: Fields, now_s: float) -> None:
        """Relay an interim answer, once it is clear whose answer is taken."""
        if self._has_won:
            self._exchange.upstream_interim(status, fields, now_s)

    def upstream_body(self, chunk: bytes, now_s: float) -> None:
        """Relay a piece of the body."""
        self._exchange.upstream_body(chunk, now_s)

    def upstream_end(self, trailers: Fields, now_s: float) -> None:
        """Relay the end of the answer."""
        self._exchange.upstream_end(trailers, now_s)

    def upstream_switched(self, head: AnswerHead, now_s: float) -> None:
        """Take a switch of protocols that nobody asked for; the connection checks that."""
        raise AssertionError(f"a hedged request offers no upgrade: {head!r} at {now_s}")

    def upstream_paused(self) -> None:
        """Hear that the instance takes no more for now: there is no body to hold back."""

    def upstream_resumed(self, now_s: float) -> None:
        """Hear that the instance takes more again."""

    def break_down(self, now_s: float) -> None:
        """End because of a mistake of ours."""
        self._exchange.break_down(now_s)
