"""The rule that keeps a payment from being made twice, case by case."""

from __future__ import annotations

from itertools import product

import pytest

from gateway.core.failover import (
    CONDITIONS,
    costs_budget,
    failure_of,
    failures_of,
    may_send_again,
)
from gateway.core.failure import VERDICTS, Again, Failure
from gateway.core.policy import RetryPolicy

BOOLS = (False, True)


@pytest.mark.parametrize("again", Again)
@pytest.mark.parametrize("body_is_kept", BOOLS)
def test_a_post_of_which_a_byte_may_have_left_is_never_sent_again(
    again: Again, *, body_is_kept: bool
) -> None:
    """RFC 9110 §9.2.2: what was sent may have been acted on, whatever came back."""
    assert not may_send_again(
        again, anything_sent=True, is_idempotent=False, body_is_kept=body_is_kept
    )


@pytest.mark.parametrize("again", [Again.ALWAYS, Again.IF_ALLOWED])
def test_a_post_of_which_nothing_left_goes_to_the_next_one(again: Again) -> None:
    assert may_send_again(again, anything_sent=False, is_idempotent=False, body_is_kept=True)


@pytest.mark.parametrize("again", [Again.ALWAYS, Again.IF_ALLOWED])
@pytest.mark.parametrize("anything_sent", BOOLS)
def test_a_get_goes_to_the_next_one_whatever_was_sent(again: Again, *, anything_sent: bool) -> None:
    assert may_send_again(again, anything_sent=anything_sent, is_idempotent=True, body_is_kept=True)


@pytest.mark.parametrize("again", Again)
@pytest.mark.parametrize(("anything_sent", "is_idempotent"), [*product(BOOLS, BOOLS)])
def test_a_body_that_was_let_go_cannot_be_sent_again(
    again: Again, *, anything_sent: bool, is_idempotent: bool
) -> None:
    assert not may_send_again(
        again, anything_sent=anything_sent, is_idempotent=is_idempotent, body_is_kept=False
    )


@pytest.mark.parametrize(
    "failure", [one for one in Failure if VERDICTS[one].again is Again.NEVER], ids=lambda f: f.value
)
@pytest.mark.parametrize(("anything_sent", "is_idempotent"), [*product(BOOLS, BOOLS)])
def test_some_failures_are_final_for_every_request(
    failure: Failure, *, anything_sent: bool, is_idempotent: bool
) -> None:
    assert not may_send_again(
        VERDICTS[failure].again,
        anything_sent=anything_sent,
        is_idempotent=is_idempotent,
        body_is_kept=True,
    )


# --- Conditions ----------------------------------------------------------------------------------


def test_every_failure_that_may_be_sent_again_belongs_to_one_condition() -> None:
    of_conditions = [failure for failures in CONDITIONS.values() for failure in failures]
    again = {one for one in Failure if VERDICTS[one].again is not Again.NEVER}

    assert len(of_conditions) == len(set(of_conditions))
    assert again == {*of_conditions, Failure.STALE_CONNECTION}


def test_the_default_is_all_of_them() -> None:
    assert RetryPolicy().on == set(CONDITIONS)


def test_a_stale_connection_is_always_among_them() -> None:
    assert failures_of(()) == {Failure.STALE_CONNECTION}
    assert failures_of(("status",)) == {
        Failure.STALE_CONNECTION,
        Failure.RETRIABLE_STATUS,
        Failure.TOO_MANY_REQUESTS,
    }


def test_what_no_instance_had_work_with_costs_nothing() -> None:
    free = {one for one in Failure if not costs_budget(one)}

    assert free == {*CONDITIONS["connect"], Failure.STALE_CONNECTION}


def test_a_429_is_a_failure_that_nobody_is_blamed_for() -> None:
    failures = [failure_of(status) for status in (429, 503)]

    assert failures == [Failure.TOO_MANY_REQUESTS, Failure.RETRIABLE_STATUS]
    assert [VERDICTS[failure].counts for failure in failures] == [False, True]
