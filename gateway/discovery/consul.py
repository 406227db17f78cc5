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
import importlib.machinery
import importlib.util
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType, TracebackType
from typing import Any, Self

import httpx

from gateway.core.selection import split_part
from gateway.core.watch import Trouble
from gateway.discovery.bodies import LARGE_BYTES, Bodies
from gateway.discovery.consul_answers import Listing, listing_of
from gateway.discovery.consul_faults import (
    RIGHTS,
    Meta,
    meta_of,
    not_consul,
    refuse,
    transport_error,
)
from gateway.discovery.consul_options import (
    ConsulOptions,
    is_service_name,
    parse_address,
    read_token,
    ssl_context,
)
from gateway.discovery.consul_sight import SEES_NOTHING, Sight
from gateway.discovery.entries import items_of
from gateway.discovery.named_transport import NamedTransport, RenewedClient
from gateway.discovery.source import Answer, SourceError
from gateway.names import Names
from gateway.threads import in_thread


def _python_consul2() -> ModuleType:
    """Load `consul.base` alone, under no name that others could import.

    Importing the package loads `requests` too, which nothing here uses and the image does not have.
    Raises ModuleNotFoundError when python-consul2 is not installed.
    """
    package = importlib.util.find_spec("consul")
    places = package.submodule_search_locations if package is not None else None
    spec = importlib.machinery.PathFinder.find_spec("base", places) if places else None
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("python-consul2 is not installed", name="consul")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


base: Any = _python_consul2()

