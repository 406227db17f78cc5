"""Each way in which an instance can fail: what both sides see, who is blamed, and what is left.

There is one instance, so nothing fails over; that has its own stories. Each fault is met once with
a close look, and then a hundred times to see that it leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import pytest

from tests.fakes.client import BrokenOffError, RawClient
from tests.fakes.gateway import Serve, ask, routes_to
from tests.fakes.leftovers import expect_nothing_left
from tests.fakes.peer import Action, Ended, Peer
from tests.fakes.scenes import (
    chunk,
    close,
    drip,
    half_body,
    head,
    interim,
    play,
    reply,
    reset,
    respond,
    stall,
)
from tests.fakes.upstream import ScriptedUpstream, blackhole

pytestmark = pytest.mark.slow

LIMIT = "300ms"
IMPATIENT = {"connect": LIMIT, "response": LIMIT, "idle": LIMIT}
PATIENT = {"circuit_breaker": {"consecutive_failures": 10**6, "min_requests": 10**6}}

CHUNKED = head(200, [(b"Transfer-Encoding", b"chunked")])
UPLOAD = bytes(16 * 1024 * 1024)  # far more than all buffers of the kernel together
LONG_UPLOAD = ask("/", "POST", ("Content-Length", "1000000")) + b"begin"
ENDLESS = b"X-Field: %b\r\n" % (b"x" * 1000) * 100
CUT = "cut"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault, and what is seen of it.

    `at` is the hook of the instance and `scene` what it does there; `client_sees` is a status with
    the reason of the gateway's answer, or that the answer was cut. `instance_sees` is how its
    connection ended, where that is not for the instance to decide.
    """

    scene: Action
    at: str = "on_request"
    request: bytes = ask()
    client_sees: tuple[str, ...]
    counts: bool = True
    instance_sees: tuple[Ended, ...] = (Ended.CLOSED_BY_PEER, Ended.RESET_BY_PEER)


OURS = (Ended.BY_US,)
EARLY = ("502 disconnected_early",)

FAULTS = {
    "accepts and closes": Fault(
        at="on_connect",
        scene=close(),
        # It depends on who is first: the connection is seen to be closed, or the request is sent.
        client_sees=("502 connect_failed", "502 disconnected_early"),
        instance_sees=OURS,
    ),
    "accepts and resets": Fault(
        at="on_connect",
        scene=reset(),
        client_sees=("502 connect_failed", "502 disconnected_early"),
        instance_sees=OURS,
    ),
    "closed before the head": Fault(scene=close(), client_sees=EARLY, instance_sees=OURS),
    "reset before the head": Fault(scene=reset(), client_sees=EARLY, instance_sees=OURS),
    "closed inside the head": Fault(
        scene=play(reply(b"HTTP/1.1 200 OK\r\nX-Half: "), close()),
        client_sees=EARLY,
        instance_sees=OURS,
    ),
    "reset inside the head": Fault(
        scene=play(reply(b"HTTP/1.1 200 OK\r\nX-Half: "), reset()),
        client_sees=EARLY,
        instance_sees=OURS,
    ),
    "closed behind an interim answer": Fault(
        scene=play(interim(103), close()), client_sees=EARLY, instance_sees=OURS
    ),
    "reset behind the head": Fault(
        scene=play(half_body(body=b""), reset()), client_sees=(CUT,), instance_sees=OURS
    ),
    "reset inside the body": Fault(
        scene=play(half_body(), reset()), client_sees=(CUT,), instance_sees=OURS
    ),
    "closed inside the body": Fault(
        scene=play(half_body(), close()), client_sees=(CUT,), instance_sees=OURS
    ),
    "closed inside the chunks": Fault(
        scene=play(reply(CHUNKED + chunk(b"half")), close()),
        client_sees=(CUT,),
        instance_sees=OURS,
    ),
    "bad chunk": Fault(scene=play(reply(CHUNKED + b"4\r\nhalfXX"), stall()), client_sees=(CUT,)),
    "head by drops": Fault(
        scene=drip(head(200, [(b"X-Slow", b"x" * 100)]), pause_s=0.02),
        client_sees=("504 head_timeout",),
    ),
    "silent": Fault(scene=stall(), client_sees=("504 head_timeout",)),
    "silent behind an interim answer": Fault(
        scene=play(interim(103), stall()), client_sees=("504 head_timeout",)
    ),
    "silent behind the head": Fault(scene=play(half_body(body=b""), stall()), client_sees=(CUT,)),
    "silent inside the body": Fault(scene=play(half_body(), stall()), client_sees=(CUT,)),
    "no HTTP": Fault(
        scene=play(reply(b"220 mail.example ESMTP\r\n"), stall()),
        client_sees=("502 bad_response",),
    ),
    "interim answers without end": Fault(
        scene=play(reply(head(103) * 300), stall()), client_sees=("502 bad_response",)
    ),
    "a head without end": Fault(
        scene=play(reply(b"HTTP/1.1 200 OK\r\n" + ENDLESS), stall()),
        client_sees=("502 bad_response",),
    ),
    "trailers without end": Fault(
        scene=play(reply(CHUNKED + b"0\r\n" + ENDLESS), stall()), client_sees=(CUT,)
    ),
    "bytes behind the answer": Fault(
        scene=play(respond(), reply(head(200, [(b"Content-Length", b"0")])), stall()),
        client_sees=("200",),
        counts=False,
    ),
    "an answer before the request was read": Fault(
        at="on_head",
        scene=play(respond(413), stall()),
        request=LONG_UPLOAD,
        client_sees=("413",),
        counts=False,
    ),
    "closed inside the upload": Fault(
        at="on_head",
        scene=close(),
        request=LONG_UPLOAD,
        client_sees=("502 send_failed",),
        counts=False,
        instance_sees=OURS,
    ),
}


