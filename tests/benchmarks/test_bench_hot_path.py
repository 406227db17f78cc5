"""The hot path may not grow unnoticed: what a proxied request costs, in numbers that do not vary.

Whoever must make it longer moves a bound on purpose, with the reason in the commit. It is an upper
bound only: who makes the path shorter breaks nothing. What each function takes is shown by
`python -m benchmarks.hot_path`.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.hot_path import ANSWER, KINDS, Cost, HotPath, cost_of, hot_path, requests

MOST_CALLS = {"get": 52, "post": 57}
# Of Python 3.11; other versions cut their code in other pieces.
MOST_INSTRUCTIONS = {"get": 2020, "post": 2185}
each_kind = pytest.mark.parametrize("kind", KINDS)


async def measured(kind: str) -> Cost:
    async with hot_path() as path:
        asked = KINDS[kind](16)
        for request in asked:
            path.ask(request)  # connections are warm, and caches filled
        return cost_of(path, asked)


@each_kind
async def test_a_request_makes_no_more_calls_than_before(kind: str) -> None:
    cost = await measured(kind)

    assert cost.calls_each <= MOST_CALLS[kind]


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="instructions are counted on 3.11")
@each_kind
async def test_a_request_takes_no_more_instructions_than_before(kind: str) -> None:
    cost = await measured(kind)

    assert cost.instructions_each <= MOST_INSTRUCTIONS[kind]


async def test_what_is_measured_is_a_whole_request_and_its_answer() -> None:
    async with hot_path() as path:
        sent, answered = path.ask(requests(2)[1])

    assert sent.startswith(b"GET /1 HTTP/1.1\r\nHost: shop.example\r\nAccept: text/html")
    assert b"\r\nX-Forwarded-For: 192.0.2.1\r\n" in sent
    assert sent.endswith(b"\r\nVia: 1.1 gateway\r\n\r\n")
    request_id = sent.partition(b"\r\nX-Request-Id: ")[2].partition(b"\r\n")[0]
    assert len(request_id) == 20
    told = ANSWER.replace(b"Connection: keep-alive\r\n", b"")
    assert answered == told.replace(b"\r\n\r\n", b"\r\nX-Request-Id: %b\r\n\r\n" % request_id)


async def test_a_request_makes_no_task_no_future_and_no_timer() -> None:
    async with hot_path() as path:
        ask_some(path)
        with quiet_collector():
            before = count_of_what_waits()

            kept = [path.ask(request) for request in requests(50)]

            assert count_of_what_waits() == before
    assert len(kept) == 50


async def test_a_request_leaves_nothing_to_the_collector() -> None:
    """What only the collector can free is looked for in all objects, again and again."""
    async with hot_path() as path:
        ask_some(path)
        with quiet_collector():
            ask_some(path)

            assert gc.collect() == 0


def ask_some(path: HotPath) -> None:
    for request in requests(50):
        path.ask(request)


@contextmanager
def quiet_collector() -> Iterator[None]:
    """Collect what other tests left, and nothing more by itself."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def count_of_what_waits() -> int:
    """Count by type: a weak proxy that another test left may not be asked what it stands for."""
    kinds = (asyncio.Task, asyncio.Future, asyncio.Handle)
    return sum(issubclass(type(one), kinds) for one in gc.get_objects())
