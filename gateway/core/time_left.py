"""How much time is left for a request, as a header field says it: whole milliseconds, or gRPC's.

Who waits for an answer knows until when, and whoever works on it should know too: work that nobody
waits for any more is the first thing to leave undone when there is too much of it. An instant would
need clocks that agree, so what is sent is a span of time.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.core.message import Fields

GRPC_TIMEOUT: Final = b"grpc-timeout"
_LONGEST_MS: Final = 99_999_999  # eight digits: what gRPC takes at most
_MILLISECONDS: Final = re.compile(rb"[0-9]{1,10}")
# https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md: Timeout → TimeoutValue TimeoutUnit
_GRPC: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_S_OF_UNIT: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def read_time_left(fields: Fields, name: bytes) -> float | None:
    """Read how many seconds are left, None if no field of this (lower-case) name says it well.

    Of several the shortest holds.
    """
    read = _read_grpc if name == GRPC_TIMEOUT else _read_milliseconds
    found = (read(value) for key, value in fields if key.lower() == name)
    return min((one for one in found if one is not None), default=None)


def time_left_line(name: bytes, left_s: float) -> bytes:
    """Write the field as a line; never less than a millisecond."""
    left_ms = min(max(int(left_s * 1000), 1), _LONGEST_MS)
    unit = b"m" if name == GRPC_TIMEOUT else b""
    return b"\r\n%b: %d%b" % (name, left_ms, unit)


def _read_milliseconds(value: bytes) -> float | None:
    return int(value) / 1000 if _MILLISECONDS.fullmatch(value) else None


def _read_grpc(value: bytes) -> float | None:
    found = _GRPC.fullmatch(value)
    return int(found[1]) * _S_OF_UNIT[found[2]] if found else None
