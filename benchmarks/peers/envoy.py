"""Envoy, by a static configuration.

X-Forwarded-Host would have to be written by a rule for each request; it is spared that. Many routes
are matched by its tree of prefixes, which is faster than its list.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from benchmarks.layout import LOOPBACK, Site
from benchmarks.peers.peer import LOGGED, Peer
from benchmarks.processes import Command
from benchmarks.tools import which

Json = dict[str, Any]

_TYPE = "type.googleapis.com/envoy"
_PREVIOUS = f"{_TYPE}.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
_LIST_UP_TO = 10
_FIELDS = (
    *("%START_TIME%", "%REQ(:METHOD)%", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%", "%REQ(:AUTHORITY)%"),
    *("%RESPONSE_CODE%", "%DURATION%", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    *("%BYTES_RECEIVED%", "%BYTES_SENT%", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
    *("%REQ(X-REQUEST-ID)%", "%ROUTE_NAME%", "%UPSTREAM_CLUSTER%", "%UPSTREAM_HOST%"),
)


def _run(site: Site) -> Command:
    config = {
        "static_resources": {
            "listeners": [_listener(site)],
            "clusters": [
                _cluster(name, addresses) for name, addresses in site.layout.services.items()
            ],
        }
    }
    path = site.write("envoy.json", json.dumps(config))
    # Without hot restart nothing is shared with any other Envoy of this machine.
    options = ("--concurrency", "1", "--log-level", "error", "--disable-hot-restart")
    return Command(words=[which("envoy"), "-c", path, *options])


def _listener(site: Site) -> Json:
    chain: Json = {"filters": [{"name": "http", "typed_config": _connections(site)}]}
    if site.certificate is not None:
        pair = {
            "certificate_chain": {"filename": str(site.certificate.chain)},
            "private_key": {"filename": str(site.certificate.key)},
        }
        chain["transport_socket"] = {
            "name": "tls",
            "typed_config": {
                "@type": f"{_TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {"tls_certificates": [pair]},
            },
        }
    return {"address": _address(f"{LOOPBACK}:{site.port}"), "filter_chains": [chain]}


def _connections(site: Site) -> Json:
    filters = f"{_TYPE}.extensions.filters"
    router = {"@type": f"{filters}.http.router.v3.Router"}
    return {
        "@type": f"{filters}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [{"name": "router", "typed_config": router}],
        "access_log": [] if site.access_log is None else [_access_log(str(site.access_log))],
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], **_routing(site)}],
        },
    }


def _routing(site: Site) -> Json:
    routes = site.layout.routes
    if len(routes) <= _LIST_UP_TO:
        return {"routes": [_route(prefix, service) for prefix, service in routes.items()]}
    actions = {
        f"{prefix}/": {
            "action": {
                "name": "route",
                "typed_config": {
                    "@type": f"{_TYPE}.config.route.v3.Route",
                    **_route(prefix, service),
                },
            }
        }
        for prefix, service in routes.items()
    }
    path = {
        "@type": f"{_TYPE}.type.matcher.v3.HttpRequestHeaderMatchInput",
        "header_name": ":path",
    }
    tree = {
        "input": {"name": "path", "typed_config": path},
        "prefix_match_map": {"map": actions},
    }
    return {"matcher": {"matcher_tree": tree}}


def _route(prefix: str, service: str) -> Json:
    return {
        "match": {"prefix": f"{prefix}/"},
        "route": {
            "cluster": service,
            "prefix_rewrite": "/",
            "retry_policy": {
                "retry_on": "connect-failure,refused-stream,reset",
                "num_retries": 2,
                # Without these it may well try the same one again.
                "retry_host_predicate": [
                    {"name": "previous", "typed_config": {"@type": _PREVIOUS}}
                ],
                "host_selection_retry_max_attempts": "3",
            },
        },
    }


def _cluster(name: str, addresses: Sequence[str]) -> Json:
    most = {"max_connections": 4096, "max_requests": 4096, "max_pending_requests": 4096}
    endpoints = [{"endpoint": {"address": _address(address)}} for address in addresses]
    return {
        "name": name,
        "connect_timeout": "2s",
        "lb_policy": "LEAST_REQUEST",
        "outlier_detection": {"consecutive_5xx": 5},
        "circuit_breakers": {"thresholds": [most]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    }


def _access_log(path: str) -> Json:
    return {
        "name": "file",
        "typed_config": {
            "@type": f"{_TYPE}.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {"json_format": dict(zip(LOGGED, _FIELDS, strict=True))},
        },
    }


def _address(text: str) -> Json:
    host, _, port = text.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


ENVOY = Peer(key="envoy", title="Envoy", start=_run, program="envoy")
