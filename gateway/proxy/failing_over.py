"""What follows a failed attempt: the same request at another instance, or the end of it.

The one rule: nothing is sent again that may not be (`gateway.core.failover`), nor more of it than
the service's Budget has room for.

A request that has nowhere to go while another one tries whether an instance is back waits for the
outcome: instances that restart one after the other are gone for a moment only.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final

from gateway.core.backoff import backoff_s
from gateway.core.failover import costs_budget, failure_of, failures_of, may_send_again
from gateway.core.failure import VERDICTS, Failure
from gateway.core.fleet import Member
from gateway.core.message import AnswerHead
from gateway.core.policy import RetryPolicy
from gateway.core.retry_after import read_retry_after
from gateway.proxy.load import Load
from gateway.proxy.phase import Phase
from gateway.proxy.sides import ConnectionPool

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange

_NO_BUDGET = "and the service's budget of what may be sent again is used up"
_LOOK_EVERY_S: Final = 0.02
_REST_S: Final = 1.0  # after a 429 that does not say for how long
_LONGEST_WAIT_S: Final = 1.0
_MOST_WAITING: Final = 256


class Failover:
    """How one route fails over."""

    __slots__ = ("_budget", "_failures", "_load", "_policy")

    def __init__(self, policy: RetryPolicy, load: Load) -> None:
        self._policy = policy
        self._load = load
        self._budget = load.budget
        self._failures = failures_of(policy.on)

    def judge(self, exchange: Exchange, failure: Failure, detail: str, now_s: float) -> None:
        """Decide what follows an attempt that failed; its connection is gone."""
        # :: Station 7: Judge -- a failure
        attempts, is_relaying = exchange.attempts, exchange.phase >= Phase.RELAYING
        if is_relaying:
            failure = Failure.UPSTREAM_BROKE_OFF
        elif failure is Failure.REQUEST_DEADLINE and not _had_its_time(exchange, now_s):
            attempts.end()  # before there is any blame: it was others who took the time
        attempts.blame(failure, detail, exchange.request, now_s)
        attempts.end()
        if is_relaying:
            exchange.abort(failure, detail, now_s)
        elif exchange.hedge is not None and exchange.hedge.takes_over(now_s):
            return
        elif not self._may_send_again(exchange, failure):
            exchange.give_up(failure, detail, now_s)
        elif failure is Failure.STALE_CONNECTION and (same := attempts.take_same_again(now_s)):
            exchange.attempt_afresh(same, now_s)
        elif not self._can_pay(failure, now_s):
            exchange.give_up(failure, f"{detail}; {_NO_BUDGET}", now_s)
        else:
            self._go_elsewhere(exchange, failure, now_s + _LONGEST_WAIT_S, now_s)

    def leaves_for_another(self, exchange: Exchange, head: AnswerHead, now_s: float) -> bool:
        """Blame a retriable status; True if the request is on its way to another instance."""
        failure, attempts = failure_of(head.status), exchange.attempts
        detail = f"the instance answered {head.status}"
        attempts.blame(failure, detail, exchange.request, now_s)
        self._leave_alone(exchange, failure, head, now_s)
        if (hedge := exchange.hedge) is not None:
            if hedge.is_under_way:
                exchange.drop_connection()
                attempts.end()
                return hedge.takes_over(now_s)
            hedge.drop()  # its instance may be the one to go on to
        if not (self._may_send_again(exchange, failure) and self._can_pay(failure, now_s)):
            return False
        member = self._next(exchange, now_s)
        if member is None:
            return False  # nobody else may be asked: the answer goes to the client as it is
        exchange.drop_connection()
        self._go_on(exchange, member, failure, now_s)
        return True

    def waits_for_trial(self, exchange: Exchange, now_s: float) -> bool:
        """Let a request wait that has nowhere to go yet, if the trial of another may help it."""
        return self._waits(exchange, None, now_s + _LONGEST_WAIT_S, now_s)

    def _waits(
        self, exchange: Exchange, failure: Failure | None, until_s: float, now_s: float
    ) -> bool:
        load = self._load
        if now_s >= until_s or load.waiting >= _MOST_WAITING:
            return False
        if not exchange.attempts.may_be_helped(at_most=self._policy.attempts):
            return False
        load.waiting += 1
        exchange.hold(Phase.BACKING_OFF, inf)
        exchange.engine.deadlines.alarms.set(
            now_s + _LOOK_EVERY_S,
            partial(self._look_again, exchange, failure, until_s),
            break_down=exchange.break_down,
        )
        return True

    def _look_again(
        self, exchange: Exchange, failure: Failure | None, until_s: float, now_s: float
    ) -> None:
        self._load.waiting -= 1
        if exchange.phase is not Phase.BACKING_OFF:
            return
        if failure is None or self._can_pay(failure, now_s):
            self._go_elsewhere(exchange, failure, until_s, now_s)
        else:
            exchange.give_up(*exchange.attempts.verdict(now_s), now_s)

    def _go_elsewhere(
        self, exchange: Exchange, failure: Failure | None, until_s: float, now_s: float
    ) -> None:
        """Go to the next instance, or wait for one until then, or give up."""
        member = self._next(exchange, now_s)
        if member is not None:
            self._go_on(exchange, member, failure, now_s)
        elif not self._waits(exchange, failure, until_s, now_s):
            exchange.give_up(*exchange.attempts.verdict(now_s), now_s)

    def _may_send_again(self, exchange: Exchange, failure: Failure) -> bool:
        upload = exchange.upload
        return failure in self._failures and may_send_again(
            VERDICTS[failure].again,
            anything_sent=exchange.anything_sent,
            is_idempotent=exchange.target.may_repeat(exchange.request),
            body_is_kept=upload is None or upload.is_kept,
        )

    def _can_pay(self, failure: Failure, now_s: float) -> bool:
        policy, budget = self._policy, self._budget
        if not costs_budget(failure):
            return True
        has_room = budget.has_room(now_s, share=policy.budget, per_s=policy.budget_min)
        budget.refused += not has_room
        return has_room

    def _next(self, exchange: Exchange, now_s: float) -> Member[ConnectionPool] | None:
        policy, attempts = self._policy, exchange.attempts
        member = attempts.take_next(now_s, policy.attempts)
        if member is None and policy.repeat:
            member = attempts.take_again(now_s, policy.attempts)
        return member

    def _go_on(
        self,
        exchange: Exchange,
        member: Member[ConnectionPool],
        failure: Failure | None,
        now_s: float,
    ) -> None:
        policy, engine = self._policy, exchange.engine
        if failure is not None and costs_budget(failure):
            self._budget.spend(now_s, share=policy.budget, per_s=policy.budget_min)
        delay_s = backoff_s(
            len(exchange.attempts.failed),
            first_s=policy.backoff_s,
            longest_s=policy.max_backoff_s,
            chance=engine.random(),
        )
        if not delay_s:
            exchange.attempt(member, now_s)
            return
        exchange.hold(Phase.BACKING_OFF, inf)
        engine.deadlines.alarms.set(
            now_s + delay_s,
            partial(_attempt_late, exchange, member),
            break_down=exchange.break_down,
        )

    def _leave_alone(
        self, exchange: Exchange, failure: Failure, head: AnswerHead, now_s: float
    ) -> None:
        """Leave an instance alone for as long as it asks for, within reason."""
        longest_s = self._policy.max_retry_after_s
        if longest_s is None:
            return
        is_limit = failure is Failure.TOO_MANY_REQUESTS
        asked_s = read_retry_after(head.fields)
        if asked_s is None and is_limit:
            asked_s = _REST_S
        if asked_s:
            exchange.attempts.rest(
                exchange.request, now_s, for_s=min(asked_s, longest_s), was_failure=not is_limit
            )


def _had_its_time(exchange: Exchange, now_s: float) -> bool:
    """Tell whether the attempt in hand had much of the time that it could expect.

    One that came last, after a slow client or after an instance that hangs, had what they left.
    """
    target = exchange.target
    fair_s = min(target.response_s, target.request_s / 2)
    return now_s - exchange.attempts.owed_since_s >= fair_s


def _attempt_late(exchange: Exchange, member: Member[ConnectionPool], now_s: float) -> None:
    """Go on after a wait, unless the request is over meanwhile."""
    if exchange.phase is Phase.BACKING_OFF:
        exchange.attempts.owed_since_s = now_s
        exchange.attempt(member, now_s)
