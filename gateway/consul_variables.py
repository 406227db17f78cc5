"""The variables of Consul's own tools, which the gateway honours where its own say nothing.

The one rule: ours win, and a token of ours silences both ways in which theirs give one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Any

# What Consul's own tools read (https://developer.hashicorp.com/consul/commands); they have none for
# the datacenter. CONSUL_HTTP_SSL is no setting of its own, it changes the scheme of the address.
CONSUL_VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        "GATEWAY_CONSUL_ADDRESS": "CONSUL_HTTP_ADDR",
        "GATEWAY_CONSUL_TOKEN": "CONSUL_HTTP_TOKEN",
        "GATEWAY_CONSUL_TOKEN_FILE": "CONSUL_HTTP_TOKEN_FILE",
        "GATEWAY_CONSUL_CACERT": "CONSUL_CACERT",
        "GATEWAY_CONSUL_CLIENT_CERT": "CONSUL_CLIENT_CERT",
        "GATEWAY_CONSUL_CLIENT_KEY": "CONSUL_CLIENT_KEY",
        "GATEWAY_CONSUL_VERIFY": "CONSUL_HTTP_SSL_VERIFY",
    }
)
_TOKENS = frozenset({"GATEWAY_CONSUL_TOKEN", "GATEWAY_CONSUL_TOKEN_FILE"})
_SWITCHES = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}


def of_consul_tools(env: Mapping[str, str], taken: AbstractSet[str]) -> dict[str, Any]:
    """Read the variables of Consul's tools, but for those that ours say something about."""
    ours = taken | _TOKENS if taken & _TOKENS else taken
    found: dict[str, Any] = {
        variable: env[theirs]
        for variable, theirs in CONSUL_VARIABLES.items()
        if variable not in ours and theirs in env
    }
    wants_tls = _SWITCHES.get(env.get("CONSUL_HTTP_SSL", "").lower(), False)
    if wants_tls and "GATEWAY_CONSUL_ADDRESS" not in ours:
        # Where both are set, the tools never go back to http (hashicorp/consul, api/api.go).
        address = found.get("GATEWAY_CONSUL_ADDRESS", "127.0.0.1:8500")
        scheme, _, rest = address.rpartition("://")
        if scheme in {"", "http"}:
            found["GATEWAY_CONSUL_ADDRESS"] = f"https://{rest}"
    return found


def wrong_switches(env: Mapping[str, str]) -> Iterator[str]:
    """Say what is wrong with those that are switches."""
    value = env.get("CONSUL_HTTP_SSL", "true")
    if value.lower() not in _SWITCHES:
        yield f"CONSUL_HTTP_SSL: {value!r} is not true or false"
