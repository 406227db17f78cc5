"""What a scripted upstream can be told to do, as small actions that are put together.

The rule: an action sends exactly what its name says, and ends when it has been done. Anything that
is missing here is an `async def` of the test's own that takes the Peer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from tests.fakes.peer import Action, Ended, Peer, ReceivedRequest

Headers = Iterable[tuple[bytes, bytes]]


def play(*actions: Action) -> Action:
    """Do one after the other, for as long as the connection is open."""

    async def run(peer: Peer) -> None:
        for action in actions:
            if peer.is_open():
                await action(peer)

    return run


def reply(raw: bytes) -> Action:
    """Send exactly these bytes."""

    async def run(peer: Peer) -> None:
        await peer.send(raw)

    return run


def respond(status: int = 200, body: bytes = b"ok", headers: Headers = ()) -> Action:
    """Answer as a well-behaved service does: with a length, no body to HEAD, close when asked."""

    async def run(peer: Peer) -> None:
        length = (b"Content-Length", b"%d" % len(body))
        is_head = peer.request.method == b"HEAD"
        await peer.send(head(status, (*headers, length)) + (b"" if is_head else body))
        if b"close" in peer.request.values(b"connection"):
            peer.close()

    return run


def app(choose: Callable[[ReceivedRequest], Action]) -> Action:
    """Answer each request with the action that `choose` makes of it."""

    async def run(peer: Peer) -> None:
        await choose(peer.request)(peer)

    return run


def chunked(*parts: bytes, headers: Headers = (), trailers: Headers = ()) -> Action:
    """Answer 200 in chunks, one write for each."""
    framing = (b"Transfer-Encoding", b"chunked")
    last = b"0\r\n" + b"".join(b"%s: %s\r\n" % field for field in trailers) + b"\r\n"
    pieces = (head(200, (*headers, framing)), *map(chunk, parts), last)
    return play(*map(reply, pieces))


def until_closed(body: bytes, headers: Headers = ()) -> Action:
    """Answer 200 without a length: the end of the connection is the end of the body."""
    return play(reply(head(200, headers) + body), close())


def half_body(status: int = 200, body: bytes = b"half", promised_bytes: int = 1000) -> Action:
    """Promise more than is sent; what ends it comes next: `play(half_body(), reset())`."""
    return reply(head(status, [(b"Content-Length", b"%d" % promised_bytes)]) + body)


def interim(status: int = 103, headers: Headers = ()) -> Action:
    """Send an interim answer (RFC 9110 §15.2)."""
    return reply(head(status, headers))


def drip(raw: bytes, *, piece_bytes: int = 1, pause_s: float = 0.0) -> Action:
    """Send `raw` in small pieces, each in a segment of its own."""

    async def run(peer: Peer) -> None:
        for start in range(0, len(raw), piece_bytes):
            await peer.send(raw[start : start + piece_bytes])
            await asyncio.sleep(pause_s)

    return run


def close() -> Action:
    """Close the connection."""

    async def run(peer: Peer) -> None:
        peer.close()

    return run


def reset() -> Action:
    """Break the connection off with RST."""

    async def run(peer: Peer) -> None:
        peer.reset()

    return run


def finish() -> Action:
    """Send FIN, then read and drop what still comes until the other side closes too."""

    async def run(peer: Peer) -> None:
        peer.finish()
        await stall()(peer)

    return run


def stall() -> Action:
    """Send nothing more, read and drop what comes, until the other side leaves."""

    async def run(peer: Peer) -> None:
        while await peer.read_some():
            pass
        peer.close(Ended.CLOSED_BY_PEER)

    return run


def hold(until: asyncio.Event) -> Action:
    """Neither read nor write until the event is set; in `on_head` that is back-pressure."""

    async def run(peer: Peer) -> None:
        await until.wait()

    return run


def echo() -> Action:
    """Send back whatever comes, until the other side has finished (after a 101)."""

    async def run(peer: Peer) -> None:
        piece = peer.take_unread() or await peer.read_some()
        while piece:
            await peer.send(piece)
            piece = await peer.read_some()
        peer.close(Ended.CLOSED_BY_PEER)

    return run


def head(status: int, headers: Headers = ()) -> bytes:
    """Write the head of an answer."""
    lines = [b"HTTP/1.1 %d Scripted" % status, *(b"%s: %s" % field for field in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def chunk(part: bytes) -> bytes:
    """Frame one chunk (RFC 9112 §7.1)."""
    return b"%x\r\n%s\r\n" % (len(part), part)
