"""A JSON list read item by item is what `json.loads` makes of it, at any size of a piece."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.discovery import entries
from gateway.discovery.entries import LONGEST_ITEM_BYTES, items_of

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def as_utf_8(items: list[Any], indent: int | None) -> str:
    """Write it with all characters as they are."""
    return json.dumps(items, indent=indent, ensure_ascii=False).encode("utf-8", "replace").decode()


@pytest.fixture(autouse=True, params=[1, 7, 64 * 1024])
def piece_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Cut the body into pieces of this size."""
    size: int = request.param
    monkeypatch.setattr(entries, "_PIECE_BYTES", size)
    return size


@given(st.lists(anything), st.sampled_from([None, 2]), st.sampled_from([json.dumps, as_utf_8]))
def test_it_yields_what_json_says(
    items: list[Any], indent: int | None, write: Callable[..., str]
) -> None:
    body = write(items, indent=indent)

    assert list(items_of(body.encode())) == json.loads(body)


@pytest.mark.parametrize("body", [b"[]", b" [ ]\r\n", b"[1]", b"[12, 3 ]", b'[{"a":[]},[]]\t'])
def test_blanks_change_nothing(body: bytes) -> None:
    assert list(items_of(body)) == json.loads(body)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" ", b"[", b"[1", b"[1,", b"[1,]", b"[,1]", b"[1 2]", b"[]]", b"[1] 2", b"]"),
        *(b"{}", b"null", b'"[]"', b"<html>", b"[nul", b'["a', b"[\xff]", b'["\xff"]', b'["\xe4'),
    ],
)
def test_whatever_else_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        list(items_of(body))


def test_what_is_nested_too_deeply_is_an_error() -> None:
    depth = sys.getrecursionlimit() * 10
    with pytest.raises(RecursionError):
        list(items_of(b"[" * depth + b"]" * depth))


def test_an_item_that_is_too_long_is_refused_before_it_is_whole() -> None:
    body = b'["' + b"a" * (8 * LONGEST_ITEM_BYTES) + b'"]'

    with pytest.raises(ValueError, match="an item of more than 1048576 bytes"):
        list(items_of(body))


def test_items_before_a_fault_have_been_given() -> None:
    reading = items_of(b"[1, 2, x]")

    assert [next(reading), next(reading)] == [1, 2]
    with pytest.raises(ValueError, match="Expecting value"):
        next(reading)
