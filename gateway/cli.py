"""The command line: `gateway run`, `gateway demo`, `gateway check`.

Exit codes: 0 all is well, 1 it could not run, 2 the configuration cannot be used. Options win over
the environment; what is wrong is said in full, one line each, on standard error.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import structlog
import typer

from gateway import __version__
from gateway.app import Gateway, create_app, read_routes
from gateway.config.errors import ConfigError
from gateway.core.addresses import ListenAddress
from gateway.demo import DemoError, demo_stops, run_demo
from gateway.edge.lifespan import AppStartError
from gateway.edge.server import STOPS, ListenError, ServeOptions, Site, listen, serve
from gateway.memory import keep_freed_memory
from gateway.observability.logging import configure_logging
from gateway.open_files import LEAST_LIMIT, limit_for, most_clients, raise_limit
from gateway.overdue import END_SLACK_S, END_WITHIN_S, HURRY_WITHIN_S, end_within
from gateway.settings import Settings, SettingsError, load_settings, unknown_variables
from gateway.signals import IgnoredSignals, ignore_signals

T = TypeVar("T")

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2


_cli = typer.Typer(
    name="gateway",
    help="An API gateway for services in Consul: a path prefix names a service, "
    "a healthy instance answers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The file with the routes [GATEWAY_CONFIG, routes.yaml]."),
]
BindOption = Annotated[
    str | None,
    typer.Option(help="Where clients come in, host:port [GATEWAY_BIND, 127.0.0.1:8080]."),
]
TlsBindOption = Annotated[
    str | None,
    typer.Option(help="Where clients come in over TLS, host:port [GATEWAY_TLS_BIND, off]."),
]
TlsCertOption = Annotated[
    str | None,
    typer.Option(help="Certificates in PEM, with commas between [GATEWAY_TLS_CERT]."),
]
TlsKeyOption = Annotated[
    str | None,
    typer.Option(help="Their keys, in the same order [GATEWAY_TLS_KEY]."),
]
AdminOption = Annotated[
    str | None,
    typer.Option(help="The admin port, host:port or off [GATEWAY_ADMIN, 127.0.0.1:9901]."),
]


@_cli.command()
def run(  # noqa: PLR0913 -- each parameter is an option
    *,
    config: ConfigOption = None,
    bind: BindOption = None,
    admin: AdminOption = None,
    tls_bind: TlsBindOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
) -> None:
    """Run the gateway until SIGTERM or Ctrl-C."""
    options = {"config": config, "bind": bind, "admin": admin}
    options |= {"tls_bind": tls_bind, "tls_cert": tls_cert, "tls_key": tls_key}
    raise typer.Exit(run_gateway(_settings(options)))


@_cli.command()
def check(config: ConfigOption = None) -> None:
    """Say everything that is wrong with the routes.

    Exit code 0 when nothing is wrong, 2 when something is.
    """
    settings = _settings({"config": config})
    routing = _or_exit(lambda: read_routes(settings))
    for warning in routing.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(
        f"{settings.config}: {len(routing.routes)} routes to {len(routing.services)} services, "
        "no problems"
    )


@_cli.command()
def demo(
    *,
    consul: Annotated[
        bool, typer.Option("--consul", help="Use a real Consul in dev mode, from the PATH.")
    ] = False,
) -> None:
    """Start sample services with the gateway in front of them.

    Says what to try; Ctrl-C ends it all.
    """
    try:
        code = run_demo(partial(run_gateway, stops=demo_stops()), with_consul=consul)
    except DemoError as error:
        typer.echo(f"gateway demo: {error}", err=True)
        code = EXIT_FAILED
    raise typer.Exit(code)


@_cli.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def run_gateway(settings: Settings, *, stops: Sequence[signal.Signals] = STOPS) -> int:
    """Run a gateway with these settings until one of `stops` comes; return the exit code."""
    ignored_signals = ignore_signals()
    log = configure_logging(settings.log_level, settings.log_format, sys.stderr)
    if ignored := unknown_variables(os.environ):
        structlog.get_logger().warning("variables_ignored", variables=ignored)
    limits = raise_limit() or (sys.maxsize, sys.maxsize)
    if limits[1] < LEAST_LIMIT:
        return _refuse_for_open_files(limits[1], settings.max_connections, log.flush)
    max_connections = min(settings.max_connections, most_clients(limits[1]))
    bounded = settings.model_copy(update={"max_connections": max_connections})
    gateway = _or_exit(lambda: create_app(bounded))
    _tell_open_files(limits, settings.max_connections)
    try:
        return _run(_serve(gateway, ignored_signals, stops, log.flush))
    except (ListenError, AppStartError) as error:
        log.flush()  # what was logged before stands before it: the last line says why it ended
        typer.echo(f"gateway: {error}", err=True)
        return EXIT_FAILED
    finally:
        log.flush()


def _refuse_for_open_files(limit: int, wanted: int, flush_log: Callable[[], object]) -> int:
    """Say that so few files may be open that instances could not be reached; give the exit code."""
    flush_log()
    typer.echo(
        f"gateway: only {limit} files may be open at once, and {LEAST_LIMIT} is the least to serve "
        f"anybody: raise the hard limit (LimitNOFILE=, ulimit -Hn, --ulimit nofile), to "
        f"{limit_for(wanted)} for GATEWAY_MAX_CONNECTIONS={wanted}",
        err=True,
    )
    return EXIT_FAILED


def _tell_open_files(limits: tuple[int, int], wanted: int) -> None:
    """Log what the limit of open files, before and now, comes to; `wanted` are connections."""
    before, limit = limits
    log, fits = structlog.get_logger(), most_clients(limit)
    if wanted <= fits:
        log.info("open_files", limit=limit, was=before, max_connections=wanted)
        return
    log.warning(
        "open_files_too_few",
        limit=limit,
        was=before,
        max_connections=fits,
        wanted=wanted,
        advice=f"raise the hard limit of open files to {limit_for(wanted)} "
        f"(LimitNOFILE=, ulimit -Hn, --ulimit nofile), or set GATEWAY_MAX_CONNECTIONS={fits}",
    )


async def _serve(
    gateway: Gateway,
    ignored_signals: IgnoredSignals,
    stops: Sequence[signal.Signals],
    flush_log: Callable[[], object],
) -> int:
    settings = gateway.settings
    sites = open_sites(gateway)
    admin, beside = settings.admin, None
    if admin is not None:
        listener = _listen_for("GATEWAY_ADMIN", admin)
        beside = Site(
            name="admin",
            app=gateway.admin,
            listener=listener,
            http=gateway.admin_face(),
            makes_room=True,
        )
    options = ServeOptions(
        head_timeout_s=settings.client_head_timeout_s,
        handshake_timeout_s=settings.client_head_timeout_s,
        keepalive_timeout_s=settings.keepalive_timeout_s,
        drain_delay_s=settings.drain_delay_s,
        drain_idle_s=settings.drain_idle_s,
        drain_timeout_s=settings.drain_timeout_s,
        stops=tuple(stops),
    )

    def on_drain() -> None:
        gateway.drain()
        drain_s = settings.drain_delay_s + settings.drain_timeout_s
        end_within(drain_s + END_SLACK_S, flush_log, exit_code=EXIT_FAILED)

    def on_second() -> None:
        end_within(HURRY_WITHIN_S, flush_log, exit_code=EXIT_FAILED)

    loop = asyncio.get_running_loop()
    with ignored_signals.told_in(loop, _signal_ignored):
        async with gateway.running():
            await serve(
                sites,
                admin=beside,
                until=_open(gateway),
                on_drain=on_drain,
                on_second=on_second,
                options=options,
            )
            end_within(END_WITHIN_S, flush_log, exit_code=EXIT_FAILED)
    return 0


def _signal_ignored(name: str, meaning: str) -> None:
    structlog.get_logger().warning("signal_ignored", signal=name, meaning=meaning)


async def _open(gateway: Gateway) -> None:
    """Do all that comes before the first client."""
    await gateway.know_instances()
    # What was made at the start stays, so the collector need not look at it again. Only here: a
    # process that somebody else's server runs is not ours to tune.
    keep_freed_memory()
    gc.collect()
    gc.freeze()


def _listen_for(variable: str, address: ListenAddress) -> socket.socket:
    """Listen, or say whose setting names an address that cannot be had; raises ListenError."""
    try:
        return listen(address.host, address.port)
    except ListenError as error:
        raise ListenError(f"{error}; set {variable} to another address") from error


def open_sites(gateway: Gateway) -> list[Site]:
    """Open the listeners for clients: the plain one, then the one over TLS if there is one.

    Raises ListenError.
    """
    settings = gateway.settings
    bind, tls_bind, redirect = settings.bind, settings.tls_bind, settings.http_redirect
    is_proxied = settings.proxy_protocol == "on"
    sites: list[Site] = []
    if bind is not None:
        main = Site(
            name="main",
            app=gateway,
            listener=_listen_for("GATEWAY_BIND", bind),
            http=gateway.fast_face,
            is_proxied=is_proxied,
        )
        sites.append(main)
    if tls_bind is None or gateway.certificates is None:
        return sites
    secured = Site(
        name="tls",
        app=gateway,
        listener=_listen_for("GATEWAY_TLS_BIND", tls_bind),
        http=gateway.fast_face,
        tls=gateway.certificates.context,
        is_proxied=is_proxied,
    )
    if redirect != "off":
        port = secured.listener.getsockname()[1] if redirect == "on" else redirect
        sites = [replace(one, http=gateway.redirect_face(port)) for one in sites]
    elif sites and settings.tls_client_auth == "required":
        _warn_of_plain_listener()
    return [*sites, secured]


def _warn_of_plain_listener() -> None:
    """Warn that clients without a certificate get in beside those who have to show one."""
    structlog.get_logger().warning(
        "plain_listener_needs_no_certificate",
        advice="set GATEWAY_BIND=off, or GATEWAY_HTTP_REDIRECT=on",
    )


def _run(work: Coroutine[Any, Any, int]) -> int:
    """Run on uvloop where there is one: it takes about a third less time for each request."""
    # The loop that Windows has by default cannot tell when a socket is readable.
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.SelectorEventLoop
    if sys.platform != "win32":
        import uvloop  # noqa: PLC0415 -- there is none on Windows

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


def _settings(options: Mapping[str, object]) -> Settings:
    given = {name: value for name, value in options.items() if value is not None}
    return _or_exit(lambda: load_settings(given))


def _or_exit(make: Callable[[], T]) -> T:
    """Make something out of the configuration, or say all that is wrong with it and exit."""
    try:
        return make()
    except (SettingsError, ConfigError) as error:
        for problem in error.problems:
            typer.echo(str(problem), err=True)
        raise typer.Exit(EXIT_CONFIGURATION) from error


def main() -> None:
    """Run the command line."""
    _cli()
