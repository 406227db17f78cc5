"""OPTIONS and TRACE: who answers, and how far a request may still go."""

from __future__ import annotations

import pytest

from gateway.core.message import Fields, Request, lines_of
from gateway.edge import hops
from gateway.proxy.phase import Phase
from tests.fakes.engine import DATE, Stage
from tests.fakes.sides import FakeClient


def begun(
    stage: Stage, method: bytes, fields: Fields, path: bytes = b"/api/x"
) -> tuple[FakeClient, Request]:
    """Begin a request as a face does; a warm connection to "a" takes what goes on."""
    client = FakeClient()
    request = stage.request(method, path=path)
    request.lines = request.crossing = lines_of(fields)
    hops.begin(stage.engine.exchange(request, client), stage.clock())
    return client, request


def max_forwards(*values: bytes) -> Fields:
    return [(b"A", b"b"), *((b"max-Forwards", value) for value in values)]


@pytest.mark.parametrize("method", [b"OPTIONS", b"TRACE"])
@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        (max_forwards(), b""),
        (max_forwards(b"1"), b"max-Forwards: 0\r\n"),
        (max_forwards(b"10 "), b"max-Forwards: 9\r\n"),
        (max_forwards(b"007"), b"max-Forwards: 6\r\n"),
    ],
)
def test_a_request_goes_on_with_one_hop_less(method: bytes, fields: Fields, sent: bytes) -> None:
    stage = Stage()
    connection = stage.pools["a"].warm_up()

    begun(stage, method, fields)

    assert connection.sent.startswith(method + b" /api/x?q=1 HTTP/1.1\r\n")
    assert b"A: b\r\n" + sent + b"X-Forwarded-For" in connection.sent


@pytest.mark.parametrize(
    ("path", "fields"),
    [(b"/api/x", max_forwards(b"0")), (b"*", []), (b"*", max_forwards(b"5"))],
)
def test_options_for_the_gateway_itself_are_answered_here(path: bytes, fields: Fields) -> None:
    stage = Stage()

    client, request = begun(stage, b"OPTIONS", fields, path)

    assert ["head 204", "end"] == client.said
    assert client.head is not None
    assert client.flushes
    assert [
        (b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE, QUERY"),
        DATE,
    ] == client.head.fields
    (settled,) = stage.observer.settled_ones
    assert (Phase.SETTLED, 204, None) == (settled.phase, settled.status, settled.failure)
    assert stage.clock() == request.started_at_s
    stage.assert_all_is_settled()


@pytest.mark.parametrize(
    ("path", "fields"), [(b"/api/x", max_forwards(b"0")), (b"*", max_forwards())]
)
def test_trace_is_not_answered_here(path: bytes, fields: Fields) -> None:
    client, _ = begun(Stage(), b"TRACE", fields, path)

    assert (["head 501", "body", "end"], b"not_implemented") == (client.said, client.reason)


@pytest.mark.parametrize(
    "values", [(b"x",), (b"",), (b"-1",), (b"+1",), (b"1, 2",), (b"1", b"1"), (b"9" * 5000,)]
)
def test_max_forwards_is_one_number(values: tuple[bytes, ...]) -> None:
    client, _ = begun(Stage(), b"OPTIONS", max_forwards(*values))

    assert (["head 400", "body", "end"], b"bad_request") == (client.said, client.reason)
