"""Requests and answers before anything is known of them."""

from __future__ import annotations

from gateway.core.message import UNKNOWN_PEER, AnswerHead, Request


def test_a_new_request_has_no_body_and_comes_from_nobody_who_is_trusted() -> None:
    request = Request(b"GET", b"/", query=b"", fields=[], host=b"")

    assert (0, False) == (request.length, request.declares_length)
    assert request.peer is UNKNOWN_PEER
    assert not request.peer.is_trusted


def test_they_show_what_they_are_without_query_and_fields() -> None:
    """What is secret stands in queries and fields; a repr ends up in logs."""
    fields = [(b"Authorization", b"secret")]
    request = Request(b"GET", b"/caf%C3%A9", query=b"?token=secret", fields=fields, host=b"a")
    head = AnswerHead(200, b"OK", fields)

    assert repr(request) == "<Request GET /caf%C3%A9>"
    assert repr(head) == "<AnswerHead 200, length None>"
