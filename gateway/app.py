"""The composition root: the one place that makes the objects and joins them.

`create_app` gives a complete ASGI app that any ASGI server can run, lifespan included. `gateway
run` runs the same object in its own process, with the admin port beside it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from random import Random

import structlog

from gateway.admin.app import create_admin
from gateway.config.errors import ConfigError
from gateway.config.loading import load_routes
from gateway.core.config import Problem, RoutingConfig, ServiceConfig
from gateway.core.model import Instance, Snapshot
from gateway.core.policy import ConcurrencyPolicy
from gateway.core.registry import Registry
from gateway.core.selection import parts_of
from gateway.discovery.catalog import Catalog
from gateway.discovery.consul_options import ConsulOptions
from gateway.discovery.consul_registry import ConsulRegistry
from gateway.discovery.disk import SnapshotStore
from gateway.discovery.first import FirstSnapshots
from gateway.discovery.selection import Selection
from gateway.discovery.static import StaticRegistry
from gateway.edge.app_sockets import AppSockets
from gateway.edge.asgi import AsgiFace, Receive, Scope, Send
from gateway.edge.face import GRACE_SHARE, FaceOptions
from gateway.edge.fast import FastFace
from gateway.edge.lifespan import AppStartError
from gateway.edge.mounts import MountError, Mounts
from gateway.edge.own_app import face_of_app
from gateway.edge.peers import Peers
from gateway.edge.reader import ReaderLimits
from gateway.edge.redirect import RedirectFace
from gateway.edge.tls import Certificates, TlsFiles
from gateway.health.checks import HealthChecks
from gateway.names import Names
from gateway.observability.access import AccessLog, open_access_log
from gateway.observability.events import EventLog
from gateway.open_files import current_limit, most_beside
from gateway.pem import PemError
from gateway.proxy.deadlines import Deadlines
from gateway.proxy.engine import Engine
from gateway.proxy.pool import Pool
from gateway.proxy.tls import TlsClients
from gateway.settings import Settings, SettingsError, load_settings

_log = structlog.get_logger()


def create_app(settings: Settings | None = None, config: RoutingConfig | None = None) -> Gateway:
    """Make a gateway: an ASGI app with its lifespan.

    What is not given is read: the settings from the environment, the routes from the file that the
    settings name. Raises SettingsError and ConfigError when they cannot be used.
    """
    settings = settings or load_settings({})
    return Gateway(settings, config or read_routes(settings))


def read_routes(settings: Settings) -> RoutingConfig:
    """Read the file with the routes, and check it against the settings.

    Raises ConfigError with everything that is wrong.
    """
    config = load_routes(settings.config, os.environ)
    nowhere = _names_in_registry(config) if settings.registry == "static" else ()
    if nowhere:
        raise ConfigError(
            tuple(
                Problem(
                    str(settings.config),
                    0,
                    0,
                    f"services.{name}",
                    "has no servers, and the registry is static: there are no instances",
                )
                for name in nowhere
            )
        )
    return config


class Gateway:
    """All objects of one gateway, joined; an ASGI app.

    `fast_face` is for a process of its own. `certificates` are for listeners with TLS, None where
    there is none. `is_draining` says that it should get no new requests.
    """

    def __init__(self, settings: Settings, config: RoutingConfig) -> None:
        self.settings = settings
        self.config = config
        self.is_draining = False
        self.started_at_s = self.configured_at_s = time.monotonic()
        random = Random()  # noqa: S311 -- for choosing among instances, not for secrets
        self.deadlines = Deadlines()
        self._events = EventLog(_access_log(settings))
        self.engine = Engine(
            self._make_pool,
            random=random.random,
            wall_clock=time.time,  # noqa: TID251 -- for Date
            observer=self._events,
            deadlines=self.deadlines,
            tells_details=settings.error_detail == "full",
        )
        self.engine.zone = settings.zone
        self._tls, self.names = TlsClients(), Names()
        for service in config.services.values():
            self._tls.prepare(service)
        self.certificates = _certificates(settings)
        self._peers = Peers(settings.trusted_proxies, tells_forwarded=settings.forwarded == "on")
        self._mounts = Mounts(
            self.engine,
            spawn=self._spawn,
            clock=time.monotonic,
            client_body_timeout_s=settings.client_body_timeout_s,
        )
        self.engine.loads.limit_all(
            ConcurrencyPolicy(
                limit=settings.max_concurrency or None,
                queue=settings.max_queue,
                queue_wait_s=settings.max_queue_wait_s,
            ),
            max_lag_s=settings.max_lag_s,
            max_tunnels=settings.max_tunnels or None,
        )
        self._use(config)
        self.catalog = Catalog(clock=time.monotonic)
        self.selection = Selection(self.catalog, prepare=self.engine.prepare)
        self.selection.use(config.services)
        self._first_snapshots = FirstSnapshots(self.engine.fleets)
        self.health_checks = HealthChecks(
            self.engine, self._tls.client, self.names, clock=time.monotonic, random=random.random
        )
        self.health_checks.use(config.services)
        for listener in (self.engine, self.health_checks, self._first_snapshots):
            self.selection.subscribe(listener.follow)
        self.registries = _registries(settings, config, self.catalog, random)
        self.admin = create_admin(self, hosts=_admin_hosts(settings))
        self.fast_face = FastFace(self.engine, self._peers, _face_options(settings))
        self._face = AsgiFace(self.engine, self._peers, self._spawn)
        self._sockets = AppSockets(self.engine, self._face, self._mounts)
        self._tasks: asyncio.TaskGroup | None = None
        self._spawned: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "http":
            await self._face(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._serve_lifespan(receive, send)
        else:
            await self._sockets(scope, receive, send)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the registries, keep time and run the mounted apps for as long as this lasts.

        Raises AppStartError when an app could not start.
        """
        store = _store(self.settings, self.config)
        if store is not None:
            followed = _parts_in_registry(self.config)
            self.catalog.restore(one for one in store.load() if one.service in followed)
        self._warn()
        try:
            async with self._mounts.running(), asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                long_lived = [
                    tasks.create_task(registry.run(), name=f"registry:{registry.name}")
                    for registry in self.registries
                ]
                long_lived.append(tasks.create_task(self.health_checks.run(), name="health checks"))
                follow_all = self._tls.follow()
                long_lived.append(tasks.create_task(follow_all, name="certificates of instances"))
                if self.certificates is not None:
                    follow = self.certificates.follow()
                    long_lived.append(tasks.create_task(follow, name="certificates"))
                if store is not None:
                    long_lived.append(tasks.create_task(store.run(self.catalog), name="snapshots"))
                self.deadlines.start(asyncio.get_running_loop())
                try:
                    yield
                finally:
                    self.deadlines.stop()
                    self.engine.close()
                    for task in (*long_lived, *self._spawned):
                        task.cancel()
        finally:
            self._events.close()  # last of all: whatever was in hand has its line

    async def know_instances(self) -> None:
        """Wait until all services were heard of, for `start_wait_s` at most, while it runs."""
        await self._first_snapshots.wait(self.settings.start_wait_s)

    def drain(self) -> None:
        """Be not ready from now on, and let clients look for another gateway."""
        self.is_draining = True
        self.fast_face.drain()

    async def _serve_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with self.running():
                await self.know_instances()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                self.drain()
        except AppStartError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
        else:
            await send({"type": "lifespan.shutdown.complete"})

    def redirect_face(self, port: int) -> RedirectFace:
        """Make the face of a plain listener that sends all clients on to TLS, at this port."""
        return RedirectFace(self.fast_face, port=port)

    def admin_face(self) -> FastFace:
        """Make the face of the admin port, with limits of its own."""
        return face_of_app(
            self.admin,
            name="admin",
            beside=self.fast_face,
            clock=time.monotonic,
            wall_clock=time.time,  # noqa: TID251 -- for Date
            spawn=self._spawn,
        )

    def _use(self, config: RoutingConfig) -> None:
        try:
            self.engine.use(
                config,
                client_body_timeout_s=self.settings.client_body_timeout_s,
                mount=self._mounts.mount,
            )
        except MountError as error:
            raise ConfigError(
                (Problem(str(self.settings.config), 0, 0, "", str(error)),)
            ) from error

    def _warn(self) -> None:
        if unverified := [one.name for one in self.config.services.values() if one.tls.skip_verify]:
            _log.warning("certificates_not_verified", services=unverified)

    def _make_pool(self, service: ServiceConfig, instance: Instance) -> Pool:
        pool = Pool(
            instance,
            spawn=self._spawn,
            clock=time.monotonic,
            deadlines=self.deadlines,
            outbox=self.engine.outbox,
            backlog=self.engine.backlog,
            buffer=self.engine.buffer,
            tls=self._tls.client(service, instance),
            names=self.names.of(service.name),
        )
        pool.max_connections = service.max_connections
        return pool

    def _spawn(self, work: Coroutine[None, None, None], *, name: str) -> asyncio.Task[None]:
        if self._tasks is None:
            work.close()
            raise RuntimeError("the gateway is not running: the ASGI server must support lifespan")
        task = self._tasks.create_task(_guarded(work), name=name)
        self._spawned.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._spawned.discard(task)
            work.close()  # a task that is cancelled before its first step never came to it

        task.add_done_callback(ended)
        return task


