"""The limit of open files: raised as far as the system allows, and shared out.

    limit = a reserve (listeners, admin port, registry, logs, refused connections)
          + clients' connections (`max_connections`)
          + as many connections to instances

A process that runs out of file descriptors can neither accept nor connect, and does not answer its
health checks either. So the number of clients is bounded by what is there, whatever the settings
say.
"""

from __future__ import annotations

import sys
from pathlib import Path

_RESERVE = 256
# Half of these are for what is open anyway, the admin port and refused clients.
LEAST_LIMIT = 64
# Listeners, the loop, logs, connections to the registry, and 2 * 2 beside those of the admin port.
_OPEN_ANYWAY = 28
# Connections of each kind beside those of clients, where there are enough files.
MOST_BESIDE = 64
# What Linux allows a process at most where the hard limit is "infinity".
_MOST_ALLOWED_FILE = Path("/proc/sys/fs/nr_open")


def raise_limit() -> tuple[int, int] | None:
    """Raise the soft limit of open files to the hard one.

    Returns the soft limit before and after; None on systems that have no such limit.
    """
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415 -- there is none on Windows

    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _most_allowed() if hard == resource.RLIM_INFINITY else hard
    if before not in {resource.RLIM_INFINITY, wanted}:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # macOS and some sandboxes allow less than they say
            wanted = before
    if before == resource.RLIM_INFINITY:
        before = wanted = _most_allowed()
    return before, wanted


def most_clients(limit: int) -> int:
    """Return for how many connections of clients a limit of open files is enough."""
    reserve = min(_RESERVE, limit // 2)
    return max(1, (limit - reserve) // 2)


def most_beside(limit: int) -> int:
    """Return how many connections of each kind there may be beside those of clients.

    There are three kinds: of the admin port, refused ones, and those that gave way. The admin port
    has a few refused ones of its own, which count as open anyway.
    """
    reserve = min(_RESERVE, limit // 2)
    return max(2, min(MOST_BESIDE, (reserve - _OPEN_ANYWAY) // 3))


def current_limit() -> int:
    """Return how many files may be open now; any number on systems without a limit."""
    if sys.platform == "win32":
        return sys.maxsize
    import resource  # noqa: PLC0415 -- there is none on Windows

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def limit_for(client_count: int) -> int:
    """Return the limit of open files that is enough for so many connections of clients."""
    return 2 * client_count + _RESERVE


def _most_allowed() -> int:
    try:
        return int(_MOST_ALLOWED_FILE.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 1024 * 1024
