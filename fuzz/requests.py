"""The request reader: any bytes, any cut, and what goes on to an instance."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["gateway"]):
    import h11

    from fuzz.target import cut
    from gateway.core.failure import VERDICTS, Failure, Side
    from gateway.core.message import Request
    from gateway.core.paths import PathError, PathRules
    from gateway.core.policy import PathPolicy
    from gateway.edge.reader import ReaderLimits
    from gateway.proxy.target import closing_lines
    from gateway.proxy.upload import Upload
    from tests.fakes.engine import Stage, instance
    from tests.fakes.reading import CHUNKED, GET, PEER, POST, ReadRequest, each_byte, read

NORMALIZE = PathRules(PathPolicy()).normalize
LIMITS = ReaderLimits(max_request_line_bytes=120, max_header_size_bytes=200, max_header_fields=6)
TARGET = Stage().engine.targets[0]
SEEDS = (
    GET + GET,
    POST + b"Content-Length: 3\r\n\r\nabc" + GET,
    CHUNKED + b"3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n" + GET,
    POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
    b"GET http://b/c?d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
    POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET /a/../%2e%2e/b HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: b\r\nTE: trailers\r\n\r\n",
)


def check(one_case: bytes) -> None:
    """Hold the laws of tests/edge/test_reader_properties.py against these bytes."""
    raw, pieces = cut(one_case)
    at_once = read(raw, limits=LIMITS)
    assert at_once == read(*pieces, limits=LIMITS), "a cut matters"
    assert at_once == read(*each_byte(raw), limits=LIMITS), "a cut matters"
    if at_once.verdict is not None:
        is_clients = VERDICTS[at_once.verdict].side is Side.CLIENT
        assert is_clients or at_once.verdict is Failure.NOT_IMPLEMENTED
    for one in at_once.requests:
        if one.refusal is None and one.trailers is not None and one.path != b"*":
            _check_what_goes_on(one)


def _check_what_goes_on(one: ReadRequest) -> None:
    request = Request(one.method, b"", one.query, b"", one.host)
    request.length, request.peer, request.request_id = one.length, PEER, b"id"
    request.crossing = one.crossing
    try:
        request.path = NORMALIZE(one.path)
    except PathError:
        return
    closing = closing_lines(request, b"\r\nVia: 1.1 gateway")
    raw = TARGET.head(request, instance("a"), closing)
    upload = Upload(one.length, buffer_bytes=0)
    raw += upload.add(one.body)
    assert upload.end(one.trailers or []), "the body is not as long as it says"
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(raw + upload.last_bytes)
    head, body = parser.next_event(), b""
    assert isinstance(head, h11.Request)
    while isinstance(event := parser.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert (one.method, request.path + one.query, one.body) == (head.method, head.target, body)
    assert parser.trailing_data == (b"", False), "more goes on than one request"


if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
