"""A whole gateway on real sockets, in the loop of the test, with either face.

The rule: nothing in it is faked. What is only visible from inside (tasks, exchanges, connections)
is looked at when it ends, so that every test that uses it also says that nothing was left behind.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import httpx
import pytest
from structlog.testing import capture_logs

from gateway.app import create_app
from gateway.cli import open_sites
from gateway.core.fleet import Member
from gateway.core.model import Snapshot
from gateway.edge.server import ServeOptions, Site, SiteServer, listen
from gateway.proxy.pool import Pool
from gateway.settings import load_settings
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import PATIENCE_S, wait_until

Face = Literal["fast", "asgi"]
FACES: tuple[Face, ...] = ("fast", "asgi")

# For what ASGI cannot do; the test says why.
fast_only = pytest.mark.parametrize("face", ["fast"], indirect=True)

# Reading those of the machine would take longer than a test.
_NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_TESTS = Path(__file__).parents[1]
_OPTIONS = ServeOptions(keepalive_timeout_s=60, drain_delay_s=0, drain_idle_s=0, drain_timeout_s=1)
_QUIET: Mapping[str, object] = {
    "error_detail": "full",
    "bind": "127.0.0.1:0",
    "registry": "static",
    "state_dir": "off",
    "access_log": "off",
}


class RunningGateway:
    """A gateway with its admin port, for as long as the `async with` lasts.

    `settings` are those of `gateway.settings`, by the names of their fields. `events` is what it
    logged; `tls_port` is that of `tls_bind`. Leaving it raises AssertionError when anything was
    left behind, or when it made a mistake that a client may not have seen.
    """

    def __init__(self, routes: str, *, face: Face, folder: Path, **settings: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "routes.yaml"
        config.write_text(routes, encoding="utf-8")
        self.gateway = create_app(load_settings({**_QUIET, "config": config, **settings}))
        self.events: Sequence[MutableMapping[str, Any]] = []
        self.mistakes: list[str] = []
        self._members: dict[int, Member[Any]] = {}
        self.gateway.catalog.subscribe(self._remember)
        fronts = open_sites(self.gateway)
        if face == "asgi":
            fronts = [replace(one, http="httptools") for one in fronts]
        admin = Site(
            name="admin",
            app=self.gateway.admin,
            listener=listen("127.0.0.1", 0),
            http=self.gateway.admin_face(),
            makes_room=True,
        )
        sites = (*fronts, admin)
        ports = [int(one.listener.getsockname()[1]) for one in sites]
        self.port, self.tls_port, self.admin_port = ports[0], ports[-2], ports[-1]
        head_timeout_s = self.gateway.settings.client_head_timeout_s
        # Most tests leave idle connections behind that nobody should have to wait for.
        drain = {name: getattr(self.gateway.settings, name) for name in settings if "drain" in name}
        options = replace(
            _OPTIONS, head_timeout_s=head_timeout_s, handshake_timeout_s=head_timeout_s, **drain
        )
        self._servers = [SiteServer(site, options) for site in sites]
        self._stack = AsyncExitStack()
        self._tasks_before: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._tasks_before = asyncio.all_tasks()
        async with AsyncExitStack() as stack:
            self.events = stack.enter_context(capture_logs())
            stack.enter_context(_uvicorn_errors_into(self.mistakes))
            asyncio.get_running_loop().set_exception_handler(self._note)
            await stack.enter_async_context(self.gateway.running())
            await stack.enter_async_context(self._serving())
            self._stack = stack.pop_all()
        self._remember(None)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A task group would wrap the test's own exception in a group; only being cancelled is its
        # affair.
        cancelled = isinstance(error, asyncio.CancelledError)
        await self._stack.__aexit__(*(kind, error, trace) if cancelled else (None, None, None))
        if kind is None:
            await self._expect_nothing_left()

    def member(self, upstream: ScriptedUpstream) -> Member[Any]:
        """Give the newest Member that stands for this upstream."""
        found = [one for one in self._members.values() if one.instance.port == upstream.port]
        assert found, f"nobody at {upstream.authority} was ever known"
        return found[-1]

    @property
    def in_flight_count(self) -> int:
        """How many requests are with any instance now."""
        return sum(member.in_flight for member in self._members.values())

    @property
    def pools(self) -> list[Pool]:
        """The connections to each instance that was ever known."""
        return [member.pool for member in self._members.values()]

    def logged(self, name: str) -> list[MutableMapping[str, Any]]:
        """List the events of this name."""
        return [event for event in self.events if event["event"] == name]

    async def ask_admin(self, path: str) -> Any:
        """Get a page of the admin port as JSON, whatever its status."""
        return (await self.admin("GET", path)).json()

    async def admin(self, method: str, path: str) -> httpx.Response:
        """Ask the admin port."""
        async with httpx.AsyncClient(
            trust_env=False, timeout=PATIENCE_S, verify=_NO_AUTHORITIES
        ) as admin:
            return await admin.request(method, f"http://127.0.0.1:{self.admin_port}{path}")

    def stop(self) -> None:
        """Begin to leave: accept no more, and finish what is in hand."""
        for server in self._servers:
            server.leave(at_once=False)

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            for server in self._servers:
                tasks.create_task(server.run_until_left())
            try:
                await wait_until(lambda: all(server.started for server in self._servers))
                yield
            finally:
                self.stop()

    async def _expect_nothing_left(self) -> None:
        deadlines = self.gateway.deadlines
        await wait_until(lambda: not self._leftover_tasks())
        assert deadlines.watched == set()
        assert [one for one in self._members.values() if one.in_flight] == []
        assert [pool for pool in self.pools if pool._connecting or pool._idle] == []
        assert [one.server_state.connections for one in self._servers] == [set()] * len(
            self._servers
        )
        assert self.mistakes == []
        assert [event for event in self.events if event["event"] == "task_failed"] == []

    def _leftover_tasks(self) -> set[asyncio.Task[Any]]:
        return {one for one in asyncio.all_tasks() - self._tasks_before if not _is_of_a_test(one)}

    def _remember(self, _snapshot: Snapshot | None) -> None:
        for fleet in self.gateway.engine.fleets.values():
            self._members |= {id(member): member for member in fleet.members.values()}

    def _note(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.mistakes.append(f"{context['message']}: {context.get('exception')!r}")


def _is_of_a_test(task: asyncio.Task[Any]) -> bool:
    """Tell the tasks of the fakes, which end with these, from those of the gateway."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and _TESTS in Path(code.co_filename).parents


