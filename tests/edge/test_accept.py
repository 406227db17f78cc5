"""What both faces look at before a request may enter: id, method, host, length, offer."""

from __future__ import annotations

import pytest

from gateway.core.failure import Failure
from gateway.core.message import Fields, Peer, Request
from gateway.edge.accept import accept

STRANGER = Peer(b"192.0.2.1", b"http", is_trusted=False)
PROXY = Peer(b"10.0.0.1", b"http", is_trusted=True)
HOST = (b"Host", b"shop.example")
BAD = Failure.BAD_REQUEST


def request_with(*fields: tuple[bytes, bytes], method: bytes = b"GET") -> Request:
    request = Request(method, b"/", query=b"", fields=list(fields), host=b"")
    request.peer = STRANGER
    return request


def accepted(request: Request, http_version: str = "1.1") -> Failure | None:
    """Accept it; give the failure it is refused with, None if it is not."""
    refusal = accept(request, http_version, lambda: b"made-up")
    return refusal[0] if refusal else None


# --- The id --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "received", "expected"),
    [
        (STRANGER, [], b"made-up"),
        (PROXY, [], b"made-up"),
        (STRANGER, [b"from-outside"], b"made-up"),
        (PROXY, [b"from-outside"], b"from-outside"),
        (PROXY, [b"first", b"second"], b"first"),
        (PROXY, [b"padded "], b"padded"),
        (PROXY, [b"not a token"], b"made-up"),
        (PROXY, [b""], b"made-up"),
    ],
)
def test_an_id_is_believed_if_the_peer_is(
    peer: Peer, received: list[bytes], expected: bytes
) -> None:
    request = request_with(HOST, *((b"X-Request-Id", one) for one in received))
    request.peer = peer

    assert accepted(request) is None
    assert expected == request.request_id


def test_a_refused_request_has_an_id_too() -> None:
    request = request_with()

    assert BAD is accepted(request)
    assert b"made-up" == request.request_id


# --- Method and host -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", [b"CONNECT", b"", b"G T", b"GET\r\n", b"G\xe9T"])
def test_what_no_gateway_does_is_refused(method: bytes) -> None:
    assert Failure.NOT_IMPLEMENTED is accepted(request_with(HOST, method=method))


@pytest.mark.parametrize(
    ("hosts", "http_version", "expected"),
    [
        ([], "1.1", BAD),
        ([], "2", BAD),
        ([], "1.0", None),
        ([b"a"], "1.0", None),
        ([b"a"], "1.1", None),
        ([b"a"], "2", None),
        ([b"a", b"a"], "1.1", BAD),
        ([b"a", b"a"], "1.0", BAD),
        ([b"a/b"], "1.1", BAD),
        ([b""], "1.1", BAD),
    ],
)
def test_there_is_one_host_unless_http_1_0_leaves_it_out(
    hosts: list[bytes], http_version: str, expected: Failure | None
) -> None:
    request = request_with(*((b"hOST", host) for host in hosts))

    assert expected is accepted(request, http_version)
    assert (hosts[0] if hosts and expected is None else b"") == request.host


# --- The length ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "http_version", "length", "declares"),
    [
        ([], "1.1", 0, False),
        ([(b"Content-Length", b"0")], "1.1", 0, True),
        ([(b"Content-Length", b"7")], "1.1", 7, True),
        ([(b"Content-Length", b"7 ")], "1.1", 7, True),
        ([(b"Content-Length", b"7"), (b"content-length", b"7")], "1.1", 7, True),
        ([(b"Content-Length", b"7")], "1.0", 7, True),
        ([(b"Transfer-Encoding", b"chunked")], "1.1", None, False),
        ([(b"Transfer-Encoding", b" Chunked ")], "1.1", None, False),
    ],
)
def test_the_length_is_declared_or_chunked_or_none(
    fields: Fields, http_version: str, length: int | None, *, declares: bool
) -> None:
    request = request_with(HOST, *fields)

    assert accepted(request, http_version) is None
    assert (length, declares) == (request.length, request.declares_length)


@pytest.mark.parametrize(
    ("fields", "http_version"),
    [
        ([(b"Content-Length", b"+7")], "1.1"),
        ([(b"Content-Length", b"")], "1.1"),
        ([(b"Content-Length", b"7, 7")], "1.1"),
        ([(b"Content-Length", b"7"), (b"Content-Length", b"8")], "1.1"),
        ([(b"Content-Length", b"7"), (b"Transfer-Encoding", b"chunked")], "1.1"),
        ([(b"Transfer-Encoding", b"gzip")], "1.1"),
        ([(b"Transfer-Encoding", b"gzip, chunked")], "1.1"),
        ([(b"Transfer-Encoding", b"chunked\t")], "1.1"),
        ([(b"Transfer-Encoding", b"chunked"), (b"Transfer-Encoding", b"chunked")], "1.1"),
        ([(b"Transfer-Encoding", b"chunked")], "1.0"),
    ],
)
def test_a_body_whose_end_is_in_doubt_is_refused(fields: Fields, http_version: str) -> None:
    assert BAD is accepted(request_with(HOST, *fields), http_version)


# --- The offer -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "http_version", "offered"),
    [
        ([(b"Connection", b"Upgrade"), (b"Upgrade", b"WebSocket")], "1.1", b"websocket"),
        ([(b"Connection", b"x, upgrade"), (b"Upgrade", b"h2c ")], "1.1", b"h2c"),
        ([(b"Connection", b"x"), (b"Connection", b"Upgrade"), (b"Upgrade", b"a")], "1.1", b"a"),
        ([(b"Upgrade", b"websocket")], "1.1", b""),
        ([(b"Connection", b"Upgrade")], "1.1", b""),
        ([(b"Connection", b"Upgrade"), (b"Upgrade", b"a, b")], "1.1", b""),
        ([(b"Connection", b"Upgrade"), (b"Upgrade", b"a"), (b"Upgrade", b"b")], "1.1", b""),
        ([(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")], "1.0", b""),
        ([(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")], "2", b""),
    ],
)
def test_an_offer_is_one_protocol_that_connection_names_too(
    fields: Fields, http_version: str, offered: bytes
) -> None:
    request = request_with(HOST, *fields)

    assert accepted(request, http_version) is None
    assert offered == request.upgrade
