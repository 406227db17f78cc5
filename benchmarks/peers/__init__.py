"""The gateway and the proxies that it is measured by: one file for each.

All are told to do the same: take a prefix and strip it, choose among two instances by least
requests or the like, leave an instance alone that keeps failing and try the other one, set
X-Forwarded-For and -Proto, and give the request an id. What one of them cannot do is said in its
`Peer`; nobody is told to do more than the gateway does.
"""

from __future__ import annotations

from benchmarks.peers.caddy import CADDY
from benchmarks.peers.envoy import ENVOY
from benchmarks.peers.gateway import ASGI_FACE, BOUNDED_ASGI_FACE, GATEWAY
from benchmarks.peers.haproxy import HAPROXY
from benchmarks.peers.nginx import NGINX
from benchmarks.peers.peer import Peer
from benchmarks.peers.python import AIOHTTP, STARLETTE_HTTPX
from benchmarks.peers.traefik import TRAEFIK

PEERS = (
    GATEWAY,
    ASGI_FACE,
    BOUNDED_ASGI_FACE,
    ENVOY,
    HAPROXY,
    NGINX,
    TRAEFIK,
    CADDY,
    AIOHTTP,
    STARLETTE_HTTPX,
)

__all__ = ["PEERS", "Peer"]
