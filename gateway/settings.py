"""The install configuration: where the gateway listens, which registry it asks, and its limits.

Every setting is a `GATEWAY_…` variable of the environment; options of the command line win over it.
For Consul the variables of Consul's own tools are honoured too, and lose against ours. What is
routed where is not here but in routes.yaml.

The one rule: a value that cannot be used stops the start, with the name of its variable, and all
such values are told at once.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.consul_variables import CONSUL_VARIABLES, of_consul_tools, wrong_switches
from gateway.core.addresses import ListenAddress, without_password
from gateway.core.units import Kind
from gateway.setting_kinds import (
    AccessLog,
    AddressOrOff,
    ConsulAddress,
    ConsulWait,
    Count,
    CountOrNone,
    Directory,
    Duration,
    ExistingFile,
    ExistingFiles,
    FilePath,
    Names,
    Networks,
    Redirect,
    Size,
    SomeDuration,
    Token,
    lower,
)

_PREFIX = "GATEWAY_"
# What Kubernetes sets in each container for a Service that is called "gateway" or "gateway-…".
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT\w*)$|_PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?$")


class SettingsError(ValueError):
    """Settings that cannot be used; `problems` has one line for each, the variable's name first."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


def variable_of(field: str) -> str:
    """Name the variable of a setting: its field without the unit, in capitals."""
    return _PREFIX + field.removesuffix("_s").removesuffix("_bytes").upper()


def default_state_dir(env: Mapping[str, str]) -> Path | None:
    """Find where programs keep state (XDG Base Directory); None where there is no home either.

    A relative XDG_STATE_HOME is ignored, as that specification says.
    """
    named = env.get("XDG_STATE_HOME", "")
    try:
        base = Path(named) if Path(named).is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError:  # a numeric user without a home, as containers have
        return None
    return base / "gateway"


