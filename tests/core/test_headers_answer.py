"""How an answer's head is taken apart: what crosses to the client, and where the body ends."""

from __future__ import annotations

import pytest

from gateway.core.headers import FramingError, interim_fields, read_answer
from gateway.core.message import AnswerHead, Fields, lines_of


def read(fields: Fields, *, status: int = 200, to_head: bool = False) -> AnswerHead:
    return read_answer(status, b"OK", lines_of(fields), b"HEAD" if to_head else b"GET")


def framing(head: AnswerHead) -> tuple[int | None, bool, bool, bool]:
    """Tell length, has a body, ends with the connection, keeps it alive."""
    return head.length, head.has_body, head.ends_with_connection, head.keeps_alive


CHUNKED = (b"Transfer-Encoding", b"chunked")
FIVE = (b"Content-Length", b"5")


# --- What crosses --------------------------------------------------------------------------------


def test_status_and_reason_stay() -> None:
    head = read_answer(299, b"Fine, caf\xe9", b"", b"GET")

    assert (299, b"Fine, caf\xe9") == (head.status, head.reason)


def test_end_to_end_fields_keep_their_order_case_and_duplicates() -> None:
    fields = [
        (b"set-cookie", b"a=1; Path=/"),
        (b"Date", b"Thu, 01 Jan 2026 00:00:00 GMT"),
        (b"Set-Cookie", b"b=2, still b"),
        (b"WWW-Authenticate", b"Basic"),
        (b"Set-Cookie", b"a=1; Path=/"),
        (b"Proxy-Authenticate", b"Basic"),
        (b"Server", b"gunicorn"),
        (b"x-empty", b""),
    ]

    assert [*fields, FIVE] == read([*fields, FIVE]).fields


@pytest.mark.parametrize(
    "name", [b"Keep-Alive", b"PROXY-CONNECTION", b"te", b"Upgrade", b"Connection"]
)
def test_hop_by_hop_fields_stop_here(name: bytes) -> None:
    assert read([(name, b"x"), FIVE, (b"A", b"1")]).fields == [FIVE, (b"A", b"1")]


def test_what_connection_names_stops_here_wherever_it_stands() -> None:
    fields = [
        (b"X-Before", b"1"),
        (b"Connection", b"x-before"),
        (b"connection", b"keep-alive, X-After"),
        (b"x-AFTER", b"2"),
        (b"A", b"1"),
    ]

    assert read(fields).fields == [(b"A", b"1")]


@pytest.mark.parametrize("date_first", [True, False])
def test_a_date_that_connection_names_is_gone_and_ours_is_due(*, date_first: bool) -> None:
    fields = [(b"Date", b"Thu, 01 Jan 2026 00:00:00 GMT"), (b"Connection", b"date")]

    head = read(fields if date_first else fields[::-1])

    assert ([], False) == (head.fields, head.has_date)


def test_it_is_noticed_whether_there_is_a_date() -> None:
    assert read([(b"date", b"Thu, 01 Jan 2026 00:00:00 GMT")]).has_date
    assert not read([]).has_date


def test_an_interim_answer_has_neither_framing_nor_hop_by_hop_fields() -> None:
    """A client that believes the length of a 103 reads the final answer as its body."""
    link = (b"Link", b"</style.css>; rel=preload")
    fields = [
        FIVE,
        (b"Connection", b"X-Named, close"),
        link,
        CHUNKED,
        (b"Upgrade", b"h2c"),
        (b"x-named", b"1"),
        link,
    ]

    assert [link, link] == interim_fields(fields)


# --- Where the body ends (RFC 9112 §6.3) ---------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([FIVE], (5, True, False, True)),
        ([(b"content-LENGTH", b"0")], (0, True, False, True)),
        ([CHUNKED], (None, True, False, True)),
        ([(b"transfer-encoding", b"\tChunked ")], (None, True, False, True)),
        ([], (None, True, True, False)),
        ([FIVE, (b"Connection", b"Close")], (5, True, False, False)),
        ([FIVE, (b"Connection", b"close"), (b"Connection", b"x")], (5, True, False, False)),
        ([FIVE, (b"Connection", b"keep-alive")], (5, True, False, True)),
        ([FIVE, (b"Connection", b"content-length")], (5, True, False, True)),
    ],
    ids=["length", "zero", "chunked", "spelled", "end", "close", "close-first", "keep", "named"],
)
def test_a_body_ends_in_one_way(
    fields: Fields, expected: tuple[int | None, bool, bool, bool]
) -> None:
    assert expected == framing(read(fields))


@pytest.mark.parametrize(
    ("fields", "keeps_alive"),
    [([], True), ([(b"Content-Length", b"0")], True), ([FIVE], False), ([CHUNKED], False)],
    ids=["none", "zero", "length", "chunked"],
)
def test_204_has_neither_body_nor_length(fields: Fields, *, keeps_alive: bool) -> None:
    """RFC 9112 §6.1, §6.3; whoever announces one may send it late, as if it were an answer."""
    assert (None, False, False, keeps_alive) == framing(read(fields, status=204))


@pytest.mark.parametrize(("status", "to_head"), [(304, False), (200, True), (404, True)])
def test_an_answer_without_a_body_keeps_the_length_that_one_would_have(
    status: int, *, to_head: bool
) -> None:
    """RFC 9110 §8.6: HEAD and 304 may say it, and caches rely on it."""
    assert (5, False, False, True) == framing(read([FIVE], status=status, to_head=to_head))
    assert (None, False, False, True) == framing(read([], status=status, to_head=to_head))
    assert (None, False, False, True) == framing(read([CHUNKED], status=status, to_head=to_head))


@pytest.mark.parametrize(
    "fields",
    [
        [FIVE, CHUNKED],
        [CHUNKED, FIVE],
        [FIVE, (b"Content-Length", b"6")],
        [FIVE, FIVE],
        [(b"Content-Length", b"5, 5")],
        [(b"Content-Length", b"+5")],
        [(b"Content-Length", b"")],
        [(b"Transfer-Encoding", b"")],
        [(b"Transfer-Encoding", b"identity")],
        [(b"Transfer-Encoding", b"gzip, chunked")],
        [(b"Transfer-Encoding", b"chunked, chunked")],
        [(b"Transfer-Encoding", b"xchunked")],
        [(b"Transfer-Encoding", b"\x0bchunked")],
        [CHUNKED, CHUNKED],
        [(b"Transfer-Encoding", b"gzip"), CHUNKED],
    ],
)
@pytest.mark.parametrize(("status", "to_head"), [(200, False), (200, True), (204, False)])
def test_an_answer_whose_end_cannot_be_told_is_refused(
    fields: Fields, status: int, *, to_head: bool
) -> None:
    with pytest.raises(FramingError):
        read(fields, status=status, to_head=to_head)


def test_keep_alive_in_its_usual_spelling_goes_wherever_it_stands() -> None:
    keep_alive = (b"Connection", b"keep-alive")

    for fields in ([keep_alive, (b"A", b"1"), FIVE], [(b"A", b"1"), FIVE, keep_alive]):
        head = read(fields)
        assert (head.fields, head.keeps_alive) == ([(b"A", b"1"), FIVE], True)


@pytest.mark.parametrize(("says", "seconds"), [(b"timeout=5, max=9", 5.0), (b"max=9", None)])
def test_an_instance_says_how_long_it_keeps_an_idle_connection(
    says: bytes, seconds: float | None
) -> None:
    head = read([(b"Keep-Alive", says), (b"Keep-Alive", b"x"), FIVE])

    assert head.idle_timeout_s == seconds
