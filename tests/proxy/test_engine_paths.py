"""Nobody gets past a route, and past what it filters, with a path that can be read in two ways."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.config import RoutingConfig, ServiceConfig
from gateway.core.message import Request
from gateway.core.paths import PathError
from gateway.core.policy import PathPolicy
from gateway.core.routing import NoMatch, Route, RouteMatch
from gateway.proxy.engine import Engine
from gateway.proxy.target import Target
from tests.fakes.engine import SERVICE, Stage

EXACT = (b"/admin/exact", b"/")
PREFIXES = (b"/", b"/public", b"/admin", b"/admin/deep", b"/a;v=1", b"/a%2Fb", b"/caf%C3%A9")
LENIENT = PathPolicy(
    merge_slashes=False, encoded_backslash="keep", backslash="keep", overlong_utf8="keep"
)


def engine_with(policy: PathPolicy) -> Engine:
    matches = [
        *(RouteMatch(path=path) for path in PREFIXES),
        *(RouteMatch(path=path, is_prefix=False) for path in EXACT),
    ]
    routes = tuple(
        Route(id=f"{match.path.decode()}{'' if match.is_prefix else '!'}", match=match, service="x")
        for match in matches
    )
    engine = Stage().engine
    services = {"x": ServiceConfig(name="x")}
    config = RoutingConfig(routes=routes, services=services, paths=policy)
    engine.use(config, client_body_timeout_s=60.0)
    return engine


def ask(engine: Engine, path: bytes) -> tuple[str, bytes]:
    """Tell which route takes a path, and what becomes of the path."""
    request = Request(b"GET", path, b"", b"", b"a")
    target = engine.match(request)
    assert not isinstance(target, NoMatch)
    return target.route.id, request.path


STRICT_ENGINE, LENIENT_ENGINE = engine_with(PathPolicy()), engine_with(LENIENT)


@pytest.mark.parametrize(
    ("path", "route", "sent"),
    [
        (b"/public/x", "/public", b"/public/x"),
        (b"/public/../admin", "/admin", b"/admin"),
        (b"/public/%2e%2e/admin", "/admin", b"/admin"),
        (b"/public//x", "/public", b"/public//x"),
        (b"/what%3f", "/", b"/what%3F"),
        (b"/%61dmin", "/admin", b"/admin"),
        (b"/", "/!", b"/"),
        # Wherever it is decoded, it comes to the same route.
        (b"/public/a%2fb", "/public", b"/public/a%2Fb"),
        (b"/admin/a;b/c", "/admin", b"/admin/a;b/c"),
        (b"/files/group%2Fproject", "/", b"/files/group%2Fproject"),
        # A route that spells it out is meant as it is written, whatever the case of its escapes.
        (b"/a;v=1/x", "/a;v=1", b"/a;v=1/x"),
        (b"/a%2fb/x", "/a%2Fb", b"/a%2Fb/x"),
        (b"/caf%c3%a9", "/caf%C3%A9", b"/caf%C3%A9"),
    ],
)
def test_a_path_takes_the_route_that_an_instance_would_see_in_it(
    path: bytes, route: str, sent: bytes
) -> None:
    assert (route, sent) == ask(STRICT_ENGINE, path)


@pytest.mark.parametrize(
    "path",
    [
        *(b"/public/..;/admin", b"/public/..%2fadmin", b"/public/..%5cadmin", b"/public%00"),
        *(b"/admin%2fx", b"/%2Fadmin", b"/admin%252Fx", b"/admin;a=b/x", b"/;/admin", b"/;x"),
        *(b"/admin%3Bx", b"/admin/exact;x", b"/admin/deep%2Fx", b"/admin/deep;/x"),
        *(b"/caf%25C3%25A9", b"/%2561dmin", b"/a%3Bv=1", b"/;p%2Fq/%2561dmin"),
        *(b"//admin", b"/admin%3Fx", b"/admin/exact%23", b"/admin%252523"),
        b"/" + b"%25252F%3B;" * 9,
    ],
)
def test_a_path_that_some_instance_would_take_for_another_route_is_refused(path: bytes) -> None:
    with pytest.raises(PathError):
        ask(STRICT_ENGINE, path)


@pytest.mark.parametrize(
    "path", [b"//admin", b"/admin//deep", b"/admin\\x", b"/admin%5Cx", b"/%c1%a1dmin"]
)
def test_what_the_policy_keeps_does_not_get_past_a_route_either(path: bytes) -> None:
    with pytest.raises(PathError, match="another route"):
        ask(LENIENT_ENGINE, path)


def test_slashes_that_are_kept_arrive_as_they_were_sent() -> None:
    assert ("/public", b"/public//x//") == ask(LENIENT_ENGINE, b"/public//x//")


def test_the_policy_is_swapped_with_the_routes() -> None:
    stage = Stage()
    assert "api" == ask(stage.engine, b"/api/a%2Fb")[0]

    services = {SERVICE: ServiceConfig(name=SERVICE)}
    strict = PathPolicy(encoded_slash="reject")
    config = RoutingConfig(routes=(stage.api(),), services=services, paths=strict)
    stage.engine.use(config, client_body_timeout_s=60.0)

    with pytest.raises(PathError, match="an encoded slash"):
        ask(stage.engine, b"/api/a%2Fb")


def with_an_app(policy: PathPolicy) -> RoutingConfig:
    """Write a configuration whose one route is answered in this process."""
    route = Route(id="app", match=RouteMatch(path=b"/api"), app="some:app")
    return RoutingConfig(routes=(route,), services={}, paths=policy)


def test_what_is_pinned_while_a_route_is_mounted_judges_paths_by_the_same_policy() -> None:
    engine = Stage().engine
    pinned: list[Engine] = []

    def mount(target: Target) -> None:
        pinned.append(engine.pinned_to(target))

    engine.use(with_an_app(LENIENT), client_body_timeout_s=60.0, mount=mount)

    (inner,) = pinned
    assert ("app", b"/b//c%5Cd") == ask(inner, b"/b//c%5cd")


def test_the_policy_stays_where_a_route_cannot_be_mounted() -> None:
    engine = Stage().engine

    def mount(target: Target) -> None:
        raise KeyError(target)

    with pytest.raises(KeyError):
        engine.use(
            with_an_app(PathPolicy(merge_slashes=True)), client_body_timeout_s=60.0, mount=mount
        )

    assert ("api", b"/api//x") == ask(engine, b"/api//x")


# --- The law -------------------------------------------------------------------------------------

SLASHES = [
    "/",
    "//",
    "/;/",
    ";x=y/",
    "\\",
    "%2f",
    "%2F",
    "%252F",
    "%5c",
    "%255C",
    "%c0%af",
    "%c1%9c",
]
TAILS = st.lists(
    st.sampled_from([*SLASHES, "x", ";", "%3b", "%253B", ".", "..", "%2e"]), max_size=3
)


@st.composite
def disguises(draw: st.DrawFn) -> bytes:
    """Write the path of a route so that it does not look like it."""
    written = ""
    for character in unquote_to_bytes(draw(st.sampled_from([*PREFIXES, *EXACT]))):
        forms = [chr(character), f"%{character:02x}", f"%25{character:02X}"]
        plain = [chr(character)] * 5 if chr(character).isascii() else []
        is_slash = character == ord("/")
        written += draw(st.sampled_from(SLASHES if is_slash else [*plain, *forms[1:]]))
    return ("/" + written + "".join(draw(TAILS))).encode()


NAMES = ("decode", "overlong", "backslash", "parameters", "slashes")
ALL_STEPS = [*NAMES[:2] * 3, *NAMES[2:]]
STEPS = st.just(ALL_STEPS) | st.lists(st.sampled_from(NAMES), max_size=8).filter(
    lambda steps: steps.count("decode") <= 3
)


def step(name: str, path: bytes) -> bytes:
    """Do what some instance does with a path that it got."""
    if name == "decode":
        return unquote_to_bytes(path)
    if name == "overlong":
        path = re.sub(rb"\xc0\xaf", b"/", path)
        return path.replace(b"\xc1\x9c", b"\\").replace(b"\xc1\xa1", b"a")
    if name == "backslash":
        return path.replace(b"\\", b"/")
    return re.sub(rb";[^/]*", b"", path) if name == "parameters" else re.sub(rb"/+", b"/", path)


def protected_by(path: bytes) -> set[bytes]:
    """List the paths of the routes that are meant to take what an instance sees as this path."""
    names = {unquote_to_bytes(prefix) for prefix in PREFIXES if b"%2F" not in prefix} - {b"/"}
    return {name for name in names if path == name or path.startswith(name + b"/")}


@given(disguises(), st.sampled_from([STRICT_ENGINE, LENIENT_ENGINE]), STEPS)
def test_whatever_an_instance_makes_of_a_path_its_own_route_has_seen_it(
    path: bytes, engine: Engine, steps: list[str]
) -> None:
    try:
        route, sent = ask(engine, path)
    except PathError:
        return
    read = sent
    for name in steps:
        read = step(name, read)

    taken = unquote_to_bytes(route.rstrip("!").rstrip("/").encode())
    assert not {b".", b".."} & set(re.split(rb"[/\\]", read))
    spelled_out = b";" in taken or b"%2F" in route.encode()
    assert spelled_out or (read + b"/").startswith(taken + b"/")
    longest = max((len(name) for name in protected_by(read)), default=0)
    assert spelled_out or longest <= len(taken)
