"""Which Route a request takes: host, then a trie of whole path segments, then the method.

The cost of a match depends on the labels of the host and the segments of the path, never on the
number of routes. The most specific route wins, and the order in the file means nothing:

    1. an exact host before `*.example.com` before any host (a longer wildcard before a shorter one)
    2. an exact `path` before a `path_prefix`, a longer prefix before a shorter one
    3. a route that names methods before one that takes all

A route that does not take the request's method does not hide a less specific one that does. Only
where nothing takes it, and something would with another method, the answer is 405 with Allow.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from gateway.core.policy import ConcurrencyPolicy, PriorityClass, RetryPolicy, Timeouts

T = TypeVar("T")
_Candidates = tuple[tuple[frozenset[bytes] | None, T], ...]

WEBSOCKET = frozenset({b"websocket"})

_LONGEST_HOST_NAME = 253


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteMatch:
    """What a route takes.

    `path` is in normal form (see `gateway.core.paths`) and still percent-encoded, so `%2F` never
    acts as a separator (RFC 3986 §2.2). As a prefix it matches whole segments: `/api` takes `/api`
    and `/api/x`, not `/apix`. `hosts` are lower-case, without a port; empty means any host.
    `methods` None means any method.
    """

    path: bytes
    is_prefix: bool = True
    hosts: tuple[str, ...] = ()
    methods: frozenset[bytes] | None = None

    @property
    def precision(self) -> tuple[int, bool]:
        """How much of a path it names: larger for a route that the other one contains."""
        return len(self.path.rstrip(b"/")), not self.is_prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class Middleware:
    """One ASGI middleware of a route, by the name that it is imported by, and its options."""

    use: str
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One entry of routes.yaml: what it matches, what is done on the way, where it goes.

    It goes to a `service`, or to an `app` of this process, named as in `package.module:attribute`;
    the other of the two is empty. `middleware` stands around either, the outermost first.
    `max_body_bytes` bounds the request's body, None does not. `upgrade` names the protocols, in
    lower case, that a client may switch to on this route (RFC 9110 §7.8), and `max_tunnels` bounds
    how many have done so at once, None does not. `deadline_header` is the
    field, in lower case, that says how much time is left, empty for none. `removed_fields` are the
    request fields that do not cross, as `headers.alike` knows them.
    """

    id: str
    match: RouteMatch
    service: str = ""
    app: str = ""
    middleware: tuple[Middleware, ...] = ()
    strip_prefix: bool = False
    add_prefix: bytes = b""
    preserve_host: bool = True
    max_body_bytes: int | None = None
    upgrade: frozenset[bytes] = WEBSOCKET
    max_tunnels: int | None = None
    deadline_header: bytes = b""
    removed_fields: frozenset[bytes] = frozenset()
    priority_class: PriorityClass = PriorityClass.NORMAL
    limit: ConcurrencyPolicy = field(default_factory=ConcurrencyPolicy)
    timeouts: Timeouts = field(default_factory=Timeouts)
    retry: RetryPolicy = field(default_factory=RetryPolicy)


@dataclass(frozen=True, slots=True)
class NoMatch:
    """Why no route took a request: `allow` names the methods that would have been taken (405)."""

    allow: frozenset[bytes] = frozenset()


NO_ROUTE = NoMatch()


class RouteConflictError(ValueError):
    """Two routes take exactly the same requests."""

    def __init__(self, first: Route, second: Route) -> None:
        self.first = first
        self.second = second
        super().__init__(f"route {second.id!r} takes the same requests as route {first.id!r}")


class _ByMethod(enum.Enum):
    """What stands for routes of which the method decides."""

    MARK = 0


_BY_METHOD: Final = _ByMethod.MARK


class _Segment(Generic[T]):
    """One segment of the trie, with the routes that end here, those that name methods first.

    `children` is None where there are none. `exact_taker` and `prefix_taker` are what the first of
    each matches whatever the method is. Of ten thousand routes hardly any is in the processor's
    caches, so each object less that is looked at counts.
    """

    __slots__ = ("children", "exact", "exact_taker", "prefix", "prefix_taker")

    def __init__(self) -> None:
        self.children: dict[bytes, _Segment[T]] | None = None
        self.exact: _Candidates[T] = ()
        self.prefix: _Candidates[T] = ()
        self.exact_taker: T | _ByMethod | None = None
        self.prefix_taker: T | _ByMethod | None = None


