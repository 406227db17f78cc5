"""Bodies of answers over real sockets: bounded, never decoded, read in turns."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.core.watch import Trouble
from gateway.discovery.bodies import LARGE_BYTES, MAX_ANSWER_BYTES, Bodies
from gateway.discovery.consul import Consul
from gateway.discovery.consul_options import ConsulOptions
from gateway.discovery.source import Answer, SourceError
from tests.fakes.waiting import PATIENCE_S, wait_until

Write = Callable[[asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Consul-Index: 7\r\n"


@asynccontextmanager
async def answering(write: Write) -> AsyncIterator[tuple[ConsulOptions, list[bytes]]]:
    """Answer each question by `write`; give how to ask, and the heads of all questions."""
    heads: list[bytes] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                await write(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # whoever asked has heard enough
        finally:
            writer.close()

    async with await asyncio.start_server(converse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield ConsulOptions(address=f"127.0.0.1:{port}"), heads


async def ask(options: ConsulOptions) -> Answer:
    async with Consul(options) as consul:
        return await consul.poll.query("web", index=0)


async def trouble_of(write: Write) -> SourceError:
    async with answering(write) as (options, _):
        with pytest.raises(SourceError) as caught:
            await ask(options)
    return caught.value


def whole(body: bytes, head: bytes = HEAD) -> Write:
    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()

    return write


def entries(count: int) -> bytes:
    return json.dumps(
        [
            {
                "Node": {"Node": "n", "Address": "10.0.0.1", "Meta": {"filler": "x" * 500}},
                "Service": {"ID": f"web-{number}", "Service": "web", "Port": 1000 + number % 9000},
                "Checks": [],
            }
            for number in range(count)
        ]
    ).encode()


async def test_compression_is_not_asked_for() -> None:
    async with answering(whole(entries(1))) as (options, heads):
        await ask(options)

    fields = [line.partition(b":") for line in heads[0].lower().split(b"\r\n")]
    assert [value.strip() for name, _, value in fields if name == b"accept-encoding"] == [
        b"identity"
    ]


async def test_an_encoding_that_was_not_asked_for_is_refused_and_nothing_is_decoded() -> None:
    bomb = gzip.compress(b"[" + b" " * 50_000_000 + b"]")
    error = await trouble_of(whole(bomb, HEAD + b"Content-Encoding: gzip\r\n"))

    assert error.trouble is Trouble.PROTOCOL
    assert "Content-Encoding 'gzip'" in error.detail


async def test_an_answer_that_says_that_it_is_too_large_is_not_read() -> None:
    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % (MAX_ANSWER_BYTES + 1))

    error = await trouble_of(write)

    assert error.trouble is Trouble.TOO_LARGE
    assert error.detail == "an answer of more than 64MiB"


async def test_an_endless_answer_is_read_to_the_bound_and_no_further() -> None:
    sent_bytes = 0

    async def write(writer: asyncio.StreamWriter) -> None:
        nonlocal sent_bytes
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"80000\r\n" + b" " * 0x80000 + b"\r\n")
            await writer.drain()
            sent_bytes += 0x80000

    error = await trouble_of(write)

    assert error.trouble is Trouble.TOO_LARGE
    assert sent_bytes < 1.5 * MAX_ANSWER_BYTES  # the rest is what sockets hold


async def test_of_an_endless_error_only_the_beginning_is_read() -> None:
    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"no " * 0x5555 + b"!\r\n")
            await writer.drain()

    error = await trouble_of(write)

    assert error.trouble is Trouble.PROTOCOL
    assert error.detail.startswith("500 no no no")


async def turns_during(work: Awaitable[Any]) -> int:
    """Count how often the loop turned before the work was done."""
    turns = 0
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(_of(work))
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
    return turns


async def _of(work: Awaitable[Any]) -> Any:
    return await work


async def test_the_loop_turns_while_a_large_answer_is_read() -> None:
    """Reading 6 MB takes a few tenths of a second: in one turn, nobody else would be served."""
    body = entries(10_000)
    has_left = False
    turns_after = 0

    async def write(writer: asyncio.StreamWriter) -> None:
        nonlocal has_left
        await whole(body)(writer)
        has_left = True

    async with answering(write) as (options, _), asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(ask(options))
        await wait_until(lambda: has_left, every_s=0)
        while not asking.done():
            await asyncio.sleep(0)
            turns_after += 1

    assert len(asking.result().instances) == 10_000
    assert turns_after > 50


async def test_the_loop_turns_while_an_answer_comes_in_tiny_chunks() -> None:
    body = entries(60)
    async with answering(whole_in_chunks(b"".join(b"1\r\n%c\r\n" % byte for byte in body))) as (
        options,
        _,
    ):
        turns = await turns_during(ask(options))

    assert turns > 50


def whole_in_chunks(chunks: bytes) -> Write:
    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        await writer.drain()

    return write


async def test_only_few_large_bodies_are_held_at_a_time_and_waiting_costs_no_time_limit() -> None:
    bodies = Bodies()
    held: list[int] = []
    go_on = asyncio.Event()

    async def read(number: int) -> None:
        response = httpx.Response(200, content=_pieces())
        async with (
            asyncio.timeout(PATIENCE_S) as within,
            bodies.read(response, within, PATIENCE_S) as body,
        ):
            assert within.when() is None  # waiting for a place, and what is done with it, is free
            assert len(body) > LARGE_BYTES
            held.append(number)
            await go_on.wait()

    async with asyncio.TaskGroup() as tasks:
        for number in range(5):
            tasks.create_task(read(number))
        await wait_until(lambda: len(held) == 2)
        await turns(100)
        assert len(held) == 2
        go_on.set()

    assert sorted(held) == [0, 1, 2, 3, 4]


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _pieces() -> AsyncIterator[bytes]:
    for _ in range(5):
        yield b"x" * (LARGE_BYTES // 4)


async def test_a_large_answer_that_is_no_list_is_a_named_trouble() -> None:
    error = await trouble_of(whole(b'{"a": "' + b"x" * LARGE_BYTES + b'"}'))

    assert error.trouble is Trouble.PROTOCOL
    assert error.detail == "what answers is not Consul: 200: not a list"