class Settings(BaseSettings):
    """All settings, read once at the start.

    `None` means off, or not given. Secrets do not show in its repr.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_ignore_empty=True,
        alias_generator=variable_of,
        hide_input_in_errors=True,
    )

    config: FilePath = Field(default=Path("routes.yaml"), description="The file with the routes.")
    bind: AddressOrOff = Field(
        default=ListenAddress("127.0.0.1", 8080),
        description="Where clients are listened for; IPv6 in brackets, `[::]:8080` for IPv4 too, "
        "port 0 for any free one. `off` where all come over TLS.",
    )
    tls_bind: AddressOrOff = Field(
        default=None, description="Where clients are listened for over TLS; see [tls.md](tls.md)."
    )
    tls_cert: ExistingFiles = Field(
        default=(),
        description="Certificates in PEM, each with its chain; the one for the name that a client "
        "asks for is taken, else the first. Read again when they change.",
    )
    tls_key: ExistingFiles = Field(
        default=(), description="The keys that belong to them, in the same order."
    )
    tls_client_auth: Annotated[
        Literal["off", "optional", "required"],
        BeforeValidator(lower),
        Kind("`off`, `optional` or `required`"),
    ] = Field(
        default="off",
        description="Whether clients are asked for certificates, and turned away without one.",
    )
    tls_client_ca: ExistingFile = Field(
        default=None, description="Who signs the certificates of clients."
    )
    http_redirect: Redirect = Field(
        default="off",
        description="Answer every plain request with 308 to the same place over TLS; a port is the "
        "one that clients see, where that is not the one of `GATEWAY_TLS_BIND`.",
    )
    proxy_protocol: Annotated[
        Literal["off", "on"], BeforeValidator(lower), Kind("`on` or `off`")
    ] = Field(
        default="off",
        description="Whether each connection of a client begins with the PROXY protocol (1 or 2); "
        "it is believed of `GATEWAY_TRUSTED_PROXIES`.",
    )
    admin: AddressOrOff = Field(
        default=ListenAddress("127.0.0.1", 9901),
        description="Where health and the admin API are; keep it away from clients.",
    )
    admin_hosts: Names = Field(
        default=(),
        description="Further names under which the admin port answers, beside addresses and "
        "`localhost`: no page of another site can read it (DNS rebinding).",
    )
    registry: Annotated[
        Literal["consul", "static"], BeforeValidator(lower), Kind("`consul` or `static`")
    ] = Field(
        default="consul",
        description="Who knows the instances of a service that names no `servers` in routes.yaml.",
    )

    consul_address: ConsulAddress = Field(
        default="http://127.0.0.1:8500",
        description="`host:port`, `http://…`, `https://…` or `unix:///path`; best the local agent.",
    )
    consul_token: Token = Field(default=None, description="The ACL token.")
    consul_token_file: Annotated[FilePath | None, Kind("path")] = Field(
        default=None,
        description="A file with the ACL token, read again for each request, so that a token can "
        "be changed; it wins over the token.",
    )
    consul_datacenter: Annotated[str | None, Kind("name")] = Field(
        default=None, description="Left out, that of the agent."
    )
    consul_cacert: ExistingFile = Field(
        default=None, description="Who signed Consul's certificate, if not a public authority."
    )
    consul_client_cert: ExistingFile = Field(
        default=None, description="Our certificate, where Consul asks for one."
    )
    consul_client_key: ExistingFile = Field(default=None, description="The key that belongs to it.")
    consul_verify: Annotated[bool, Kind("`true` or `false`")] = Field(
        default=True, description="Whether Consul's certificate is checked; false is for trials."
    )
    consul_wait_s: ConsulWait = Field(
        default=30.0,
        description="How long a blocking query may wait, 1s to 10m; shorter finds a dead "
        "connection sooner, longer asks less often.",
    )
    consul_consistency: Annotated[
        Literal["default", "stale", "consistent"],
        BeforeValidator(lower),
        Kind("`default`, `stale` or `consistent`"),
    ] = Field(
        default="default",
        description="Which server may answer; `stale` spares the leader of a large fleet.",
    )

    state_dir: Directory = Field(
        default_factory=lambda: default_state_dir(os.environ),
        description="Where the last known instances are kept for a start without the registry. "
        "Unless given: `$XDG_STATE_HOME/gateway` or `~/.local/state/gateway`.",
    )
    zone: Annotated[str | None, Kind("name")] = Field(
        default=None,
        description="The zone that the gateway is in: instances whose meta key `zone` says the "
        "same come first; see [balancing.md](balancing.md#zones).",
    )
    trusted_proxies: Networks = Field(
        default=(),
        description="Whose X-Forwarded headers are believed, as in `10.0.0.0/8, ::1`.",
    )
    forwarded: Annotated[Literal["off", "on"], BeforeValidator(lower), Kind("`on` or `off`")] = (
        Field(
            default="off",
            description="Whether instances get Forwarded (RFC 7239) beside the X-Forwarded fields.",
        )
    )

    error_detail: Annotated[
        Literal["reason", "full"], BeforeValidator(lower), Kind("`reason` or `full`")
    ] = Field(
        default="reason",
        description="What clients are told of a failure: its reason, or also what exactly an "
        "instance did, with its address. The log has all of it, under the request's id.",
    )

    access_log: AccessLog = Field(
        default="on", description="One line for each request: beside the log, or in a file."
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        BeforeValidator(lower),
        Kind("`debug`, `info`, `warning` or `error`"),
    ] = Field(default="info", description="What is logged at least.")
    log_format: Annotated[
        Literal["auto", "json", "text"],
        BeforeValidator(lower),
        Kind("`auto`, `json` or `text`"),
    ] = Field(default="auto", description="`auto` is text on a terminal and JSON elsewhere.")

    start_wait_s: Duration = Field(
        default=2.0,
        description="At the start, how long clients that connect are kept waiting at most until "
        "each service was heard of once; 0s for not at all.",
    )
    drain_delay_s: Duration = Field(
        default=0.0,
        description="On SIGTERM, how long to go on accepting while not ready: as long as it takes "
        "those in front to notice.",
    )
    drain_idle_s: Duration = Field(
        default=5.0,
        description="How long clients' idle connections stay open after that, because a request "
        "may be on its way on them; no longer than `GATEWAY_DRAIN_TIMEOUT`.",
    )
    drain_timeout_s: Duration = Field(
        default=30.0,
        description="How long what is in hand may take to finish, counted from the same moment.",
    )
    keepalive_timeout_s: SomeDuration = Field(
        default=75.0, description="How long a client's connection may stay without a request."
    )
    client_head_timeout_s: SomeDuration = Field(
        default=10.0,
        description="From the first byte of a request to the end of its headers; also from the "
        "start of a connection to its first byte, for a PROXY header, and for a TLS handshake.",
    )
    client_body_timeout_s: SomeDuration = Field(
        default=60.0, description="Between two pieces of a request body."
    )
    max_request_line_bytes: Size = Field(
        default=8 * 1024, description="Longer request lines get 414."
    )
    max_header_size_bytes: Size = Field(
        default=64 * 1024, description="Larger headers, all fields together, get 431."
    )
    max_header_fields: Count = Field(default=100, description="More header fields get 431.")
    max_connections: Count = Field(
        default=10_000,
        description="Clients' connections at once, from the moment that they are accepted; "
        "fewer where the limit of open files is under twice that and 256. When they are all taken, "
        "the one that is idle for longest gives way to a new one. Each may hold 192 KiB when its "
        "other side takes nothing: see [memory](operations.md#memory).",
    )
    max_connections_per_address: CountOrNone = Field(
        default=0,
        description="Connections at once from one address, 0 for any number; trusted proxies are "
        "not counted.",
    )
    max_requests_per_connection: CountOrNone = Field(
        default=0,
        description="Requests over one connection before it is closed, 0 for any number.",
    )

    max_concurrency: CountOrNone = Field(
        default=0,
        description="Requests in hand with services at once in all, 0 for any number; others wait, "
        "or get 503.",
    )
    max_queue: CountOrNone = Field(
        default=128, description="So many requests may wait for a place under that limit."
    )
    max_queue_wait_s: SomeDuration = Field(
        default=0.25,
        description="For how long each of them may wait; whoever waits longer gets 503.",
    )
    max_tunnels: CountOrNone = Field(
        default=0,
        description="Clients at once that have switched to another protocol, such as WebSocket, or "
        "ask for it, 0 for any number; one more gets 503.",
    )
    max_lag_s: SomeDuration = Field(
        default=0.1,
        description="How late the event loop may be before requests of routes with "
        "`priority_class: sheddable` are refused.",
    )

    @property
    def snapshot_file(self) -> Path | None:
        """The file with the last known instances, None where none is kept."""
        return self.state_dir / "snapshots.json" if self.state_dir is not None else None

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if wrong := list(self._contradictions()):
            raise ValueError("\n".join(wrong))
        return self

    def _wrong_listeners(self) -> Iterator[str]:
        if self.bind is None and self.tls_bind is None:
            yield "GATEWAY_BIND=off needs GATEWAY_TLS_BIND: there is nowhere to come in"
        if self.http_redirect != "off" and self.bind is None:
            yield "GATEWAY_HTTP_REDIRECT needs GATEWAY_BIND: the plain listener redirects"
        if self.http_redirect != "off" and self.tls_bind is None:
            yield "GATEWAY_HTTP_REDIRECT needs GATEWAY_TLS_BIND: there is nowhere to go"

    def _contradictions(self) -> Iterator[str]:
        """List what is right by itself and wrong together, one line for each."""
        if (self.consul_client_cert is None) != (self.consul_client_key is None):
            pair = "GATEWAY_CONSUL_CLIENT_CERT and GATEWAY_CONSUL_CLIENT_KEY"
            yield f"{pair} go together; one is missing"
        if len(self.tls_cert) != len(self.tls_key):
            yield "GATEWAY_TLS_CERT and GATEWAY_TLS_KEY go together, one key for each certificate"
        if (self.tls_bind is not None) != bool(self.tls_cert or self.tls_key):
            yield "GATEWAY_TLS_BIND needs GATEWAY_TLS_CERT, and without it there is no use for that"
        if (self.tls_client_auth != "off") != (self.tls_client_ca is not None):
            yield "GATEWAY_TLS_CLIENT_AUTH needs GATEWAY_TLS_CLIENT_CA, and is off without it"
        yield from self._wrong_listeners()
        if self.proxy_protocol == "on" and not self.trusted_proxies:
            yield (
                "GATEWAY_PROXY_PROTOCOL needs GATEWAY_TRUSTED_PROXIES, or anybody could be anybody"
            )


def load_settings(overrides: Mapping[str, object]) -> Settings:
    """Read the environment; `overrides` are options by name of the field, None is not given.

    Raises SettingsError with all that is wrong.
    """
    env = {name.upper(): value for name, value in os.environ.items() if value}
    options: dict[str, Any] = {
        variable_of(name): value for name, value in overrides.items() if value is not None
    }
    problems = [*_misspelt(env), *wrong_switches(env)]
    consul = of_consul_tools(env, options.keys() | env.keys())
    try:
        settings = Settings(**consul, **options)
    except ValidationError as error:
        details = error.errors(include_url=False)
        for detail in details:
            problems += _problem(detail, options.keys(), env.keys()).splitlines()
        raise SettingsError(tuple(problems)) from error
    if problems:
        raise SettingsError(tuple(problems))
    return settings


def unknown_variables(env: Mapping[str, str]) -> list[str]:
    """List variables with our prefix that are no settings; those of a Kubernetes Service aside."""
    known = {variable_of(field) for field in Settings.model_fields}
    ours = {name.upper() for name, value in env.items() if value} - known
    return sorted(
        name for name in ours if name.startswith(_PREFIX) and not _SERVICE_LINK.search(name)
    )


def _misspelt(env: Mapping[str, str]) -> Iterator[str]:
    """Find variables that are nearly ours.

    Others with our prefix are left alone: whoever calls a program or a Kubernetes Service "gateway"
    gets some that we know nothing of.
    """
    known = {variable_of(field).removeprefix(_PREFIX) for field in Settings.model_fields}
    for variable in unknown_variables(env):
        near = difflib.get_close_matches(variable.removeprefix(_PREFIX), known, n=1, cutoff=0.8)
        if near:
            yield f"{variable}: is not known; did you mean {_PREFIX}{near[0]}?"


def _problem(detail: ErrorDetails, options: AbstractSet[str], env: AbstractSet[str]) -> str:
    """Say what is wrong with a value, by the name under which it was given."""
    words = _MESSAGES.get(detail["type"])
    message = without_password(words(detail) if words is not None else detail["msg"])
    if not detail["loc"]:
        return message
    variable = str(detail["loc"][0])
    if variable in options:
        name = "--" + variable.removeprefix(_PREFIX).lower().replace("_", "-")
    else:
        name = variable if variable in env else CONSUL_VARIABLES[variable]
        message = _without_value(message, detail["input"])
    return f"{name}: {message}"


def _without_value(message: str, value: object) -> str:
    """Leave out of a message what a variable holds, unless it is plainly no secret.

    Whoever sets a variable knows what it holds, and whoever reads the log must not: it may be what
    was meant for another variable.
    """
    if isinstance(value, str):
        for part in (value, *re.split(r"[,\s]+", value)):
            if not _NO_SECRET.fullmatch(part):
                message = message.replace(repr(part), "what it holds")
                message = message.replace(f"write {part}:", "write HOST:")
    return message


# A number with a unit, addresses and networks, a port of this machine, or a path. Words are none of
# these, nor is hex without a dot or a colon: short passwords and tokens look like that.
_NO_SECRET = re.compile(
    r"-?[0-9][0-9.,_]*\s?[A-Za-z]{0,3}|[0-9a-fA-F\[]*[.:][0-9a-fA-F.:/,\[\]\s]*|localhost:?\d*|[./~][\w./-]*"
)
_MESSAGES: Mapping[str, Callable[[ErrorDetails], str]] = MappingProxyType(
    {
        "value_error": lambda detail: str(detail["ctx"]["error"]),
        "bool_parsing": lambda detail: f"{detail['input']!r} is no switch; write true or false",
        "int_parsing": lambda detail: f"{detail['input']!r} is not a whole number; write 1000",
        "greater_than_equal": lambda detail: f"must be {detail['ctx']['ge']} or more",
        "literal_error": lambda detail: (
            f"{detail['input']!r} is not known; write {detail['ctx']['expected']}"
        ),
    }
)
