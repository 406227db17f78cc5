"""Durations and sizes: what is read, what is refused with which advice, what is written."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.units import (
    UnitError,
    format_duration,
    format_size,
    is_one_word,
    parse_duration,
    parse_size,
    parse_timeout,
)


@pytest.mark.parametrize(
    ("text", "duration_s"),
    [
        ("250ms", 0.25),
        ("5s", 5.0),
        ("1m", 60.0),
        ("1h", 3600.0),
        ("1m30s", 90.0),
        ("1.5s", 1.5),
        ("0s", 0.0),
        ("100ms", 0.1),
        ("366h", 1_317_600.0),
    ],
)
def test_a_duration_is_a_number_with_its_unit(text: str, duration_s: float) -> None:
    assert duration_s == parse_duration(text)


@pytest.mark.parametrize(
    "text",
    ["5", "0", "", "s", "5 s", "2 sec", "-1s", "1d", "5S", "1e3s", "٣s", "1.s", ".5s", "5s\n"],
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UnitError) as refusal:
        parse_duration(text)

    assert str(refusal.value) == f"{text!r} is not a duration; write 250ms, 5s or 1m"


@pytest.mark.parametrize("text", ["9000h", "9" * 400 + "h"])
def test_no_duration_is_longer_than_a_year(text: str) -> None:
    with pytest.raises(UnitError, match="longer than a year"):
        parse_duration(text)


def test_a_timeout_can_be_off() -> None:
    assert [parse_timeout(text) for text in ("off", "none", "2s")] == [None, None, 2.0]


def test_a_timeout_of_nothing_is_refused_because_it_would_fail_every_request() -> None:
    with pytest.raises(UnitError, match="'0s' leaves no time at all; write off for no limit"):
        parse_timeout("0s")


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("64KiB", 65_536),
        ("1MiB", 1_048_576),
        ("2GiB", 2_147_483_648),
        ("10MB", 10_000_000),
        ("1kb", 1_000),
        ("1GB", 1_000_000_000),
        ("4096", 4_096),
        ("12B", 12),
        ("0", 0),
    ],
)
def test_a_size_is_bytes_or_a_number_with_its_unit(text: str, size_bytes: int) -> None:
    assert size_bytes == parse_size(text)


@pytest.mark.parametrize(
    "text", ["", "KiB", "1K", "1M", "-1", "1.5MiB", "1 MiB", "64KiBs", "9" * 20]
)
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UnitError) as refusal:
        parse_size(text)

    assert str(refusal.value) == f"{text!r} is not a size; write 64KiB, 1MiB or 10MB"


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [(None, "off"), (0, "0s"), (0.25, "250ms"), (15.0, "15s"), (90.0, "90s"), (300.0, "5m")],
)
def test_a_duration_is_written_in_its_largest_whole_unit(
    duration_s: float | None, text: str
) -> None:
    assert text == format_duration(duration_s)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0B"), (65_536, "64KiB"), (1_000, "1000B"), (3 << 20, "3MiB"), (1 << 30, "1GiB")],
)
def test_a_size_is_written_in_its_largest_whole_unit(size_bytes: int, text: str) -> None:
    assert text == format_size(size_bytes)


@given(st.integers(min_value=1, max_value=10_000_000))
def test_what_is_written_is_read_as_the_same_duration(duration_ms: int) -> None:
    assert parse_timeout(format_duration(duration_ms / 1_000)) == duration_ms / 1_000


@given(st.integers(min_value=0, max_value=1 << 40))
def test_what_is_written_is_read_as_the_same_size(size_bytes: int) -> None:
    assert size_bytes == parse_size(format_size(size_bytes))


@given(st.text(alphabet="0123456789.smhKMGiBb ", max_size=12))
def test_any_text_is_a_value_or_a_refusal(text: str) -> None:
    for parse in (parse_duration, parse_size):
        with suppress(UnitError):
            assert parse(text) >= 0


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("abc-1", True),
        ("", True),
        ("a b", False),
        ("a\nb", False),
        ("a\tb", False),
        ("\xe9", False),
    ],
)
def test_a_secret_is_one_word(text: str, *, is_one: bool) -> None:
    assert is_one_word(text) == is_one
