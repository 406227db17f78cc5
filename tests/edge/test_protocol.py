"""The fast face: requests in turn, answers on the wire, and what becomes of the connection."""

from __future__ import annotations

import pytest

from gateway.core.message import AnswerHead
from gateway.edge.face import FaceOptions
from tests.fakes.engine import Stage
from tests.fakes.visit import Visit

GET = b"GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSE = b"GET /api/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
NOWHERE = b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n"
UPLOAD = b"POST /api/up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"


def head_without_length() -> AnswerHead:
    return AnswerHead(200, b"OK", b"")


# --- One after the other -------------------------------------------------------------------------


async def test_requests_follow_each_other_on_one_connection(visit: Visit) -> None:
    visit.send(GET)
    visit.answers_with(200, b"first")
    visit.stage.pools["a"].warm_up()
    visit.send(GET)
    visit.next_connection()
    visit.answers_with(201, b"second")

    first, second = visit.answers(b"GET", b"GET")
    assert [(200, b"first"), (201, b"second")] == [
        (first.status, first.body),
        (second.status, second.body),
    ]
    assert [[], []] == [first.values(b"connection"), second.values(b"connection")]
    assert "" == visit.transport.ending
    assert 2 == visit.state.total_requests
    assert "<ClientConnection None, 2 requests>" == repr(visit.connection)


async def test_a_head_and_its_body_leave_in_one_write(visit: Visit) -> None:
    visit.send(GET)

    visit.instance.answer()
    assert b"" == visit.transport.written

    visit.connection.flush()
    assert visit.transport.written.endswith(b"4\r\nbody\r\n0\r\n\r\n")


async def test_pipelined_requests_wait_and_are_answered_in_order(visit: Visit) -> None:
    pool = visit.stage.pools["a"]
    for _ in range(2):
        pool.warm_up()

    visit.send(GET + UPLOAD + b"01234" + b"56789" + NOWHERE + GET)
    assert 1 == len(pool.made)

    second = visit.answers_with(200, b"first")
    assert 2 == len(pool.made)
    assert second.sent.startswith(b"POST /api/up")
    assert second.sent.endswith(b"\r\n\r\n0123456789")

    fourth = visit.answers_with(200, b"second")
    assert fourth.sent.startswith(b"GET /api/x")
    assert visit.transport.is_read

    visit.answers_with(200, b"fourth")
    answers = visit.answers(b"GET", b"POST", b"GET", b"GET")
    assert [200, 200, 404, 200] == [one.status for one in answers]
    assert [b"first", b"second", b"fourth"] == [answers[at].body for at in (0, 1, 3)]


async def test_an_upload_that_is_pipelined_in_part_is_read_when_its_turn_comes(
    visit: Visit,
) -> None:
    visit.stage.pools["a"].warm_up()
    visit.send(GET + UPLOAD + b"01234")

    upload = visit.answers_with()
    assert visit.transport.is_read
    visit.send(b"56789")

    assert upload.sent.endswith(b"\r\n\r\n0123456789")


async def test_what_is_wrong_behind_a_request_does_not_touch_its_answer(visit: Visit) -> None:
    visit.send(GET + b"junk\r\n\r\n")
    visit.answers_with(200, b"first")

    first, second = visit.answers(b"GET", b"GET")
    assert [(200, []), (400, [b"close"])] == [
        (first.status, first.values(b"connection")),
        (second.status, second.values(b"connection")),
    ]
    assert [b"bad_request"] == second.values(b"x-gateway-reason")
    assert visit.transport.is_half_closed


async def test_a_refused_request_ends_the_connection_and_nothing_behind_it_is_read(
    visit: Visit,
) -> None:
    visit.send(b"POST /api/x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc" + GET)

    (answer,) = visit.answers(b"POST")
    assert (400, [b"close"]) == (answer.status, answer.values(b"connection"))
    assert [] == visit.stage.pools["a"].made
    assert visit.transport.is_half_closed


