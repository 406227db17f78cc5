"""The gateway as an app of other ASGI servers than uvicorn, as docs/operations.md says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fakes.client import Answer, RawClient
from tests.fakes.gateway import ask, routes_to
from tests.fakes.gateway_run import clean_environment
from tests.fakes.scenes import chunked, head, play, reply, respond
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
UVICORN = (
    "uvicorn --factory gateway.app:create_app --no-proxy-headers --no-date-header "
    "--no-server-header --http h11 --port"
)
GRANIAN = "granian --interface asgi --factory gateway.app:create_app --port"
HYPERCORN = "hypercorn --config hypercorn.toml gateway.app:create_app() --bind"
SERVERS = pytest.mark.parametrize(
    "server", [UVICORN, GRANIAN, HYPERCORN], ids=lambda one: one.split()[0]
)


def hypercorn_config() -> str:
    """Take the file for hypercorn out of the docs."""
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    return page.partition("```toml\n")[2].partition("```")[0]


def port_of_nobody() -> int:
    """Choose a port that no other test can be given by the system meanwhile."""
    while True:
        port = random.randrange(20_000, 30_000)  # below those that are given out
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _start(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    environment = clean_environment(
        GATEWAY_CONFIG="routes.yaml", GATEWAY_REGISTRY="static", GATEWAY_STATE_DIR="off"
    )
    with (folder / "said").open("wb") as said:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,  # granian and hypercorn serve in processes of their own
        )


def _group(number: int) -> list[int]:
    """List the processes of a group that have not ended."""
    found: list[int] = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            state, _parent, group = file.read_text("utf-8").rpartition(") ")[2].split()[:3]
            if int(group) == number and state not in {"Z", "X"}:
                found.append(int(file.parent.name))
    return found


async def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.to_thread(process.wait)
    await wait_until(lambda: not _group(process.pid), every_s=0.02)


@asynccontextmanager
async def running(
    server: str, routes: str, folder: Path
) -> AsyncIterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run the gateway under a server; give its port and its process."""
    port = port_of_nobody()
    (folder / "routes.yaml").write_text(routes, encoding="utf-8")
    (folder / "hypercorn.toml").write_text(hypercorn_config(), encoding="utf-8")
    program, *arguments = server.split()
    where = f"127.0.0.1:{port}" if program == "hypercorn" else str(port)
    command = [str(Path(sys.executable).with_name(program)), *arguments, where]
    process = _start(command, folder)
    try:
        await wait_until(lambda: process.poll() is not None or _listens(port), every_s=0.05)
        yield port, process
    finally:
        await _end_group(process)


def _listens(port: int) -> bool:
    wanted = f":{port:04X} "
    return any(wanted in line and " 0A " in line for line in _sockets())


def _sockets() -> list[str]:
    return Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()


async def asked(port: int, request: bytes, method: bytes = b"GET") -> Answer:
    async with RawClient(port) as client:
        await client.send(request)
        return await client.read_response(method)


@SERVERS
async def test_requests_and_responses_cross_as_under_our_own_server(
    server: str, tmp_path: Path
) -> None:
    fields = [(b"Date", b"Mon, 01 Jan 2024 00:00:00 GMT"), (b"Server", b"mine/1")]
    cookies = [(b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2")]
    async with (
        ScriptedUpstream() as web,
        running(server, routes_to(web), tmp_path) as (port, _),
    ):
        web.on_request(respond(headers=[*fields, *cookies]))
        whole = await asked(port, ask("/a%2Fb%20c%C3%BC;v=1?q=%2F&e="))
        web.on_request(chunked(b"hello ", b"world"))
        in_chunks = await asked(port, ask())
        web.on_request(play(reply(head(304, [(b"ETag", b'"a"')]))))
        unchanged = await asked(port, ask())
        web.on_request(respond(body=b"12345"))
        of_head = await asked(port, ask("/", "HEAD"), b"HEAD")
        sent = await asked(port, ask("/", "POST", body=b"x" * 200_000))

    assert web.requests[0].target == b"/a%2Fb%20c%C3%BC;v=1?q=%2F&e="
    assert [one.status for one in (whole, in_chunks, unchanged, of_head, sent)] == [
        *(200, 200, 304, 200, 200)
    ]
    for name, value in fields:
        assert whole.values(name) == [value]
    assert whole.values(b"set-cookie") == [b"a=1", b"b=2"]
    assert (in_chunks.body, of_head.body) == (b"hello world", b"")
    assert bytes(web.requests[-1].body) == b"x" * 200_000
    assert len(unchanged.values(b"date")) == 1
    assert web.requests[0].values(b"x-forwarded-port") == [str(port).encode()]
    assert web.requests[0].values(b"x-forwarded-for") == [b"127.0.0.1"]


@SERVERS
async def test_it_ends_at_sigterm(server: str, tmp_path: Path) -> None:
    async with (
        ScriptedUpstream() as web,
        running(server, routes_to(web), tmp_path) as (port, process),
    ):
        assert (await asked(port, ask())).status == 200
        process.send_signal(signal.SIGTERM)

        assert await asyncio.to_thread(process.wait) in {0, -signal.SIGTERM}
        await wait_until(lambda: not _group(process.pid), every_s=0.02)  # nor does a worker stay
