"""What an app of this process is told of a request: its ASGI scope.

The one rule: an app sees no field that an instance would not see. What is for one hop stops here,
and who the client is comes from the connection and from trusted proxies alone.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote

from gateway.core.identity import identity_lines
from gateway.core.message import Fields, Request, fields_of
from gateway.core.routing import Route
from gateway.edge.asgi import Scope

_VERSION: Final = {"version": "3.0", "spec_version": "2.4"}
_ONE_HOP: Final = frozenset({b"te", b"connection"})


def http_scope(request: Request, route: Route, state: dict[str, Any]) -> Scope:
    """Make the scope of a request that this route took.

    `state` is what the app's lifespan left there.
    """
    fields = app_fields(request)
    address = request.client.decode("latin-1")
    return {
        "type": "http",
        "asgi": dict(_VERSION),
        # As an instance sees it; only a client of HTTP/1.0 may leave Host out.
        "http_version": "1.1" if request.host else "1.0",
        "method": request.method.decode("ascii"),
        "scheme": request.scheme.decode("ascii"),
        "path": unquote(request.path.decode("latin-1")),
        "raw_path": request.path,
        "query_string": request.query[1:],
        "root_path": root_path_of(route),
        "headers": fields,
        "client": (address, 0) if address else None,
        "server": None,
        "state": state.copy(),
        "extensions": {},
    }


def root_path_of(route: Route) -> str:
    """Name the part of the path under which the app stands: what the route strips."""
    if not route.strip_prefix:
        return ""
    return unquote(route.match.path.rstrip(b"/").decode("ascii"))


def app_fields(request: Request) -> Fields:
    """List the fields of a request as the app gets them, their names in lower case."""
    ours = identity_lines(request.peer, request.host, request.request_id, request.received, b"")
    lowered = [(name.lower(), value) for name, value in fields_of(request.crossing + ours)]
    fields = [field for field in lowered if field[0] not in _ONE_HOP]
    if request.length is None:
        fields.append((b"transfer-encoding", b"chunked"))
    return fields
