"""Laws of the routing table, held against a naive oracle that looks at every route."""

from __future__ import annotations

from itertools import chain
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.routing import NoMatch, Route, RouteMatch, RouteTable, conflicts

SEGMENTS = ["a", "b", "%2F", ""]
HOSTS = ["x.test", "a.x.test", "y.test", "*.x.test", "*.a.x.test", "*.test"]
METHODS = [b"GET", b"POST", b"PUT"]

paths = st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=4).map(
    lambda segments: ("/" + "/".join(segments)).encode()
)
matches = st.builds(
    RouteMatch,
    path=paths,
    is_prefix=st.booleans(),
    hosts=st.lists(st.sampled_from(HOSTS), max_size=2, unique=True).map(tuple),
    methods=st.none() | st.frozensets(st.sampled_from(METHODS), min_size=1),
)


def without_conflicts(found: list[RouteMatch]) -> list[Route]:
    """Make routes of the matches, leaving out each that conflicts with one before it."""
    routes: list[Route] = []
    for number, match in enumerate(found):
        route = Route(id=str(number), match=match, service="any")
        if not conflicts([*routes, route]):
            routes.append(route)
    return routes


tables = st.lists(matches, max_size=12).map(without_conflicts)
requests = st.tuples(
    st.sampled_from([b"x.test", b"a.x.test", b"b.a.x.test", b"Y.TEST:80", b"other", b""]),
    paths,
    st.sampled_from([*METHODS, b"DELETE"]),
)
Request = tuple[bytes, bytes, bytes]


def compiled(routes: list[Route]) -> RouteTable[str]:
    return RouteTable([(route, route.id) for route in routes])


def host_rank(match: RouteMatch, host: str) -> tuple[int, int] | None:
    """Rank how exactly a route names a host: by name, by wildcard (longest best), not at all."""
    if not match.hosts:
        return (0, 0)
    by_name = [(2, 0) for pattern in match.hosts if pattern == host]
    by_wildcard = [
        (1, len(pattern))
        for pattern in match.hosts
        if pattern.startswith("*.") and host.endswith(pattern[1:])
    ]
    return max(by_name + by_wildcard, default=None)


def takes_path(match: RouteMatch, path: bytes) -> bool:
    if not match.is_prefix:
        return path == match.path
    prefix = match.path.rstrip(b"/")
    return path == prefix or path.startswith(prefix + b"/")


def oracle(routes: list[Route], request: Request) -> str | NoMatch:
    """Look at every route, as the rules are written, and take the most specific that fits."""
    host, path, method = request
    name = host.decode().lower().partition(":")[0]
    taken: list[tuple[tuple[object, ...], str]] = []
    refused: list[frozenset[bytes]] = []
    for route in routes:
        match = route.match
        rank = host_rank(match, name)
        if rank is None or not takes_path(match, path):
            continue
        length = len(match.path.rstrip(b"/").split(b"/"))
        if match.methods is None or method in match.methods:
            rest = (not match.is_prefix, length, match.methods is not None)
            taken.append(((rank, *rest), route.id))
        else:
            refused.append(match.methods)
    return max(taken)[1] if taken else NoMatch(frozenset(chain(*refused)))


@given(tables, requests)
def test_the_table_finds_what_a_look_at_every_route_finds(
    routes: list[Route], request: Request
) -> None:
    assert oracle(routes, request) == compiled(routes).match(*request)


@given(tables, requests, st.randoms(use_true_random=False))
def test_the_order_of_the_file_means_nothing(
    routes: list[Route], request: Request, random: Random
) -> None:
    shuffled = list(routes)
    random.shuffle(shuffled)

    assert compiled(routes).match(*request) == compiled(shuffled).match(*request)


@given(tables)
def test_no_route_hides_another_as_a_whole(routes: list[Route]) -> None:
    """So routes that conflict are the only ones that can never be reached."""
    found = compiled(routes)

    assert [route.id for route in routes] == [found.match(*witness(route)) for route in routes]


def witness(route: Route) -> Request:
    """Make a request that only this route, or one less specific, can take."""
    match = route.match
    host = match.hosts[0] if match.hosts else "unused.invalid"
    path = match.path.rstrip(b"/") + b"/unused" if match.is_prefix else match.path
    method = min(match.methods) if match.methods else b"UNUSED"
    return host.replace("*", "unused").encode(), path, method


@given(tables, requests)
def test_405_only_where_another_method_would_have_been_taken(
    routes: list[Route], request: Request
) -> None:
    host, path, _ = request
    found = compiled(routes)
    answer = found.match(*request)

    if isinstance(answer, NoMatch):
        others = [method for method in METHODS if isinstance(found.match(host, path, method), str)]
        assert answer.allow == frozenset(others)
