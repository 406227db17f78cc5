"""What checks bodies of gigabytes finds what is wrong with them."""

from __future__ import annotations

import io
import socket
import threading

import pytest

from tests.fakes.bulk import PATTERN, BadBodyError, read_pattern, send_pattern

SIZE_BYTES = 2_500_000
BODY = (PATTERN * 3)[:SIZE_BYTES]


def source_of(raw: bytes) -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(raw))


@pytest.mark.parametrize("in_chunks", [False, True])
def test_what_is_sent_is_what_is_read(*, in_chunks: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, theirs.makefile("rb") as source:
        sending = threading.Thread(
            target=send_pattern, args=(ours, SIZE_BYTES), kwargs={"in_chunks": in_chunks}
        )
        sending.start()
        got_bytes = read_pattern(source, None if in_chunks else SIZE_BYTES)
        sending.join()

    assert got_bytes == SIZE_BYTES


@pytest.mark.parametrize(
    "body",
    [
        BODY[:-1],
        BODY[:1000] + BODY[1001:] + b"x",
        BODY[:1000] + BODY[999:-1],
        BODY[:65536] + BODY[:65536] + BODY[131072:],
    ],
    ids=["cut", "a byte lost", "a byte twice", "a piece of another place"],
)
def test_a_body_that_is_not_whole_and_right_is_found(body: bytes) -> None:
    with pytest.raises(BadBodyError):
        read_pattern(source_of(body), SIZE_BYTES)
