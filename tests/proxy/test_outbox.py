"""What an Outbox keeps until the end of a turn, and in which order it leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.outbox import MOST_WAITING, SMALL_BYTES, Outbox

LARGE = b"x" * SMALL_BYTES


class Transport:
    """Takes what is written, unless it has closed or `breaks`."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.written: list[bytes] = []
        self.is_closed = False
        self.breaks = breaks

    def write(self, data: bytes) -> None:
        if self.breaks:
            raise KeyError("a mistake")
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.is_closed

    def abort(self) -> None:
        self.is_closed = True


class Turn:
    """A turn of a loop that ends when the test says so."""

    def __init__(self) -> None:
        self.at_end: list[Callable[[], None]] = []
        self.outbox = Outbox(self.at_end.append)

    def end(self) -> None:
        due, self.at_end[:] = self.at_end[:], []
        for act in due:
            act()


@pytest.fixture
def turn() -> Turn:
    return Turn()


def test_what_is_small_waits_for_the_end_of_the_turn_and_asks_for_it_once(turn: Turn) -> None:
    one, other = Transport(), Transport()

    turn.outbox.write(one, b"a")
    turn.outbox.write(other, b"b")
    turn.outbox.write(one, b"c")

    assert [] == one.written
    assert 1 == len(turn.at_end)
    assert "<Outbox 3 waiting>" == repr(turn.outbox)
    turn.end()
    assert ([b"a", b"c"], [b"b"]) == (one.written, other.written)
    turn.outbox.write(one, b"d")
    assert 1 == len(turn.at_end)


def test_what_is_large_leaves_at_once_behind_all_that_waits(turn: Turn) -> None:
    one, other = Transport(), Transport()

    turn.outbox.write(one, b"a")
    turn.outbox.write(other, b"b")
    turn.outbox.write(one, LARGE)

    assert ([b"a", LARGE], [b"b"]) == (one.written, other.written)
    turn.end()
    assert ([b"a", LARGE], [b"b"]) == (one.written, other.written)


def test_so_many_are_enough_and_the_next_one_begins_anew(turn: Turn) -> None:
    transport = Transport()

    for _ in range(MOST_WAITING):
        assert [] == transport.written
        turn.outbox.write(transport, b"a")

    assert [b"a"] * MOST_WAITING == transport.written
    turn.outbox.write(transport, b"b")
    assert b"b" not in transport.written
    turn.end()
    assert [*[b"a"] * MOST_WAITING, b"b"] == transport.written


def test_whoever_closes_lets_it_go_first(turn: Turn) -> None:
    transport = Transport()
    turn.outbox.write(transport, b"the end")

    turn.outbox.send()
    transport.is_closed = True
    turn.end()

    assert [b"the end"] == transport.written


def test_a_transport_that_has_closed_is_sent_nothing(turn: Turn) -> None:
    closed, other = Transport(), Transport()
    turn.outbox.write(closed, b"a")
    turn.outbox.write(other, b"b")
    closed.is_closed = True

    turn.end()

    assert ([], [b"b"]) == (closed.written, other.written)


async def test_a_mistake_at_one_transport_is_told_to_the_loop_and_ends_that_one(turn: Turn) -> None:
    """Whoever lets it go may be anybody, so nothing is raised there."""
    loop, mistakes = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: mistakes.append(context["exception"]))
    broken, other = Transport(breaks=True), Transport()
    turn.outbox.write(broken, b"a")
    turn.outbox.write(broken, b"b")
    turn.outbox.write(other, b"c")

    turn.end()

    assert ["KeyError('a mistake')"] == [repr(one) for one in mistakes]
    assert (True, [], [b"c"]) == (broken.is_closed, broken.written, other.written)


async def test_on_a_loop_the_turn_ends_by_itself() -> None:
    outbox, transport = Outbox(), Transport()

    outbox.write(transport, b"a")

    assert [] == transport.written
    await asyncio.sleep(0)
    assert [b"a"] == transport.written


PIECES = st.tuples(st.integers(0, 2), st.binary(min_size=1, max_size=3) | st.just(LARGE))


@given(st.lists(st.none() | PIECES))
def test_each_transport_gets_its_bytes_in_order_and_all_of_them(
    acts: list[tuple[int, bytes] | None],
) -> None:
    """None is the end of a turn."""
    turn, transports = Turn(), [Transport() for _ in range(3)]
    for act in [*acts, None]:
        if act is None:
            turn.end()
        else:
            turn.outbox.write(transports[act[0]], act[1])

    for number, transport in enumerate(transports):
        assert transport.written == [act[1] for act in acts if act and act[0] == number]
