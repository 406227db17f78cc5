"""The whole demo: sample instances, routes.yaml, the gateway, and what to try.

Everything is on loopback and in one temporary folder. The gateway runs in this process, just as
`gateway run` runs it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import httpx
import typer

from gateway.demo.children import DemoError, Sample, running_samples
from gateway.demo.consul import DATACENTER, find_consul, register, running_consul
from gateway.demo.ports import free_port
from gateway.settings import Settings, SettingsError, load_settings

RunGateway = Callable[[Settings], int]

_SAMPLES = (
    ("user-service", "user-1"),
    ("user-service", "user-2"),
    ("order-service", "order-1"),
)
_PORT = 8080
_ADMIN_PORT = 9901
_DRAIN_TIMEOUT_S = 2.0


def run_demo(run_gateway: RunGateway, *, with_consul: bool) -> int:
    """Run the demo until the gateway is told to stop; return its exit code.

    `run_gateway` blocks for as long as the gateway runs. However this ends, no child is left and no
    file. Raises DemoError when it cannot begin.
    """
    # Looked for first: whoever has none should not wait for anything else.
    consul_program = find_consul(os.environ) if with_consul else None
    with _terminable(), ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="gateway-demo-")))
            samples = stack.enter_context(running_samples(_SAMPLES))
            options: dict[str, object] = {"registry": "static"}
            if consul_program is not None:
                consul = stack.enter_context(running_consul(consul_program, folder))
                options = _registered(consul, samples)
            settings = _settings(folder, samples, options)
            typer.echo(_introduction(settings, samples))
            return run_gateway(settings)
        finally:
            _ignore_signals()


def demo_stops() -> tuple[signal.Signals, ...]:
    """Return the signals that end the demo: a closed terminal too, except under `nohup`."""
    stops = (signal.SIGTERM, signal.SIGINT)
    if not hasattr(signal, "SIGHUP") or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return stops
    return (*stops, signal.SIGHUP)


def _registered(consul: httpx.Client, samples: Sequence[Sample]) -> dict[str, object]:
    """Register the instances; return the settings that go with it."""
    for sample in samples:
        register(consul, sample)
    return {
        "registry": "consul",
        "consul_address": str(consul.base_url),
        "consul_datacenter": DATACENTER,
    }


def _settings(folder: Path, samples: Sequence[Sample], options: Mapping[str, object]) -> Settings:
    routes = folder / "routes.yaml"
    routes.write_text(_routes(samples, with_servers=options["registry"] == "static"))
    try:
        return load_settings(
            {
                "config": routes,
                "bind": f"127.0.0.1:{free_port(_PORT)}",
                "admin": f"127.0.0.1:{free_port(_ADMIN_PORT)}",
                "state_dir": folder / "state",
                "error_detail": "full",
                "drain_idle_s": 0.0,
                "drain_timeout_s": _DRAIN_TIMEOUT_S,
                **options,
            }
        )
    except SettingsError as error:
        raise DemoError(str(error)) from error


def _routes(samples: Sequence[Sample], *, with_servers: bool) -> str:
    """Write a routes.yaml; without servers, the registry knows the instances."""
    lines = ["version: 1"]
    if with_servers:
        lines.append("services:")
        for service in dict.fromkeys(sample.service for sample in samples):
            lines += [f"  {service}:", "    servers:"]
            lines += [
                f"      - http://127.0.0.1:{sample.port}"
                for sample in samples
                if sample.service == service
            ]
    lines += [
        "routes:",
        "  - match: {path_prefix: /api/users}",
        "    service: user-service",
        "    strip_prefix: true",
        "  - match: {path_prefix: /api/orders, methods: [GET, POST]}",
        "    service: order-service",
        "    strip_prefix: true",
    ]
    return "\n".join(lines) + "\n"


def _introduction(settings: Settings, samples: Sequence[Sample]) -> str:
    """Say what runs where, and what to try."""
    instances = [
        f"  {one.service:<14} {one.name:<8} http://127.0.0.1:{one.port:<6} pid {one.pid}"
        for one in samples
    ]
    consul = [f"Consul is on {settings.consul_address}", ""]
    routes = [f"  {line}" for line in settings.config.read_text().splitlines()]
    return "\n".join(
        [
            *("", "Three sample instances:", *instances, ""),
            *(consul if settings.registry == "consul" else ()),
            *(f"{settings.config}:", *routes, ""),
            *("Try, in another terminal:", "", *_tries(settings, samples), ""),
            *("Ctrl-C ends it all.", ""),
        ]
    )


def _tries(settings: Settings, samples: Sequence[Sample]) -> list[str]:
    gateway, admin = f"http://{settings.bind}", f"http://{settings.admin}"
    tries = (
        (f"curl {gateway}/api/users/42", "a route: one of two instances answers"),
        (f"curl -d '{{}}' {gateway}/api/orders", "another one"),
        (f"curl -N {gateway}/api/users/events", "server-sent events, as they come"),
        (f"curl -i {gateway}/nowhere", "a refusal, with its reason"),
        (f"kill {samples[0].pid}", "one instance dies; ask again: the other one answers"),
        (f"curl {admin}/health", "how things are"),
    )
    width = max(len(command) for command, _ in tries)
    return [f"  {command:<{width}}  # {meaning}" for command, meaning in tries]


@contextmanager
def _terminable() -> Iterator[None]:
    """Let all of them unwind the stack as Ctrl-C does, while the gateway does not handle them."""
    before = {number: signal.getsignal(number) for number in demo_stops()}
    for number in before.keys() - {signal.SIGINT}:
        signal.signal(number, _leave)
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _ignore_signals() -> None:
    """Let nothing cut the cleaning up short; it is bounded in time."""
    for number in demo_stops():
        signal.signal(number, signal.SIG_IGN)
