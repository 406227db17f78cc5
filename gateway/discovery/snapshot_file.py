"""The file of Snapshots, read as carefully as an answer of a registry.

The one rule: whatever is in the file, and whatever kind of file it is, it gives Instances that any
registry could have told, or a RefusedError that says why not. It lies in a folder that others may
be able to write to, and what it says is where requests go.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from gateway.core.addresses import MAX_PORT, is_instance_host
from gateway.core.model import MAX_WEIGHT, Instance, Status
from gateway.core.units import format_size

VERSION = 1
MAX_FILE_BYTES = 64 * 1024 * 1024
# Clocks of machines differ, and a file may have been written on another one.
_LEAD_S = 300.0
_MOST_INSTANCES = 200_000
_SCHEMES = ("http", "https")
_STATUSES = tuple(status.value for status in Status)


class RefusedError(Exception):
    """The file cannot be used; its text says why."""


def read_bounded(path: Path) -> bytes:
    """Read the file. Raises FileNotFoundError, another OSError, or RefusedError."""
    # Without O_NONBLOCK, whoever opens a FIFO waits until somebody writes into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _judge(os.fstat(descriptor))
        content = bytearray()
        while piece := os.read(descriptor, MAX_FILE_BYTES + 1 - len(content)):
            content += piece
    finally:
        os.close(descriptor)
    if len(content) > MAX_FILE_BYTES:
        raise RefusedError(f"larger than {format_size(MAX_FILE_BYTES)}")
    return bytes(content)


def _judge(found: os.stat_result) -> None:
    """Refuse what we would not have written: another kind of file, or one that anybody may write.

    A group may, because volumes of Kubernetes are given to one (fsGroup).
    """
    if not stat.S_ISREG(found.st_mode):
        raise RefusedError("not a regular file")
    if found.st_uid not in {0, os.geteuid()}:
        raise RefusedError(f"owned by another user ({found.st_uid})")
    if found.st_mode & stat.S_IWOTH:
        raise RefusedError("writable by everybody")


def parse(
    content: bytes, *, datacenter: str | None, now_s: float, max_age_s: float
) -> dict[str, tuple[float, tuple[Instance, ...]]]:
    """Read service -> when it was confirmed, and its instances; old ones are left out.

    `now_s` and the instants are seconds since the epoch. Raises RefusedError.
    """
    try:
        document = json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise RefusedError("torn") from error
    try:
        if document["v"] != VERSION:
            raise RefusedError("other version")
        if document["dc"] != datacenter:
            raise RefusedError("other datacenter")
        return _services(document["services"], now_s=now_s, max_age_s=max_age_s)
    except KeyError as error:
        raise RefusedError(f"changed: it has no {error.args[0]}") from error
    except (AttributeError, OverflowError, TypeError) as error:
        raise RefusedError("changed: a part of it has the wrong type") from error
    except ValueError as error:
        raise RefusedError(f"changed: {error}") from error


def _services(
    services: Mapping[str, Any], *, now_s: float, max_age_s: float
) -> dict[str, tuple[float, tuple[Instance, ...]]]:
    confirmed = {name: _instant(kept["at"], now_s) for name, kept in services.items()}
    young = {name: at for name, at in confirmed.items() if now_s - at <= max_age_s}
    if services and not young:
        raise RefusedError("too old")
    if sum(len(services[name]["instances"]) for name in young) > _MOST_INSTANCES:
        raise RefusedError(f"more than {_MOST_INSTANCES} instances")
    return {name: (at, _instances(services[name]["instances"])) for name, at in young.items()}


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _instant(value: object, now_s: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError(f"at: {value!r}"[:80])
    if value > now_s + _LEAD_S:
        raise RefusedError("from the future")
    return float(value)


def _instances(kept: list[Any]) -> tuple[Instance, ...]:
    instances = tuple(_instance(item) for item in kept)
    if len({one.key for one in instances}) < len(instances):
        raise ValueError("two instances have one key")
    return instances


def _instance(kept: Mapping[str, Any]) -> Instance:
    """Read an instance; what it does not have to have is left out."""
    status = Status(_checked(kept, "status", lambda value: value in _STATUSES))
    return Instance(
        key=_checked(kept, "key", _is_text),
        id=_checked(kept, "id", _is_text),
        host=_checked(kept, "host", _is_host),
        port=_checked(kept, "port", lambda value: _is_within(value, 1, MAX_PORT)),
        scheme=_checked(kept, "scheme", lambda value: value in _SCHEMES),
        # Only a warning may weigh nothing.
        weight=_checked(
            kept,
            "weight",
            lambda value: _is_within(value, status is not Status.WARNING, MAX_WEIGHT),
        ),
        status=status,
        tags=tuple(_checked(kept, "tags", lambda value: all(map(_is_text, value)))),
        meta=tuple(
            (name, value)
            for name, value in _checked(
                kept, "meta", lambda pairs: all(_is_text(part) for pair in pairs for part in pair)
            )
        ),
        zone=_checked(kept, "zone", lambda value: value is None or _is_text(value)),
    )


def _checked(kept: Mapping[str, Any], name: str, is_good: Callable[[Any], bool]) -> Any:
    value = kept[name]
    if not is_good(value):
        raise ValueError(f"{name}: {value!r}"[:80])
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_host(value: object) -> bool:
    return isinstance(value, str) and is_instance_host(value) is not None


def _is_within(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
