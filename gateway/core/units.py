"""Durations and sizes as people write them: `250ms`, `1m30s`, `64KiB`.

routes.yaml and the environment are read by the same two functions, so that a value means the same
in both. The one rule: a duration always carries its unit, because a bare `30` has been read as
seconds by some and as milliseconds by others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_MS_OF_UNIT = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h))+")
_DURATION_PART = re.compile(r"([0-9.]+)(ms|s|m|h)")
_LONGEST_S = 366 * 24 * 3_600

_BYTES_OF_UNIT = {
    "b": 1,
    "kb": 1_000,
    "mb": 1_000_000,
    "gb": 1_000_000_000,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
}
_SIZE = re.compile(r"([0-9]{1,15})([a-z]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Kind:
    """How the reference of routes.yaml and of the settings names a kind of value."""

    name: str


class UnitError(ValueError):
    """A text that is not a duration or not a size; it says what to write instead."""


def parse_duration(text: str) -> float:
    """Read `250ms`, `5s`, `1m30s` or `1h` as seconds.

    Raises UnitError when it is anything else, or longer than a year.
    """
    if not _DURATION.fullmatch(text):
        raise UnitError(f"{text!r} is not a duration; write 250ms, 5s or 1m")
    parts = _DURATION_PART.findall(text)
    duration_s = sum(float(number) * _MS_OF_UNIT[unit] for number, unit in parts) / 1_000
    if duration_s > _LONGEST_S:
        raise UnitError(f"{text!r} is longer than a year; write 250ms, 5s or 1m")
    return float(duration_s)


def parse_timeout(text: str) -> float | None:
    """Read a duration that is longer than nothing as seconds, `off` or `none` as None (no limit).

    Raises UnitError when it is neither.
    """
    if text in {"off", "none"}:
        return None
    timeout_s = parse_duration(text)
    if not timeout_s:
        raise UnitError(f"{text!r} leaves no time at all; write off for no limit")
    return timeout_s


def parse_size(text: str) -> int:
    """Read `64KiB`, `1MiB`, `10MB` or plain bytes (`4096`) as bytes.

    `KiB` is 1024 bytes, `KB` is 1000 (IEC 80000-13). Raises UnitError when it is anything else: a
    lone `K` or `M` too, for it means the one to some and the other to others.
    """
    written = _SIZE.fullmatch(text)
    unit_bytes = _BYTES_OF_UNIT.get(written[2].lower() or "b") if written else None
    if written is None or unit_bytes is None:
        raise UnitError(f"{text!r} is not a size; write 64KiB, 1MiB or 10MB")
    return int(written[1]) * unit_bytes


def format_duration(duration_s: float | None) -> str:
    """Write seconds in the largest unit that leaves a whole number; None (no limit) is `off`."""
    if duration_s is None:
        return "off"
    duration_ms = round(duration_s * 1_000, 3)
    for unit in ("h", "m", "s"):
        if duration_ms and not duration_ms % _MS_OF_UNIT[unit]:
            return f"{duration_ms / _MS_OF_UNIT[unit]:.0f}{unit}"
    return f"{duration_ms:.15g}ms" if duration_ms else "0s"


def format_size(size_bytes: int) -> str:
    """Write bytes in the largest binary unit that leaves a whole number."""
    for unit in ("GiB", "MiB", "KiB"):
        unit_bytes = _BYTES_OF_UNIT[unit.lower()]
        if size_bytes and not size_bytes % unit_bytes:
            return f"{size_bytes // unit_bytes}{unit}"
    return f"{size_bytes}B"


def is_one_word(text: str) -> bool:
    """Tell whether a secret may stand in a header field (RFC 9110 §5.5): ASCII without blanks."""
    return text.isascii() and text.isprintable() and " " not in text
