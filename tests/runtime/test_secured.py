"""TLS over a plain connection: `ssl` with blocking sockets plays the other side."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.proxy.tls import was_cut
from gateway.runtime.backlog import Backlog, Postponed
from gateway.runtime.pieces import Buffer
from gateway.runtime.secured import SecuredConnection
from tests.fakes.tls import Authority
from tests.fakes.waiting import PATIENCE_S, wait_until

MIB = 1024 * 1024
NEVER_S = 3600.0


class Recorder(asyncio.Protocol):
    """Notes what it is told, in order; pieces of data are joined."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.data = bytearray()
        self.largest_bytes = 0
        self.transport: SecuredConnection
        self.lost: BaseException | None = None
        self.mistake: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, SecuredConnection)
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        assert data, "an empty piece"
        assert "eof" not in self.events
        if self.events[-1] != "data":
            self.events.append("data")
        self.data += data
        self.largest_bytes = max(self.largest_bytes, len(data))
        if self.mistake is not None:
            raise self.mistake

    def eof_received(self) -> bool:
        self.events.append("eof")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc
        self.events.append("lost")

    def pause_writing(self) -> None:
        self.events.append("paused")

    def resume_writing(self) -> None:
        self.events.append("resumed")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(params=["serves", "asks"])
def serves(request: pytest.FixtureRequest) -> bool:
    """Which side is ours."""
    return bool(request.param == "serves")


@contextlib.contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Make two ends of one TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname(), timeout=PATIENCE_S)
        other, _ = listener.accept()
    other.settimeout(PATIENCE_S)
    with one, other:
        yield one, other


