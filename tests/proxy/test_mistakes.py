"""Mistakes of ours, on real sockets: they come out in the loop's log, and cost one request only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine

import pytest

from gateway.core.breaker import BreakerState
from gateway.core.config import ServiceConfig
from gateway.core.failure import Failure
from gateway.core.message import AnswerHead, Fields
from gateway.core.model import Instance
from gateway.core.policy import BreakerPolicy
from gateway.proxy.exchange import Exchange
from gateway.proxy.pool import Pool
from gateway.runtime.backlog import Backlog
from gateway.runtime.pieces import Buffer
from tests.fakes.engine import Policies, Stage
from tests.fakes.outbox import at_once
from tests.fakes.peer import Action
from tests.fakes.scenes import close, respond
from tests.fakes.sides import FakeClient
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until


class WrongClient(FakeClient):
    """A client side with a mistake in one of its methods."""

    def __init__(self, wrong: str) -> None:
        super().__init__()
        self.wrong = wrong

    def send_head(self, head: AnswerHead) -> None:
        self._may_fail("head")
        super().send_head(head)

    def send_body(self, chunk: bytes) -> None:
        self._may_fail("body")
        super().send_body(chunk)

    def send_end(self, trailers: Fields) -> None:
        self._may_fail("end")
        super().send_end(trailers)

    def _may_fail(self, where: str) -> None:
        if where == self.wrong:
            self.wrong = "nowhere any more"
            raise KeyError(f"a mistake in {where}")


class RealStage(Stage):
    """A Stage whose one instance is a real listener."""

    def __init__(self, up: ScriptedUpstream, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self.errors: list[BaseException] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: self.errors.append(context["exception"])
        )
        super().__init__(None, Policies(breaker=BreakerPolicy(consecutive_failures=1)))
        self.publish([Instance(key="a", id="a", host="127.0.0.1", port=up.port)])

    def _make_pool(self, _service: ServiceConfig, instance: Instance) -> Pool:
        return Pool(
            instance,
            spawn=self._spawn,
            clock=self.clock,
            deadlines=self.deadlines,
            outbox=at_once(),
            backlog=Backlog(),
            buffer=Buffer(),
        )

    def _spawn(self, work: Coroutine[None, None, None], *, name: str) -> asyncio.Task[None]:
        return self._tasks.create_task(self._guarded(work), name=name)

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 -- the test looks at it
            self.errors.append(error)

    def ask(self, client: FakeClient) -> Exchange:
        """Let this client send a request."""
        exchange = self.engine.exchange(self.request(), client)
        exchange.begin(self.clock())
        return exchange


@pytest.fixture
async def up() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as up:
        yield up


@pytest.fixture
async def stage(up: ScriptedUpstream) -> AsyncIterator[RealStage]:
    async with asyncio.TaskGroup() as tasks:
        stage = RealStage(up, tasks)
        yield stage
        stage.engine.close()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("head", ["abort"]),
        ("body", ["head 200", "abort"]),
    ],
)
async def test_a_mistake_inside_an_answer_cuts_one_client_off(
    stage: RealStage, up: ScriptedUpstream, wrong: str, said: list[str]
) -> None:
    client = WrongClient(wrong)

    exchange = stage.ask(client)
    await wait_until(lambda: stage.errors)

    assert said == client.said
    assert Failure.INTERNAL_ERROR is exchange.failure
    assert f"KeyError('a mistake in {wrong}')" == repr(stage.errors[0])
    assert BreakerState.CLOSED is stage.breaker_state("a")
    stage.assert_all_is_settled()
    await up.wait_until(lambda: not up.connections[0].is_open())


async def test_a_mistake_at_the_end_of_an_answer_comes_out(
    stage: RealStage, up: ScriptedUpstream
) -> None:
    client = WrongClient("end")

    stage.ask(client)
    await wait_until(lambda: stage.errors)

    assert ["KeyError('a mistake in end')"] == [repr(error) for error in stage.errors]
    stage.assert_all_is_settled()


@pytest.mark.parametrize("scene", [close(), respond(200)], ids=["lost", "answered"])
async def test_the_next_request_is_served_as_if_nothing_had_been(
    stage: RealStage, up: ScriptedUpstream, scene: Action
) -> None:
    up.on_request(scene, respond(200, b"well"))
    stage.ask(WrongClient("head"))
    await wait_until(lambda: stage.errors)
    stage.clock.advance(300.0)

    client = FakeClient()
    stage.ask(client)
    await wait_until(lambda: client.is_over)

    assert b"well" == bytes(client.body)
    stage.assert_all_is_settled()
