"""What a scope may say: not all servers parse strictly, and middleware writes what it likes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.asgi import answer, calling, scope_with
from tests.fakes.waiting import wait_until


@pytest.mark.parametrize(
    "field",
    [
        *((b"a", b"b\r\nx: y"), (b"a\nb", b"c"), (b"a", b"\r"), (b"a\r\nb", b"c")),
        *((b"a", b"\x00"), (b"a", b"\x01"), (b"a", b"b\x7f"), (b"a", b"\x0b")),
        *((b"x y", b"1"), (b"x y: z", b"1"), (b"x:y\tq", b"1"), (b"x:", b"1"), (b"", b"1")),
        *((b" x", b"1"), (b"x ", b"1"), (b"caf\xe9", b"1"), (b"x,y", b"1"), (b'"x"', b"1")),
    ],
)
async def test_a_field_that_is_none_is_refused(field: tuple[bytes, bytes]) -> None:
    """It would be another one on the wire, or the end of its head."""
    async with calling(scope_with(headers=[(b"host", b"a"), field])) as call:
        await call.sends(2)

    assert 400 == call.server.status
    assert [] == call.stage.pools["a"].made


SECOND_REQUEST = b" HTTP/1.1\r\nhost: a\r\n\r\nGET /internal HTTP/1.1\r\nx:"


@pytest.mark.parametrize(
    "changes",
    [
        *({"query_string": query} for query in (b"a" + SECOND_REQUEST, b"a b", b"a\n", b"a#b")),
        *({"query_string": query} for query in (b"a\xff", b"a\x00", b"a\x7f", b"a\t")),
        {"raw_path": b"/api/x" + SECOND_REQUEST},
        {"raw_path": b"/api/x?a"},
        *({"method": method} for method in ("GET /x HTTP/1.1\r\nx:", "", "G T", "GET\n")),
    ],
)
async def test_what_cannot_be_in_a_request_line_is_refused(changes: dict[str, Any]) -> None:
    """RFC 9112 §3: or it would end the line, and begin another request."""
    async with calling(scope_with(**changes)) as call:
        await call.sends(2)

    assert (400, b"bad_request") == (call.server.status, call.server.fields[b"x-gateway-reason"])
    assert [] == call.stage.pools["a"].made


async def test_whatever_can_be_sent_over_a_wire_crosses() -> None:
    query = bytes(code for code in range(0x21, 0x7F) if code != ord("#"))
    name = b"!#$%&'*+-.^_`|~09azAZ"
    value = b"a\tb " + bytes(range(0x80, 0x100))
    fields = [(b"host", b"a"), (name, value), (b"empty", b"")]
    async with calling(scope_with(query_string=query, headers=fields)) as call:
        connection = await call.reaches_instance()
        answer(connection)

    assert connection.sent.startswith(b"GET /api/x?" + query + b" HTTP/1.1\r\n")
    assert b"\r\n" + name + b": " + value + b"\r\nempty: \r\n" in connection.sent


@pytest.mark.parametrize(
    ("http_version", "said"), [("1.0", b"close"), ("1.1", b"close"), ("2", None), ("3", None)]
)
async def test_a_refusal_ends_a_connection_that_has_no_frames(
    http_version: str, said: bytes | None
) -> None:
    """RFC 9113 §8.2.2: where there are frames, Connection makes an answer malformed."""
    scope = scope_with(http_version=http_version, headers=[(b"host", b"a b")])
    async with calling(scope) as call:
        call.server.gives()
        await wait_until(lambda: call.server.is_whole)

    assert (400, said) == (call.server.status, call.server.fields.get(b"connection"))
