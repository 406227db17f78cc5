"""The field that says how much time is left, read and written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.time_left import GRPC_TIMEOUT, read_time_left, time_left_line

NAME = b"x-request-timeout-ms"


@pytest.mark.parametrize(
    ("value", "left_s"),
    [(b"1500", 1.5), (b"0", 0.0), (b"", None), (b"1.5", None), (b"-1", None), (b"soon", None)],
)
def test_milliseconds_are_whole_and_anything_else_is_nothing(
    value: bytes, left_s: float | None
) -> None:
    assert left_s == read_time_left([(b"X-Request-Timeout-Ms", value)], NAME)


@pytest.mark.parametrize(
    ("value", "left_s"),
    [
        (b"2H", 7200.0),
        (b"1M", 60.0),
        (b"5S", 5.0),
        (b"250m", 0.25),
        (b"100u", 1e-4),
        (b"100n", 1e-7),
        (b"5", None),
        (b"123456789m", None),
    ],
)
def test_grpc_has_its_own_way_to_write_it(value: bytes, left_s: float | None) -> None:
    read = read_time_left([(b"grpc-timeout", value)], GRPC_TIMEOUT)

    assert read == (left_s if left_s is None else pytest.approx(left_s))


def test_of_several_the_shortest_holds() -> None:
    fields = [(NAME, b"900"), (b"accept", b"*/*"), (NAME, b"200"), (NAME, b"x")]

    assert read_time_left(fields, NAME) == 0.2
    assert read_time_left([], NAME) is None


def test_it_is_written_as_a_line_and_never_as_nothing() -> None:
    assert time_left_line(NAME, 1.2345) == b"\r\nx-request-timeout-ms: 1234"
    assert time_left_line(NAME, -3.0) == b"\r\nx-request-timeout-ms: 1"
    assert time_left_line(GRPC_TIMEOUT, 1e9) == b"\r\ngrpc-timeout: 99999999m"


@given(st.floats(0.001, 90_000), st.sampled_from([NAME, GRPC_TIMEOUT]))
def test_what_is_written_is_read_again_and_never_promises_more(left_s: float, name: bytes) -> None:
    _, _, value = time_left_line(name, left_s).strip().partition(b": ")

    read_s = read_time_left([(name, value)], name)

    assert read_s is not None
    assert left_s - 0.001 <= read_s <= left_s + 1e-9
