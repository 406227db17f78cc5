"""Where a frame ends, however the bytes are cut, and what closes a WebSocket."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.streams import StreamReader

from gateway.core.websocket import GOING_AWAY, MOST_FRAMES, Frames, close_frame

SIZES = [0, 1, 125, 126, 127, 65535, 65536, 100_000]


def frame(
    size_bytes: int, opcode: Opcode = Opcode.BINARY, *, mask: bool = False, fin: bool = True
) -> bytes:
    """Write a frame; `websockets` shares no code with the gateway."""
    return Frame(opcode, bytes(size_bytes), fin=fin).serialize(mask=mask)


def counted(*chunks: bytes) -> Frames:
    frames = Frames()
    for chunk in chunks:
        frames.count(chunk)
    return frames


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("size_bytes", SIZES)
def test_a_frame_ends_where_its_length_says(size_bytes: int, *, mask: bool) -> None:
    whole = frame(size_bytes, mask=mask)

    assert counted(whole).takes_another
    assert not counted(whole[:-1]).takes_another
    assert not counted(whole + b"\x82").takes_another
    assert counted(whole, whole[:1], whole[1:]).takes_another


def test_of_many_small_frames_a_share_is_counted_at_a_time() -> None:
    frames, data = Frames(), frame(0, mask=True) * 10_000 + frame(200)[:3]
    shares = []
    while data:
        shares.append(frames.count(data))
        data = data[shares[-1] :]

    assert max(shares) <= MOST_FRAMES * len(frame(0, mask=True))
    assert not frames.takes_another
    assert frames.count(frame(200)[3:]) == len(frame(200)) - 3
    assert frames.takes_another


def test_between_two_fragments_another_frame_may_stand() -> None:
    assert counted(frame(3, fin=False)).takes_another


def test_before_the_first_byte_a_frame_may_stand() -> None:
    frames = counted()

    assert frames.takes_another
    assert "<Frames 0 bytes to the next frame>" == repr(frames)


def test_behind_a_close_nothing_may_stand() -> None:
    """RFC 6455 §5.5.1."""
    frames = counted(frame(2), frame(2, Opcode.CLOSE))

    assert not frames.takes_another
    assert "<Frames closed>" == repr(frames)


@given(
    sizes=st.lists(st.sampled_from([0, 1, 125, 126, 300, 65536]), min_size=1, max_size=6),
    mask=st.booleans(),
    cuts=st.lists(st.integers(0, 400_000), max_size=12),
    data=st.data(),
)
def test_it_does_not_matter_how_the_bytes_are_cut(
    sizes: list[int], *, mask: bool, cuts: list[int], data: st.DataObject
) -> None:
    whole = b"".join(frame(size, mask=mask) for size in sizes)
    ends = {0}
    for size in sizes:
        ends.add(max(ends) + len(frame(size, mask=mask)))
    stop = data.draw(st.one_of(st.sampled_from(sorted(ends)), st.integers(0, len(whole))))
    edges = sorted({0, stop, *(cut for cut in cuts if cut < stop)})

    chunks = [whole[start:end] for start, end in pairwise(edges)]

    assert (stop in ends) == counted(*chunks).takes_another


def test_only_the_start_of_a_frame_is_kept() -> None:
    frames = counted(frame(65536)[:9])
    kept_bytes = len(frames._start)

    frames.count(bytes(60_000))

    assert (9, 0) == (kept_bytes, len(frames._start))


@pytest.mark.parametrize("is_masked", [False, True])
def test_a_close_is_read_back_by_somebody_else(*, is_masked: bool) -> None:
    reader = StreamReader()
    reader.feed_data(close_frame(GOING_AWAY, is_masked=is_masked))

    parsing = Frame.parse(reader.read_exact, mask=is_masked, max_size=None)
    with pytest.raises(StopIteration) as read:
        next(parsing)

    assert Opcode.CLOSE is read.value.value.opcode
    assert Close(1001, "") == Close.parse(read.value.value.data)