async def test_an_instance_that_tires_of_late_clients_is_not_shut_out(serve: Serve) -> None:
    """Its own patience with a body is shorter than the gateway's."""
    async with ScriptedUpstream() as web:
        web.on_head(tire)
        async with serve(routes_to(web)) as gateway:
            late = ask("/", "PUT", ("Content-Length", "9")) + b"some"
            seen = await asyncio.gather(*(meet(gateway.port, late) for _ in range(8)))
            breaker = gateway.member(web).breaker

            assert set(seen) == {"502 upload_stalled"}
            assert (breaker.is_shut, breaker.failures_in_a_row) == (False, 0)


async def tire(peer: Peer) -> None:
    """Wait for the rest of a body for a while, and close."""
    await asyncio.sleep(1.3)
    peer.close()


async def meet(port: int, request: bytes) -> str:
    """Ask once; tell the status with the reason, or that the answer was cut."""
    async with RawClient(port) as client:
        await client.send(request)
        try:
            answer = await client.read_response()
        except BrokenOffError:
            return CUT
        reasons = answer.values(b"x-gateway-reason")
        return " ".join([str(answer.status), *(one.decode() for one in reasons)])


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_of_an_instance(serve: Serve, name: str) -> None:
    fault = FAULTS[name]
    async with ScriptedUpstream() as web:
        getattr(web, fault.at)(fault.scene)
        routes = routes_to(web, timeouts=IMPATIENT, service=PATIENT)
        async with serve(routes) as gateway:
            seen = await meet(gateway.port, fault.request)
            await web.wait_until(lambda: not any(one.is_open() for one in web.connections))
            blamed = gateway.member(web).breaker._failed
            asked, ended = len(web.requests), [one.ended for one in web.connections]
            await expect_nothing_left(gateway, lambda: meet(gateway.port, fault.request))

        assert seen in fault.client_sees
        assert blamed == (1 if fault.counts else 0)
        assert len(ended) == 1, "it was asked again, or over another connection"
        assert asked == (0 if fault.at == "on_connect" else 1)
        assert set(ended) <= set(fault.instance_sees)


async def test_an_instance_that_refuses(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        await web.refuse()
        async with serve(routes_to(web, service=PATIENT)) as gateway:
            seen = await meet(gateway.port, ask())
            blamed = gateway.member(web).breaker._failed
            await expect_nothing_left(gateway, lambda: meet(gateway.port, ask()))

    assert (seen, blamed) == ("502 connect_failed", 1)


async def test_an_instance_that_cannot_be_reached(serve: Serve) -> None:
    """Linux has no way to a broadcast address by TCP, so nothing leaves this machine."""
    servers = {"servers": ["http://255.255.255.255:80"], **PATIENT}
    async with serve(routes_to(service=servers)) as gateway:
        seen = await meet(gateway.port, ask())
        (member,) = gateway.gateway.engine.fleets["web"].members.values()
        blamed = member.breaker._failed
        await expect_nothing_left(gateway, lambda: meet(gateway.port, ask()))

    assert (seen, blamed) == ("502 connect_failed", 1)


async def test_an_instance_that_takes_no_connection(serve: Serve) -> None:
    async with blackhole() as port:
        routes = routes_to(port, timeouts=IMPATIENT, service=PATIENT)
        async with serve(routes) as gateway:
            seen = await meet(gateway.port, ask())
            (member,) = gateway.gateway.engine.fleets["web"].members.values()
            blamed = member.breaker._failed
            await expect_nothing_left(gateway, lambda: meet(gateway.port, ask()))

    assert (seen, blamed) == ("504 connect_timeout", 1)


@pytest.mark.soak
async def test_an_instance_that_stops_reading_the_upload(serve: Serve) -> None:
    """The client is stopped too, so what is on its way stays small; then its time is over."""
    async with ScriptedUpstream(receive_buffer_bytes=64 * 1024) as web:
        web.on_head(play(look_away, stall()))
        routes = routes_to(web, timeouts=IMPATIENT, service=PATIENT)
        async with serve(routes, client_body_timeout_s=LIMIT) as gateway:
            seen = await upload(gateway.port)
            blamed = gateway.member(web).breaker._failed
            await web.wait_until(lambda: not web.connections[0].is_open())
            sent_bytes = len(web.connections[0].received)
            web.connections[0].received.clear()

            def nobody_is_connected() -> bool:
                return not any(one.is_open() for one in web.connections)

            async def once() -> None:
                await upload(gateway.port)
                # The script looks up late, and until then it holds its end.
                await web.wait_until(nobody_is_connected, timeout_s=20)

            await expect_nothing_left(gateway, once, at_once=25)

        assert (seen, blamed) == ("504 send_timeout", 1)
        assert sent_bytes < len(UPLOAD)
        assert not web.requests[0].is_complete


async def look_away(_peer: Peer) -> None:
    """Read nothing for longer than anybody waits."""
    await asyncio.sleep(1.0)


async def upload(port: int) -> str:
    """Send much for as long as it is taken, and read the answer meanwhile."""
    async with RawClient(port) as client, asyncio.TaskGroup() as tasks:
        await client.send(ask("/", "POST", ("Content-Length", str(len(UPLOAD)))))
        sending = tasks.create_task(send_until_nobody_reads(client))
        answer = await client.read_response()
        sending.cancel()
    return f"{answer.status} {answer.values(b'x-gateway-reason')[0].decode()}"


async def send_until_nobody_reads(client: RawClient) -> None:
    with contextlib.suppress(OSError, TimeoutError):
        await client.send(UPLOAD)
