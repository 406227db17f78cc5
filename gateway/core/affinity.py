"""Which instance a request asks for by what it is: what is hashed of it, and the sticky cookie.

The value of the cookie names an instance without saying anything of it: a keyed hash, which the
gateway computes for every instance that it knows and compares. So nothing has to be stored, all
gateways of a service agree, and a value that somebody made up names nobody.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from types import MappingProxyType
from typing import Protocol, TypeVar, final

from gateway.core.balancing import Balancer, Loaded, Pick, Random, RequestKey
from gateway.core.hashing import hash64
from gateway.core.message import Request
from gateway.core.policy import BalancingPolicy, HashPart, StickyPolicy

_TOKEN_BYTES = 12


class Named(Loaded, Protocol):
    """A candidate with the token that stands for it in cookies."""

    token: bytes


N = TypeVar("N", bound=Named)


@final
class Affinity:
    """Reads the key of each request for one service, and writes its cookie."""

    __slots__ = ("_cookie_name", "_hash_name", "_read", "_sticky", "is_sticky")

    def __init__(self, policy: BalancingPolicy) -> None:
        hash_on, self._sticky = policy.hash_on, policy.sticky
        self._read = _READERS[hash_on.part] if hash_on is not None else None
        self._hash_name = hash_on.name.encode() if hash_on is not None else b""
        self._cookie_name = (policy.sticky.cookie or "").encode()
        self.is_sticky = policy.sticky.cookie is not None

    def key_of(self, request: Request) -> RequestKey:
        """Read where a request is to go."""
        hashed = self._read(request, self._hash_name) if self._read is not None else b""
        return RequestKey(
            hash64(hashed) if hashed else None,
            _cookie(request, self._cookie_name) if self.is_sticky else b"",
            self.is_sticky and request.scheme == b"https",
        )

    def set_cookie(self, token: bytes, *, is_secure: bool) -> bytes:
        """Write the Set-Cookie by which a client comes back to an instance (RFC 6265 §4.1).

        Browsers take `SameSite=None` only with Secure.
        """
        sticky = self._sticky
        parts = [
            b"%b=%b" % (self._cookie_name, token),
            b"Path=" + sticky.path.encode(),
            b"HttpOnly",
            b"SameSite=" + sticky.same_site.capitalize().encode(),
        ]
        if sticky.ttl_s is not None:
            parts.append(b"Max-Age=%d" % max(1, round(sticky.ttl_s)))
        if is_secure or sticky.same_site == "none":
            parts.append(b"Secure")
        return b"; ".join(parts)


def affinity_of(policy: BalancingPolicy) -> Affinity | None:
    """Make the Affinity of a service, None where nothing of a request matters."""
    has_hash = policy.balance == "hash" and policy.hash_on is not None
    return Affinity(policy) if has_hash or policy.sticky.cookie is not None else None


def token_of(service: str, key: str, sticky: StickyPolicy) -> bytes:
    """Make the token of the instance with this key; without a secret anybody can, who knows it."""
    digest = blake2b(
        f"{service}\0{key}".encode(),
        digest_size=_TOKEN_BYTES,
        key=blake2b(sticky.secret.encode()).digest(),
    )
    return urlsafe_b64encode(digest.digest())


def stick(balancer: Balancer[N]) -> Balancer[N]:
    """Make a Balancer that gives a client the instance that its cookie names, if it is there."""

    def prepare(candidates: Sequence[N]) -> Pick[N]:
        anew = balancer(candidates)
        by_token = {one.token: one for one in candidates}

        def pick(random: Random, key: RequestKey | None) -> N:
            known = by_token.get(key.token) if key is not None else None
            return known if known is not None else anew(random, key)

        return pick

    return prepare


def _header(request: Request, name: bytes) -> bytes:
    name = name.lower()
    return next((value for field, value in request.fields if field.lower() == name), b"")


def _cookie(request: Request, name: bytes) -> bytes:
    for field, value in request.fields:
        if field.lower() == b"cookie":
            for pair in value.split(b";"):
                its_name, _, its_value = pair.strip(b" \t").partition(b"=")
                if its_name == name:
                    return its_value
    return b""


def _parameter(request: Request, name: bytes) -> bytes:
    """Find the first parameter of this name in the query, as it stands there."""
    for pair in request.query.removeprefix(b"?").split(b"&"):
        its_name, _, its_value = pair.partition(b"=")
        if its_name == name:
            return its_value
    return b""


_READERS: Mapping[HashPart, Callable[[Request, bytes], bytes]] = MappingProxyType(
    {
        "client_ip": lambda request, _: request.client,
        "path": lambda request, _: request.path,
        "header": _header,
        "cookie": _cookie,
        "query": _parameter,
    }
)
