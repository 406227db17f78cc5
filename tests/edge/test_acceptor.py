"""Who becomes a connection, and who does not: limits, PROXY headers, and a lack of descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import cast

import pytest
from structlog.testing import capture_logs

from gateway.core.message import Peer
from gateway.edge import acceptor
from gateway.edge.acceptor import Acceptor, Entrance, Preliminaries, Tls
from gateway.edge.peers import Peers
from gateway.edge.places import Place, Places
from gateway.edge.proxy_protocol import Told
from gateway.open_files import MOST_BESIDE
from gateway.runtime.backlog import Backlog
from gateway.runtime.pieces import Buffer
from gateway.runtime.secured import SecuredConnection
from tests.fakes.client import RawClient
from tests.fakes.tls import Authority, Pair, SecuredClient
from tests.fakes.waiting import PATIENCE_S, wait_until

FIRST = b"PROXY TCP4 203.0.113.7 10.0.0.1 51000 443\r\n"
LOOPBACK = (ip_network("127.0.0.0/8"),)


class Echo(asyncio.Protocol):
    """Sends back whatever comes, and knows what it was made with; `made` are those connected."""

    def __init__(self, made: list[Echo], told: Told | None, place: Place | None) -> None:
        self._made = made
        self.address = "" if told is None else told.address
        self.told = told
        self.place = place

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._made.append(self)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self.place is not None:
            self.place.leave()


class Stage:
    """A listener with what it made."""

    def __init__(
        self,
        listener: socket.socket,
        tasks: asyncio.TaskGroup,
        first: Preliminaries,
        places: Places | None,
    ) -> None:
        self.made: list[Echo] = []
        self.port: int = listener.getsockname()[1]
        peers = Peers(LOOPBACK if first.header_timeout_s else ())

        def peer_of(address: str, told: Told | None) -> Peer:
            return peers.at(address, "http", self.port, told)

        self.acceptor = Acceptor(
            listener,
            self._make,
            spawn=tasks.create_task,
            first=first,
            entrance=None if places is None else Entrance(places=places, peer_of=peer_of),
        )

    def _make(self, told: Told | None, place: Place | None) -> Echo:
        return Echo(self.made, told, place)


PROXIED = Preliminaries(header_timeout_s=5.0)


@asynccontextmanager
async def staged(
    first: Preliminaries = PROXIED, places: Places | None = None
) -> AsyncIterator[Stage]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with asyncio.TaskGroup() as tasks:
            stage = Stage(listener, tasks, first, places)
            yield stage
            stage.acceptor.close()
            stage.acceptor.drop_beginning()
            await stage.acceptor.wait_closed()
            for one in stage.made:
                one.transport.abort()
    await asyncio.sleep(0)  # connections are lost in the next turn
    if places is not None:
        assert repr(places) == "<Places 0 taken, 0 refused>"


def limits(max_connections: int = 100, max_per_address: int = 0) -> Places:
    return Places(
        max_connections=max_connections,
        max_per_address=max_per_address,
        most_beside=MOST_BESIDE,
        tick=lambda: 0.0,
    )


async def test_what_follows_in_the_same_segment_belongs_to_the_connection() -> None:
    async with staged() as stage, RawClient(stage.port) as client:
        await client.send(FIRST + b"hello")

        assert b"hello" == await client.read_exactly(5)
        assert [Told("203.0.113.7", len(FIRST), 443)] == [one.told for one in stage.made]


async def test_each_byte_may_come_by_itself() -> None:
    async with staged() as stage, RawClient(stage.port) as client:
        for byte in FIRST + b"hi":
            await client.send(bytes([byte]))
            await asyncio.sleep(0)

        assert b"hi" == await client.read_exactly(2)
        assert "203.0.113.7" == stage.made[0].address


async def test_who_says_nothing_is_dropped_when_the_time_is_over() -> None:
    with capture_logs() as events:
        async with (
            staged(Preliminaries(header_timeout_s=0.05)) as stage,
            RawClient(stage.port) as client,
        ):
            await client.send(FIRST[:20])
            await client.expect_closed()

    assert [] == stage.made
    assert [("connection_refused", "debug")] == [(one["event"], one["log_level"]) for one in events]


async def test_those_that_have_not_begun_are_waited_for_until_they_are_dropped() -> None:
    """They were accepted: their client does not know yet that nobody will answer."""
    async with staged() as stage, RawClient(stage.port) as slow, RawClient(stage.port) as silent:
        await wait_until(lambda: stage.acceptor.beginning_count == 2)
        stage.acceptor.close()
        await slow.send(FIRST + b"hello")
        assert b"hello" == await slow.read_exactly(5)
        assert "1 beginning" in repr(stage.acceptor)

        stage.acceptor.drop_beginning()
        await stage.acceptor.wait_closed()
        await silent.expect_closed()
        assert stage.acceptor.beginning_count == 0


async def test_one_that_is_dropped_before_anything_was_done_for_it_is_closed_too() -> None:
    places = limits()
    async with staged(places=places) as stage:
        sock = socket.create_connection(("127.0.0.1", stage.port))
        stage.acceptor.close()  # it is accepted here, and its task has not begun
        assert (places.count, stage.acceptor.beginning_count) == (1, 1)
        stage.acceptor.drop_beginning()
        await stage.acceptor.wait_closed()
        await asyncio.sleep(0)
        assert places.count == 0
        with sock:
            assert sock.recv(1) == b""


async def test_what_waits_in_the_backlog_is_accepted_when_the_listener_is_closed() -> None:
    """The kernel has told these clients that they are connected; closing would reset them."""
    async with staged(Preliminaries()) as stage:
        socks = [socket.create_connection(("127.0.0.1", stage.port)) for _ in range(100)]
        assert stage.made == []
        stage.acceptor.close()
        stage.acceptor.close()
        await stage.acceptor.wait_closed()
        for sock in socks:
            sock.sendall(b"hello")
        await wait_until(lambda: len(stage.made) == 100)
        loop = asyncio.get_running_loop()
        for sock in socks:
            sock.setblocking(False)  # noqa: FBT003 -- its only parameter
            assert b"hello" == await loop.sock_recv(sock, 5)
            sock.close()


# --- Limits --------------------------------------------------------------------------------------


async def test_a_connection_counts_before_its_header_has_come() -> None:
    places = limits(max_connections=2)
    async with staged(places=places) as stage, AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(RawClient(stage.port))
        await wait_until(lambda: stage.acceptor.beginning_count == 2)
        async with RawClient(stage.port) as third:
            await cut_off(third)
        assert (places.count, places.refused_count, stage.made) == (2, 0, [])


async def test_a_connection_counts_before_its_handshake_is_over() -> None:
    places = limits(max_per_address=1)
    first = Preliminaries(
        tls=Tls(
            context=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
            handshake_timeout_s=5,
            shutdown_timeout_s=1,
            buffer=Buffer(),
            backlog=Backlog(),
        )
    )
    async with staged(first, places) as stage, RawClient(stage.port):
        await wait_until(lambda: places.count == 1)
        async with RawClient(stage.port) as second:
            await second.expect_closed()
        assert (places.count, places.refused_count, stage.made) == (1, 0, [])


async def cut_off(client: RawClient) -> None:
    """Wait for the end; it is a reset where not all was read."""
    with contextlib.suppress(ConnectionResetError):
        await client.read_until_closed()


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    session = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


def secured_by(pair: Pair, *, is_proxied: bool = False) -> Preliminaries:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    tls = Tls(
        context=context,
        handshake_timeout_s=PATIENCE_S,
        shutdown_timeout_s=1,
        buffer=Buffer(),
        backlog=Backlog(),
    )
    return Preliminaries(header_timeout_s=PATIENCE_S if is_proxied else None, tls=tls)


@pytest.mark.parametrize("is_proxied", [False, True], ids=["plain", "proxied"])
async def test_one_address_cannot_hold_the_handshakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_proxied: bool
) -> None:
    """Two places are taken by one address; a third of it gets none, one of another does."""
    monkeypatch.setattr(acceptor, "MOST_HANDSHAKES", 2)
    authority = Authority(tmp_path)
    first = secured_by(authority.pair("localhost"), is_proxied=is_proxied)
    told, other = (FIRST, FIRST.replace(b".7", b".8")) if is_proxied else (b"", b"")
    async with staged(first, limits()) as stage, AsyncExitStack() as stack:
        greedy = [RawClient(stage.port) for _ in range(2)]
        for number, client in enumerate(greedy, 1):
            await stack.enter_async_context(client)
            await client.send(told + client_hello())
            assert await client.read_exactly(1)  # the gateway has taken its first step
            assert stage.acceptor.beginning_count == number
        async with RawClient(stage.port) as third:
            with contextlib.suppress(ConnectionError):
                await third.send(told + client_hello())
            await cut_off(third)
        async with SecuredClient(stage.port, source="127.0.0.9") as honest:
            await honest.send(other)
            await honest.secure(authority.client_context())
            await honest.send(b"hello")
            assert await honest.read_exactly(5) == b"hello"

        await cut_off(greedy[1])
        assert (stage.acceptor.beginning_count, len(stage.made)) == (1, 1)


async def test_nothing_is_done_for_clients_that_have_left(tmp_path: Path) -> None:
    """Neither for those that left before they were accepted, nor for those that left while waiting.

    The Backlog has no turns here until the test gives it one.
    """
    turns: list[Callable[[], None]] = []
    first = secured_by(Authority(tmp_path).pair("localhost"))
    assert first.tls is not None
    first = replace(first, tls=replace(first.tls, backlog=Backlog(when=turns.append)))
    made: list[SecuredConnection] = []

    class Counted(SecuredConnection):
        def _begin_session(self) -> None:
            made.append(self)
            super()._begin_session()

    places = limits()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(acceptor, "SecuredConnection", Counted)
        async with staged(first, places) as stage:
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", stage.port)) as early:
                    early.sendall(client_hello())
            async with RawClient(stage.port) as late:
                await late.send(client_hello())
                await wait_until(lambda: bool(turns))
                assert (places.count, stage.acceptor.beginning_count) == (1, 1)
            turns.pop()()
            await stage.acceptor.wait_closed()

    assert made == []


async def test_whom_the_header_names_is_counted_and_not_the_proxy() -> None:
    places = limits(max_per_address=1)
    async with staged(places=places) as stage, RawClient(stage.port) as one:
        await one.send(FIRST + b"hi")
        assert b"hi" == await one.read_exactly(2)
        async with RawClient(stage.port) as same, RawClient(stage.port) as other:
            await other.send(FIRST.replace(b".7", b".8") + b"hi")
            assert b"hi" == await other.read_exactly(2)
            await same.send(FIRST + b"hi")
            await same.read_exactly(2)  # it has a protocol, which would say why it is refused

        refusals = [made.place.refusal for made in stage.made if made.place is not None]
        assert refusals == [None, None, "there are 1 from this address already"]


async def test_plain_connections_over_the_limit_are_refused_with_words_but_only_a_few() -> None:
    places = limits(max_connections=0)
    with capture_logs() as events:
        async with staged(Preliminaries(), places) as stage, AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(RawClient(stage.port))
                for _ in range(MOST_BESIDE + 10)
            ]
            for client in clients[-10:]:
                await client.expect_closed()
            assert places.refused_count == len(stage.made) == MOST_BESIDE

    assert [(one["event"], one["count"]) for one in events] == [("connections_refused", 1)]


# --- No descriptors ------------------------------------------------------------------------------


class Exhausted:
    """A listening socket that fails some times, as when there are no file descriptors left."""

    def __init__(self, listener: socket.socket, times: int) -> None:
        self._listener = listener
        self._left = times

    def accept(self) -> tuple[socket.socket, object]:
        if self._left:
            self._left -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self._listener.accept()

    def fileno(self) -> int:
        return self._listener.fileno()

    def getsockname(self) -> tuple[str, int]:
        host, port = self._listener.getsockname()
        return host, port

    def settimeout(self, timeout_s: float) -> None:
        self._listener.settimeout(timeout_s)


async def test_a_listener_that_cannot_accept_pauses_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Asking again at once would take all the time there is, and a line each time the disk."""
    monkeypatch.setattr(acceptor, "_PAUSE_S", 0.001)
    with capture_logs() as events, socket.create_server(("127.0.0.1", 0)) as listener:
        exhausted = cast("socket.socket", Exhausted(listener, times=20))
        async with asyncio.TaskGroup() as tasks:
            stage = Stage(exhausted, tasks, Preliminaries(), None)
            async with RawClient(stage.port) as client:
                await client.send(b"hello")
                assert b"hello" == await client.read_exactly(5)
            stage.acceptor.close()
            stage.made[0].transport.abort()

    assert ["accept_failed", "accept_recovered"] == [one["event"] for one in events]
