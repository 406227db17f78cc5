"""Laws of the connection to an instance: no cut matters, and no bytes break us.

1.  Any cut into reads tells the same events.
2.  Whatever an instance sends, and however it ends: an answer or a named Failure, nothing after it,
    and no exception.
3.  What is told as an answer is one in the eyes of a parser that is not ours.
4.  A mistake of ours is none of the instance: it comes out, and the Exchange hears that it is over.
"""

from __future__ import annotations

from itertools import pairwise

import h11
import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.failure import Failure
from tests.fakes.wire import Event, Line, answered

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = [
    OK,
    OK + b"extra",
    OK + OK,
    CHUNKED_HEAD + b"3\r\none\r\n3;x=y\r\ntwo\r\n0\r\nChecksum: 1\r\nX: 2\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK,
    b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nbody",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\nETag: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: 1\r\n\r\nuntil the end",
    b"HTTP/1.0 200 \r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbo",
    CHUNKED_HEAD + b"4\r\nbody\r\n0\r\n",
    CHUNKED_HEAD + b"4\r\nbodyx\r\n0\r\n\r\n",
    b"HTTP/1.1 099 Low\r\nContent-Length: 4\r\n\r\nbody",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nbytes",
    b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 a\x01b\r\nContent-Length: 0\r\n\r\n",
]
FRAGMENTS = st.sampled_from(
    [
        b"HTTP/1.1 ",
        b"HTTP/1.0 ",
        b"200 OK\r\n",
        b"204 No Content\r\n",
        b"304 Not Modified\r\n",
        b"100 Continue\r\n\r\n",
        b"103 Early Hints\r\n",
        b"101 Switching Protocols\r\n",
        b"Content-Length: 4\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Connection: keep-alive\r\n",
        b"X: y\r\n",
        b"\r\n",
        b"\n",
        b"\r\n\r\n",
        b"body",
        b"4\r\nbody\r\n",
        b"0\r\n\r\n",
        b"0\r\n",
        OK,
        CHUNKED_HEAD,
        b"HTTP/1.1 200 OK\r\n\r\n",
    ]
)
READS = st.lists(
    st.lists(FRAGMENTS | st.binary(min_size=1, max_size=8), min_size=1, max_size=8).map(b"".join),
    max_size=5,
)


def cut(raw: bytes, places: set[int]) -> list[bytes]:
    """Cut at these places."""
    edges = sorted({0, len(raw), *(place for place in places if place < len(raw))})
    return [raw[start:end] for start, end in pairwise(edges)]


def told(reads: list[bytes], *, to_head: bool, error: Exception | None = None) -> list[Event]:
    """Play these reads and the end of the connection; give what the Exchange heard."""
    line, exchange = answered(*reads, to_head=to_head)
    line.close(error)
    return exchange.events


@pytest.mark.parametrize("to_head", [False, True], ids=["GET", "HEAD"])
@pytest.mark.parametrize("raw", WHOLE, ids=range(len(WHOLE)))
@given(places=st.sets(st.integers(1, 200)))
def test_any_cut_into_reads_tells_the_same(
    raw: bytes,
    to_head: bool,  # noqa: FBT001 -- a parameter of the test
    places: set[int],
) -> None:
    assert told([raw], to_head=to_head) == told(cut(raw, places), to_head=to_head)


@pytest.mark.parametrize("to_head", [False, True], ids=["GET", "HEAD"])
@pytest.mark.parametrize("raw", WHOLE, ids=range(len(WHOLE)))
def test_byte_by_byte_tells_the_same(
    raw: bytes,
    to_head: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    bytewise = cut(raw, set(range(len(raw))))

    assert told([raw], to_head=to_head) == told(bytewise, to_head=to_head)


@given(reads=READS, to_head=st.booleans(), is_reset=st.booleans(), is_used=st.booleans())
def test_any_bytes_are_an_answer_or_a_named_failure(
    reads: list[bytes],
    to_head: bool,  # noqa: FBT001 -- drawn
    is_reset: bool,  # noqa: FBT001 -- drawn
    is_used: bool,  # noqa: FBT001 -- drawn
) -> None:
    line = Line()
    if is_used:
        line.begin()
        line.receive(OK)
    exchange = line.begin(to_head=to_head)

    line.receive(*reads)
    line.close(ConnectionResetError() if is_reset else None)

    assert exchange.events[-1][0] in {"end", "failed"}
    if exchange.events[-1][0] == "failed":
        assert isinstance(exchange.failure[0], Failure)
        assert exchange.failure[1]


@given(reads=READS)
def test_what_is_told_as_an_answer_is_one_for_another_parser(reads: list[bytes]) -> None:
    events = told(reads, to_head=False)
    if events[-1][0] != "end":
        return
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    parser.send(h11.EndOfMessage())
    # llhttp takes empty lines ahead of an answer, as servers do ahead of a request; h11 does not.
    parser.receive_data(b"".join(reads).lstrip(b"\r\n"))
    parser.receive_data(b"")
    body = b""

    while isinstance(event := parser.next_event(), h11.InformationalResponse):
        pass
    assert isinstance(event, h11.Response)
    while isinstance(piece := parser.next_event(), h11.Data):
        body += piece.data

    assert isinstance(piece, h11.EndOfMessage)
    heads = [told_event for told_event in events if told_event[0] == "head"]
    bodies = [told_event[1] for told_event in events if told_event[0] == "body"]
    assert [event.status_code] == [head[1] for head in heads]
    assert ([body] if body else []) == bodies


# --- Mistakes of ours ----------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["head", "body", "end"])
@pytest.mark.parametrize(
    "raw", [OK, CHUNKED_HEAD + b"4\r\nbody\r\n0\r\n\r\n"], ids=["length", "chunked"]
)
def test_a_mistake_of_ours_comes_out_and_ends_the_exchange(when: str, raw: bytes) -> None:
    line = Line()
    exchange = line.begin(mistakes=[when])

    with pytest.raises((KeyError, httptools.HttpParserCallbackError)) as caught:
        line.receive(raw)

    assert ("broke down",) == exchange.events[-1]
    assert f"a mistake at {when}" in repr(root_of(caught.value))
    assert line.transport.is_aborted
    assert [] == line.home.taken_back


def test_a_mistake_about_a_bad_response_comes_out_and_ends_the_exchange() -> None:
    line = Line()
    exchange = line.begin(mistakes=["failed"])

    with pytest.raises(KeyError):
        line.receive(b"garbage")

    assert [("broke down",)] == exchange.events


def test_a_mistake_about_a_lost_connection_comes_out_and_ends_the_exchange() -> None:
    line = Line()
    exchange = line.begin(mistakes=["failed"])

    with pytest.raises(KeyError):
        line.close()

    assert [("broke down",)] == exchange.events


def root_of(error: BaseException) -> BaseException:
    """Find what was raised first."""
    while error.__context__ is not None:
        error = error.__context__
    return error
