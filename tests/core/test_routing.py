"""The routing table by example: hosts, whole segments, methods, refusals, cost of a match."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

import pytest

from gateway.core.routing import (
    NO_ROUTE,
    NoMatch,
    Route,
    RouteConflictError,
    RouteMatch,
    RouteTable,
    conflicts,
    host_without_port,
)


def route(
    path: str, *, hosts: str = "", methods: str = "", exact: bool = False, id_: str = ""
) -> Route:
    """Make a route; hosts and methods are words in one text, its id is what it takes."""
    return Route(
        id=id_ or " ".join(filter(None, (methods, hosts, path, "exact" if exact else ""))),
        match=RouteMatch(
            path=path.encode(),
            is_prefix=not exact,
            hosts=tuple(hosts.split()),
            methods=frozenset(methods.encode().split()) or None,
        ),
        service="any",
    )


def table(*routes: Route) -> RouteTable[str]:
    return RouteTable([(route, route.id) for route in routes])


@pytest.mark.parametrize("path", [b"/api", b"/api/", b"/api/users", b"/api//x", b"/api/a%2Fb"])
def test_a_prefix_takes_itself_and_all_below_it(path: bytes) -> None:
    assert table(route("/api")).match(b"", path, b"GET") == "/api"


@pytest.mark.parametrize("path", [b"/", b"/apix", b"/ap", b"/x/api", b"/API", b"/api%2Fusers"])
def test_a_prefix_takes_whole_segments_only(path: bytes) -> None:
    assert table(route("/api")).match(b"", path, b"GET") is NO_ROUTE


def test_a_slash_at_the_end_of_a_prefix_means_nothing() -> None:
    routes = table(route("/api/"))

    assert routes.match(b"", b"/api", b"GET") == "/api/"


def test_the_root_prefix_takes_everything() -> None:
    routes = table(route("/"))

    assert [routes.match(b"", path, b"GET") for path in (b"/", b"/a/b")] == ["/", "/"]


def test_an_exact_path_takes_no_other() -> None:
    routes = table(route("/api", exact=True))

    found = [routes.match(b"", path, b"GET") for path in (b"/api", b"/api/", b"/api/x", b"/")]

    assert found == ["/api exact", NO_ROUTE, NO_ROUTE, NO_ROUTE]


def test_an_exact_path_can_end_with_a_slash() -> None:
    routes = table(route("/api/", exact=True), route("/", exact=True))

    assert routes.match(b"", b"/api/", b"GET") == "/api/ exact"
    assert routes.match(b"", b"/", b"GET") == "/ exact"


def test_the_longest_prefix_wins_and_an_exact_path_before_it() -> None:
    routes = table(route("/"), route("/a/b/c"), route("/a"), route("/a/b", exact=True))

    found = [
        routes.match(b"", path, b"GET")
        for path in (b"/x", b"/a/x", b"/a/b", b"/a/b/x", b"/a/b/c/d")
    ]

    assert found == ["/", "/a", "/a/b exact", "/a", "/a/b/c"]


def test_an_exact_host_wins_before_a_wildcard_and_that_before_any_host() -> None:
    routes = table(
        route("/"),
        route("/", hosts="*.example.com"),
        route("/", hosts="*.eu.example.com"),
        route("/", hosts="api.example.com"),
    )

    found = [
        routes.match(host, b"/x", b"GET")
        for host in (b"api.example.com", b"a.eu.example.com", b"a.b.example.com", b"example.com")
    ]

    assert found == ["api.example.com /", "*.eu.example.com /", "*.example.com /", "/"]


def test_the_host_decides_before_the_path() -> None:
    routes = table(route("/", hosts="a.test"), route("/long/path", exact=True))

    assert routes.match(b"a.test", b"/long/path", b"GET") == "a.test /"


def test_a_host_without_such_a_path_leaves_it_to_the_routes_of_any_host() -> None:
    routes = table(route("/a", hosts="a.test"), route("/b"))

    assert routes.match(b"a.test", b"/b", b"GET") == "/b"


def test_a_route_takes_each_of_its_hosts() -> None:
    routes = table(route("/", hosts="a.test b.test"))

    assert [routes.match(host, b"/", b"GET") for host in (b"a.test", b"b.test", b"c.test")] == [
        "a.test b.test /",
        "a.test b.test /",
        NO_ROUTE,
    ]


@pytest.mark.parametrize(
    ("field", "name"),
    [
        (b"api.example.com", b"api.example.com"),
        (b"API.Example.COM:8080", b"api.example.com"),
        (b"api.example.com.", b"api.example.com"),
        (b"api.example.com.:80", b"api.example.com"),
        (b"api.example.com:", b"api.example.com"),
        (b"[::1]", b"[::1]"),
        (b"[::1]:8080", b"[::1]"),
        (b"", b""),
    ],
)
def test_a_host_is_compared_without_case_port_and_last_dot(field: bytes, name: bytes) -> None:
    assert host_without_port(field) == name


def test_a_route_that_names_the_method_wins_before_one_that_takes_all() -> None:
    routes = table(route("/"), route("/", methods="GET"), route("/", methods="PUT POST"))

    found = [routes.match(b"", b"/", method) for method in (b"GET", b"POST", b"DELETE")]

    assert found == ["GET /", "PUT POST /", "/"]


def test_a_route_of_another_method_does_not_hide_a_less_specific_one() -> None:
    routes = table(route("/a/b", methods="POST", exact=True), route("/a"))

    assert routes.match(b"", b"/a/b", b"GET") == "/a"


def test_where_only_the_method_differs_the_answer_names_those_that_are_taken() -> None:
    routes = table(
        route("/a/b", methods="POST", exact=True),
        route("/a", methods="PUT DELETE"),
        route("/", methods="PATCH", hosts="a.test"),
        route("/other", methods="GET"),
    )

    assert routes.match(b"a.test", b"/a/b", b"GET") == NoMatch(
        frozenset({b"POST", b"PUT", b"DELETE", b"PATCH"})
    )
    assert routes.match(b"b.test", b"/a/c", b"GET") == NoMatch(frozenset({b"PUT", b"DELETE"}))


def test_head_is_a_method_of_its_own() -> None:
    assert table(route("/", methods="GET")).match(b"", b"/", b"HEAD") == NoMatch(
        frozenset({b"GET"})
    )


def test_two_routes_that_take_the_same_cannot_be_in_one_table() -> None:
    with pytest.raises(RouteConflictError, match="'second' takes the same requests as") as e:
        table(route("/a", id_="first"), route("/a/", id_="second"))

    assert (e.value.first.id, e.value.second.id) == ("first", "second")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (route("/a"), route("/a", exact=True)),
        (route("/a"), route("/a", methods="GET")),
        (route("/a", methods="GET"), route("/a", methods="POST")),
        (route("/a"), route("/a", hosts="a.test")),
        (route("/a", hosts="*.a.test"), route("/a", hosts="a.test")),
        (route("/a"), route("/b")),
        (route("/a", exact=True), route("/a/", exact=True)),
    ],
)
def test_routes_that_differ_in_one_thing_do_not_conflict(first: Route, second: Route) -> None:
    assert conflicts([first, second]) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (route("/a"), route("/a")),
        (route("/a", methods="GET PUT"), route("/a", methods="POST PUT")),
        (route("/a", hosts="a.test b.test"), route("/a", hosts="c.test b.test")),
    ],
)
def test_routes_that_share_something_conflict(first: Route, second: Route) -> None:
    assert conflicts([first, second]) == [(first, second)]


def test_every_pair_is_told_once_even_where_ids_are_the_same() -> None:
    first, second, third, fourth = (route(path, id_="x") for path in ("/a", "/b", "/a", "/b"))

    assert conflicts([first, second, third, fourth]) == [(first, third), (second, fourth)]


def test_the_same_route_twice_conflicts_with_itself() -> None:
    twice = route("/a")

    assert conflicts([twice, twice]) == [(twice, twice)]


def test_a_host_that_a_route_names_twice_is_no_conflict() -> None:
    assert conflicts([route("/a", hosts="a.test a.test")]) == []


def steps_of(action: Callable[[], object]) -> int:
    """Count the calls, of Python and of C, that an action makes: the same on every machine."""
    count = 0

    def profile(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(before)
    return count


def crowded(route_count: int) -> RouteTable[str]:
    """Make a table in which the number of routes grows at every place where it could matter."""
    routes = [route(f"/api/service-{number}/v1") for number in range(route_count)]
    routes += [route("/", hosts=f"site-{number}.test") for number in range(route_count)]
    routes += [route("/", hosts=f"*.zone-{number}.test") for number in range(route_count)]
    routes += [route("/api/service-0/v1", methods="PUT", exact=True)]
    routes += [route("/only", methods="PUT")]
    return table(*routes)


@pytest.mark.parametrize(
    ("host", "path", "method"),
    [
        (b"", b"/api/service-3/v1/users", b"GET"),
        (b"", b"/api/service-0/v1", b"PUT"),
        (b"", b"/api/nothing", b"GET"),
        (b"", b"/only", b"GET"),
        (b"site-4.test:80", b"/x", b"GET"),
        (b"a.b.zone-2.test", b"/x", b"GET"),
        (b"nobody.test", b"/api/service-1/v1", b"GET"),
    ],
)
def test_the_cost_of_a_match_does_not_grow_with_the_number_of_routes(
    host: bytes, path: bytes, method: bytes
) -> None:
    few, many = crowded(10), crowded(1_000)

    steps_with_few = steps_of(lambda: few.match(host, path, method))
    steps_with_many = steps_of(lambda: many.match(host, path, method))

    assert steps_with_few == steps_with_many


def test_the_cost_of_a_match_is_bounded_whatever_is_sent_as_host() -> None:
    routes = table(route("/", hosts="*.example.com"))
    longest_name = b"a." * 126 + b"a"

    shortest_absurd = steps_of(lambda: routes.match(b"a." * 200, b"/", b"GET"))
    absurd = steps_of(lambda: routes.match(b"a." * 30_000, b"/", b"GET"))

    assert shortest_absurd == absurd
    assert absurd < steps_of(lambda: routes.match(longest_name, b"/", b"GET"))
    assert routes.match(b"a." * 120 + b"example.com", b"/", b"GET") == "*.example.com /"


def test_whatever_contains_another_route_is_less_precise() -> None:
    matches = [
        RouteMatch(path=b"/"),
        RouteMatch(path=b"/a/"),
        RouteMatch(path=b"/a/b"),
        RouteMatch(path=b"/a/b", is_prefix=False),
    ]

    precisions = [one.precision for one in matches]

    assert precisions == sorted({*precisions})
