"""Consul over httpx: the one module that knows python-consul2.

python-consul2 builds the requests and reads the answers; the transport is ours, because its own
clients block, or open a connection for each request and give up before a blocking query ends. Its
API classes need an owner with `http`, `token` and `dc`; `_Api` is that owner, so that
`consul.Consul` itself, which lets the environment override its arguments, is never built.

The one rule: everything that the network, Consul, or something in between can do to us leaves this
module as a SourceError with its trouble named.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import httpx

from gateway.core.selection import split_part
from gateway.core.watch import Trouble
from gateway.discovery.consul_answers import TaggedAddress, instances_of
from gateway.discovery.source import Answer, SourceError

with warnings.catch_warnings():
    # It pulls in `requests`, which warns about versions of libraries that are never used here.
    warnings.simplefilter("ignore")
    from consul import base

Consistency = Literal["default", "stale", "consistent"]

_SERVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DATACENTER = re.compile(r"[A-Za-z0-9_-]+")
_NO_LEADER = ("rpc error", "No cluster leader", "No known Consul servers")
_RIGHTS = 'the token needs service_prefix "" read and node_prefix "" read'
_DETAIL_LENGTH = 200
_SHORTEST_WAIT_S = 0.01
_LONGEST_WAIT_S = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsulOptions:
    """Where Consul is and how it is asked.

    `address`: `host:port`, `http://…`, `https://…` or `unix:///path`. `token_file` is read anew for
    each request, so a rotated token holds at once; it goes before `token`. `datacenter` None is the
    agent's own. `wait_s` is how long a blocking query may wait: short ones are cheap, while an
    abandoned one holds its place in Consul until the wait is over. `grace_s` is how much later than
    promised an answer may come. `read_timeout_s` must exceed the 7.3 s for which an agent without a
    leader holds a plain read. `max_watches` bounds the long-lived connections (Consul's
    `http_max_conns_per_client` is 200 for all programs of a host together); further services are
    polled every `poll_s`. `max_stale_s` is how far a follower may lag with consistency `stale`.

    Raises ValueError at construction when `wait_s` is out of range.
    """

    address: str = "http://127.0.0.1:8500"
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    datacenter: str | None = None
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    verify: bool = True
    consistency: Consistency = "default"
    tagged_address: TaggedAddress | None = None
    wait_s: float = 30.0
    grace_s: float = 5.0
    connect_timeout_s: float = 2.0
    read_timeout_s: float = 10.0
    probe_timeout_s: float = 5.0
    max_stale_s: float = 5.0
    max_watches: int = 100
    poll_s: float = 5.0

    def __post_init__(self) -> None:
        # Consul takes a wait of 0 for its default of five minutes, and cuts a longer one than this.
        if not _SHORTEST_WAIT_S <= self.wait_s <= _LONGEST_WAIT_S:
            raise ValueError(f"wait_s must be between {_SHORTEST_WAIT_S} and {_LONGEST_WAIT_S}")


@dataclass(frozen=True, slots=True)
class Meta:
    """What the headers of an answer say; `index` and `last_contact_s` are 0 where they are not."""

    index: int
    has_leader: bool
    last_contact_s: float
    is_filtered: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """What python-consul2 made of the body, and the headers that it throws away."""

    value: Any
    meta: Meta


def is_service_name(name: str) -> bool:
    """Whether a name may go into a path of Consul's API: nothing in it can lead elsewhere."""
    return _SERVICE_NAME.fullmatch(name) is not None and ".." not in name


def is_datacenter(name: str) -> bool:
    """Whether Consul could have a datacenter of this name."""
    return _DATACENTER.fullmatch(name) is not None


