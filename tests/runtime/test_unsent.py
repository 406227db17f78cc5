"""What a transport could not send is joined, and written in one piece when it has sent all."""

from __future__ import annotations

import asyncio

from gateway.runtime.unsent import MOST_UNSENT_BYTES, Unsent


class Choked(asyncio.Transport):
    """A transport that takes `room` bytes, and tells its Unsent when something is left."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.limits: tuple[int | None, int | None] | None = None
        self.writes: list[bytes] = []
        self.unsent: Unsent

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = (high, low)

    def get_write_buffer_size(self) -> int:
        return max(0, sum(map(len, self.writes)) - self.room)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert isinstance(data, bytes), "what is still written to is not handed over"
        assert not self.get_write_buffer_size(), "one write more, while some are left"
        self.writes.append(data)
        if self.get_write_buffer_size():
            self.unsent.paused()


def choked(room: int = 0) -> tuple[Choked, Unsent]:
    transport = Choked(room)
    transport.unsent = Unsent(transport)
    assert transport.limits == (0, None)
    return transport, transport.unsent


def test_nothing_waits_for_a_side_that_takes_all() -> None:
    transport, unsent = choked(room=10)

    transport.write(b"x" * 10)
    assert not unsent.is_waiting
    assert not unsent.is_full


def test_tiny_pieces_become_one_in_their_order() -> None:
    transport, unsent = choked(room=1)
    transport.write(b"ab")
    assert unsent.is_waiting

    pieces = [b"%d," % number for number in range(1000)]
    for piece in pieces:
        unsent.add(piece)
    assert unsent.joined_bytes == sum(map(len, pieces))
    assert repr(unsent) == f"<Unsent {unsent.joined_bytes} bytes joined>"
    transport.room = 1 << 20
    unsent.let_go()

    assert transport.writes == [b"ab", b"".join(pieces)]
    assert (unsent.is_waiting, unsent.joined_bytes) == (False, 0)


def test_it_waits_on_where_the_joined_piece_is_not_taken_whole_either() -> None:
    transport, unsent = choked(room=1)
    transport.write(b"ab")
    unsent.add(b"cd")

    transport.room = 3
    unsent.let_go()
    assert unsent.is_waiting
    unsent.add(b"ef")
    transport.room = 6
    unsent.let_go()

    assert transport.writes == [b"ab", b"cd", b"ef"]
    assert not unsent.is_waiting


def test_it_is_full_by_what_waits_in_both_places() -> None:
    transport, unsent = choked()
    transport.write(b"x" * (MOST_UNSENT_BYTES - 1))
    unsent.add(b"x")
    assert not unsent.is_full

    unsent.add(b"x")
    assert unsent.is_full
    unsent.drop()
    assert not unsent.is_full


def test_nothing_is_written_where_nothing_was_joined() -> None:
    transport, unsent = choked()

    unsent.let_go()

    assert transport.writes == []
