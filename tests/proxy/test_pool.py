"""Which connection an Exchange gets, which are kept, and what comes of connecting."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import pytest
from structlog.testing import capture_logs

from gateway.core.failure import VERDICTS, Failure
from gateway.core.idle import IdleLimit
from gateway.core.model import Instance
from gateway.proxy.deadlines import Deadlines
from gateway.proxy.pool import MAX_IDLE, TRUSTED_IDLE_S, UNASKED_REST_S, Pool
from gateway.proxy.tls import TlsClient
from gateway.proxy.upstream import UpstreamConnection
from gateway.runtime.backlog import Backlog
from gateway.runtime.pieces import Buffer
from tests.fakes.clock import FakeClock
from tests.fakes.engine import instance
from tests.fakes.outbox import at_once
from tests.fakes.peer import Action, Peer
from tests.fakes.scenes import close, hold, play, reply, stall
from tests.fakes.tls import Authority, TlsInstance
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until
from tests.fakes.wire import FakeTransport, RecordingExchange

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
USABLE_S = IdleLimit().usable_s(0.0)


class Waiter(RecordingExchange):
    """An Exchange as a Pool sees it; with `is_wrong` it raises when the connection stands."""

    def __init__(self, *, is_repeatable: bool = True, is_wrong: bool = False) -> None:
        super().__init__()
        self.is_repeatable = is_repeatable
        self.is_wrong = is_wrong
        self.heard: list[object] = []

    def upstream_ready(self, connection: UpstreamConnection, now_s: float) -> None:
        self.connection = connection
        self.heard.append("ready")
        if self.is_wrong:
            raise KeyError("a mistake")

    def upstream_failed(self, failure: Failure, detail: str, now_s: float) -> None:
        self.heard.append(failure)
        self.detail = detail

    def break_down(self, now_s: float) -> None:
        self.heard.append("broke down")

    def __call__(self) -> Exchange:
        return cast("Exchange", self)


class Spawner:
    """Runs connecting as tasks, as the gateway does: what they raise is kept, and ends no other."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        self.errors: list[Exception] = []
        self.group = asyncio.TaskGroup()

    def __call__(self, work: Coroutine[None, None, None], *, name: str) -> asyncio.Task[None]:
        task = self.group.create_task(self._run(work), name=name)
        task.add_done_callback(lambda _: work.close())  # it may have been cancelled unstarted
        self.tasks.append(task)
        return task

    async def _run(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 -- the test looks at it
            self.errors.append(error)


class Place:
    """A Pool for one instance, with the clock and the tasks around it."""

    def __init__(self, spawner: Spawner) -> None:
        self.spawner = spawner
        self.clock = FakeClock()
        self.deadlines = Deadlines()

    def pool(self, one: Instance, tls: TlsClient | None = None) -> Pool:
        return Pool(
            one,
            spawn=self.spawner,
            clock=self.clock,
            deadlines=self.deadlines,
            outbox=at_once(),
            backlog=Backlog(),
            buffer=Buffer(),
            tls=tls,
        )

    def idle(self, pool: Pool) -> UpstreamConnection:
        """Let a connection without a socket carry one Exchange and go home."""
        connection = UpstreamConnection(pool, self.clock, at_once(), Backlog(), Buffer())
        connection.connection_made(FakeTransport())
        exchange = Waiter()
        exchange.connection = connection
        connection.begin(exchange(), b"GET / HTTP/1.1\r\n\r\n")
        connection.data_received(OK)
        return connection


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    spawner = Spawner()
    async with spawner.group:
        yield Place(spawner)
        for task in spawner.tasks:
            task.cancel()


def on_port(port: int, host: str = "127.0.0.1") -> Instance:
    return Instance(key="a", id="a", host=host, port=port)


def is_aborted(connection: UpstreamConnection) -> bool:
    return cast("FakeTransport", connection._transport).is_aborted


# --- Which one -----------------------------------------------------------------------------------


async def test_the_connection_used_last_is_given_first(place: Place) -> None:
    pool = place.pool(instance("a"))
    older, newer = place.idle(pool), place.idle(pool)

    given = [pool.acquire(Waiter()(), place.clock()) for _ in range(2)]

    assert [newer, older] == given
    assert "<Pool 127.0.0.1:80, 0 idle, 0 connecting>" == repr(pool)


async def test_what_may_not_be_sent_twice_gets_a_connection_used_a_moment_ago(place: Place) -> None:
    pool = place.pool(instance("a"))
    connection = place.idle(pool)
    place.clock.advance(TRUSTED_IDLE_S)

    given = pool.acquire(Waiter(is_repeatable=False)(), place.clock())

    assert connection is given


async def test_what_may_not_be_sent_twice_gets_a_new_connection_before_an_old_one(
    place: Place,
) -> None:
    pool = place.pool(instance("a"))
    place.idle(pool)
    place.clock.advance(TRUSTED_IDLE_S + 0.1)

    given = pool.acquire(Waiter(is_repeatable=False)(), place.clock())

    assert None is given
    assert "<Pool 127.0.0.1:80, 1 idle, 1 connecting>" == repr(pool)
    assert "connect:127.0.0.1:80" == place.spawner.tasks[0].get_name()


async def test_what_may_be_sent_again_takes_an_old_connection(place: Place) -> None:
    pool = place.pool(instance("a"))
    connection = place.idle(pool)
    place.clock.advance(USABLE_S - 1.0)

    assert connection is pool.acquire(Waiter()(), place.clock())


async def test_a_fresh_connection_is_none_that_was_used(place: Place) -> None:
    async with ScriptedUpstream() as up:
        pool = place.pool(on_port(up.port))
        used = place.idle(pool)
        waiter = Waiter()

        pool.open_for(waiter())
        await wait_until(lambda: waiter.heard)

        assert ["ready"] == waiter.heard
        assert waiter.connection is not used
        waiter.connection.abort()


async def test_a_connection_whose_end_is_known_is_given_to_nobody(place: Place) -> None:
    pool = place.pool(instance("a"))
    whole, ended = place.idle(pool), place.idle(pool)
    ended.eof_received()

    assert whole is pool.acquire(Waiter()(), place.clock())


async def test_an_idle_connection_that_is_lost_is_forgotten(place: Place) -> None:
    pool = place.pool(instance("a"))
    whole, lost = place.idle(pool), place.idle(pool)

    lost.connection_lost(None)
    lost.connection_lost(None)  # was forgotten already

    assert "<Pool 127.0.0.1:80, 1 idle, 0 connecting>" == repr(pool)
    assert whole is pool.acquire(Waiter()(), place.clock())


async def test_a_busy_connection_that_is_lost_was_not_among_the_idle_ones(place: Place) -> None:
    pool = place.pool(instance("a"))
    connection = place.idle(pool)
    pool.acquire(waiter := Waiter()(), place.clock())
    connection.begin(waiter, b"GET / HTTP/1.1\r\n\r\n")

    connection.connection_lost(None)

    assert [Failure.STALE_CONNECTION] == cast("Waiter", waiter).heard


# --- Which are kept ------------------------------------------------------------------------------


async def test_no_more_than_a_limit_are_kept(place: Place) -> None:
    pool = place.pool(instance("a"))

    connections = [place.idle(pool) for _ in range(MAX_IDLE + 1)]

    assert [connections[-1]] == [one for one in connections if is_aborted(one)]


async def test_what_was_idle_for_too_long_is_closed_the_oldest_first(place: Place) -> None:
    pool = place.pool(instance("a"))
    oldest = place.idle(pool)
    place.clock.advance(10.0)
    newer = place.idle(pool)
    place.clock.advance(USABLE_S - 10.0)
    pool.sweep(place.clock())
    assert not is_aborted(oldest)
    place.clock.advance(0.1)

    pool.sweep(place.clock())

    assert is_aborted(oldest)
    assert not is_aborted(newer)
    assert {pool} == place.deadlines.swept


async def test_a_pool_with_nothing_idle_is_swept_no_longer(place: Place) -> None:
    pool = place.pool(instance("a"))
    place.idle(pool)
    place.clock.advance(USABLE_S + 1.0)

    pool.sweep(place.clock())

    assert set() == place.deadlines.swept
    place.idle(pool)
    assert {pool} == place.deadlines.swept


async def test_a_retired_pool_closes_what_is_idle_and_keeps_nothing_more(place: Place) -> None:
    pool = place.pool(instance("a"))
    connection = place.idle(pool)

    pool.retire()
    late = place.idle(pool)

    assert is_aborted(connection)
    assert is_aborted(late)
    assert "<Pool 127.0.0.1:80, 0 idle, 0 connecting>" == repr(pool)


# --- Connecting ----------------------------------------------------------------------------------


async def test_a_connection_is_made_used_and_used_again(place: Place) -> None:
    async with ScriptedUpstream() as up:
        up.on_request(reply(OK))
        pool = place.pool(on_port(up.port))
        waiter = Waiter()

        assert None is pool.acquire(waiter(), place.clock())
        await wait_until(lambda: waiter.heard)
        waiter.connection.begin(waiter(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await wait_until(lambda: waiter.is_over)

        assert ["ready"] == waiter.heard
        assert waiter.connection is pool.acquire(Waiter()(), place.clock())
        waiter.connection.abort()


async def test_a_refused_connection_is_connect_failed_and_names_the_instance(place: Place) -> None:
    async with ScriptedUpstream() as up:
        await up.refuse()
        pool = place.pool(on_port(up.port))
        waiter = Waiter()

        pool.acquire(waiter(), place.clock())
        await wait_until(lambda: waiter.heard)

        assert [Failure.CONNECT_FAILED] == waiter.heard
        assert waiter.detail.startswith(f"127.0.0.1:{up.port}: ")
        assert f"<Pool 127.0.0.1:{up.port}, 0 idle, 0 connecting>" == repr(pool)


@pytest.mark.parametrize(
    ("lack", "failure"),
    [
        (errno.EMFILE, Failure.OVER_CAPACITY),
        (errno.ENOBUFS, Failure.OVER_CAPACITY),
        (errno.EADDRNOTAVAIL, Failure.NO_LOCAL_PORT),
    ],
)
async def test_what_we_lack_ourselves_is_no_failure_of_the_instance(
    place: Place, monkeypatch: pytest.MonkeyPatch, lack: int, failure: Failure
) -> None:
    async def lacks(*_: object, **__: object) -> NoReturn:
        raise OSError(lack, os.strerror(lack))

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", lacks)
    waiter = Waiter()
    place.pool(on_port(80)).acquire(waiter(), place.clock())
    await wait_until(lambda: waiter.heard)

    assert [failure] == waiter.heard
    assert not VERDICTS[failure].counts


@pytest.mark.parametrize("host", ["a" * 64 + ".invalid", "\udc80"], ids=["too long", "surrogate"])
async def test_a_name_that_cannot_be_one_is_connect_failed(place: Place, host: str) -> None:
    pool = place.pool(on_port(80, host))
    waiter = Waiter()

    pool.acquire(waiter(), place.clock())
    await wait_until(lambda: waiter.heard)

    assert [Failure.CONNECT_FAILED] == waiter.heard


async def test_an_instance_that_speaks_no_tls_is_tls_failed(place: Place) -> None:
    async with ScriptedUpstream() as up:
        up.on_connect(play(reply(b"HTTP/1.1 400 Bad Request\r\n\r\n"), stall()))
        tls = TlsClient(ssl.create_default_context(), "localhost")
        pool = place.pool(on_port(up.port), tls)
        waiter = Waiter()

        pool.acquire(waiter(), place.clock())
        await wait_until(lambda: waiter.heard)

        assert [Failure.TLS_FAILED] == waiter.heard


async def test_a_connection_that_was_made_with_other_files_carries_no_further_request(
    place: Place, tmp_path: Path
) -> None:
    """Neither an idle one nor one that was in use when they were renewed."""
    authority = Authority(tmp_path)
    context, renewed = authority.client_context(), authority.client_context()
    async with TlsInstance(authority.instance_context("localhost")) as web:
        tls = TlsClient(context, "localhost")
        pool = place.pool(on_port(web.port), tls)
        made: list[UpstreamConnection] = []
        for _ in range(2):
            waiter = Waiter()
            pool.acquire(waiter(), place.clock())
            await wait_until(lambda heard=waiter.heard: heard)  # type: ignore[misc]
            made.append(waiter.connection)
        idle, busy = made
        pool.take_back(idle)

        tls.context = renewed
        pool.sweep(place.clock())
        assert idle.is_closing
        pool.take_back(busy)
        assert busy.is_closing
        waiter = Waiter()
        assert pool.acquire(waiter(), place.clock()) is None
        await wait_until(lambda: waiter.heard)
        pool.take_back(waiter.connection)

        assert waiter.connection.made_with is renewed
        assert not waiter.connection.is_closing
        waiter.connection.abort()


async def test_an_abandoned_connection_is_never_told_of(place: Place) -> None:
    async with ScriptedUpstream() as up:
        pool = place.pool(on_port(up.port))
        waiter = Waiter()
        pool.acquire(waiter(), place.clock())

        pool.abandon(waiter())
        pool.abandon(waiter())  # was forgotten already
        await asyncio.wait(place.spawner.tasks)

        assert [] == waiter.heard
        assert place.spawner.tasks[0].cancelled()
        assert f"<Pool 127.0.0.1:{up.port}, 0 idle, 0 connecting>" == repr(pool)


async def test_a_mistake_of_ours_when_the_connection_stands_comes_out(place: Place) -> None:
    async with ScriptedUpstream() as up:
        pool = place.pool(on_port(up.port))
        waiter = Waiter(is_wrong=True)

        pool.acquire(waiter(), place.clock())
        await asyncio.wait(place.spawner.tasks)

        assert ["ready", "broke down"] == waiter.heard
        assert ["KeyError('a mistake')"] == [repr(one) for one in place.spawner.errors]
        waiter.connection.abort()


async def test_an_address_that_no_socket_takes_is_a_mistake_of_ours(place: Place) -> None:
    pool = place.pool(on_port(1 << 17))
    waiter = Waiter()

    pool.acquire(waiter(), place.clock())
    await asyncio.wait(place.spawner.tasks)

    assert ["broke down"] == waiter.heard
    assert [OverflowError] == [type(one) for one in place.spawner.errors]


class HastyLoop(asyncio.SelectorEventLoop):
    """A loop that tells of a new connection only when it has read from it, as uvloop may do."""

    async def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        """Connect, and wait until the other side has closed the connection."""
        transport, protocol = await super().create_connection(*args, **kwargs)
        await wait_until(lambda: protocol.is_closing)
        return transport, protocol


@pytest.mark.parametrize("scene", [close(), play(reply(OK), stall())], ids=["closes", "speaks"])
def test_a_connection_that_ends_before_it_is_used_is_connect_failed(scene: Action) -> None:
    """Nothing was sent on it: any request may go to the next instance."""

    async def connect() -> list[object]:
        spawner = Spawner()
        waiter = Waiter()
        async with ScriptedUpstream() as up, spawner.group:
            up.on_connect(scene)
            Place(spawner).pool(on_port(up.port)).acquire(waiter(), 0.0)
        return waiter.heard

    with asyncio.Runner(loop_factory=HastyLoop) as runner:
        heard = runner.run(connect())

    assert [Failure.CONNECT_FAILED] == heard


async def test_an_upload_that_nobody_reads_does_not_hide_the_end_of_the_stream(
    place: Place,
) -> None:
    """An instance may answer early, say that it is done, and read no further."""
    done = asyncio.Event()

    async def finish(peer: Peer) -> None:
        peer.finish()

    async with ScriptedUpstream(receive_buffer_bytes=4096) as up:
        up.on_head(play(reply(b"HTTP/1.1 200 OK\r\n\r\nearly"), finish, hold(done)))
        pool = place.pool(on_port(up.port))
        waiter = Waiter()
        pool.acquire(waiter(), place.clock())
        await wait_until(lambda: waiter.heard)
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n"

        waiter.connection.begin(waiter(), head + b"x" * 8_000_000)
        await wait_until(lambda: waiter.is_over)
        done.set()

        assert ("end", ()) == waiter.events[-1]


# --- What is learned -----------------------------------------------------------------------------


async def test_what_an_instance_says_of_idle_connections_is_kept_to(place: Place) -> None:
    pool = place.pool(on_port(1))
    connection = UpstreamConnection(pool, place.clock, at_once(), Backlog(), Buffer())
    connection.connection_made(FakeTransport())
    exchange = Waiter()
    exchange.connection = connection
    connection.begin(exchange(), b"GET / HTTP/1.1\r\n\r\n")
    connection.data_received(OK.replace(b"\r\n\r\n", b"\r\nKeep-Alive: timeout=5, max=9\r\n\r\n"))

    place.clock.advance(3.9)
    pool.sweep(place.clock())
    was_kept = not is_aborted(connection)
    place.clock.advance(0.2)
    pool.sweep(place.clock())

    assert (was_kept, is_aborted(connection)) == (True, True)


async def test_a_connection_that_the_instance_closed_teaches_for_how_long_others_last(
    place: Place,
) -> None:
    pool = place.pool(on_port(1))
    first, second = place.idle(pool), place.idle(pool)
    place.clock.advance(5.0)
    first.connection_lost(None)
    place.clock.advance(0.1)

    pool.sweep(place.clock())

    assert is_aborted(second)


@pytest.mark.parametrize("said", [OK, OK + OK, b"\r\n"])
async def test_an_instance_that_answers_unasked_gets_one_request_on_each_connection(
    place: Place, said: bytes
) -> None:
    """What comes together with the next request cannot be told from its response."""
    pool = place.pool(on_port(1))
    speaks, other = place.idle(pool), place.idle(pool)

    with capture_logs() as logged:
        speaks.data_received(said)
        during = place.idle(pool)
        place.idle(pool).data_received(said)
        place.clock.advance(UNASKED_REST_S - 0.1)
        pool.sweep(place.clock())
        late = place.idle(pool)
        place.clock.advance(0.1)
        pool.sweep(place.clock())
        after = place.idle(pool)

    assert [True] * 4 == [is_aborted(one) for one in (speaks, other, during, late)]
    assert not is_aborted(after)
    assert after is pool.acquire(Waiter()(), place.clock())
    (line,) = logged
    assert ("unasked_response", "127.0.0.1:1", 60.0) == tuple(
        line[key] for key in ("event", "instance", "for_s")
    )


async def test_what_stands_behind_a_response_is_one_that_nobody_asked_for(place: Place) -> None:
    pool = place.pool(on_port(1))
    other = place.idle(pool)
    connection = UpstreamConnection(pool, place.clock, at_once(), Backlog(), Buffer())
    connection.connection_made(FakeTransport())
    exchange = Waiter()
    exchange.connection = connection
    connection.begin(exchange(), b"GET / HTTP/1.1\r\n\r\n")

    connection.data_received(OK + OK)

    assert is_aborted(other)


async def test_a_408_on_an_idle_connection_only_ends_it(place: Place) -> None:
    """So some servers say that it was idle for too long (RFC 9110 §15.5.9)."""
    pool = place.pool(on_port(1))
    speaks, other = place.idle(pool), place.idle(pool)

    speaks.data_received(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n")

    assert [True, False] == [is_aborted(one) for one in (speaks, other)]


async def test_a_retired_pool_keeps_nothing_after_an_unasked_answer_either(place: Place) -> None:
    pool = place.pool(on_port(1))
    place.idle(pool).data_received(OK)
    pool.retire()
    place.clock.advance(UNASKED_REST_S)

    pool.sweep(place.clock())

    assert is_aborted(place.idle(pool))
