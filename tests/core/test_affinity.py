"""What of a request is read to choose an instance, and the sticky cookie."""

from __future__ import annotations

import dataclasses
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.affinity import Affinity, affinity_of, stick, token_of
from gateway.core.balancing import RequestKey, p2c
from gateway.core.hashing import hash64
from gateway.core.message import Fields, Peer, Request, lines_of
from gateway.core.policy import BalancingPolicy, HashOn, StickyPolicy
from tests.fakes.cart import Cart, carts, key_of

STICKY = StickyPolicy(cookie="route")


def request(
    fields: Fields | None = None, *, query: bytes = b"", trusted: bool = False, tls: bool = False
) -> Request:
    made = Request(b"GET", b"/a/b", query, lines_of(fields or []), b"h")
    made.peer = Peer(b"192.0.2.1", b"https" if tls else b"http", is_trusted=trusted)
    return made


def hash_of(hash_on: HashOn, asked: Request) -> int | None:
    policy = BalancingPolicy(balance="hash", hash_on=hash_on)
    return Affinity(policy).key_of(asked).hash


# --- Hashing -------------------------------------------------------------------------------------

COOKIES = [(b"Cookie", b"a=1; user=42;b=x=y"), (b"cookie", b"late=1")]


@pytest.mark.parametrize(
    ("hash_on", "asked", "value"),
    [
        (HashOn("client_ip"), request(), b"192.0.2.1"),
        (HashOn("path"), request(query=b"?q=1"), b"/a/b"),
        (HashOn("header", "X-User"), request([(b"x-user", b"42"), (b"X-User", b"43")]), b"42"),
        (HashOn("cookie", "user"), request(COOKIES), b"42"),
        (HashOn("cookie", "b"), request(COOKIES), b"x=y"),
        (HashOn("cookie", "late"), request(COOKIES), b"1"),
        (HashOn("query", "id"), request(query=b"?x=1&id=7&id=8"), b"7"),
    ],
)
def test_what_is_hashed(hash_on: HashOn, asked: Request, value: bytes) -> None:
    assert hash_of(hash_on, asked) == hash64(value)


@pytest.mark.parametrize(
    ("hash_on", "asked"),
    [
        (HashOn("header", "X-User"), request()),
        (HashOn("header", "X-User"), request([(b"X-User", b"")])),
        (HashOn("cookie", "use"), request(COOKIES)),
        (HashOn("query", "id"), request(query=b"?")),
        (HashOn("query", "id"), request(query=b"?identity=1")),
        (HashOn("query", "id"), request()),
    ],
)
def test_a_request_without_it_has_no_hash(hash_on: HashOn, asked: Request) -> None:
    assert hash_of(hash_on, asked) is None


def test_where_nothing_of_a_request_matters_there_is_no_affinity() -> None:
    assert affinity_of(BalancingPolicy()) is None
    assert affinity_of(BalancingPolicy(hash_on=HashOn("path"))) is None
    assert affinity_of(BalancingPolicy(balance="hash", hash_on=HashOn("path"))) is not None
    assert affinity_of(BalancingPolicy(sticky=STICKY)) is not None


# --- The cookie ----------------------------------------------------------------------------------


def sticky_key(asked: Request) -> RequestKey:
    return Affinity(BalancingPolicy(sticky=STICKY)).key_of(asked)


def test_the_cookie_of_a_request_is_its_token() -> None:
    asked = request([(b"Cookie", b"x=1; route=abc")])

    assert sticky_key(asked) == RequestKey(None, b"abc", is_secure=False)
    assert sticky_key(request()).token == b""


@pytest.mark.parametrize(
    ("asked", "is_secure"),
    [
        (request(), False),
        (request(tls=True), True),
        (request([(b"X-Forwarded-Proto", b"HTTPS")], trusted=True), True),
        (request([(b"X-Forwarded-Proto", b"http")], trusted=True, tls=True), False),
        (request([(b"X-Forwarded-Proto", b"https, http")], trusted=True), True),
        (request([(b"X-Forwarded-Proto", b"https")]), False),
        (request(trusted=True, tls=True), True),
    ],
)
def test_a_request_is_secure_by_its_own_connection_or_by_what_a_trusted_peer_says(
    asked: Request, *, is_secure: bool
) -> None:
    assert sticky_key(asked).is_secure is is_secure


@pytest.mark.parametrize(
    ("changes", "is_secure", "line"),
    [
        ({}, False, b"route=t0; Path=/; HttpOnly; SameSite=Lax"),
        ({}, True, b"route=t0; Path=/; HttpOnly; SameSite=Lax; Secure"),
        (
            {"ttl_s": 3600.0, "path": "/shop", "same_site": "strict"},
            False,
            b"route=t0; Path=/shop; HttpOnly; SameSite=Strict; Max-Age=3600",
        ),
        ({"ttl_s": 0.2}, False, b"route=t0; Path=/; HttpOnly; SameSite=Lax; Max-Age=1"),
        ({"same_site": "none"}, False, b"route=t0; Path=/; HttpOnly; SameSite=None; Secure"),
    ],
)
def test_how_the_cookie_is_set(changes: dict[str, object], line: bytes, *, is_secure: bool) -> None:
    sticky = dataclasses.replace(STICKY, **changes)  # type: ignore[arg-type]
    affinity = Affinity(BalancingPolicy(sticky=sticky))

    assert affinity.set_cookie(b"t0", is_secure=is_secure) == line


KEY = "agent-7/user-1/10.1.2.3:8080"


def test_a_token_is_opaque_and_the_same_on_every_gateway() -> None:
    token = token_of("users", KEY, STICKY)

    assert token == b"l7XQ3kMQwwlaz1ec"


def test_a_token_is_another_one_for_another_instance_service_or_secret() -> None:
    secret = dataclasses.replace(STICKY, secret="s" * 100)
    tokens = {
        token_of("users", KEY, STICKY),
        token_of("orders", KEY, STICKY),
        token_of("users", KEY + "1", STICKY),
        token_of("users", KEY, secret),
        token_of("users", KEY, dataclasses.replace(secret, secret="s" * 101)),
    }

    assert len(tokens) == 5


def test_a_secret_does_not_show_in_what_is_logged() -> None:
    assert "hush" not in repr(StickyPolicy(cookie="route", secret="hush"))


# --- Sticking ------------------------------------------------------------------------------------


def tokened(names: str) -> list[Cart]:
    candidates = carts(names)
    for one in candidates:
        one.token = token_of("users", one.name, STICKY)
    return candidates


@given(st.text("abcdef", min_size=1), st.text("ghi"), st.integers(0, 99))
def test_a_client_stays_where_it_was_when_others_come(names: str, more: str, seed: int) -> None:
    candidates = tokened("".join(sorted(set(names))))
    random = Random(seed).random
    was = stick(p2c)(candidates)(random, key_of("x"))
    was.in_flight = 1000

    more_of_them = [*tokened("".join(sorted(set(more)))), *candidates]
    now = stick(p2c)(more_of_them)(random, key_of("x", was.token))

    assert now is was


def test_a_client_whose_instance_is_gone_is_given_another_one() -> None:
    gone, *left = tokened("abc")

    assert stick(p2c)(left)(lambda: 0.0, key_of("x", gone.token)) in left
    assert stick(p2c)(left)(lambda: 0.0, key_of("x", b"made-up")) in left
    assert stick(p2c)(left)(lambda: 0.0, None) in left
