"""TLS with clients: which certificate each of them sees, and what to do when the files change.

A listener has one context for as long as it lives, and that one only asks: at the beginning of each
handshake the newest contexts are looked through for the name that the client asks for. So a change
reaches every new connection and none that stands. The one rule: what cannot be used never takes the
place of what can.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import structlog

from gateway.edge.certificate import matches, names_in
from gateway.pem import POLL_S, Mark, PemError, load_pair, mark_of, read_pem, trust_authorities

_log = structlog.get_logger()

ClientAuth = Literal["off", "optional", "required"]
_VERIFY_MODES: Final = {
    "off": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}
_Marks = tuple[Mark | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """What clients see and show: pairs of a certificate and its key, the first is the default.

    `client_ca` has those who sign the certificates of clients; it is needed unless `client_auth`
    is off.
    """

    pairs: tuple[tuple[Path, Path], ...]
    client_ca: Path | None = None
    client_auth: ClientAuth = "off"


@dataclass(frozen=True, slots=True)
class _Certificate:
    """A context with one certificate, and the names that it is for."""

    names: tuple[str, ...]
    context: ssl.SSLContext


class Certificates:
    """The certificates for clients; `context` is for listeners, the same for as long as they live.

    Making it reads the files, and so may block. Raises PemError.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._marks = self._look()
        self._certificates = self._load()
        self.context = _context(files)
        self.context.sni_callback = self._use

    def __repr__(self) -> str:
        return f"<Certificates for {[one.names for one in self._certificates]}>"

    async def follow(self, poll_s: float = POLL_S) -> None:
        """Load the files again whenever they have changed, until cancelled."""
        while True:
            await asyncio.sleep(poll_s)
            try:
                self.refresh()
            except Exception:  # noqa: BLE001 -- it would end the gateway; those that are there serve
                _log.exception("task_failed", task="certificates")

    def refresh(self) -> None:
        """Load the files if they have changed; a change that cannot be used is told once."""
        marks = self._look()
        if marks == self._marks:
            return
        self._marks = marks
        try:
            self._certificates = self._load()
        except PemError as error:
            _log.error("certificate_refused", reason=str(error))
        else:
            names = [name for one in self._certificates for name in one.names]
            _log.info("certificate_loaded", names=names)

    def choose(self, server_name: str | None) -> ssl.SSLContext:
        """Find the context for a name: one that has just this, else one with `*`, else the first.

        None is for clients that ask for none (RFC 6066 §3).
        """
        asked = (server_name or "").lower().removesuffix(".")
        for is_exact in (True, False):
            for one in self._certificates:
                if any(matches(asked, name) and (name == asked) is is_exact for name in one.names):
                    return one.context
        return self._certificates[0].context

    def _use(
        self, session: ssl.SSLSocket | ssl.SSLObject, name: str | None, _context: ssl.SSLContext
    ) -> None:
        session.context = self.choose(name)

    def _load(self) -> tuple[_Certificate, ...]:
        return tuple(self._certificate(cert, key) for cert, key in self._files.pairs)

    def _certificate(self, cert: Path, key: Path) -> _Certificate:
        context = _context(self._files)
        load_pair(context, cert, key)
        try:
            names = names_in(read_pem(cert).decode("latin-1"))
        except ValueError as error:  # somebody is writing it just now, or it is of an odd kind
            raise PemError(cert, f"is no certificate that can be read: {error}") from error
        return _Certificate(names, context)

    def _look(self) -> _Marks:
        """Look at all files without reading them."""
        pairs = [file for pair in self._files.pairs for file in pair]
        return tuple(mark_of(file) for file in (*pairs, self._files.client_ca) if file is not None)


@contextlib.contextmanager
def without_odd_names() -> Iterator[None]:
    """Keep quiet about names that are not ASCII, for as long as this lasts.

    `ssl` refuses the handshake of a client that asks for one before anybody here is asked, which is
    right; but it also prints a traceback, with which anybody could fill the log.
    """
    before = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs, /) -> None:
        is_name = isinstance(unraisable.object, bytes)
        if not (is_name and isinstance(unraisable.exc_value, UnicodeDecodeError)):
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _context(files: TlsFiles) -> ssl.SSLContext:
    """Make a context without a certificate: TLS 1.2 at least, HTTP/1.1.

    A session keeps the rules of the context that it began with and checks by the store of the one
    that was chosen for it, so all of them are made alike.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # costs us more than those who ask for it
    context.set_alpn_protocols(["http/1.1"])
    context.verify_mode = _VERIFY_MODES[files.client_auth]
    if files.client_ca is not None:
        trust_authorities(context, files.client_ca)
    return context
