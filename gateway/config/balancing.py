"""The keys of routes.yaml that say which instance of a service gets a request.

They stand directly under `services.NAME` and `defaults`; as everywhere, what is not set has no
default here but in `gateway.core.policy`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, get_args

from pydantic import BeforeValidator, Field, WithJsonSchema

from gateway.config.entry import Entry, Policy
from gateway.config.kinds import Duration, KindError, Timeout, is_token
from gateway.core.policy import (
    BalanceName,
    BalancingPolicy,
    HashOn,
    HashPart,
    SameSite,
    StickyPolicy,
)
from gateway.core.units import Kind

_NAMED_PARTS = frozenset(get_args(HashPart)) - {"client_ip", "path"}
_EXAMPLES = "write client_ip, path, {header: X-User}, {cookie: NAME} or {query: NAME}"
_NOT_IN_A_PATH = frozenset(";\x7f")


def _hash_on(value: object) -> HashOn:
    if value in ("client_ip", "path"):
        return HashOn(value)
    if isinstance(value, str) and value in _NAMED_PARTS:
        raise KindError(f"needs a name; write {{{value}: NAME}}")
    if not isinstance(value, dict) or len(value) != 1 or not _NAMED_PARTS.issuperset(value):
        shown = "this" if isinstance(value, dict) else repr(value)
        raise KindError(f"{shown} is nothing to hash on; {_EXAMPLES}")
    ((part, name),) = value.items()
    if not isinstance(name, str) or not (is_token(name) if part != "query" else name):
        raise KindError(f"{name!r} is not the name of a {part}; {_EXAMPLES}")
    return HashOn(part, name)


def _cookie_name(value: object) -> str:
    if not isinstance(value, str) or not is_token(value):
        raise KindError(f"{value!r} is not the name of a cookie; write route or gateway-instance")
    return value


def _cookie_path(value: object) -> str:
    is_path = isinstance(value, str) and value.startswith("/") and value.isascii()
    if not isinstance(value, str) or not is_path or _NOT_IN_A_PATH & set(value) or " " in value:
        raise KindError(f"{value!r} is not the path of a cookie; write / or /shop")
    return value


def _secret(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise KindError('is not a text; write it as "${STICKY_SECRET}"')
    return value


class StickyEntry(Policy):
    """How a client is kept with one instance."""

    CORE: ClassVar[Any] = StickyPolicy

    cookie: Annotated[str | None, BeforeValidator(_cookie_name), Kind("name")] = Field(
        default=None,
        description="The name of the cookie; without one nothing is sticky. Its value is opaque.",
    )
    ttl: Duration | None = Field(
        default=None,
        description="How long the client keeps it; left out, until the browser is closed. After "
        "that an instance is chosen anew.",
    )
    path: Annotated[str | None, BeforeValidator(_cookie_path), Kind("path")] = Field(
        default=None, description="Below which path the client sends it."
    )
    same_site: Annotated[SameSite | None, Kind("`lax`, `strict` or `none`")] = Field(
        default=None,
        description="Whether other sites' pages send it along; `none` for pages that are embedded "
        "elsewhere (always with Secure).",
    )
    secret: Annotated[str | None, BeforeValidator(_secret), Kind("text")] = Field(
        default=None,
        repr=False,
        description="Makes values that nobody else can compute. Set it, the same on all gateways, "
        "where clients must not be able to confirm a guess at an instance's address.",
    )


class BalancingKeys(Entry):
    """The keys, for the entries that take them."""

    balance: Annotated[
        BalanceName | None,
        Kind("`p2c`, `round_robin`, `random`, `least_requests`, `ewma` or `hash`"),
    ] = Field(
        default=None,
        description="Which instance comes first: see [balancing.md](balancing.md). `ewma` where "
        "instances differ in speed, `hash` where each has a cache of its own.",
    )
    hash_on: Annotated[
        HashOn | None,
        BeforeValidator(_hash_on),
        Kind("`client_ip`, `path`, `{header: NAME}`, `{cookie: NAME}` or `{query: NAME}`"),
        WithJsonSchema({"type": ["string", "object"]}),
    ] = Field(
        default=None,
        description="What `balance: hash` hashes; a request without it goes by `p2c`.",
    )
    sticky: StickyEntry = Field(
        default_factory=StickyEntry,
        description="How a client is kept with one instance: see `sticky`.",
    )
    slow_start: Timeout = Field(
        default=None,
        description="For how long an instance that is new or back gets less than its share, from "
        "a tenth on. Set it where instances need to warm up.",
    )
    panic: bool | None = Field(
        default=None,
        description="Whether critical instances are tried when nobody else can serve. Set it where "
        "health checks are wrong more often than instances are; those in maintenance never are.",
    )

    def balancing(self) -> dict[str, Any]:
        """List what is set here, by the name of the field in the core's policy."""
        names = {key: key for key in ("balance", "hash_on", "panic")} | {
            "slow_start": "slow_start_s"
        }
        return {
            name: getattr(self, key) for key, name in names.items() if key in self.model_fields_set
        }


def merged_balancing(defaults: BalancingKeys, own: BalancingKeys) -> BalancingPolicy:
    """Merge what the defaults and a service say over the core's own policy."""
    sticky = StickyPolicy(**(defaults.sticky.overrides() | own.sticky.overrides()))
    return BalancingPolicy(**(defaults.balancing() | own.balancing()), sticky=sticky)
