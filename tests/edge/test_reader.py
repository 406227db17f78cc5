"""Strict reading of heads: each way in which one could be taken for two things, and its end.

Every case is read in one piece and byte by byte; both must agree.
"""

from __future__ import annotations

import httptools
import pytest

from gateway.core.failure import Failure
from tests.fakes.reading import (
    GET,
    POST,
    Reading,
    ReadRequest,
    RecordingReceiver,
    asking,
    read,
    read_both_ways,
    reader_for,
    with_field,
)

BAD = Failure.BAD_REQUEST


# --- Lines and fields ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"A: b\r\n c", id="folded"),
        pytest.param(b"A: b\r\n\tc", id="folded with a tab"),
        pytest.param(b" A: b", id="indented"),
        pytest.param(b"A : b", id="space before the colon"),
        pytest.param(b"A\t: b", id="tab before the colon"),
        pytest.param(b"A: b\rC: d", id="bare CR as a line end"),
        pytest.param(b"A: b\rc", id="bare CR in a value"),
        pytest.param(b"A: b\r", id="CR CR LF"),
        pytest.param(b"A: b\nC: d", id="bare LF"),
        pytest.param(b"A: b\0c", id="NUL in a value"),
        pytest.param(b"A\0: b", id="NUL in a name"),
        pytest.param(b"A: b\x01c", id="control character"),
        pytest.param(b"A: b\x0bc", id="vertical tab"),
        pytest.param(b"A: b\x1bc", id="escape"),
        pytest.param(b"A: b\x7fc", id="DEL"),
        pytest.param(b": b", id="empty name"),
        pytest.param(b"A b: c", id="space in a name"),
        pytest.param(b"Ab", id="no colon"),
        pytest.param(b"A(b): c", id="parentheses in a name"),
        pytest.param(b'A"b: c', id="quote in a name"),
        pytest.param(b"A/b: c", id="slash in a name"),
        pytest.param(b"A@b: c", id="at in a name"),
        pytest.param(b"A[b]: c", id="bracket in a name"),
        pytest.param(b"A\xe9: c", id="name that is not ASCII"),
    ],
)
def test_a_header_line_that_could_be_read_in_two_ways_is_refused(line: bytes) -> None:
    assert Reading(wrong=BAD) == read_both_ways(with_field(line))


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (b"A:", (b"A", b"")),
        (b"A:b", (b"A", b"b")),
        (b"A: \t b", (b"A", b"b")),
        (b"A: b\tc", (b"A", b"b\tc")),
        (b"A: \xff\xc3\xa9", (b"A", b"\xff\xc3\xa9")),
        (b"A:: b", (b"A", b": b")),
        (b"a_B.c!#$%&'*+^`|~9: d", (b"a_B.c!#$%&'*+^`|~9", b"d")),
    ],
)
def test_what_is_valid_passes_byte_for_byte(line: bytes, field: tuple[bytes, bytes]) -> None:
    assert field in read_both_ways(with_field(line)).only.fields


def test_fields_keep_their_order_their_case_and_their_duplicates() -> None:
    reading = read_both_ways(with_field(b"B: 1\r\na: 2\r\nb: 3\r\nA: 2"))

    assert [
        (b"Host", b"a"),
        (b"B", b"1"),
        (b"a", b"2"),
        (b"b", b"3"),
        (b"A", b"2"),
    ] == reading.only.fields


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET / HTTP/1.1\nHost: a\n\n", id="bare LF everywhere"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\n", id="bare LF as the empty line"),
        pytest.param(b"GET / HTTP/1.1\rHost: a\r\r", id="bare CR everywhere"),
        pytest.param(b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", id="space before the first field"),
        pytest.param(b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", id="space before the request"),
        pytest.param(b"\0GET / HTTP/1.1\r\nHost: a\r\n\r\n", id="NUL before the request"),
        pytest.param(b"\r" + GET, id="bare CR before the request"),
        pytest.param(b"\n" + GET, id="bare LF before the request"),
        pytest.param(b"\r\r\n" + GET, id="CR CR LF before the request"),
        pytest.param(b"\n\r" + GET, id="LF CR before the request"),
        pytest.param(b"\r\n\n" + GET, id="bare LF behind an empty line"),
        pytest.param(b"\r\n\r" + GET, id="bare CR behind an empty line"),
        pytest.param(b"\n", id="bare LF and nothing else"),
        pytest.param(b"\rG", id="bare CR and no more than a letter"),
    ],
)
def test_lines_end_with_cr_lf_and_begin_at_their_beginning(data: bytes) -> None:
    assert Reading(wrong=BAD) == read_both_ways(data)


@pytest.mark.parametrize("before", [b"\r\n", b"\r\n\r\n", b"\r\n" * 100])
def test_empty_lines_before_a_request_are_passed_over(before: bytes) -> None:
    assert read(GET) == read_both_ways(before + GET)
    assert read(GET + GET) == read_both_ways(GET + before + GET)