class Stage:
    """Our side of a connection, and the plain socket of the other one."""

    def __init__(self, authority: Authority, ours: SecuredConnection, other: socket.socket) -> None:
        self._authority = authority
        self.ours = ours
        self.other = other
        self.recorder = Recorder()

    def shake_hands(self, *, serves: bool, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """Be the other side of the session; blocks."""
        if serves:
            context = context or self._authority.client_context()
            secured = context.wrap_socket(
                self.other, server_hostname="localhost", suppress_ragged_eofs=False
            )
        else:
            context = context or self._authority.instance_context("localhost")
            secured = context.wrap_socket(self.other, server_side=True, suppress_ragged_eofs=False)
        secured.settimeout(PATIENCE_S)
        return secured


@asynccontextmanager
async def staged(
    authority: Authority,
    *,
    serves: bool,
    shutdown_timeout_s: float = NEVER_S,
    backlog: Backlog | None = None,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[Stage]:
    """Make our side; its handshake has not begun when it serves."""
    ours = authority.instance_context("localhost") if serves else authority.client_context()
    loop = asyncio.get_running_loop()
    with connected() as (one, other):
        one.setblocking(False)  # noqa: FBT003 -- that is how it is called
        recorder = Recorder()
        secured = SecuredConnection(
            recorder,
            context or ours,
            buffer=Buffer(),
            backlog=backlog or Backlog(),
            peer="the other side",
            server_name=None if serves else "localhost",
            shutdown_timeout_s=shutdown_timeout_s,
        )
        stage = Stage(authority, secured, other)
        stage.recorder = recorder
        await loop.create_connection(lambda: secured, sock=one)
        try:
            yield stage
        finally:
            secured.abort()
            await asyncio.sleep(0)


@asynccontextmanager
async def opened(
    authority: Authority, *, serves: bool, shutdown_timeout_s: float = NEVER_S
) -> AsyncIterator[tuple[Stage, ssl.SSLSocket]]:
    """Make both sides, with a session between them."""
    async with staged(authority, serves=serves, shutdown_timeout_s=shutdown_timeout_s) as stage:
        other = await asyncio.to_thread(stage.shake_hands, serves=serves)
        await stage.ours.ready
        with other:
            yield stage, other


def all_of(other: ssl.SSLSocket) -> bytes:
    """Read to the end of the session; raises ssl.SSLEOFError where it was cut."""
    got = bytearray()
    while piece := other.recv(65536):
        got += piece
    return bytes(got)


# --- Bytes pass ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size_bytes", [1, 16 * 1024, 16 * 1024 + 1, 3 * MIB])
async def test_what_is_written_arrives_and_the_session_ends_well(
    authority: Authority, *, serves: bool, size_bytes: int
) -> None:
    sent = bytes(range(256)) * (size_bytes // 256) + b"x" * (size_bytes % 256)
    async with opened(authority, serves=serves) as (stage, other):
        stage.ours.write(sent)
        stage.ours.close()
        assert stage.ours.is_closing()
        stage.ours.write(b"too late")
        assert sent == await asyncio.to_thread(all_of, other)
        other.close()
        await wait_until(lambda: "lost" in stage.recorder.events)

    assert stage.recorder.lost is None


@pytest.mark.parametrize("size_bytes", [1, 16 * 1024 + 1, 3 * MIB])
async def test_what_comes_is_passed_on_in_order(
    authority: Authority, *, serves: bool, size_bytes: int
) -> None:
    sent = bytes(range(256)) * (size_bytes // 256) + b"x" * (size_bytes % 256)
    async with opened(authority, serves=serves) as (stage, other):
        await asyncio.to_thread(other.sendall, sent)
        await wait_until(lambda: len(stage.recorder.data) == size_bytes)

    assert sent == stage.recorder.data


async def test_records_of_one_byte_are_taken_in_shares_and_all_before_the_end(
    authority: Authority,
) -> None:
    """A read of 64 KiB holds thousands of them, and each takes some microseconds."""
    async with opened(authority, serves=True) as (stage, other):
        for _ in range(2000):  # all of it is there before the loop reads once
            other.send(b"x")
        other.shutdown(socket.SHUT_WR)
        await wait_until(lambda: "eof" in stage.recorder.events)

    assert stage.recorder.data == b"x" * 2000
    assert stage.recorder.largest_bytes <= 256


async def test_nothing_is_read_while_records_wait_for_their_turn(authority: Authority) -> None:
    """Else what waits grows with all that is sent, and with it what each turn copies."""
    readings: list[bool] = []
    waiting: list[int] = []

    class Watched(Backlog):
        def run(self) -> None:
            if self._lines and stage.recorder.data:
                readings.append(stage.ours._plain.is_reading())
                waiting.append(len(stage.ours._later))
            super().run()

    def send_all() -> None:
        for _ in range(20_000):
            other.send(b"x")

    backlog = Watched()
    async with staged(authority, serves=True, backlog=backlog) as stage:
        other = await asyncio.to_thread(stage.shake_hands, serves=True)
        await stage.ours.ready
        with other:
            await asyncio.to_thread(send_all)
            await wait_until(lambda: len(stage.recorder.data) == 20_000)

    assert len(readings) > 10
    assert not any(readings)
    assert max(waiting) <= 64 * 1024


async def test_a_long_read_is_decrypted_later_when_the_time_of_the_turn_is_over(
    authority: Authority,
) -> None:
    class Late(Backlog):
        is_late = False
        put_off_count = 0

        def is_over(self) -> bool:
            return self.is_late

        def add(self, connection: Postponed, peer: Hashable) -> None:
            self.put_off_count += 1
            super().add(connection, peer)

    backlog = Late()
    counts: list[int] = []
    async with staged(authority, serves=True, backlog=backlog) as stage:
        other = await asyncio.to_thread(stage.shake_hands, serves=True)
        await stage.ours.ready
        with other:
            for size_bytes, is_late in ((2000, False), (500, True), (2000, True)):
                backlog.is_late, backlog.put_off_count = is_late, 0
                before = len(stage.recorder.data)
                other.sendall(b"x" * size_bytes)
                await wait_until(
                    lambda b=before, s=size_bytes: len(stage.recorder.data) == b + s  # type: ignore[misc]
                )
                counts.append(backlog.put_off_count)

    assert [0, 0, 1] == counts


async def test_what_comes_right_behind_the_handshake_is_passed_on(authority: Authority) -> None:
    async with staged(authority, serves=True) as stage:

        def ask() -> ssl.SSLSocket:
            other = stage.shake_hands(serves=True)
            other.sendall(b"first")
            return other

        other = await asyncio.to_thread(ask)
        await wait_until(lambda: stage.recorder.data == b"first")
        other.close()

    assert ["made", "data"] == stage.recorder.events[:2]


async def test_while_reading_is_paused_nothing_is_passed_on(
    authority: Authority, *, serves: bool
) -> None:
    async with opened(authority, serves=serves) as (stage, other):
        stage.ours.pause_reading()
        stage.ours.pause_reading()
        assert not stage.ours.is_reading()
        await asyncio.to_thread(other.sendall, b"x" * 100_000)
        for _ in range(50):
            await asyncio.sleep(0)
        assert b"" == stage.recorder.data

        stage.ours.resume_reading()
        await wait_until(lambda: len(stage.recorder.data) == 100_000)
        assert stage.ours.is_reading()


async def test_its_protocol_is_told_when_the_other_side_takes_no_more(
    authority: Authority, *, serves: bool
) -> None:
    async with opened(authority, serves=serves) as (stage, other):
        stage.ours.set_write_buffer_limits(32 * 1024)
        assert 32 * 1024 == stage.ours.get_write_buffer_limits()[1]
        sent = 0
        while "paused" not in stage.recorder.events:
            stage.ours.write(bytes(MIB))
            sent += MIB
            await asyncio.sleep(0)
        assert stage.ours.get_write_buffer_size() > 0
        stage.ours.close()
        assert sent == len(await asyncio.to_thread(all_of, other))


# --- Ends ----------------------------------------------------------------------------------------


async def test_the_other_side_ends_the_session_well(authority: Authority, *, serves: bool) -> None:
    async with opened(authority, serves=serves) as (stage, other):
        await asyncio.to_thread(other.sendall, b"last")
        await asyncio.to_thread(other.unwrap)
        other.close()
        await wait_until(lambda: "lost" in stage.recorder.events)
        assert not was_cut(stage.ours)

    assert ["made", "data", "eof", "lost"] == stage.recorder.events
    assert b"last" == stage.recorder.data
    assert stage.recorder.lost is None


async def test_the_other_side_cuts_the_session(authority: Authority, *, serves: bool) -> None:
    async with opened(authority, serves=serves) as (stage, other):
        await asyncio.to_thread(other.sendall, b"last")
        other.shutdown(socket.SHUT_WR)
        await wait_until(lambda: "lost" in stage.recorder.events)
        assert was_cut(stage.ours)

    assert ["made", "data", "eof", "lost"] == stage.recorder.events
    assert b"last" == stage.recorder.data
    assert stage.recorder.lost is None


async def test_an_end_that_comes_while_reading_is_paused_is_told_behind_the_rest(
    authority: Authority, *, serves: bool
) -> None:
    async with opened(authority, serves=serves) as (stage, other):
        stage.ours.pause_reading()
        await asyncio.to_thread(other.sendall, b"last")
        other.shutdown(socket.SHUT_WR)
        for _ in range(50):
            await asyncio.sleep(0)
        assert ["made"] == stage.recorder.events

        stage.ours.resume_reading()
        await wait_until(lambda: "lost" in stage.recorder.events)

    assert ["made", "data", "eof", "lost"] == stage.recorder.events


async def test_what_is_no_record_ends_the_connection_with_its_reason(
    authority: Authority, *, serves: bool
) -> None:
    async with opened(authority, serves=serves, shutdown_timeout_s=0.05) as (stage, other):
        with socket.socket(fileno=other.detach()) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
            await wait_until(lambda: "lost" in stage.recorder.events)

    assert isinstance(stage.recorder.lost, ssl.SSLError)
    assert "eof" not in stage.recorder.events


async def test_what_comes_behind_our_end_is_dropped(authority: Authority, *, serves: bool) -> None:
    async with opened(authority, serves=serves) as (stage, other):
        stage.ours.close()
        with contextlib.suppress(OSError):
            await asyncio.to_thread(other.sendall, b"x" * MIB)
        other.close()
        await wait_until(lambda: "lost" in stage.recorder.events)

    assert b"" == stage.recorder.data


async def test_who_does_not_end_the_connection_is_cut(
    authority: Authority, *, serves: bool
) -> None:
    async with opened(authority, serves=serves, shutdown_timeout_s=0.02) as (stage, _other):
        stage.ours.close()
        stage.ours.close()
        await wait_until(lambda: "lost" in stage.recorder.events)


async def test_who_takes_something_meanwhile_is_waited_for(
    authority: Authority, *, serves: bool
) -> None:
    """A slow reader of a last response gets all of it, as long as it reads on."""
    async with opened(authority, serves=serves, shutdown_timeout_s=0.2) as (stage, other):
        while not stage.ours.get_write_buffer_size() > 4 * MIB:
            stage.ours.write(bytes(MIB))
            await asyncio.sleep(0)
        before = stage.ours.get_write_buffer_size()
        stage.ours.close()
        await asyncio.to_thread(other.recv, 65536)
        while "lost" not in stage.recorder.events and stage.ours.get_write_buffer_size():
            await asyncio.to_thread(other.recv, MIB)
        assert before > stage.ours.get_write_buffer_size()


async def test_an_abort_is_at_once(authority: Authority, *, serves: bool) -> None:
    async with opened(authority, serves=serves) as (stage, other):
        stage.ours.abort()
        stage.ours.write(b"too late")
        with pytest.raises(OSError, match=r"EOF|reset"):
            await asyncio.to_thread(all_of, other)
        await wait_until(lambda: "lost" in stage.recorder.events)


# --- The handshake -------------------------------------------------------------------------------


async def test_who_speaks_no_tls_gets_no_session(authority: Authority) -> None:
    async with staged(authority, serves=True) as stage:
        await asyncio.to_thread(stage.other.sendall, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        with pytest.raises(ssl.SSLError):
            await stage.ours.ready

    assert [] == stage.recorder.events
    assert "HANDSHAKE" in repr(stage.ours) or "CLOSED" in repr(stage.ours)


async def test_a_certificate_that_is_not_trusted_makes_no_session(
    authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger").instance_context("localhost")
    async with staged(authority, serves=False) as stage:

        def serve() -> str:
            with pytest.raises(ssl.SSLError) as caught:
                stage.shake_hands(serves=False, context=stranger)
            return str(caught.value.reason)

        serving = asyncio.create_task(asyncio.to_thread(serve))  # noqa: TID251 -- awaited below
        with pytest.raises(ssl.SSLCertVerificationError):
            await stage.ours.ready
        assert "ALERT_UNKNOWN_CA" in await serving, "the other side is told why"

    assert [] == stage.recorder.events


@pytest.mark.parametrize("began", [False, True])
async def test_an_end_in_the_handshake_is_a_reset(authority: Authority, *, began: bool) -> None:
    async with staged(authority, serves=True) as stage:
        if began:
            await asyncio.to_thread(stage.other.sendall, b"\x16\x03\x01\x02\x00\x01")
        stage.other.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionResetError):
            await stage.ours.ready

    assert [] == stage.recorder.events


async def test_a_close_in_the_handshake_ends_it(authority: Authority) -> None:
    async with staged(authority, serves=True) as stage:
        stage.ours.close()
        with pytest.raises(ConnectionResetError):
            await stage.ours.ready


async def test_each_step_of_a_handshake_waits_for_its_turn(authority: Authority) -> None:
    turns: list[Callable[[], None]] = []
    async with staged(authority, serves=True, backlog=Backlog(when=turns.append)) as stage:
        shaking = asyncio.create_task(  # noqa: TID251 -- awaited below
            asyncio.to_thread(stage.shake_hands, serves=True)
        )
        steps = 0
        while not stage.ours.ready.done():
            await wait_until(lambda: turns)
            for _ in range(20):
                await asyncio.sleep(0)
            assert not stage.ours.ready.done(), "it went on before its turn"
            turns.pop()()
            steps += 1
        (await shaking).close()

    assert steps >= 2


async def test_it_tells_of_the_session_and_of_the_plain_connection(
    authority: Authority, *, serves: bool
) -> None:
    async with opened(authority, serves=serves) as (stage, _):
        ours = stage.ours
        assert isinstance(ours.get_extra_info("ssl_object"), ssl.SSLObject)
        assert bool(ours.get_extra_info("peercert")) is not serves
        assert "no such thing" == ours.get_extra_info("nothing", "no such thing")
        assert not ours.can_write_eof()
        assert stage.recorder is ours.get_protocol()
        other = Recorder()
        other.events.append("made")
        ours.set_protocol(other)
        assert other is ours.get_protocol()
