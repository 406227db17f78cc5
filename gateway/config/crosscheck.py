"""What only shows when several entries are seen together: duplicates, conflicts, contradictions.

It looks at whatever part of the file is right, also when other parts are not, so that all that is
wrong is told at once.

Which routes can never be reached? Under the rules of `gateway.core.routing` only those that take
the same as another one with the same host, path, kind of path and method; `conflicts` finds them,
and they are errors. Nothing else hides a route as a whole, because each kind of more specific route
leaves requests over: longer prefixes and exact paths leave other segments, exact hosts and longer
wildcards leave other names, and routes that name methods leave other methods. Values that no
request can have (a path that is not in normal form, CONNECT) are refused where they stand, in
`gateway.config.kinds`; only what `paths` says of them is seen here.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError

from gateway.config.balancing import merged_balancing
from gateway.config.compiling import (
    compile_instance,
    compile_match,
    compile_paths,
    merged_breaker,
)
from gateway.config.document import Document, DocumentPath
from gateway.config.entry import Entry
from gateway.config.models import (
    InstanceEntry,
    MatchEntry,
    MiddlewareEntry,
    RoutesFile,
    with_url,
    with_use,
)
from gateway.config.policies import BreakerEntry, PathsEntry
from gateway.core.config import Problem
from gateway.core.paths import PathError, PathRules
from gateway.core.routing import Route, RouteMatch, conflicts
from gateway.core.units import format_duration

E = TypeVar("E", bound=Entry)

# What may be written as one text, and how it is written in full.
_SHORT_FORMS: Mapping[type[Entry], Callable[[object], object]] = MappingProxyType(
    {InstanceEntry: with_url, MiddlewareEntry: with_use}
)


def cross_check(document: Document) -> Iterator[Problem]:
    """List what is wrong between entries that are each right."""
    yield from _duplicate_ids(document)
    yield from _paths_that_no_request_has(document)
    yield from _overlapping_routes(document)
    yield from _duplicate_servers(document)
    yield from _breakers_that_contradict(document)
    yield from _choices_without_a_registry(document)
    yield from _half_balancing(document)


def odd_things(document: Document, file: RoutesFile) -> Iterator[Problem]:
    """List what is valid, but probably not meant."""
    if not file.routes:
        yield document.problem(("routes",), "is empty: every request gets 404")
    used = {route.service for route in file.routes}
    for index, route in enumerate(file.routes):
        near = difflib.get_close_matches(route.service or "", file.services, n=1, cutoff=0.8)
        if near and route.service not in file.services and near[0] not in used:
            at_service: DocumentPath = ("routes", index, "service")
            message = f"{route.service!r} has no entry in services; did you mean {near[0]!r}?"
            yield document.problem(at_service, message)
    for name, entry in file.services.items():
        if name not in used:
            yield document.problem(("services", name), "no route goes there", at_key=True)
        at = ("services", name, "hash_on")
        said = value_at(document, at)
        if said is not None and merged_balancing(file.defaults, entry).balance != "hash":
            yield document.problem(at, "means nothing without balance: hash")


def _duplicate_ids(document: Document) -> Iterator[Problem]:
    first: dict[object, DocumentPath] = {}
    for path in items_at(document, ("routes",)):
        at = (*path, "id")
        id_ = value_at(document, at)
        if isinstance(id_, str) and first.setdefault(id_, at) != at:
            yield document.problem(at, f"{id_!r} is the id of {_which(document, first[id_])} too")


def _paths_that_no_request_has(document: Document) -> Iterator[Problem]:
    rules = PathRules(compile_paths(part_at(document, ("paths",), PathsEntry) or PathsEntry()))
    for route in items_at(document, ("routes",)):
        at = (*route, "match")
        entry = part_at(document, at, MatchEntry)
        if entry is None:
            continue
        match = compile_match(entry)
        key = "path_prefix" if match.is_prefix else "path"
        written = match.path.decode()
        try:
            normal = rules.normalize(match.path).decode()
        except PathError as error:
            yield document.problem((*at, key), f"{written!r} can never match: {error}")
        else:
            if normal != written:
                message = f"{written!r} is not in normal form; write {normal}"
                yield document.problem((*at, key), message)


def _overlapping_routes(document: Document) -> Iterator[Problem]:
    paths = list(items_at(document, ("routes",)))
    routes = [
        Route(id=str(index), match=compile_match(entry))
        for index, path in enumerate(paths)
        if (entry := part_at(document, (*path, "match"), MatchEntry)) is not None
    ]
    for first, second in conflicts(routes):
        both = _overlap(first.match, second.match)
        message = f"{both} is taken by {_which(document, paths[int(first.id)])} too"
        if both == _overlap(second.match, second.match):
            message += ", so this one can never match"
        yield document.problem((*paths[int(second.id)], "match"), message, at_key=True)


def _overlap(first: RouteMatch, second: RouteMatch) -> str:
    """Say what two routes of the same path both take, as in `GET, PUT /api on example.com`."""
    methods = sorted((first.methods or frozenset()) & (second.methods or frozenset()))
    hosts = sorted(set(first.hosts) & set(second.hosts))
    said = f"{b', '.join(methods).decode()} {second.path.decode()}".strip()
    return f"{said} on {', '.join(hosts)}" if hosts else said


def _duplicate_servers(document: Document) -> Iterator[Problem]:
    for service in items_at(document, ("services",)):
        first: dict[str, DocumentPath] = {}
        for path in items_at(document, (*service, "servers")):
            entry = part_at(document, path, InstanceEntry)
            key = compile_instance(entry).id if entry is not None else ""
            if entry is not None and first.setdefault(key, path) != path:
                message = f"{key} is {_which(document, first[key])} too; give it more weight there"
                yield document.problem(path, message)


def _breakers_that_contradict(document: Document) -> Iterator[Problem]:
    """Find places after which a breaker would open for longer than for the longest time."""
    at_defaults: DocumentPath = ("defaults", "circuit_breaker")
    defaults = part_at(document, at_defaults, BreakerEntry) or BreakerEntry()
    own = {at_defaults: defaults}
    for service in items_at(document, ("services",)):
        path = (*service, "circuit_breaker")
        own[path] = part_at(document, path, BreakerEntry) or BreakerEntry()
    for path, entry in own.items():
        breaker = merged_breaker(defaults, entry)
        said = [key for key in ("max_open_for", "open_for") if key in entry.model_fields_set]
        if said and breaker.open_for_s > breaker.max_open_for_s:
            open_for, longest = map(format_duration, (breaker.open_for_s, breaker.max_open_for_s))
            message = f"open_for ({open_for}) is longer than max_open_for ({longest})"
            yield document.problem((*path, said[0]), message)


def _choices_without_a_registry(document: Document) -> Iterator[Problem]:
    """Find services that name their instances, and say which of the registry's they want."""
    for service in items_at(document, ("services",)):
        if value_at(document, (*service, "servers")) is None:
            continue
        for key in ("tags", "datacenters"):
            if value_at(document, (*service, key)) is not None:
                message = "chooses among instances of the registry, and servers is there instead"
                yield document.problem((*service, key), message, at_key=True)