@pytest.mark.parametrize("between", [b"\r", b"\n"])
def test_a_bare_cr_or_lf_behind_a_body_is_no_empty_line(between: bytes) -> None:
    first = POST + b"Content-Length: 2\r\n\r\nhi"

    reading = read_both_ways(first + between + GET)

    assert (read(first).requests, BAD) == (reading.requests, reading.wrong)


def test_half_an_empty_line_is_not_the_beginning_of_a_head() -> None:
    """A head has its time from its first byte, and a connection that is idle another one."""
    reader = reader_for(RecordingReceiver())

    assert reader.feed(b"\r\n\r") is None
    assert b"" == reader.begun


# --- The request line ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/0.9",
        b"GET / HTTP/2.0",
        b"GET / HTTP/1.2",
        b"GET / HTTP/3.0",
        b"GET / HTTP/1.10",
        b"GET / HTTP/01.1",
        b"GET / HTTP/1",
        b"GET / HTTP/11",
        b"GET / http/1.1",
        b"GET / HTTPS/1.1",
        b"GET / RTSP/1.0",
        b"GET / RTSP/1.1",
        b"SOURCE / ICE/1.0",
        b"GET / HTTP/1.1 ",
        b"GET / HTTP/1.1\t",
        b"GET /  HTTP/1.1",
        b"GET  / HTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b"GET /\tHTTP/1.1",
        b"GET / ",
        b"GET  HTTP/1.1",
        b"GET / x HTTP/1.1",
    ],
)
def test_a_request_line_is_a_method_a_target_and_a_version_of_http_1(line: bytes) -> None:
    assert Reading(wrong=BAD) == read_both_ways(line + b"\r\nHost: a\r\n\r\n")


def test_http_0_9_waits_for_the_head_that_never_comes() -> None:
    assert Reading() == read_both_ways(b"GET /\r\n")


def test_the_preface_of_http_2_is_refused() -> None:
    assert Reading(wrong=BAD) == read_both_ways(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


def test_a_tls_handshake_is_refused_at_its_first_byte() -> None:
    assert Reading(wrong=BAD) == read_both_ways(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")


@pytest.mark.parametrize(
    "method",
    [b"get", b"Get", b"G", b"GE", b"GETX", b"G@T", b"FOO", b"BREW", b"DESCRIBE", b"\xc7ET", b""],
)
def test_a_method_that_is_not_known_is_refused_like_anything_that_is_no_http(method: bytes) -> None:
    assert Reading(wrong=BAD) == read_both_ways(asking(b"/", method))


@pytest.mark.parametrize(
    "method",
    [
        *(b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE"),
        *(b"PROPFIND", b"REPORT", b"SEARCH", b"QUERY", b"PURGE", b"M-SEARCH"),
    ],
)
def test_registered_methods_are_taken(method: bytes) -> None:
    assert method == read_both_ways(asking(b"/", method)).only.method


@pytest.mark.parametrize("target", [b"b:80", b"/x", b"http://b/x"])
def test_connect_is_not_for_a_gateway(target: bytes) -> None:
    reading = read_both_ways(asking(target, b"CONNECT") + b"bytes of a tunnel")

    assert Failure.NOT_IMPLEMENTED is reading.only.refusal


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(b"/a#b", id="fragment"),
        pytest.param(b"/?a#b", id="fragment behind a query"),
        pytest.param(b"http://b/#c", id="fragment of a URL"),
        pytest.param(b"/\xe9", id="not ASCII"),
        pytest.param(b"/\xc3\xa9", id="UTF-8"),
        pytest.param(b"/?\xff", id="not ASCII in the query"),
        pytest.param(b"/a\x01", id="control character"),
        pytest.param(b"/a\x7f", id="DEL"),
        pytest.param(b"/a\x00", id="NUL"),
        pytest.param(b"x", id="relative"),
        pytest.param(b"?a", id="query alone"),
        pytest.param(b"*", id="asterisk without OPTIONS"),
        pytest.param(b"b:80", id="authority"),
        pytest.param(b"b", id="name"),
        pytest.param(b"ftp://b/x", id="another scheme"),
        pytest.param(b"http:///x", id="URL without a host"),
        pytest.param(b"http:/x", id="URL without an authority"),
        pytest.param(b"http://u@b/x", id="user"),
        pytest.param(b"http://u:p@b/x", id="user and password"),
        pytest.param(b"http://b:port/x", id="port that is no number"),
        pytest.param(b"http://b:999999/x", id="port with too many digits"),
        pytest.param(b"http://[::1/x", id="half a bracket"),
        pytest.param(b"http://[:::::]/x", id="no address in brackets"),
        pytest.param(b"http://b%zz/x", id="half of an encoded character"),
        pytest.param(b"http://b\\c/x", id="backslash in the host"),
    ],
)
def test_a_target_that_is_no_path_and_no_plain_url_is_refused(target: bytes) -> None:
    assert BAD is read_both_ways(asking(target)).verdict


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", b"/", b""),
        (b"/a?b", b"/a", b"?b"),
        (b"/a?b?c=/../d", b"/a", b"?b?c=/../d"),
        (b"/a?", b"/a", b"?"),
        (b"//b/x", b"//b/x", b""),
        (b'/a%23%00;x\\|"<>{}^`', b'/a%23%00;x\\|"<>{}^`', b""),
    ],
)
def test_a_target_is_split_at_its_first_question_mark(
    target: bytes, path: bytes, query: bytes
) -> None:
    request = read_both_ways(asking(target)).only

    assert (path, query, b"a") == (request.path, request.query, request.host)


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        (b"http://b/x", b"/x", b"", b"b"),
        (b"http://b", b"/", b"", b"b"),
        (b"http://b?q", b"/", b"?q", b"b"),
        (b"HTTPS://B:81/x?q", b"/x", b"?q", b"B:81"),
        (b"http://[::1]:80/", b"/", b"", b"[::1]:80"),
        (b"http://b/x@y", b"/x@y", b"", b"b"),
    ],
)
def test_an_absolute_target_takes_the_place_of_host(
    target: bytes, path: bytes, query: bytes, host: bytes
) -> None:
    request = read_both_ways(asking(target, host=b"other")).only

    assert (path, query, host) == (request.path, request.query, request.host)
    assert b"\r\nHost: " + host == request.crossing