async def test_a_refused_request_tells_its_path_and_has_an_id(visit: Visit) -> None:
    visit.send(b"GET /api/x HTTP/1.1\r\n\r\n")

    (settled,) = visit.stage.observer.settled_ones
    assert b"/api/x" == settled.request.path
    assert settled.request.request_id.decode() in visit.transport.written.decode()


async def test_close_means_close_and_what_follows_is_not_read(visit: Visit) -> None:
    visit.send(CLOSE + GET)
    visit.answers_with()

    (answer,) = visit.answers(b"GET")
    assert [b"close"] == answer.values(b"connection")
    assert "closed" == visit.transport.ending
    assert 1 == len(visit.stage.pools["a"].made)
    assert set() == visit.state.connections


async def test_the_gateways_own_answers_keep_the_connection_if_all_was_read(visit: Visit) -> None:
    visit.send(NOWHERE, NOWHERE, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")

    answers = visit.answers(b"GET", b"GET", b"OPTIONS")
    assert [404, 404, 204] == [answer.status for answer in answers]
    assert "" == visit.transport.ending


# --- What the answer looks like ------------------------------------------------------------------


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_has_no_framing(visit: Visit, status: int) -> None:
    visit.send(GET)
    head = AnswerHead(status, b"", b"")
    head.has_body = False
    assert visit.instance.exchange is not None
    visit.instance.exchange.upstream_head(head, 0)
    visit.instance.end()
    visit.next_connection()

    (answer,) = visit.answers(b"GET")
    assert (status, b"") == (answer.status, answer.body)
    assert [] == answer.values(b"transfer-encoding") + answer.values(b"content-length")


async def test_the_answer_to_head_has_the_length_and_no_body(visit: Visit) -> None:
    visit.send(GET.replace(b"GET", b"HEAD"))
    head = AnswerHead(200, b"OK", b"\r\nContent-Length: 1234")
    head.has_body, head.length = False, 1234
    assert visit.instance.exchange is not None
    visit.instance.exchange.upstream_head(head, 0)
    visit.instance.end()
    visit.next_connection()

    (answer,) = visit.answers(b"HEAD")
    assert [b"1234"] == answer.values(b"content-length")
    assert "" == visit.transport.ending


async def test_a_body_of_known_length_is_passed_as_it_is(visit: Visit) -> None:
    visit.send(GET)
    head = head_without_length()
    head.length, head.lines = 8, b"\r\nContent-Length: 8"
    assert visit.instance.exchange is not None
    visit.instance.exchange.upstream_head(head, 0)
    visit.instance.body(b"body")
    visit.instance.body(b"body")
    visit.instance.end()
    visit.next_connection()

    assert visit.transport.written.endswith(b"\r\n\r\nbodybody")
    assert b"\r\nContent-Length: 8\r\n" in visit.transport.written


async def test_a_body_of_unknown_length_goes_in_chunks_with_its_trailers(visit: Visit) -> None:
    visit.send(GET)
    visit.instance.head()
    visit.instance.body(b"some")
    visit.instance.body(b"thing")
    visit.instance.end([(b"Checksum", b"1"), (b"Content-Length", b"9")])
    visit.next_connection()

    (answer,) = visit.answers(b"GET")
    assert (b"something", [(b"Checksum", b"1")]) == (answer.body, answer.trailers)


async def test_interim_answers_are_relayed(visit: Visit) -> None:
    visit.send(GET)
    visit.instance.interim(103)
    visit.answers_with()

    (answer,) = visit.answers(b"GET")
    assert [103] == [one.status for one in answer.interim]


# --- HTTP/1.0 ------------------------------------------------------------------------------------


def in_1_0(*lines: bytes) -> bytes:
    return b"\r\n".join([b"GET /api/x HTTP/1.0", *lines, b"", b""])


async def test_http_1_0_is_sent_no_interim_answer_no_chunks_and_the_end(visit: Visit) -> None:
    visit.send(in_1_0())
    visit.instance.interim(103)
    visit.answers_with(200, b"until the end")

    (answer,) = visit.answers(b"GET")
    assert ([], b"until the end") == (answer.interim, answer.body)
    assert [] == answer.values(b"transfer-encoding")
    assert [b"close"] == answer.values(b"connection")
    assert "closed" == visit.transport.ending


@pytest.mark.parametrize("has_length", [True, False])
async def test_http_1_0_keeps_the_connection_if_it_asks_and_the_length_is_known(
    visit: Visit, *, has_length: bool
) -> None:
    visit.send(in_1_0(b"Connection: keep-alive"))
    head = head_without_length()
    if has_length:
        head.length, head.lines = 4, b"\r\nContent-Length: 4"
    assert visit.instance.exchange is not None
    visit.instance.exchange.upstream_head(head, 0)
    visit.instance.body(b"body")
    visit.instance.end()
    visit.next_connection()

    (answer,) = visit.answers(b"GET")
    expected = [b"keep-alive"] if has_length else [b"close"]
    assert expected == answer.values(b"connection")
    assert ("" if has_length else "closed") == visit.transport.ending


# --- Bodies that are not read to their end -------------------------------------------------------


async def test_an_early_answer_ends_the_connection_gently(visit: Visit) -> None:
    visit.send(UPLOAD + b"012")
    visit.answers_with(413, b"enough")

    (answer,) = visit.answers(b"POST")
    assert (413, [b"close"]) == (answer.status, answer.values(b"connection"))
    assert (True, "") == (visit.transport.is_half_closed, visit.transport.ending)

    visit.send(b"3456", b"789" + GET)
    assert "lingering" in repr(visit.connection)
    assert 1 == len(visit.stage.pools["a"].made)

    visit.pass_time(1.9)
    assert "" == visit.transport.ending
    visit.pass_time(0.2)
    assert "aborted" == visit.transport.ending
    assert set() == visit.state.connections


async def test_a_body_that_comes_with_a_refused_request_is_dropped(visit: Visit) -> None:
    visit.send(UPLOAD.replace(b"/api/up", b"/nowhere") + b"0123456789" + GET)

    (answer,) = visit.answers(b"POST")
    assert (404, [b"close"]) == (answer.status, answer.values(b"connection"))
    assert (True, True) == (visit.transport.is_half_closed, visit.transport.is_read)


async def test_a_client_that_leaves_while_its_upload_is_drained_is_let_go(visit: Visit) -> None:
    visit.send(UPLOAD)
    visit.answers_with(413, b"enough")

    assert not visit.connection.eof_received()
    visit.lose()

    visit.stage.assert_all_is_settled()


async def test_over_tls_one_direction_cannot_end_alone(stage: Stage) -> None:
    """So the session is ended; TLS itself then reads on until the client has ended it too."""
    visit = Visit(stage, is_tls=True)
    visit.send(UPLOAD)
    visit.answers_with(413, b"enough")

    assert (False, "closed") == (visit.transport.is_half_closed, visit.transport.ending)
    visit.stage.assert_all_is_settled()


async def test_a_body_that_is_wrong_fails_its_own_request(visit: Visit) -> None:
    visit.send(b"POST /api/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    visit.send(b"3\r\nabc\r\nxyz\r\n")

    (answer,) = visit.answers(b"POST")
    assert 400 == answer.status
    assert "closed" == visit.instance.ending
    assert visit.transport.is_half_closed


async def test_trailers_go_on(visit: Visit) -> None:
    visit.send(b"POST /api/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    visit.send(b"3\r\nabc\r\n", b"0\r\nX-A: b\r\n", b"\r\n")

    assert visit.instance.sent.endswith(b"\r\n\r\n3\r\nabc\r\n0\r\nX-A: b\r\n\r\n")


def test_the_options_without_limits_are_the_default() -> None:
    assert (0, 0) == (
        FaceOptions().max_connections_per_address,
        FaceOptions().max_requests_per_connection,
    )