class RouteTable(Generic[T]):
    """All routes, compiled once; each is matched to the target that was given with it.

    `most_segments` is how many segments the longest path of a route has.
    Raises RouteConflictError at construction when two routes take exactly the same requests.
    """

    __slots__ = ("_any_host", "_exact_hosts", "_has_hosts", "_wildcards", "most_segments")

    def __init__(self, entries: Iterable[tuple[Route, T]]) -> None:
        listed = list(entries)
        for first, second in conflicts([route for route, _ in listed]):
            raise RouteConflictError(first, second)
        self._any_host: _Segment[T] = _Segment()
        self._exact_hosts: dict[bytes, _Segment[T]] = {}
        self._wildcards: dict[bytes, _Segment[T]] = {}
        for route, target in listed:
            for root in self._roots_of(route.match):
                _insert(root, route.match, target)
        self.most_segments = max((one.match.path.count(b"/") for one, _ in listed), default=0)
        self._has_hosts = bool(self._exact_hosts or self._wildcards)

    def match(self, host: bytes, path: bytes, method: bytes) -> T | NoMatch:
        """Find the target of the most specific route that takes the request.

        `host` is the Host field as received (port and case are ignored), `path` is in normal form.
        """
        segments = path.split(b"/")
        del segments[0]
        if self._has_hosts:
            return _find(self._roots_for(host), segments, method)
        # Nearly always the most specific route takes all methods, and no other is looked at.
        here = self._any_host
        taker = here.prefix_taker
        for segment in segments:
            children = here.children
            child = None if children is None else children.get(segment)
            if child is None:
                break
            here = child
            if here.prefix_taker is not None:
                taker = here.prefix_taker
        else:
            if here.exact_taker is not None:
                taker = here.exact_taker
        if taker is not None and taker is not _BY_METHOD:
            return taker
        return _find((self._any_host,), segments, method)

    def _roots_of(self, match: RouteMatch) -> Iterator[_Segment[T]]:
        if not match.hosts:
            yield self._any_host
        for host in match.hosts:
            if host.startswith("*."):
                yield self._wildcards.setdefault(host[2:].encode(), _Segment())
            else:
                yield self._exact_hosts.setdefault(host.encode(), _Segment())

    def _roots_for(self, host: bytes) -> Iterator[_Segment[T]]:
        name = host_without_port(host)
        exact = self._exact_hosts.get(name)
        if exact is not None:
            yield exact
        # Longer names do not exist (RFC 1035 §2.3.4); without this bound a Host of nothing but dots
        # would cost the square of its length.
        while self._wildcards and name and len(name) <= _LONGEST_HOST_NAME:
            name = name.partition(b".")[2]
            wildcard = self._wildcards.get(name)
            if wildcard is not None:
                yield wildcard
        yield self._any_host


def host_without_port(host: bytes) -> bytes:
    """Lower-case a Host field and take its port away; an IPv6 literal keeps its brackets."""
    name, colon, port = host.rpartition(b":")
    if colon and not port.endswith(b"]"):
        host = name
    return host.lower().removesuffix(b".")


def conflicts(routes: Iterable[Route]) -> list[tuple[Route, Route]]:
    """List the pairs of routes that take exactly the same requests, in the order of the file.

    They share a host, a path and a kind of path, and a method; a route that names methods and one
    that names none do not conflict, for the first is the more specific one.
    """
    listed = list(routes)
    seen: dict[tuple[str, bytes, bool, bytes | None], int] = {}
    found: dict[tuple[int, int], tuple[Route, Route]] = {}
    for index, route in enumerate(listed):
        match = route.match
        path = match.path.rstrip(b"/") if match.is_prefix else match.path
        for host in match.hosts or ("",):
            for method in match.methods or (None,):
                earlier = seen.setdefault((host, path, match.is_prefix, method), index)
                if earlier != index:
                    found.setdefault((earlier, index), (listed[earlier], route))
    return list(found.values())


def _insert(root: _Segment[T], match: RouteMatch, target: T) -> None:
    here = root
    path = match.path.rstrip(b"/") if match.is_prefix else match.path
    for segment in path.split(b"/")[1:]:
        if here.children is None:
            here.children = {}
        here = here.children.setdefault(segment, _Segment())
    entry = (match.methods, target)
    kind = here.prefix if match.is_prefix else here.exact
    # Those that name methods come first; among them the order cannot matter: they do not overlap.
    ordered = (entry, *kind) if match.methods is not None else (*kind, entry)
    taker = target if ordered[0][0] is None else _BY_METHOD
    if match.is_prefix:
        here.prefix, here.prefix_taker = ordered, taker
    else:
        here.exact, here.exact_taker = ordered, taker


def _find(roots: Iterable[_Segment[T]], segments: list[bytes], method: bytes) -> T | NoMatch:
    refused: list[frozenset[bytes]] = []
    for root in roots:
        for candidates in _most_specific_first(root, segments):
            for methods, target in candidates:
                if methods is None or method in methods:
                    return target
                refused.append(methods)
    return NoMatch(frozenset().union(*refused)) if refused else NO_ROUTE


def _most_specific_first(root: _Segment[T], segments: list[bytes]) -> list[_Candidates[T]]:
    here = root
    found = [root.prefix] if root.prefix else []
    for segment in segments:
        child = here.children and here.children.get(segment)
        if not child:
            break
        here = child
        if here.prefix:
            found.append(here.prefix)
    else:
        if here.exact:
            found.append(here.exact)
    found.reverse()
    return found