async def _guarded(work: Coroutine[None, None, None]) -> None:
    """Let a mistake in one request end that request, not the gateway."""
    try:
        await work
    except Exception:  # noqa: BLE001 -- whatever it is, it is told with its traceback
        _log.exception("task_failed")


def _registries(
    settings: Settings, config: RoutingConfig, catalog: Catalog, random: Random
) -> tuple[Registry, ...]:
    """Make the registries that the routed services need, already following them."""
    configured = {
        service.name: Snapshot(service=service.name, instances=service.instances, source="static")
        for service in config.services.values()
        if service.instances is not None
    }
    registries: list[Registry] = []
    if configured:
        static = StaticRegistry(configured.values(), catalog=catalog, clock=time.monotonic)
        static.follow(configured)
        registries.append(static)
    if followed := _parts_in_registry(config):
        try:
            consul = ConsulRegistry(
                _consul_options(settings),
                catalog=catalog,
                clock=time.monotonic,
                random=random.random,
            )
        except (OSError, ValueError) as error:
            raise SettingsError((f"GATEWAY_CONSUL_…: {error}",)) from error
        consul.follow(followed)
        registries.append(consul)
    return tuple(registries)


def _names_in_registry(config: RoutingConfig) -> frozenset[str]:
    """Name the services whose instances only the registry knows."""
    return frozenset(name for name, one in config.services.items() if one.instances is None)


