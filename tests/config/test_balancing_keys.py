"""The keys that say which instance gets a request: what each gives, and the words for mistakes."""

from __future__ import annotations

import pytest

from gateway.config.errors import ConfigError
from gateway.config.loading import parse_routes
from gateway.core.policy import BalancingPolicy, HashOn, StickyPolicy


def policy_of(own: str, defaults: str = "{}") -> BalancingPolicy:
    """Read a file in which a service says this beside what the defaults say."""
    text = (
        f"version: 1\ndefaults: {defaults}\nservices: {{web: {own}}}\n"
        "routes: [{match: {path: /}, service: web}]"
    )
    return parse_routes(text, env={"SECRET": "hush"}).services["web"].balancing


def refusal_of(own: str) -> str:
    with pytest.raises(ConfigError) as refused:
        policy_of(own)
    (problem,) = refused.value.problems
    return f"{problem.key}: {problem.message}"


def test_left_out_all_of_it_is_the_core_s_own_policy() -> None:
    assert policy_of("{}") == BalancingPolicy()


def test_a_service_overrides_the_defaults_key_by_key() -> None:
    policy = policy_of(
        "{balance: ewma, slow_start: off, sticky: {ttl: 1h}}",
        "{balance: hash, hash_on: path, slow_start: 30s, panic: true, "
        "sticky: {cookie: route, path: /shop, same_site: none, secret: '${SECRET}'}}",
    )

    assert policy == BalancingPolicy(
        balance="ewma",
        hash_on=HashOn("path"),
        sticky=StickyPolicy(
            cookie="route", ttl_s=3600.0, path="/shop", same_site="none", secret="hush"
        ),
        slow_start_s=None,
        panic=True,
    )


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("client_ip", HashOn("client_ip")),
        ("path", HashOn("path")),
        ("{header: X-User}", HashOn("header", "X-User")),
        ("{cookie: session}", HashOn("cookie", "session")),
        ("{query: user id}", HashOn("query", "user id")),
    ],
)
def test_what_can_be_hashed_on(written: str, expected: HashOn) -> None:
    assert policy_of(f"{{balance: hash, hash_on: {written}}}").hash_on == expected


NAMES = "write p2c, round_robin, random, least_requests, ewma or hash"
EXAMPLES = "write client_ip, path, {header: X-User}, {cookie: NAME} or {query: NAME}"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("hash_on: header", "hash_on: needs a name; write {header: NAME}"),
        ("hash_on: ip", f"hash_on: 'ip' is nothing to hash on; {EXAMPLES}"),
        ("hash_on: 5", f"hash_on: 5 is nothing to hash on; {EXAMPLES}"),
        ("hash_on: {path: /}", f"hash_on: this is nothing to hash on; {EXAMPLES}"),
        ("hash_on: {header: a, cookie: b}", f"hash_on: this is nothing to hash on; {EXAMPLES}"),
        ("hash_on: {header: 'a b'}", f"hash_on: 'a b' is not the name of a header; {EXAMPLES}"),
        ("hash_on: {query: ''}", f"hash_on: '' is not the name of a query; {EXAMPLES}"),
        ("hash_on: {cookie: 5}", f"hash_on: 5 is not the name of a cookie; {EXAMPLES}"),
        (
            "balance: fastest",
            f"balance: 'fastest' is not known; {NAMES}",
        ),
        (
            "sticky: {cookie: 'a;b'}",
            "sticky.cookie: 'a;b' is not the name of a cookie; write route or gateway-instance",
        ),
        (
            "sticky: {cookie: a, path: shop}",
            "sticky.path: 'shop' is not the path of a cookie; write / or /shop",
        ),
        (
            "sticky: {cookie: a, path: '/;x'}",
            "sticky.path: '/;x' is not the path of a cookie; write / or /shop",
        ),
        (
            "sticky: {cookie: a, same_site: never}",
            "sticky.same_site: 'never' is not known; write lax, strict or none",
        ),
        (
            "sticky: {cookie: a, secret: 5}",
            'sticky.secret: is not a text; write it as "${STICKY_SECRET}"',
        ),
        ("slow_start: 0s", "slow_start: '0s' leaves no time at all; write off for no limit"),
        ("panic: maybe", "panic: 'maybe' is not a switch; write true or false"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_write(written: str, expected: str) -> None:
    assert refusal_of(f"{{{written}}}") == f"services.web.{expected}"