def _half_balancing(document: Document) -> Iterator[Problem]:
    """Find places that balance by hash with nothing to hash, or are sticky without a cookie."""
    wider: DocumentPath = ("defaults",)
    for place in (wider, *items_at(document, ("services",))):
        at = (*place, "balance")
        has_key = any(value_at(document, (*one, "hash_on")) for one in (wider, place))
        if value_at(document, at) == "hash" and not has_key:
            yield document.problem(at, "hash needs hash_on; write hash_on: client_ip")
        at = (*place, "sticky")
        has_cookie = any(value_at(document, (*one, "sticky", "cookie")) for one in (wider, place))
        if place != wider and isinstance(value_at(document, at), dict) and not has_cookie:
            yield document.problem(at, "needs cookie, the name of one; write cookie: route")


def _which(document: Document, path: DocumentPath) -> str:
    """Name an entry and its line: `routes[0] (line 8)`."""
    if path[-1] == "id":
        path = path[:-1]
    return f"{path[-2]}[{path[-1]}] (line {document.place_of(path).line})"


def value_at(document: Document, path: DocumentPath) -> Any:
    """Fetch the plain value at a path, None where there is none or it could not be read."""
    value: Any = document.root
    for step in path:
        is_there = isinstance(value, dict) and step in value
        is_listed = isinstance(value, list) and isinstance(step, int)
        value = value[step] if is_there or is_listed else None
    return value


def items_at(document: Document, path: DocumentPath) -> Iterator[DocumentPath]:
    """List the paths of what stands in a list or a mapping, nothing where there is neither."""
    value = value_at(document, path)
    if isinstance(value, dict):
        yield from ((*path, key) for key in value)
    elif isinstance(value, list):
        yield from ((*path, index) for index in range(len(value)))


def part_at(document: Document, path: DocumentPath, kind: type[E]) -> E | None:
    """Read one part of the file, None where it is not there or not right."""
    value = value_at(document, path)
    if kind in _SHORT_FORMS:
        value = _SHORT_FORMS[kind](value)
    if value is None or any(blocked[: len(path)] == path for blocked in document.blocked):
        return None
    try:
        return kind.model_validate(value)
    except ValidationError:
        return None