def _parts_in_registry(config: RoutingConfig) -> frozenset[str]:
    """Name all that the registry is asked about: those services, in other datacenters too."""
    asked = (config.services[name] for name in _names_in_registry(config))
    return frozenset(part for service in asked for part in parts_of(service))


def _consul_options(settings: Settings) -> ConsulOptions:
    token = settings.consul_token
    return ConsulOptions(
        address=settings.consul_address,
        token=token.get_secret_value() if token is not None else None,
        token_file=settings.consul_token_file,
        datacenter=settings.consul_datacenter,
        ca_file=settings.consul_cacert,
        client_cert=settings.consul_client_cert,
        client_key=settings.consul_client_key,
        verify=settings.consul_verify,
        wait_s=settings.consul_wait_s,
        consistency=settings.consul_consistency,
    )


def _access_log(settings: Settings) -> AccessLog | None:
    try:
        return open_access_log(
            settings.access_log,
            settings.log_format,
            wall_clock=time.time,  # noqa: TID251 -- for people
        )
    except OSError as error:
        raise SettingsError((f"GATEWAY_ACCESS_LOG: {error}",)) from error


def _certificates(settings: Settings) -> Certificates | None:
    """Load the certificates for clients, if there is a listener for them."""
    if settings.tls_bind is None:
        return None
    files = TlsFiles(
        pairs=tuple(zip(settings.tls_cert, settings.tls_key, strict=True)),
        client_ca=settings.tls_client_ca,
        client_auth=settings.tls_client_auth,
    )
    try:
        return Certificates(files)
    except PemError as error:
        is_ca = error.file == settings.tls_client_ca
        variable = "CLIENT_CA" if is_ca else "CERT" if error.file in settings.tls_cert else "KEY"
        raise SettingsError((f"GATEWAY_TLS_{variable}: {error}",)) from error


def _admin_hosts(settings: Settings) -> tuple[str, ...]:
    bound = () if settings.admin is None else (settings.admin.host,)
    return (*bound, *settings.admin_hosts)


def _face_options(settings: Settings) -> FaceOptions:
    return FaceOptions(
        head_timeout_s=settings.client_head_timeout_s,
        keepalive_timeout_s=settings.keepalive_timeout_s,
        max_connections=settings.max_connections,
        max_connections_per_address=settings.max_connections_per_address,
        max_requests_per_connection=settings.max_requests_per_connection,
        max_beside=most_beside(current_limit()),
        grace_s=settings.client_head_timeout_s * GRACE_SHARE,
        reader=ReaderLimits(
            max_request_line_bytes=settings.max_request_line_bytes,
            max_header_size_bytes=settings.max_header_size_bytes,
            max_header_fields=settings.max_header_fields,
        ),
    )


def _store(settings: Settings, config: RoutingConfig) -> SnapshotStore | None:
    """Make the store of Snapshots, if there is anything to keep and a place to keep it."""
    if settings.snapshot_file is None or not _names_in_registry(config):
        return None
    return SnapshotStore(
        settings.snapshot_file,
        datacenter=settings.consul_datacenter,
        clock=time.monotonic,
        wall_clock=time.time,  # noqa: TID251 -- the file outlives this process
    )
