"""The reader of instances' answers: any bytes, any cut, and any end."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["gateway"]):
    import h11

    from fuzz.target import cut
    from gateway.core.failure import VERDICTS, Side
    from tests.fakes.wire import Event, RecordingExchange, answered

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SEEDS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    CHUNKED + b"3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\n\r\nx",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
)


def check(one_case: bytes) -> None:
    """Hold the laws of tests/proxy/test_upstream_laws.py against these bytes."""
    raw, pieces = cut(one_case)
    assert _told([raw]) == _told(pieces), "a cut matters"
    line, exchange = answered(raw)
    if exchange.is_over and not line.transport.is_aborted:
        _check_that_it_is_one(raw, exchange)
    line.close()
    if exchange.events[-1][0] == "failed":
        assert VERDICTS[exchange.failure[0]].side is Side.UPSTREAM


def _told(reads: list[bytes]) -> list[Event]:
    """Give what is told of these reads, up to what may depend on where they are cut.

    That is the words of a failure, and the trailers of an answer that more bytes came behind: they
    are told only if those come later.
    """
    line, exchange = answered(*reads)
    events = [event[:2] if event[0] == "failed" else event for event in exchange.events]
    line.close()
    is_closed = line.transport.is_aborted
    return [event[:1] if event[0] == "end" and is_closed else event for event in events]


def _check_that_it_is_one(raw: bytes, exchange: RecordingExchange) -> None:
    """Let h11 read an answer after which the connection would carry the next one."""
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method=b"GET", target=b"/", headers=[(b"Host", b"a")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(raw)
    body = b""
    try:
        while not isinstance(event := parser.next_event(), h11.EndOfMessage):
            assert event is not h11.NEED_DATA, "what is not whole was told as an answer"
            if isinstance(event, h11.Data):
                body += event.data
    except h11.RemoteProtocolError:
        return  # it is stricter in places, about what cannot be misread
    told = b"".join(part for kind, part, *_ in exchange.events if kind == "body")  # type: ignore[misc]
    assert body == told
    # Empty lines are passed over by both parsers, and mean nothing to either.
    assert parser.trailing_data[0].strip(b"\r\n") == b"", "bytes are left over for the next answer"


if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
