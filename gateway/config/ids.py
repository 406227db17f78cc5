"""The id of a route that was given none: readable, unique, and the same after the file is sorted.

It is made of what the route takes, so it changes only when that does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256

from gateway.core.routing import RouteMatch

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 100


def complete_ids(given: Sequence[str | None], matches: Sequence[RouteMatch]) -> list[str]:
    """Give each route without an id one that no other has.

    Where two would be called the same (`/a-b` and `/a/b`), each gets a mark made of what it takes.
    """
    plain = [name or _readable(match) for name, match in zip(given, matches, strict=True)]
    taken = Counter(plain)
    return [
        name if given_name or taken[name] == 1 else f"{name}-{_mark(match)}"
        for name, given_name, match in zip(plain, given, matches, strict=True)
    ]


def _readable(match: RouteMatch) -> str:
    parts = [host.replace("*.", "any.") for host in match.hosts[:1]]
    parts += [segment for segment in match.path.decode().split("/") if segment]
    parts += [] if match.is_prefix else ["exact"]
    parts += [method.decode().lower() for method in sorted(match.methods or ())]
    name = _NOT_IN_A_NAME.sub("-", "-".join(parts))
    name = re.sub(r"\.{2,}", ".", name).lstrip("._-")
    return name[:_LONGEST] or "root"


def _mark(match: RouteMatch) -> str:
    methods = sorted(match.methods or ())
    said = repr((match.path, match.is_prefix, sorted(match.hosts), methods))
    return sha256(said.encode()).hexdigest()[:6]
