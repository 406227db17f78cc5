"""What both faces look at before a request may enter: id, method, host, length, offer."""

from __future__ import annotations

import pytest

from gateway.core.failure import Failure
from gateway.core.message import Fields, Peer, Request, lines_of
from gateway.edge.accept import accept

STRANGER = Peer(b"192.0.2.1", b"http", is_trusted=False)
PROXY = Peer(b"10.0.0.1", b"http", is_trusted=True)
HOST = (b"Host", b"shop.example")
BAD = Failure.BAD_REQUEST


def request_with(*fields: tuple[bytes, bytes], method: bytes = b"GET") -> Request:
    request = Request(method, b"/", b"", lines_of(list(fields)), b"")
    request.peer = STRANGER
    return request


def accepted(request: Request, http_version: str = "1.1") -> Failure | None:
    """Accept it; give the failure it is refused with, None if it is not."""
    request.is_http10 = http_version == "1.0"
    refusal = accept(request, lambda: b"made-up")
    return refusal[0] if refusal else None


# --- Expect --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "length", "values", "expects"),
    [
        ("1.1", b"1", [b"100-Continue"], True),
        ("1.1", b"0", [b"100-continue"], False),
        ("1.1", b"1", [b"200-ok"], False),
        ("1.1", b"1", [b"100-continue", b"100-continue"], False),
        ("1.0", b"1", [b"100-continue"], False),
    ],
)
def test_a_client_waits_with_a_body_for_a_100(
    version: str, length: bytes, values: list[bytes], *, expects: bool
) -> None:
    request = request_with(
        HOST, (b"Content-Length", length), *((b"Expect", value) for value in values)
    )

    assert accepted(request, version) is None
    assert expects == request.expects_continue


# --- The id --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "received", "expected"),
    [
        (STRANGER, [], b"made-up"),
        (PROXY, [], b"made-up"),
        (STRANGER, [b"from-outside"], b"made-up"),
        (PROXY, [b"from-outside"], b"from-outside"),
        (PROXY, [b"first", b"second"], b"made-up"),
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
        ([], "1.0", None),
        ([b"a"], "1.0", None),
        ([b"a"], "1.1", None),
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
    ("fields", "http_version", "length"),
    [
        ([], "1.1", 0),
        ([(b"Content-Length", b"0")], "1.1", 0),
        ([(b"Content-Length", b"7")], "1.1", 7),
        ([(b"Content-Length", b"7 ")], "1.1", 7),
        ([(b"Content-Length", b"007")], "1.1", 7),
        ([(b"Content-Length", b"7")], "1.0", 7),
        ([(b"Transfer-Encoding", b"chunked")], "1.1", None),
        ([(b"Transfer-Encoding", b" Chunked ")], "1.1", None),
    ],
)
def test_the_length_is_declared_or_chunked_or_none(
    fields: Fields, http_version: str, length: int | None
) -> None:
    request = request_with(HOST, *fields)

    assert accepted(request, http_version) is None
    assert length == request.length


@pytest.mark.parametrize(
    ("fields", "http_version"),
    [
        ([(b"Content-Length", b"+7")], "1.1"),
        ([(b"Content-Length", b"")], "1.1"),
        ([(b"Content-Length", b"7, 7")], "1.1"),
        ([(b"Content-Length", b"7"), (b"Content-Length", b"8")], "1.1"),
        ([(b"Content-Length", b"7"), (b"content-length", b"7")], "1.1"),
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
    ],
)
def test_an_offer_is_one_protocol_that_connection_names_too(
    fields: Fields, http_version: str, offered: bytes
) -> None:
    request = request_with(HOST, *fields)

    assert accepted(request, http_version) is None
    assert offered == request.upgrade


# --- Whether the client stays --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("connection", "http_version", "stays"),
    [
        ([], "1.1", True),
        ([b"close"], "1.1", False),
        ([b"x, Close"], "1.1", False),
        ([b"x", b"close"], "1.1", False),
        ([b"keep-alive"], "1.1", True),
        ([], "1.0", False),
        ([b"Keep-Alive"], "1.0", True),
        ([b"keep-alive, close"], "1.0", False),
    ],
)
def test_a_client_stays_as_its_version_and_connection_say(
    connection: list[bytes], http_version: str, *, stays: bool
) -> None:
    """RFC 9112 §9.3."""
    request = request_with(HOST, *((b"Connection", value) for value in connection))

    assert accepted(request, http_version) is None
    assert stays == request.keeps_alive