class HttpxAdapter:
    """The transport that python-consul2's API classes call: `get` as a coroutine.

    `read_params` are added to every read, because python-consul2 knows no consistency modes for
    health reads.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        options: ConsulOptions,
        *,
        timeout_s: float,
        read_params: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._client = client
        self._options = options
        self._timeout_s = timeout_s
        self._read_params = read_params

    async def get(
        self,
        callback: Callable[[Any], Any],
        path: str,
        params: Sequence[tuple[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send one read. Raises SourceError."""
        asked = [*(params or ()), *self._read_params]
        is_blocking = any(name == "index" for name, _ in asked)
        # Consul adds up to wait/16 of jitter to a blocking query.
        wait_s = self._options.wait_s * 17 / 16 + self._options.grace_s
        timeout_s = wait_s if is_blocking else self._timeout_s
        try:
            # httpx's limit is for each read, this one is for the answer as a whole.
            async with asyncio.timeout(self._options.connect_timeout_s + timeout_s):
                response = await self._client.get(
                    path,
                    params=asked,
                    headers=headers,
                    timeout=httpx.Timeout(timeout_s, connect=self._options.connect_timeout_s),
                )
        except (httpx.HTTPError, OSError, ValueError) as error:
            # ssl.SSLError, which httpx lets through bare, and TimeoutError are both an OSError.
            raise _transport_error(error) from error
        _refuse(response)
        try:
            body = base.Response(response.status_code, response.headers, response.text, None)
            return Reply(callback(body), _meta(response.headers))
        except (KeyError, TypeError, ValueError, base.ConsulException) as error:
            detail = f"not an answer of Consul: {error!r}"
            raise SourceError(Trouble.PROTOCOL, detail) from error


class _Api:
    """What python-consul2's API classes expect of their owner."""

    def __init__(self, http: HttpxAdapter, options: ConsulOptions) -> None:
        self.http = http
        self.dc = options.datacenter
        self._options = options
        self.health = base.Consul.Health(self)
        self.status = base.Consul.Status(self)

    @property
    def token(self) -> str | None:
        """The ACL token for the next request. Raises SourceError when its file is not readable."""
        if self._options.token_file is None:
            return self._options.token
        try:
            return self._options.token_file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise SourceError(Trouble.DENIED, f"token file: {error}") from error


class ConsulSource:
    """Reads of `/v1/health/service` over one httpx client."""

    def __init__(self, client: httpx.AsyncClient, options: ConsulOptions) -> None:
        self._client = client
        self._options = options
        mode = () if options.consistency == "default" else ((options.consistency, ""),)
        timeout_s = options.read_timeout_s
        self._api = _Api(
            HttpxAdapter(client, options, timeout_s=timeout_s, read_params=mode), options
        )
        self._leader = _Api(HttpxAdapter(client, options, timeout_s=timeout_s), options)

    async def query(self, service: str, *, index: int) -> Answer:
        """Ask for a service; see `gateway.discovery.source.Source`.

        `web@dc2` is asked of that datacenter, through the same agent. A stale answer of a server
        that lags or knows no leader is asked again of the leader.
        """
        if not is_service_name(split_part(service)[0]):
            raise SourceError(Trouble.BAD, f"not a service name: {service[:64]!r}")
        reply = await self._read(self._api, service, index)
        if self._options.consistency == "stale" and not self._is_fresh(reply.meta):
            reply = await self._read(self._leader, service, 0)
        entries = reply.value[1]
        if not isinstance(entries, list):
            raise SourceError(Trouble.PROTOCOL, "not an answer of Consul: not a list")
        instances, skipped_count = instances_of(
            entries, tagged_address=self._options.tagged_address
        )
        return Answer(
            index=reply.meta.index,
            instances=instances,
            skipped_count=skipped_count,
            has_leader=reply.meta.has_leader,
            is_filtered=reply.meta.is_filtered,
        )

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    async def _read(self, api: _Api, service: str, index: int) -> Reply:
        wait = f"{round(self._options.wait_s * 1000)}ms"
        # No `passing`, `filter` or `near`: they save bytes and hide why an instance is away.
        name, datacenter = split_part(service)
        reply: Reply = await api.health.service(name, index=index, wait=wait, dc=datacenter)
        return reply

    def _is_fresh(self, meta: Meta) -> bool:
        return meta.has_leader and meta.last_contact_s <= self._options.max_stale_s


class _PollSource:
    """Plain reads over the control connections, one at a time.

    So one of the two connections is always left for the probe, and httpx, whose pool gets slow
    when requests queue in it, never queues any.
    """

    def __init__(self, source: ConsulSource) -> None:
        self._source = source
        self._turn = asyncio.Semaphore(1)

    async def query(
        self,
        service: str,
        *,
        index: int,  # noqa: ARG002 - part of the Protocol; a poll never waits for a change
    ) -> Answer:
        """Ask for a service as it is now."""
        async with self._turn:
            return await self._source.query(service, index=0)

    async def aclose(self) -> None:
        """Leave the control connections, which belong to the Consul object, alone."""


