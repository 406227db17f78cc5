"""Where a head ends, however its bytes are cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.heads import HEAD_END, end_of_head

PARTS = st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"\r\n\r\n"])
STREAMS = st.lists(PARTS, max_size=8).map(b"".join)


def ends(stream: bytes, cuts: list[int]) -> list[int]:
    """Feed a stream in pieces; tell where in the stream the first head ended, if it did."""
    begun, at = b"", 0
    bounds = sorted({min(cut, len(stream)) for cut in cuts} | {len(stream)})
    for bound in bounds:
        piece = stream[at:bound]
        end = end_of_head(begun, b"xx" + piece, 2)
        if end:
            return [at + end - 2]
        begun += piece
        at = bound
    return []


@given(STREAMS, st.lists(st.integers(0, 16), max_size=4))
def test_a_head_ends_at_its_first_empty_line_wherever_it_is_cut(
    stream: bytes, cuts: list[int]
) -> None:
    found = stream.find(HEAD_END)

    assert ([found + len(HEAD_END)] if found >= 0 else []) == ends(stream, cuts)
