"""Whose fault it is that something took too long."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from gateway.core.failure import Failure
from gateway.proxy.phase import Phase, Wait

WAITING = [Phase.CONNECTING, Phase.SENDING, Phase.RELAYING, Phase.TUNNEL]


def wait(phase: Phase, **facts: Any) -> Wait:
    usual: dict[str, Any] = {
        "has_whole_request": True,
        "client_takes_more": True,
        "instance_takes_more": True,
        "is_over_limit": False,
    }
    return Wait(phase=phase, **{**usual, **facts})


@pytest.mark.parametrize(
    ("waited", "failure"),
    [
        (wait(Phase.CONNECTING), Failure.CONNECT_TIMEOUT),
        (wait(Phase.CONNECTING, has_whole_request=False), Failure.CONNECT_TIMEOUT),
        (wait(Phase.SENDING), Failure.HEAD_TIMEOUT),
        (wait(Phase.SENDING, has_whole_request=False), Failure.REQUEST_TIMEOUT),
        (
            wait(Phase.SENDING, has_whole_request=False, instance_takes_more=False),
            Failure.SEND_TIMEOUT,
        ),
        (wait(Phase.CONNECTING, is_held_back=True), Failure.CONNECT_TIMEOUT),
        (wait(Phase.SENDING, is_held_back=True), Failure.CONTINUE_TIMEOUT),
        (wait(Phase.SENDING, is_held_back=True, is_over_limit=True), Failure.CONTINUE_TIMEOUT),
        (
            wait(Phase.SENDING, is_held_back=True, is_over_limit=True, is_limit_of_client=True),
            Failure.CLIENT_DEADLINE,
        ),
        (wait(Phase.RELAYING, is_held_back=True), Failure.UPSTREAM_BROKE_OFF),
        (wait(Phase.RELAYING), Failure.UPSTREAM_BROKE_OFF),
        (wait(Phase.RELAYING, client_takes_more=False), Failure.CLIENT_GONE),
        (wait(Phase.RELAYING, has_whole_request=False), Failure.REQUEST_TIMEOUT),
        (wait(Phase.TUNNEL, has_whole_request=False), Failure.TUNNEL_IDLE),
        (wait(Phase.CONNECTING, is_over_limit=True), Failure.REQUEST_DEADLINE),
        (wait(Phase.QUEUED), Failure.OVER_CAPACITY),
        (wait(Phase.QUEUED, is_over_limit=True), Failure.OVER_CAPACITY),
        (wait(Phase.QUEUED, has_whole_request=False), Failure.OVER_CAPACITY),
        (wait(Phase.BACKING_OFF, is_over_limit=True), Failure.REQUEST_DEADLINE),
        (
            wait(Phase.SENDING, is_over_limit=True, is_limit_of_client=True),
            Failure.CLIENT_DEADLINE,
        ),
        (wait(Phase.SENDING, is_over_limit=True), Failure.REQUEST_DEADLINE),
        (wait(Phase.RELAYING, is_over_limit=True), Failure.REQUEST_DEADLINE),
        (
            wait(
                Phase.SENDING,
                has_whole_request=False,
                instance_takes_more=False,
                is_over_limit=True,
            ),
            Failure.REQUEST_DEADLINE,
        ),
    ],
)
def test_the_one_that_was_waited_for_is_to_blame(waited: Wait, failure: Failure) -> None:
    assert waited.failure()[0] is failure


def test_a_slow_client_is_never_the_fault_of_an_instance() -> None:
    answers = [True, False]
    for phase, over, takes in product((Phase.SENDING, Phase.RELAYING), answers, answers):
        failure, _ = wait(
            phase, has_whole_request=False, is_over_limit=over, client_takes_more=takes
        ).failure()

        assert failure in {Failure.REQUEST_TIMEOUT, Failure.CLIENT_GONE}


def test_every_wait_has_a_failure_with_words() -> None:
    facts = ("has_whole_request", "client_takes_more", "instance_takes_more", "is_over_limit")
    for phase in WAITING:
        for values in product([True, False], repeat=len(facts)):
            _, detail = wait(phase, **dict(zip(facts, values, strict=True))).failure()

            assert detail
