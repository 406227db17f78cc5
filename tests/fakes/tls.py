"""Both ends of TLS for tests: certificates in files, a client, and an instance.

The rule: TLS here is Python's own `ssl`, with nothing of the gateway in it, and how a connection
ends (with close_notify, or cut) is always the test's choice.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trustme

from tests.fakes.client import READ_BYTES, RawClient

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its key, in files."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates; `ca_file` has its own. What it makes lies in `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.issuer = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.issuer.cert_pem.write_to_path(self.ca_file)

    def pair(
        self,
        *names: str,
        file: str = "own",
        common_name: str | None = None,
        organization: str | None = None,
    ) -> Pair:
        """Sign a certificate for these names, over the files of this name if they are there."""
        made = self.issuer.issue_cert(
            *names, common_name=common_name, organization_name=organization
        )
        pair = Pair(self.folder / f"{file}.pem", self.folder / f"{file}.key")
        pair.cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        made.private_key_pem.write_to_path(pair.key)
        return pair

    def client_context(self, own: Pair | None = None) -> ssl.SSLContext:
        """Make the context of a client that trusts this authority and shows `own`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_alpn_protocols(["h2", "http/1.1"])
        self.issuer.configure_trust(context)
        if own is not None:
            context.load_cert_chain(own.cert, own.key)
        return context

    def instance_context(self, *names: str, wants_clients: bool = False) -> ssl.SSLContext:
        """Make the context of an instance of these names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["h2", "http/1.1"])
        self.issuer.issue_cert(*names).configure_cert(context)
        if wants_clients:
            self.issuer.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class SecuredClient(RawClient):
    """A RawClient that speaks TLS after `secure`; `session` says what came of the handshake."""

    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter

    async def secure(self, context: ssl.SSLContext, server_name: str = "localhost") -> Self:
        """Shake hands; raises ssl.SSLError or OSError when nothing comes of it."""
        async with asyncio.timeout(self._timeout_s):
            self._reader, self._writer = await asyncio.open_connection(
                sock=self._sock, ssl=context, server_hostname=server_name
            )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._reader is not None:
            self._writer.transport.abort()
        await super().__aexit__(kind, error, trace)

    @property
    def session(self) -> ssl.SSLObject:
        """The session, for its version, its protocol and the certificate of the other side."""
        found: ssl.SSLObject = self._writer.get_extra_info("ssl_object")
        return found

    @property
    def names(self) -> list[str]:
        """For which names the other side's certificate is."""
        alternatives: Any = (self.session.getpeercert() or {}).get("subjectAltName", ())
        return [str(name) for _, name in alternatives]

    async def send(self, raw: bytes) -> None:
        if self._reader is None:
            await super().send(raw)
            return
        async with asyncio.timeout(self._timeout_s):
            self._writer.write(raw)
            await self._writer.drain()

    def end(self) -> None:
        """End the session as it should be ended, with close_notify behind what was sent."""
        self._writer.close()

    async def read_some(self) -> bytes:
        if self._reader is None or self._unread:
            return await super().read_some()
        async with asyncio.timeout(self._timeout_s):
            return await self._reader.read(READ_BYTES)


@dataclass(frozen=True, slots=True)
class Heard:
    """One request as the instance got it, and what TLS said of who sent it."""

    head: bytes
    certificate: Any
    server_name: str | None
    connection: int


class TlsInstance:
    """An instance that answers each request with `answer`; `cuts` ends without close_notify.

    It ends a connection after its answer where it is told how, by `closes` or `cuts`.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        answer: bytes = OK,
        closes: bool = False,
        cuts: bool = False,
    ) -> None:
        self.heard: list[Heard] = []
        self.connection_count = 0
        self.port = 0
        self._context = context
        self._answer = answer
        self._closes = closes
        self._cuts = cuts
        self._names: list[str | None] = []
        self._server: asyncio.Server
        context.sni_callback = self._note_name

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._converse, "127.0.0.1", 0, ssl=self._context, ssl_shutdown_timeout=0.2
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return f"https://127.0.0.1:{self.port}"

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection_count += 1
        number = self.connection_count
        name = self._names[-1]
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                certificate = writer.get_extra_info("peercert")
                self.heard.append(Heard(head, certificate, name, number))
                writer.write(self._answer)
                await writer.drain()
                if self._cuts or self._closes:
                    break
        except (asyncio.IncompleteReadError, OSError):
            pass  # the other side has left
        finally:
            end: Callable[[], None] = writer.transport.abort if self._cuts else writer.close
            end()

    def _note_name(
        self, _session: ssl.SSLSocket | ssl.SSLObject, name: str | None, _context: ssl.SSLContext
    ) -> None:
        self._names.append(name)
