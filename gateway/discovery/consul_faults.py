"""What an answer of Consul says of itself, and what every other outcome means.

The one rule: whatever is not a plain 200 of Consul becomes a SourceError with its trouble named.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass

import httpx

from gateway.core.watch import Trouble
from gateway.discovery.source import SourceError
from gateway.pem import why_refused

_NO_LEADER = ("rpc error", "No cluster leader", "No known Consul servers")
RIGHTS = 'the token needs service_prefix "" read and node_prefix "" read'
_DETAIL_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Meta:
    """What the headers of an answer say; `index` and `last_contact_s` are 0 where they are not."""

    index: int
    has_leader: bool
    last_contact_s: float
    is_filtered: bool


def transport_error(error: Exception) -> SourceError:
    """Name what went wrong on the way."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        trouble = Trouble.UNREACHABLE
    elif isinstance(error, httpx.TimeoutException | TimeoutError):
        trouble = Trouble.TIMEOUT
    elif isinstance(error, httpx.LocalProtocolError | ValueError):
        # Its text may hold what we wanted to send, and that has a token in it.
        return SourceError(Trouble.BAD, f"{type(error).__name__}: what is to be sent is not HTTP")
    else:
        trouble = Trouble.CUT
    detail = f"{type(error).__name__}: {_refused_certificate(error) or error}"
    return SourceError(trouble, detail[:_DETAIL_LENGTH])


def _refused_certificate(error: BaseException | None) -> str | None:
    """Say why Consul's certificate is not accepted; None where that is not what went wrong."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return why_refused(error, ca="GATEWAY_CONSUL_CACERT")
        error = error.__cause__ or error.__context__
    return None


def refuse(response: httpx.Response, body: bytes | bytearray) -> None:
    """Raise SourceError for every answer but a plain 200."""
    status = response.status_code
    if status == httpx.codes.OK:
        return
    text = " ".join(body[:_DETAIL_LENGTH].decode("utf-8", "replace").split())
    detail = f"{status} {text}".strip()
    if status in {401, 403}:
        raise SourceError(Trouble.DENIED, f"{detail} ({RIGHTS})")
    if status == httpx.codes.BAD_REQUEST:
        raise SourceError(Trouble.BAD, detail)
    if status in {429, 503}:
        raise SourceError(Trouble.LIMITED, detail, retry_after_s=_retry_after_s(response))
    if status == httpx.codes.INTERNAL_SERVER_ERROR and any(word in text for word in _NO_LEADER):
        raise SourceError(Trouble.NO_LEADER, detail)
    raise SourceError(Trouble.PROTOCOL, detail)


def not_consul(response: httpx.Response, error: Exception) -> SourceError:
    """Name a 200 that cannot be understood: something else answers there, or something between."""
    kind = response.headers.get("content-type", "")[:40]
    what = f", Content-Type {kind!r}" if kind and not kind.startswith("application/json") else ""
    why = f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error)
    detail = f"what answers is not Consul: 200{what}: {why}"
    return SourceError(Trouble.PROTOCOL, detail[:_DETAIL_LENGTH])


def _retry_after_s(response: httpx.Response) -> float | None:
    """Read Retry-After in seconds (RFC 9110 §10.2.3); its date form is not used by Consul."""
    value = response.headers.get("retry-after", "").strip()
    return float(value) if value.isascii() and value.isdigit() else None


def meta_of(headers: httpx.Headers) -> Meta:
    """Read the headers of a 200. Raises ValueError where a number is none."""
    return Meta(
        index=max(0, int(headers.get("x-consul-index", "0"))),
        has_leader=headers.get("x-consul-knownleader", "true") == "true",
        last_contact_s=int(headers.get("x-consul-lastcontact", "0")) / 1000,
        is_filtered=headers.get("x-consul-results-filtered-by-acls", "") == "true",
    )
