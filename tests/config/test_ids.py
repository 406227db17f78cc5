"""Ids of routes that were given none."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.ids import complete_ids
from gateway.core.routing import RouteMatch


@pytest.mark.parametrize(
    ("match", "id_"),
    [
        (RouteMatch(path=b"/api/users"), "api-users"),
        (RouteMatch(path=b"/"), "root"),
        (RouteMatch(path=b"/", is_prefix=False), "exact"),
        (RouteMatch(path=b"/a", is_prefix=False), "a-exact"),
        (RouteMatch(path=b"/a", methods=frozenset({b"PUT", b"GET"})), "a-get-put"),
        (RouteMatch(path=b"/a", hosts=("x.test", "y.test")), "x.test-a"),
        (RouteMatch(path=b"/", hosts=("*.x.test",)), "any.x.test"),
        (RouteMatch(path=b"/.well-known/a%2Fb"), "well-known-a-2Fb"),
        (RouteMatch(path=b"/a...b"), "a.b"),
        (RouteMatch(path=b"/" + b"x" * 300), "x" * 100),
    ],
)
def test_an_id_reads_as_what_the_route_takes(match: RouteMatch, id_: str) -> None:
    assert complete_ids([None], [match]) == [id_]


def test_a_given_id_stays() -> None:
    assert complete_ids(["orders"], [RouteMatch(path=b"/a")]) == ["orders"]


def test_where_two_would_be_called_the_same_each_made_one_gets_a_mark() -> None:
    matches = [RouteMatch(path=path) for path in (b"/a/b", b"/a-b", b"/c")]

    first, second, third = complete_ids([None, None, None], matches)

    assert re.fullmatch("a-b-[0-9a-f]{6}", first)
    assert re.fullmatch("a-b-[0-9a-f]{6}", second)
    assert first != second
    assert third == "c"


def test_a_given_id_keeps_its_name_before_one_that_is_made() -> None:
    given_id, made = complete_ids(["a-b", None], [RouteMatch(path=b"/x"), RouteMatch(path=b"/a/b")])

    assert given_id == "a-b"
    assert re.fullmatch("a-b-[0-9a-f]{6}", made)


matches = st.builds(
    RouteMatch,
    path=st.text(alphabet="ab-./%~", max_size=6).map(lambda text: b"/" + text.encode()),
    is_prefix=st.booleans(),
    hosts=st.sampled_from([(), ("x.test",), ("*.x.test", "y.test"), ("*.x.test", "z.test")]),
    methods=st.none() | st.just(frozenset({b"GET"})),
)


@given(st.lists(matches, unique=True))
def test_ids_are_unique_valid_and_the_same_in_any_order(
    found: list[RouteMatch],
) -> None:
    backwards = found[::-1]

    ids = complete_ids([None] * len(found), found)

    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", id_) for id_ in ids)
    assert ids[::-1] == complete_ids([None] * len(found), backwards)