class Consul:
    """One Consul: a source for polls, a probe, and a source of its own for each watch.

    Each watch has a client with one connection: in one big pool, the work of httpx grows with the
    square of the requests in flight. All share one SSLContext, which is slow to build. An async
    context manager; whoever opens a watch closes it.

    Raises OSError (also ssl.SSLError) at construction when a certificate file is not usable, and
    ValueError when the address is not.
    """

    def __init__(self, options: ConsulOptions) -> None:
        self._options = options
        self._base_url, self._socket_path = _parse_address(options.address)
        self._tls = _ssl_context(options, self._base_url)
        self._control = self._client(max_connections=2)
        self.poll = _PollSource(ConsulSource(self._control, options))
        self._status = _Api(
            HttpxAdapter(self._control, options, timeout_s=options.probe_timeout_s), options
        ).status

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._control.aclose()

    def open_watch(self) -> ConsulSource:
        """Make a source with a connection of its own, opened at the first question."""
        return ConsulSource(self._client(max_connections=1), self._options)

    async def probe(self) -> None:
        """Ask whether there is a leader. Raises SourceError when there is none, or no answer."""
        reply: Reply = await self._status.leader()
        if not reply.value:
            raise SourceError(Trouble.NO_LEADER, "no cluster leader")

    def _client(self, *, max_connections: int) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=max_connections, keepalive_expiry=None)
        return httpx.AsyncClient(
            base_url=self._base_url,
            transport=httpx.AsyncHTTPTransport(
                verify=self._tls, limits=limits, uds=self._socket_path, trust_env=False
            ),
            trust_env=False,
            follow_redirects=False,
            headers={"user-agent": "gateway"},
        )


def _parse_address(address: str) -> tuple[httpx.URL, str | None]:
    """Read an address as Consul's own tools do; give the URL and, if any, the unix socket."""
    if address.startswith("unix://"):
        return httpx.URL("http://consul"), address.removeprefix("unix://")
    try:
        url = httpx.URL(address if "://" in address else f"http://{address}")
    except httpx.InvalidURL as error:
        raise ValueError(f"not an address of Consul: {address!r}") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"not an address of Consul: {address!r}")
    return url, None


def _ssl_context(options: ConsulOptions, url: httpx.URL) -> ssl.SSLContext:
    if url.scheme != "https":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context = ssl.create_default_context(cafile=options.ca_file)
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.client_cert is not None:
        context.load_cert_chain(options.client_cert, options.client_key)
    return context


def _transport_error(error: Exception) -> SourceError:
    """Name what went wrong on the way."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        trouble = Trouble.UNREACHABLE
    elif isinstance(error, httpx.TimeoutException | TimeoutError):
        trouble = Trouble.TIMEOUT
    elif isinstance(error, httpx.LocalProtocolError | ValueError):
        trouble = Trouble.BAD  # what we wanted to send is no HTTP, a token with a line break
    else:
        trouble = Trouble.CUT
    return SourceError(trouble, f"{type(error).__name__}: {error}"[:_DETAIL_LENGTH])


def _refuse(response: httpx.Response) -> None:
    """Raise SourceError for every answer but a plain 200."""
    status = response.status_code
    if status == httpx.codes.OK:
        return
    text = " ".join(response.text[:_DETAIL_LENGTH].split())
    detail = f"{status} {text}".strip()
    if status in {401, 403}:
        raise SourceError(Trouble.DENIED, f"{detail} ({_RIGHTS})")
    if status == httpx.codes.BAD_REQUEST:
        raise SourceError(Trouble.BAD, detail)
    if status in {429, 503}:
        raise SourceError(Trouble.LIMITED, detail, retry_after_s=_retry_after_s(response))
    if status == httpx.codes.INTERNAL_SERVER_ERROR and any(word in text for word in _NO_LEADER):
        raise SourceError(Trouble.NO_LEADER, detail)
    raise SourceError(Trouble.PROTOCOL, detail)


def _retry_after_s(response: httpx.Response) -> float | None:
    """Read Retry-After in seconds (RFC 9110 §10.2.3); its date form is not used by Consul."""
    value = response.headers.get("retry-after", "").strip()
    return float(value) if value.isascii() and value.isdigit() else None


def _meta(headers: httpx.Headers) -> Meta:
    """Read the headers of a 200. Raises ValueError where a number is none."""
    return Meta(
        index=max(0, int(headers.get("x-consul-index", "0"))),
        has_leader=headers.get("x-consul-knownleader", "true") == "true",
        last_contact_s=int(headers.get("x-consul-lastcontact", "0")) / 1000,
        is_filtered=headers.get("x-consul-results-filtered-by-acls", "") == "true",
    )
