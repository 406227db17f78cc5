"""A candidate for Balancers that is as a test says.

The rule: it has all that any Balancer wants to know, and does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.core.balancing import RequestKey
from gateway.core.hashing import hash64


@dataclass(eq=False)
class Cart:
    """Something that carries load; `name` is what its seed is made of."""

    in_flight: int = 0
    weight: float = 1
    latency_s: float = 0.0
    turn: float = 0.0
    name: str = ""
    zone: str | None = None
    token: bytes = b""

    @property
    def seed(self) -> int:
        return hash64(self.name.encode())

    @seed.setter
    def seed(self, _seed: int) -> None:
        raise AssertionError("nobody sets a seed")


def carts(names: Sequence[str]) -> list[Cart]:
    """Make one for each name."""
    return [Cart(name=name) for name in names]


def key_of(value: object, token: bytes = b"") -> RequestKey:
    """Make the key of a request that is hashed on this value."""
    return RequestKey(hash64(str(value).encode()), token, is_secure=False)
