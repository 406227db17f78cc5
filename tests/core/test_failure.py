"""The table of failures is total, and says what the design promises."""

from __future__ import annotations

import re

import pytest

from gateway.core.failure import CLIENT_GONE_STATUS, VERDICTS, Again, Failure, Side

_NEVER, _IF, _ALWAYS = Again.NEVER, Again.IF_ALLOWED, Again.ALWAYS

# Status, side, may it be sent again, does the Breaker count it: what operators and clients rely on.
PROMISES = {
    "bad_request": (400, Side.CLIENT, _NEVER, False),
    "headers_too_large": (431, Side.CLIENT, _NEVER, False),
    "uri_too_long": (414, Side.CLIENT, _NEVER, False),
    "body_too_large": (413, Side.CLIENT, _NEVER, False),
    "request_timeout": (408, Side.CLIENT, _NEVER, False),
    "no_route": (404, Side.CLIENT, _NEVER, False),
    "method_not_allowed": (405, Side.CLIENT, _NEVER, False),
    "not_implemented": (501, Side.GATEWAY, _NEVER, False),
    "draining": (503, Side.GATEWAY, _NEVER, False),
    "over_capacity": (503, Side.GATEWAY, _NEVER, False),
    "catalog_cold": (503, Side.GATEWAY, _NEVER, False),
    "no_instances": (503, Side.GATEWAY, _NEVER, False),
    "breakers_open": (503, Side.UPSTREAM, _NEVER, False),
    "all_unreachable": (503, Side.UPSTREAM, _NEVER, False),
    "dns_timeout": (504, Side.NOBODY, _ALWAYS, False),
    "no_local_port": (503, Side.GATEWAY, _ALWAYS, False),
    "connect_failed": (502, Side.UPSTREAM, _ALWAYS, True),
    "tls_failed": (502, Side.UPSTREAM, _ALWAYS, True),
    "connect_timeout": (504, Side.UPSTREAM, _ALWAYS, True),
    "send_failed": (502, Side.UPSTREAM, _IF, False),
    "send_timeout": (504, Side.UPSTREAM, _IF, True),
    "upload_stalled": (502, Side.NOBODY, _NEVER, False),
    "bad_response": (502, Side.UPSTREAM, _IF, True),
    "disconnected_early": (502, Side.UPSTREAM, _IF, True),
    "stale_connection": (502, Side.NOBODY, _IF, False),
    "head_timeout": (504, Side.UPSTREAM, _IF, True),
    "continue_timeout": (504, Side.NOBODY, _NEVER, False),
    "request_deadline": (504, Side.UPSTREAM, _NEVER, True),
    "client_deadline": (504, Side.NOBODY, _NEVER, False),
    "retriable_status": (None, Side.UPSTREAM, _IF, True),
    "too_many_requests": (None, Side.UPSTREAM, _IF, False),
    "upstream_broke_off": (None, Side.UPSTREAM, _NEVER, True),
    "tunnel_idle": (None, Side.NOBODY, _NEVER, False),
    "app_failed": (500, Side.GATEWAY, _NEVER, False),
    "client_gone": (None, Side.CLIENT, _NEVER, False),
    "internal_error": (500, Side.GATEWAY, _NEVER, False),
}


def test_every_failure_has_a_row_and_every_row_a_promise() -> None:
    assert set(Failure) == set(VERDICTS)
    assert {failure.value for failure in Failure} == set(PROMISES)


@pytest.mark.parametrize("failure", Failure, ids=lambda failure: failure.value)
def test_each_row_keeps_its_promise(failure: Failure) -> None:
    verdict = VERDICTS[failure]

    assert PROMISES[failure.value] == (
        verdict.status,
        verdict.side,
        verdict.again,
        verdict.counts,
    )


@pytest.mark.parametrize("failure", Failure, ids=lambda failure: failure.value)
def test_names_status_and_side_agree(failure: Failure) -> None:
    """A client is never told 5xx for its own mistake, nor 4xx for ours."""
    verdict = VERDICTS[failure]

    assert failure.name.lower() == failure.value
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", failure.value)
    assert verdict.status is None or (verdict.status < 500) == (verdict.side is Side.CLIENT)


@pytest.mark.parametrize("failure", Failure, ids=lambda failure: failure.value)
def test_only_what_an_instance_did_counts_for_its_breaker(failure: Failure) -> None:
    """A Breaker that hears of aborts or bad uploads is a weapon in the hand of clients."""
    verdict = VERDICTS[failure]

    assert not verdict.counts or verdict.side is Side.UPSTREAM


def test_what_shuts_out_no_only_instance_is_what_it_does_at_once() -> None:
    """A frozen instance, or one that refuses all, is better left alone; these cost no time."""
    has_closed = {failure.value for failure, verdict in VERDICTS.items() if verdict.has_closed}

    assert has_closed == {"bad_response", "disconnected_early", "upstream_broke_off"}


@pytest.mark.parametrize("failure", Failure, ids=lambda failure: failure.value)
def test_title_and_advice_can_be_shown(failure: Failure) -> None:
    verdict = VERDICTS[failure]

    assert re.fullmatch(r"[A-Z][^\n\"\\]*[^.\s]", verdict.title)
    assert re.fullmatch(r"[A-Z`a-z][^\n]*[.?]", verdict.advice)


def test_no_two_failures_have_the_same_title() -> None:
    assert len(Failure) == len({verdict.title for verdict in VERDICTS.values()})


def test_a_client_that_left_has_its_own_number_in_the_log() -> None:
    assert CLIENT_GONE_STATUS == 499
