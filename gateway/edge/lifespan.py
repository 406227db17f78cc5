"""The lifespan of an app of this process, beside the gateway's own (ASGI lifespan 2.0).

The one rule: an app that says that it could not start stops the gateway, and one that knows no
lifespan is fine without.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from gateway.edge.asgi import AsgiApp, Message, Receive, Send

_log = structlog.get_logger()

_SHUTDOWN_TIMEOUT_S = 10.0


class AppStartError(Exception):
    """An app of this process that could not start; says which and why."""


class Lifespan:
    """Starts and stops one app. `state` is what it leaves there for its requests.

    `run` is its whole course, in a task of whoever owns it.
    """

    def __init__(self, name: str, app: AsgiApp, state: dict[str, Any]) -> None:
        self.name = name
        self.state = state
        self._app = app
        self._told: asyncio.Queue[Message] = asyncio.Queue()
        self._is_started = asyncio.Event()
        self._is_stopped = asyncio.Event()
        self._is_supported = False
        self._problem: str | None = None

    def __repr__(self) -> str:
        return f"<Lifespan of {self.name}, {'supported' if self._is_supported else 'none'}>"

    async def run(self) -> None:
        """Call the app and stay with it until it ends."""
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._told.get, self._send)
        except Exception as error:  # noqa: BLE001 -- most often: it knows no lifespan
            self._app_raised(error)
        finally:
            self._is_started.set()
            self._is_stopped.set()

    async def start(self) -> str | None:
        """Tell it to start, and wait until it has; return why it could not, None if all is well."""
        self._told.put_nowait({"type": "lifespan.startup"})
        await self._is_started.wait()
        return self._problem

    async def stop(self) -> None:
        """Tell it to stop, and wait until it has, but not for ever."""
        self._told.put_nowait({"type": "lifespan.shutdown"})
        try:
            async with asyncio.timeout(_SHUTDOWN_TIMEOUT_S):
                await self._is_stopped.wait()
        except TimeoutError:
            _log.warning("app_stop_timeout", app=self.name, timeout_s=_SHUTDOWN_TIMEOUT_S)

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._is_supported = True
                self._is_started.set()
            case "lifespan.startup.failed":
                self._is_supported = True
                self._problem = message.get("message") or "it does not say why"
                self._is_started.set()
            case "lifespan.shutdown.failed":
                _log.error("app_stop_failed", app=self.name, why=message.get("message", ""))
                self._is_stopped.set()
            case _:
                self._is_stopped.set()

    def _app_raised(self, error: Exception) -> None:
        if self._problem is not None:
            return  # it is told already
        if self._is_supported:
            _log.error("app_lifespan_failed", app=self.name, exc_info=error)
        elif self._told.empty():
            # It took the event, so it may have failed to start; but the ASGI specification says
            # that this, too, means an app without lifespan.
            _log.warning("app_without_lifespan", app=self.name, exc_info=error)


async def answer_lifespan(receive: Receive, send: Send) -> None:
    """Play the app that has nothing to start and nothing to stop."""
    for event in ("lifespan.startup.complete", "lifespan.shutdown.complete"):
        await receive()
        await send({"type": event})
