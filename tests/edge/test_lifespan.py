"""The lifespan of an app: asked to start, asked to stop, and fine without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from gateway.edge import lifespan as module
from gateway.edge.asgi import AsgiApp, Receive, Scope, Send
from gateway.edge.lifespan import Lifespan, answer_lifespan
from tests.fakes.waiting import PATIENCE_S


@asynccontextmanager
async def living(app: AsgiApp) -> AsyncIterator[Lifespan]:
    """Run the lifespan of this app; it must end."""
    lifespan = Lifespan("mine", app, {})
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(lifespan.run())
        yield lifespan
        await lifespan.stop()
        task.cancel()


async def test_an_app_is_started_and_stopped_and_leaves_its_state() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["pool"] = 1
        await answer_lifespan(receive, send)

    async with living(app) as lifespan:
        assert await lifespan.start() is None

    assert lifespan.state == {"pool": 1}


async def test_an_app_that_knows_no_lifespan_is_fine() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"

    with capture_logs() as logs:
        async with living(app) as lifespan:
            assert await lifespan.start() is None

    assert logs == []


async def test_one_that_fails_without_a_word_is_taken_for_such_but_told() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise OSError("no database")

    with capture_logs() as logs:
        async with living(app) as lifespan:
            assert await lifespan.start() is None

    assert [one["event"] for one in logs] == ["app_without_lifespan"]


@pytest.mark.parametrize(
    ("said", "problem"), [("no database", "no database"), ("", "it does not say why")]
)
async def test_one_that_could_not_start_says_why(said: str, problem: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": said})
        raise OSError("no database")

    with capture_logs() as logs:
        async with living(app) as lifespan:
            assert await lifespan.start() == problem

    assert logs == []


async def test_one_that_could_not_stop_is_told() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "it burns"})
        raise OSError("it burns")

    with capture_logs() as logs:
        async with living(app) as lifespan:
            assert await lifespan.start() is None

    assert [one["event"] for one in logs] == ["app_stop_failed", "app_lifespan_failed"]


async def test_one_that_does_not_stop_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_SHUTDOWN_TIMEOUT_S", 0.01)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await asyncio.Event().wait()

    with capture_logs() as logs:
        async with living(app) as lifespan:
            assert await lifespan.start() is None
            assert "supported" in repr(lifespan)

    assert [one["event"] for one in logs] == ["app_stop_timeout"]