@contextmanager
def _uvicorn_errors_into(lines: list[str]) -> Iterator[None]:
    """Collect what uvicorn says of an app that failed: the client may have noticed nothing."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            error = record.exc_info[1] if record.exc_info else None
            lines.append(f"{record.getMessage().strip()}: {error!r}")

    collector = Collector(level=logging.ERROR)
    logger = logging.getLogger("uvicorn.error")
    logger.addHandler(collector)
    try:
        yield
    finally:
        logger.removeHandler(collector)


class Serve(Protocol):
    """Makes the gateway of a test, with the face that the test is told with."""

    def __call__(self, routes: str, **settings: object) -> RunningGateway:
        """Make it; it runs for as long as its `async with` lasts."""
        ...


def ask(
    target: str = "/", method: str = "GET", *fields: tuple[str, str], body: bytes | None = None
) -> bytes:
    """Write a request of HTTP/1.1, with a length where there is a body."""
    length = () if body is None else (("Content-Length", str(len(body))),)
    lines = [f"{name}: {value}\r\n" for name, value in (*fields, *length)]
    head = f"{method} {target} HTTP/1.1\r\nHost: shop.example\r\n{''.join(lines)}\r\n"
    return head.encode("latin-1") + (body or b"")


def routes_to(
    *upstreams: ScriptedUpstream | int,
    match: Mapping[str, object] | None = None,
    service: Mapping[str, object] | None = None,
    **route: Any,
) -> str:
    """Write a routes.yaml with one route to one service that is called `web`.

    An upstream may be just a port. `match` and `service` are the keys of those entries, `route`
    are further keys of the route itself.
    """
    ports = [one if isinstance(one, int) else one.port for one in upstreams]
    servers = [f"http://127.0.0.1:{port}" for port in ports]
    return routes_file(
        {"web": {"servers": servers, **(service or {})}},
        {"match": match or {"path_prefix": "/"}, "service": "web", **route},
    )


def routes_file(services: Mapping[str, object], *routes: Mapping[str, object]) -> str:
    """Write a routes.yaml; JSON is YAML too.

    Where a test does not say how long to wait for an instance, it is for as long as for what hangs:
    on a busy machine the loop itself may stand for seconds.
    """
    patient = {"connect": "60s", "response": "60s"}
    defaults = {"timeouts": patient}
    return json.dumps({"version": 1, "defaults": defaults, "services": services, "routes": routes})
