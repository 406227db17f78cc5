"""Requests and answers before anything is known of them."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from gateway.core.message import UNKNOWN_PEER, AnswerHead, Fields, Peer, Request, lines_of
from gateway.core.peer import Listener, TrustedProxies

LISTENER = Listener(proxies=TrustedProxies((ip_network("10.0.0.0/8"),)))


def test_a_new_request_has_no_body_and_comes_from_nobody_who_is_trusted() -> None:
    request = Request(b"GET", b"/", b"", b"", b"")

    assert (0, True) == (request.length, request.keeps_alive)
    assert request.peer is UNKNOWN_PEER
    assert not request.peer.is_trusted


def test_they_show_what_they_are_without_query_and_fields() -> None:
    """What is secret stands in queries and fields; a repr ends up in logs."""
    fields = [(b"Authorization", b"secret")]
    request = Request(b"GET", b"/caf%C3%A9", b"?token=secret", lines_of(fields), b"a")
    head = AnswerHead(200, b"OK", lines_of(fields))

    assert repr(request) == "<Request GET /caf%C3%A9>"
    assert repr(head) == "<AnswerHead 200, length None>"


@pytest.mark.parametrize(
    ("fields", "is_trusted", "client"),
    [
        ([], True, b"10.0.0.2"),
        ([(b"X-Forwarded-For", b"198.51.100.7")], True, b"198.51.100.7"),
        ([(b"X-Forwarded-For", b"198.51.100.7")], False, b"10.0.0.2"),
        ([(b"X_Forwarded_For", b"198.51.100.7")], True, b"10.0.0.2"),
        (
            [
                (b"x-forwarded-for", b"6.6.6.6, 198.51.100.7"),
                (b"X-Forwarded-Xyz", b"7.7.7.7"),
                (b"X-FORWARDED-FOR", b"10.0.0.9"),
            ],
            True,
            b"198.51.100.7",
        ),
    ],
)
def test_the_client_is_whom_trusted_peers_name_and_else_the_peer(
    fields: Fields, client: bytes, *, is_trusted: bool
) -> None:
    request = Request(b"GET", b"/", b"", lines_of(fields), b"")
    request.peer = Peer(b"10.0.0.2", b"http", is_trusted=is_trusted, listener=LISTENER)

    assert client == request.client


@pytest.mark.parametrize("own", [b"http", b"https"])
@pytest.mark.parametrize(
    ("told", "scheme"),
    [
        ([b"https"], b"https"),
        ([b"HTTPS"], b"https"),
        ([b"http"], b"http"),
        ([b"wss"], b"https"),
        ([b"https,http"], b"https"),
        ([b" https , http"], b"https"),
        ([b"https", b"http"], b"https"),
        ([b"http, https"], b"http"),
        ([b"https,"], b"https"),
        ([b""], None),
        ([b"ftp"], None),
        ([b'evil"; x'], None),
        ([], None),
    ],
)
def test_the_scheme_is_the_first_that_trusted_peers_tell_and_else_the_peers(
    own: bytes, told: list[bytes], scheme: bytes | None
) -> None:
    fields = [(b"X-Forwarded-Proto", value) for value in told]
    request = Request(b"GET", b"/", b"", lines_of(fields), b"")

    request.peer = Peer(b"10.0.0.2", own, is_trusted=True, listener=LISTENER)
    assert (scheme or own) == request.scheme
    request.peer = Peer(b"10.0.0.2", own, is_trusted=False, listener=LISTENER)
    assert own == request.scheme
