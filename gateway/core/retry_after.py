"""What an instance says of when to come again: Retry-After (RFC 9110 §10.2.3), as seconds."""

from __future__ import annotations

import re
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final

from gateway.core.message import Fields

_SECONDS: Final = re.compile(rb"[0-9]{1,9}")


def read_retry_after(fields: Fields) -> float | None:
    """Tell in how many seconds it wants to be asked again, None if it does not say, or not well.

    A date is compared with the Date of the same answer: both are of the instance's own clock.
    """
    said = {name.lower(): value for name, value in fields}
    value = said.get(b"retry-after", b"")
    if _SECONDS.fullmatch(value):
        return float(value)
    until, now = _date(value), _date(said.get(b"date", b""))
    if until is None or now is None:
        return None
    return max((until - now).total_seconds(), 0.0)


def _date(value: bytes) -> datetime | None:
    try:
        date = parsedate_to_datetime(value.decode("latin-1"))
    except (ValueError, OverflowError):  # a number that is no date, or none that fits
        return None
    return date if date.tzinfo is not None else None
