"""Retry-After as instances write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.message import Fields
from gateway.core.retry_after import read_retry_after

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
LATER = b"Sun, 06 Nov 1994 08:50:07 GMT"


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ([], None),
        ([(b"Retry-After", b"120")], 120.0),
        ([(b"retry-after", b"0")], 0.0),
        ([(b"Retry-After", LATER), (b"Date", DATE)], 30.0),
        ([(b"Retry-After", DATE), (b"Date", LATER)], 0.0),
        ([(b"Retry-After", LATER)], None),
        ([(b"Retry-After", b"soon"), (b"Date", DATE)], None),
        ([(b"Retry-After", LATER), (b"Date", b"now")], None),
        ([(b"Retry-After", b"Sun, 06 Nov 1994 08:50:07 -0000"), (b"Date", DATE)], None),
        ([(b"Retry-After", b"-5")], None),
        ([(b"Retry-After", b"\xff")], None),
        ([(b"Retry-After", b"9999 Jan 00:00:00 " + b"9" * 20), (b"Date", DATE)], None),
    ],
)
def test_seconds_and_dates_are_read_and_anything_else_is_nothing(
    fields: Fields, seconds: float | None
) -> None:
    """A date without a Date beside it would be compared with another clock."""
    assert seconds == read_retry_after(fields)


dates = st.lists(
    st.sampled_from(
        [
            "Sun,",
            "06",
            "31",
            "Nov",
            "1994",
            "9999",
            "0",
            "08:49:37",
            "24:00:00",
            "GMT",
            "-9999",
            "Z",
        ]
    )
    | st.integers(0).map(str),
    max_size=7,
).map(lambda words: " ".join(words).encode())


@given(dates | st.binary(max_size=40), dates)
def test_nonsense_is_read_as_nothing(value: bytes, date: bytes) -> None:
    asked_s = read_retry_after([(b"Retry-After", value), (b"Date", date)])

    assert asked_s is None or asked_s >= 0
