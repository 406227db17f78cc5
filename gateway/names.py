"""Names of instances and registries -> addresses.

asyncio and uvloop look names up in a few threads that are shared, and a dead name keeps one of them
for as long as the system's resolver is patient (10 to 30 s): two dead names stop all other names.
Here each lookup has a daemon thread of its own, there is one lookup for each name at a time, and
whoever asks meanwhile gets the last good answer.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog

_log = structlog.get_logger()

T = TypeVar("T")
Lookup = Callable[..., Sequence[tuple[Any, ...]]]

# What is younger is used without a lookup.
_FRESH_S = 1.0
# After this time a lookup is late, and the last good answer is used.
_PATIENCE_S = 0.25
# RFC 8305 §5: how long the next address waits for the one before it.
_NEXT_ADDRESS_S = 0.25
LOOKUPS_PER_GROUP = 32
_MAX_KNOWN = 4096
# Who waits for less says nothing about the nameserver, nor does a lookup that waits for its turn.
_LATE_S = 1.0
# A name that was late, and that nobody has asked for since.
_FORGOTTEN_S = 60.0


class NameLateError(OSError):
    """The resolver gave no answer about a name; that says nothing about the host of that name."""


# What we may lack ourselves, of which no instance is to blame: descriptors, memory, local ports.
OUR_OWN_LACK = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# Linux: -2, -5 and -9; other systems do not have them all.
_NO_SUCH_NAME = frozenset(
    getattr(socket, name, 0) for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY")
) - {0}


class NoAddressError(OSError):
    """A name that exists and has no address."""


@dataclass(frozen=True, slots=True)
class LateName:
    """A name about which the resolver gave no answer: since and until when (loop time), and why."""

    since_s: float
    last_s: float
    why: str


class LateNames:
    """The names about which the resolver gives no answer, each told in the log once.

    One that nobody asks for any more is forgotten after a minute: whether there would be an answer
    is not known then.
    """

    def __init__(self) -> None:
        self._late: dict[str, LateName] = {}

    def at(self, now_s: float) -> dict[str, LateName]:
        """Give those that are late now."""
        for host in [host for host, one in self._late.items() if now_s - one.last_s > _FORGOTTEN_S]:
            del self._late[host]
        return dict(self._late)

    def note(self, host: str, why: str, now_s: float) -> None:
        """Hear that there was no answer."""
        before = self._late.pop(host, None)
        if before is None or now_s - before.last_s > _FORGOTTEN_S:
            _log.warning("name_late", name=host, why=why)
            before = LateName(now_s, now_s, why)
        self._late[host] = LateName(before.since_s, now_s, why)
        if len(self._late) > _MAX_KNOWN:
            del self._late[next(iter(self._late))]

    def clear(self, host: str, now_s: float) -> None:
        """Hear that there was an answer, whatever it is."""
        late = self._late.pop(host, None)
        if late is not None and now_s - late.last_s <= _FORGOTTEN_S:
            _log.info("name_answered", name=host, after_s=round(now_s - late.since_s, 3))


class _Lookup:
    """One lookup, shared by all who wait for it."""

    def __init__(self, host: str, group: str, loop: asyncio.AbstractEventLoop) -> None:
        self.host = host
        self.group = group
        self.begun_s = loop.time()
        self.is_running = False
        self.outcome: asyncio.Future[tuple[str, ...]] = loop.create_future()


class Names:
    """Looks names up. All methods belong to one event loop.

    `lookup` takes the place of socket.getaddrinfo; it blocks, in a thread. `late` are those about
    which there is no answer.
    """

    def __init__(self, *, lookup: Lookup | None = None) -> None:
        self._getaddrinfo = lookup or socket.getaddrinfo
        self._lookups: dict[str, _Lookup] = {}
        self._running: dict[str, int] = {}
        self._queued: dict[str, deque[_Lookup]] = {}
        self._known: dict[str, tuple[float, tuple[str, ...]]] = {}
        self.late = LateNames()

    def __repr__(self) -> str:
        return f"<Names known={len(self._known)} lookups={len(self._lookups)}>"

    def of(self, group: str) -> GroupOfNames:
        """Give the lookups of one group, which have a limit of their own."""
        return GroupOfNames(self, group)

    async def addresses(
        self, host: str, *, within_s: float | None = None, group: str = ""
    ) -> tuple[str, ...]:
        """Return the IP addresses of a host, at least one, in the order in which to try them.

        Of each `group`, LOOKUPS_PER_GROUP names are looked up at a time; a name that waits for its
        turn in one group begins at once when another one asks that has room. Raises NameLateError
        when there is no answer within `within_s` (None: wait for the resolver) or the resolver
        could not find out; OSError (socket.gaierror) for a name that does not exist, and
        UnicodeError for one that cannot be a name.
        """
        if _is_address(host):
            return (host,)
        now_s = asyncio.get_running_loop().time()
        known = self._known.get(host)
        if known is not None and now_s - known[0] < _FRESH_S:
            return known[1]
        lookup = self._lookups.get(host)
        if lookup is None:
            lookup = self._begin(host, group)
        elif not lookup.is_running and lookup.group != group:
            self._hand_over(lookup, group)
        wait_s = within_s
        if known is not None:
            left_s = max(0.0, lookup.begun_s + _PATIENCE_S - now_s)
            wait_s = left_s if within_s is None else min(left_s, within_s)
        await asyncio.wait([lookup.outcome], timeout=wait_s)
        if lookup.outcome.done():
            return self._answer_of(lookup, known)
        if known is not None:
            return known[1]
        self._note_late(lookup)
        raise NameLateError(f"no answer about the name {host!r} within {within_s:.3g} s")

    def _note_late(self, lookup: _Lookup) -> None:
        now_s = asyncio.get_running_loop().time()
        if lookup.is_running and now_s - lookup.begun_s >= _LATE_S:
            why = f"no answer after {now_s - lookup.begun_s:.3g} s"
            self.late.note(lookup.host, why, now_s)

    def _answer_of(
        self, lookup: _Lookup, known: tuple[float, tuple[str, ...]] | None
    ) -> tuple[str, ...]:
        try:
            return lookup.outcome.result()
        except NameLateError:
            if known is None:
                raise
            return known[1]

    def _begin(self, host: str, group: str) -> _Lookup:
        loop = asyncio.get_running_loop()
        lookup = self._lookups[host] = _Lookup(host, group, loop)
        if self._running.get(group, 0) < LOOKUPS_PER_GROUP:
            self._start(lookup, loop)
        else:
            self._queued.setdefault(group, deque()).append(lookup)
        return lookup

    def _hand_over(self, lookup: _Lookup, group: str) -> None:
        """Begin a lookup that waits in another group, if there is room in this one."""
        if self._running.get(group, 0) >= LOOKUPS_PER_GROUP:
            return
        queued = self._queued[lookup.group]
        queued.remove(lookup)
        if not queued:
            del self._queued[lookup.group]
        lookup.group = group
        self._start(lookup, asyncio.get_running_loop())

    def _start(self, lookup: _Lookup, loop: asyncio.AbstractEventLoop) -> None:
        lookup.is_running, lookup.begun_s = True, loop.time()
        self._running[lookup.group] = self._running.get(lookup.group, 0) + 1

        def run() -> None:
            try:
                found = self._getaddrinfo(lookup.host, None, type=socket.SOCK_STREAM)
                outcome: tuple[str, ...] | Exception = _in_order(found)
            except Exception as error:  # noqa: BLE001 -- raised where the addresses are awaited
                outcome = error
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._end, lookup, outcome, loop)

        try:
            threading.Thread(target=run, name=f"name:{lookup.host}", daemon=True).start()
        except RuntimeError as error:  # there may be no more threads
            loop.call_soon(self._end, lookup, error, loop)

    def _end(
        self,
        lookup: _Lookup,
        outcome: tuple[str, ...] | Exception,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        del self._lookups[lookup.host]
        self._tell(lookup, outcome, loop)
        self._next_of(lookup.group, loop)

    def _tell(
        self,
        lookup: _Lookup,
        outcome: tuple[str, ...] | Exception,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        if isinstance(outcome, tuple):
            self._known.pop(lookup.host, None)
            self._known[lookup.host] = (loop.time(), outcome)
            if len(self._known) > _MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self.late.clear(lookup.host, loop.time())
            lookup.outcome.set_result(outcome)
            return
        if _is_undecided(outcome):
            self.late.note(lookup.host, str(outcome), loop.time())
            outcome = NameLateError(f"no answer about the name {lookup.host!r}: {outcome}")
        else:
            self.late.clear(lookup.host, loop.time())
            self._known.pop(lookup.host, None)  # it does not exist any more
        lookup.outcome.set_exception(outcome)
        lookup.outcome.exception()  # whoever waited for it may have left

    def _next_of(self, group: str, loop: asyncio.AbstractEventLoop) -> None:
        """Give the place of a lookup that has ended to the next one of its group."""
        self._running[group] -= 1
        if not self._running[group]:
            del self._running[group]
        queued = self._queued.get(group)
        if queued:
            self._start(queued.popleft(), loop)
            if not queued:
                del self._queued[group]


class GroupOfNames:
    """Names of one group; see Names."""

    def __init__(self, names: Names, group: str) -> None:
        self._names = names
        self._group = group

    async def addresses(self, host: str, *, within_s: float | None = None) -> tuple[str, ...]:
        """Return the addresses of a host; see Names.addresses."""
        return await self._names.addresses(host, within_s=within_s, group=self._group)


async def connect_first(
    addresses: Sequence[str],
    connect: Callable[[str], Awaitable[T]],
    discard: Callable[[T], None],
) -> T:
    """Connect to the first address that answers (RFC 8305 §5), and discard what comes later.

    Each address waits for the one before it, for a quarter of a second at most. Raises the error of
    the first one when all fail.
    """
    if len(addresses) == 1:
        return await connect(addresses[0])
    return await _Race(connect, discard).run(addresses)


class _Race(Generic[T]):
    """Attempts to connect to several addresses, of which the first to succeed is kept."""

    def __init__(
        self, connect: Callable[[str], Awaitable[T]], discard: Callable[[T], None]
    ) -> None:
        self._connect = connect
        self._discard = discard
        self._won: list[T] = []
        self._errors: list[Exception] = []
        self._has_ended = asyncio.Event()

    async def run(self, addresses: Sequence[str]) -> T:
        try:
            async with asyncio.TaskGroup() as tasks:
                attempts = await self._begin(tasks, addresses)
                while not self._won and len(self._errors) < len(attempts):
                    await self._next_end()
                for attempt in attempts:
                    attempt.cancel()
        except BaseException:
            for connection in self._won:
                self._discard(connection)
            raise
        if not self._won:
            raise self._errors[0]
        return self._won[0]

    async def _begin(
        self, tasks: asyncio.TaskGroup, addresses: Sequence[str]
    ) -> list[asyncio.Task[None]]:
        """Begin an attempt whenever the one before has failed or takes long, until one succeeds."""
        begun: list[asyncio.Task[None]] = []
        for address in addresses:
            begun.append(tasks.create_task(self._attempt(address)))
            with suppress(TimeoutError):
                async with asyncio.timeout(_NEXT_ADDRESS_S):
                    await self._next_end()
            if self._won:
                break
        return begun

    async def _next_end(self) -> None:
        self._has_ended.clear()
        await self._has_ended.wait()

    async def _attempt(self, address: str) -> None:
        try:
            connection = await self._connect(address)
        except (OSError, UnicodeError) as error:
            self._errors.append(error)
        else:
            if self._won:
                self._discard(connection)
            else:
                self._won.append(connection)
        finally:
            self._has_ended.set()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_undecided(error: Exception) -> bool:
    """Tell whether it is the resolver that failed, or we lack something, and not the name."""
    if isinstance(error, socket.gaierror):
        return error.errno not in _NO_SUCH_NAME
    return not isinstance(error, UnicodeError | NoAddressError)


def _in_order(found: Sequence[tuple[Any, ...]]) -> tuple[str, ...]:
    """Take the addresses, the families in turns (RFC 8305 §4), each address once."""
    by_family: dict[int, dict[str, None]] = {}
    for family, _, _, _, address in found:
        by_family.setdefault(family, {})[str(address[0])] = None
    queues = [deque(addresses) for addresses in by_family.values()]
    ordered: list[str] = []
    while any(queues):
        ordered += [queue.popleft() for queue in queues if queue]
    if not ordered:
        raise NoAddressError("the name has no address")
    return tuple(ordered)
