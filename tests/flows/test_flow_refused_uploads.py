"""Instances that refuse by closing: what the client gets, and that no other client notices."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import Serve, ask, routes_file
from tests.fakes.instance import Instance
from tests.fakes.tls import Authority

BODY = bytes(1_000_000)
HEAD = ask("/", "POST", ("Content-Length", str(len(BODY))))


@pytest.mark.parametrize("is_secured", [False, True], ids=["plain", "TLS"])
async def test_each_client_gets_the_response_that_refuses_its_upload(
    serve: Serve, tmp_path: Path, *, is_secured: bool
) -> None:
    """The instance's answer is read before the write is reported that fails after it."""
    authority = Authority(tmp_path / "certificates")
    pair = authority.pair("127.0.0.1")
    both = tmp_path / "both.pem"
    both.write_bytes(pair.key.read_bytes() + pair.cert.read_bytes())
    async with Instance(
        "refuser", both if is_secured else "plain", program="tests.fakes.refuser"
    ) as web:
        url = f"{'https' if is_secured else 'http'}://127.0.0.1:{web.port}"
        service = {"servers": [url], "tls": {"ca_file": str(authority.ca_file)}}
        routes = routes_file({"web": service}, {"match": {"path_prefix": "/"}, "service": "web"})
        async with serve(routes) as gateway:
            seen = [await upload(gateway.port) for _ in range(40)]

    assert seen == [(413, b"too large")] * 40


async def upload(port: int) -> tuple[int, bytes]:
    """Send a body of 1 MB and read the response, whether or not all of it was taken."""
    async with RawClient(port) as client:
        with contextlib.suppress(ConnectionError):
            await client.send(HEAD + BODY)
        answer = await client.read_response(b"POST")
        return answer.status, answer.body