def test_an_absolute_target_names_the_host_that_http_1_0_may_leave_out() -> None:
    assert b"b" == read_both_ways(b"GET http://b/x HTTP/1.0\r\n\r\n").only.host


@pytest.mark.parametrize("target", [b"*", b"http://b"])
def test_options_may_ask_for_no_path_at_all(target: bytes) -> None:
    assert b"*" == read_both_ways(asking(target, b"OPTIONS")).only.path


def test_options_for_the_root_is_not_for_the_gateway_as_a_whole() -> None:
    assert b"/" == read_both_ways(asking(b"http://b/", b"OPTIONS")).only.path


# --- Host ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        b"Host: a\r\nHost: a\r\n",
        b"Host: a\r\nHost: b\r\n",
        b"Host:\r\n",
        *(
            b"Host: " + value + b"\r\n"
            for value in (b"a b", b"u@a", b"a/b", b"a?b", b"a#b", b"a\\b", b"a:x", b"a:999999")
        ),
        *(b"Host: " + value + b"\r\n" for value in (b"\xe9", b"[::1", b"::1", b"a:1:2", b"<a>")),
        *(
            b"Host: " + value + b"\r\n"
            for value in (b"a%20b", b"%", b"[:::::]", b"a..b", b"a:65536")
        ),
    ],
)
@pytest.mark.parametrize("target", [b"/", b"http://b/"])
def test_http_1_1_needs_one_host_that_is_one(lines: bytes, target: bytes) -> None:
    reading = read_both_ways(b"GET " + target + b" HTTP/1.1\r\n" + lines + b"\r\n")

    assert BAD is reading.only.refusal


@pytest.mark.parametrize(
    "host",
    [b"a", b"A.b:80", b"a:", b"[::1]:80", b"[::1]", b"127.0.0.1", b"a_b", b"a.", b"a "],
)
def test_a_host_with_or_without_a_port_is_taken(host: bytes) -> None:
    assert host.strip() == read_both_ways(asking(b"/", host=host)).only.host


def test_http_1_0_needs_no_host_but_not_two_either() -> None:
    without = read_both_ways(b"GET / HTTP/1.0\r\n\r\n").only
    with_two = read_both_ways(b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n").only

    assert (None, b"", True) == (without.refusal, without.host, without.is_http10)
    assert BAD is with_two.refusal


# --- Mistakes ------------------------------------------------------------------------------------


def test_a_mistake_in_the_receiver_surfaces_as_itself() -> None:
    receiver = RecordingReceiver()
    receiver.mistakes.add("request_begun")

    with pytest.raises(KeyError, match="a mistake"):
        reader_for(receiver).feed(GET)


def test_the_parser_is_new_enough() -> None:
    """Older ones have smuggling holes (CVE-2024-27982)."""
    assert (0, 6, 4) <= tuple(int(part) for part in httptools.__version__.split("."))


def test_a_request_is_told_with_all_that_is_known() -> None:
    head = b"POST /a?b HTTP/1.1\r\nHost: c\r\nContent-Length: 2\r\n\r\n"

    assert [
        ReadRequest(
            method=b"POST",
            path=b"/a",
            query=b"?b",
            host=b"c",
            fields=[(b"Host", b"c"), (b"Content-Length", b"2")],
            crossing=b"\r\nHost: c\r\nContent-Length: 2",
            length=2,
            refusal=None,
            is_http10=False,
            stays=True,
            body=b"hi",
            trailers=[],
        )
    ] == read_both_ways(head + b"hi").requests
