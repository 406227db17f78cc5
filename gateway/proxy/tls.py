"""TLS with instances: the contexts, the name that is checked, and what goes wrong, in words.

The one rule: an instance is verified unless its service says `skip_verify`, by the authorities of
the system or those of `ca_file`, and for the name that it was asked for. There is no way to fall
back to less.

The files that a service names are looked at again and again, as those of listeners are: each new
connection goes by what stands in them, and what cannot be used never takes the place of what can.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, cast
from weakref import WeakSet

import structlog

from gateway.core.config import ServiceConfig
from gateway.core.model import Instance
from gateway.core.policy import TlsPolicy
from gateway.pem import (
    POLL_S,
    Mark,
    PemError,
    load_pair,
    mark_of,
    trust_authorities,
    why_refused,
)

_log = structlog.get_logger()

_WORDS: Final = MappingProxyType(
    {
        # What comes back is no TLS record; OpenSSL has changed its mind on how to call that.
        "WRONG_VERSION_NUMBER": "it does not speak TLS",
        "PACKET_LENGTH_TOO_LONG": "it does not speak TLS",
        "RECORD_LAYER_FAILURE": "it does not speak TLS",
        "UNSUPPORTED_PROTOCOL": "it speaks no TLS that is new enough (1.2)",
        "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks no TLS that is new enough (1.2)",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a client certificate",
        "TLSV1_ALERT_UNKNOWN_CA": "it does not know who signed our certificate",
    }
)


@dataclass(eq=False, slots=True, weakref_slot=True)
class TlsClient:
    """How the connections of one instance are secured, and for which name it is verified.

    `context` is another one when its files were renewed.
    """

    context: ssl.SSLContext
    server_name: str


class _Kept:
    """A context, the files that it was made of, and the TlsClients that go by it."""

    __slots__ = ("clients", "context", "files", "marks")

    def __init__(self, policy: TlsPolicy) -> None:
        named = (policy.ca_file, policy.client_cert, policy.client_key)
        self.files = tuple(Path(file) for file in named if file is not None)
        self.marks = self.look()
        self.context = client_context(policy)
        self.clients: WeakSet[TlsClient] = WeakSet()

    def look(self) -> tuple[Mark | None, ...]:
        return tuple(map(mark_of, self.files))


class TlsClients:
    """Makes the contexts of services, for each takes tens of milliseconds, and renews them."""

    def __init__(self) -> None:
        self._contexts: dict[tuple[TlsPolicy, str], _Kept] = {}

    def prepare(self, service: ServiceConfig) -> None:
        """Make the context of a service now, if it may be needed; raises PemError.

        It takes tens of milliseconds, in which the loop would stand. Whose instances a registry
        knows may get one over TLS at any time; all without TLS settings share one context.
        """
        instances = service.instances
        may_have_tls = instances is None or any(one.scheme == "https" for one in instances)
        if may_have_tls or service.tls != TlsPolicy():
            self._context(service)

    def client(self, service: ServiceConfig, instance: Instance) -> TlsClient | None:
        """Give what connections to this instance need, None where they are plain.

        Certificates name hosts without the dot of the root (RFC 6066 §3).
        """
        if instance.scheme != "https":
            return None
        name = service.tls.server_name or instance.host
        kept = self._context(service)
        client = TlsClient(kept.context, name.removesuffix("."))
        kept.clients.add(client)
        return client

    async def follow(self, poll_s: float = POLL_S) -> None:
        """Load the files of services again whenever they have changed, until cancelled."""
        while True:
            await asyncio.sleep(poll_s)
            try:
                self.refresh()
            except Exception:  # noqa: BLE001 -- it would end the gateway; those that are there serve
                _log.exception("task_failed", task="certificates of instances")

    def refresh(self) -> None:
        """Load those files that have changed; a change that cannot be used is told once."""
        for (policy, _), kept in self._contexts.items():
            marks = kept.look()
            if marks == kept.marks:
                continue
            kept.marks = marks
            try:
                kept.context = client_context(policy)
            except PemError as error:
                _log.error("certificate_refused", reason=str(error))
                continue
            for client in kept.clients:
                client.context = kept.context
            _log.info("certificate_loaded", files=[str(file) for file in kept.files])

    def _context(self, service: ServiceConfig) -> _Kept:
        key = (service.tls, service.tls_mark)
        kept = self._contexts.get(key)
        if kept is None:
            kept = self._contexts[key] = _Kept(service.tls)
        return kept


def client_context(policy: TlsPolicy) -> ssl.SSLContext:
    """Make the context that a policy asks for: TLS 1.2 at least, HTTP/1.1. Raises PemError.

    The name of the host is sent (SNI) and checked; for an IP address it is only checked.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # a request in hand could not go on meanwhile
    context.set_alpn_protocols(["http/1.1"])
    if policy.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif policy.ca_file is not None:
        trust_authorities(context, Path(policy.ca_file))
    else:
        context.load_default_certs()
    if policy.client_cert is not None and policy.client_key is not None:
        load_pair(context, Path(policy.client_cert), Path(policy.client_key))
    return context


def is_of_tls(error: Exception) -> bool:
    """Tell whether an error of connecting over TLS came after the connection itself stood."""
    return isinstance(error, ssl.SSLError | ConnectionResetError | ConnectionAbortedError)


def reason_of(error: Exception) -> str:
    """Say in words why there is no TLS session, or why it ended."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return why_refused(error, ca="tls.ca_file", name="tls.server_name")
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        return _WORDS.get(reason) or reason.replace("_", " ").lower()
    return f"it broke off in the handshake: {error}"


def was_cut(transport: asyncio.BaseTransport) -> bool:
    """Tell whether a TLS stream ended without saying so, so that what came may not be all of it.

    Anybody in between can end a TCP connection, but not write the close_notify that ends what runs
    over it (RFC 8446 §6.1). After one, reading gives nothing; before one, there may be more.
    """
    secured = transport.get_extra_info("ssl_object")
    if secured is None:
        return False
    try:
        return cast("ssl.SSLObject", secured).read(1) != b""
    except ssl.SSLZeroReturnError:
        return False
    except ssl.SSLError:
        return True