ReadList = Callable[[bytearray], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Reply:
    """What the body says, and the headers that python-consul2 throws away."""

    value: Any
    meta: Meta


class HttpxAdapter:
    """The transport that python-consul2's API classes call: `get` as a coroutine.

    `read_params` are added to every read, because python-consul2 knows no consistency modes for
    health reads. `lists` replaces python-consul2's own reading of the body, which holds the
    interpreter for as long as the body is.
    """

    def __init__(  # noqa: PLR0913 -- they are all different things
        self,
        renewed: RenewedClient,
        options: ConsulOptions,
        bodies: Bodies,
        *,
        timeout_s: float,
        read_params: Sequence[tuple[str, str]] = (),
        lists: ReadList | None = None,
    ) -> None:
        self._renewed = renewed
        self._options = options
        self._bodies = bodies
        self._timeout_s = timeout_s
        self._read_params = read_params
        self._lists = lists

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
        limits = httpx.Timeout(timeout_s, connect=self._options.connect_timeout_s)
        try:
            # httpx's limit is for each read, this one is for the answer as a whole.
            async with (
                asyncio.timeout(self._options.connect_timeout_s + timeout_s) as within,
                self._renewed.client.stream(
                    "GET", path, params=asked, headers=headers, timeout=limits
                ) as response,
                self._bodies.read(response, within, self._timeout_s) as body,
            ):
                refuse(response, body)
                return await self._understand(callback, response, body)
        except (httpx.HTTPError, OSError, ValueError) as error:
            # ssl.SSLError, which httpx lets through bare, and TimeoutError are both an OSError.
            await self._renewed.begin_anew()
            raise transport_error(error) from error
        except asyncio.CancelledError:
            await self._renewed.begin_anew()
            raise

    async def _understand(
        self, callback: Callable[[Any], Any], response: httpx.Response, body: bytearray
    ) -> Reply:
        """Read what a 200 says. Raises SourceError when it is not Consul that says it."""
        try:
            meta = meta_of(response.headers)
            if self._lists is not None:
                response.headers["X-Consul-Index"]  # a KeyError, where meta_of takes 0
                return Reply(await self._lists(body), meta)
            text = body.decode("utf-8")
            return Reply(
                callback(base.Response(response.status_code, response.headers, text, None)), meta
            )
        except (KeyError, TypeError, ValueError, RecursionError, base.ConsulException) as error:
            raise not_consul(response, error) from error


class _Api:
    """What python-consul2's API classes expect of their owner."""

    def __init__(self, http: HttpxAdapter, options: ConsulOptions) -> None:
        self.http = http
        self.dc = options.datacenter
        self.consistency = "default"
        self._options = options
        self.health = base.Consul.Health(self)
        self.status = base.Consul.Status(self)
        self.catalog = base.Consul.Catalog(self)

    @property
    def token(self) -> str | None:
        """The ACL token for the next request. Raises SourceError when its file is not readable."""
        if self._options.token_file is None:
            return self._options.token
        try:
            return read_token(self._options.token_file)
        except (OSError, ValueError) as error:
            raise SourceError(Trouble.DENIED, f"token file: {error}") from error


class ConsulSource:
    """Reads of `/v1/health/service` over one httpx client."""

    def __init__(
        self, renewed: RenewedClient, options: ConsulOptions, bodies: Bodies, sight: Sight
    ) -> None:
        self._renewed = renewed
        self._sight = sight
        self._options = options
        mode = () if options.consistency == "default" else ((options.consistency, ""),)
        adapter = partial(
            HttpxAdapter,
            renewed,
            options,
            bodies,
            timeout_s=options.read_timeout_s,
            lists=self._read_entries,
        )
        self._api = _Api(adapter(read_params=mode), options)
        self._leader = _Api(adapter(), options)

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
        listing: Listing = reply.value
        if not listing.instances and not listing.skipped_count:
            await self._check_empty(reply.meta, split_part(service)[1])
        return Answer(
            index=reply.meta.index,
            instances=listing.instances,
            skipped=listing.skipped,
            skipped_count=listing.skipped_count,
            has_leader=reply.meta.has_leader,
            is_filtered=reply.meta.is_filtered,
        )

    async def _check_empty(self, meta: Meta, datacenter: str | None) -> None:
        """Raise SourceError when nothing is listed because nothing may be seen."""
        reason = SEES_NOTHING if meta.is_filtered else await self._sight.why_blind(datacenter)
        if reason is not None:
            raise SourceError(Trouble.DENIED, f"{reason} ({RIGHTS})")

    async def aclose(self) -> None:
        """Close its connections."""
        await self._renewed.aclose()

    async def _read(self, api: _Api, service: str, index: int) -> Reply:
        wait = f"{round(self._options.wait_s * 1000)}ms"
        # No `passing`, `filter` or `near`: they save bytes and hide why an instance is away.
        name, datacenter = split_part(service)
        reply: Reply = await api.health.service(name, index=index, wait=wait, dc=datacenter)
        return reply

    async def _read_entries(self, body: bytearray) -> Listing:
        """Read the entries of a health read; of a large one in a thread."""
        tagged = self._options.tagged_address
        if len(body) < LARGE_BYTES:
            return listing_of(items_of(body), tagged_address=tagged)
        return await in_thread(
            lambda pace: listing_of(items_of(body), tagged_address=tagged, step=pace.step),
            name="registry answer",
        )

    def _is_fresh(self, meta: Meta) -> bool:
        return meta.has_leader and meta.last_contact_s <= self._options.max_stale_s


class _PollSource:
    """Plain reads over the connections that the probe uses too, one at a time."""

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
        """Leave the connections, which belong to the Consul object, alone."""


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
        self._base_url, self._socket_path = parse_address(options.address)
        self._tls = ssl_context(options, self._base_url)
        self._names = Names()
        self._bodies = Bodies()
        # Shared by the probe, polls and Sight: at Consul's limit no further one could be opened.
        self._control = RenewedClient(partial(self._client, 3))
        self._api = self._small_api(self._control)
        # It finds out whether an empty answer is true.
        self._sight = Sight(self._small_api(self._control).catalog)
        self.poll = _PollSource(ConsulSource(self._control, options, self._bodies, self._sight))
        self._token = self._read_token()

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
        return ConsulSource(RenewedClient(self._client), self._options, self._bodies, self._sight)

    def has_new_token(self) -> bool:
        """Tell whether another token is in its file than at the last look."""
        before, self._token = self._token, self._read_token()
        if before == self._token:
            return False
        self._sight.forget()
        return True

    def _read_token(self) -> str | None:
        try:
            return self._api.token
        except SourceError:
            return None

    async def probe(self) -> None:
        """Ask whether there is a leader. Raises SourceError when there is none, or no answer."""
        reply: Reply = await self._api.status.leader()
        if not isinstance(reply.value, str):
            detail = "what answers is not Consul: its leader has no address"
            raise SourceError(Trouble.PROTOCOL, detail)
        if not reply.value:
            raise SourceError(Trouble.NO_LEADER, "no cluster leader")

    def _small_api(self, renewed: RenewedClient) -> _Api:
        options, small = self._options, Bodies(max_bytes=LARGE_BYTES)
        adapter = HttpxAdapter(renewed, options, small, timeout_s=options.probe_timeout_s)
        return _Api(adapter, options)

    def _client(self, max_connections: int = 1) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=max_connections, keepalive_expiry=None)
        return httpx.AsyncClient(
            base_url=self._base_url,
            transport=NamedTransport(
                httpx.AsyncHTTPTransport(
                    verify=self._tls, limits=limits, uds=self._socket_path, trust_env=False
                ),
                self._names if self._socket_path is None else None,
            ),
            trust_env=False,
            follow_redirects=False,
            headers={"user-agent": "gateway", "accept-encoding": "identity"},
        )
