"""The fields by which instances learn who asked for what, and by which way.

They are ours: what an untrusted peer sent under these names, or under names that some frameworks
take for the same (`X_Forwarded_For`), is dropped, and so is all else that begins with X-Forwarded.
What a trusted peer tells of those behind it is kept, and what is seen here is appended to it, never
put in its place.

For a peer behind which there is nobody nearly all of it is known before its request comes; that is
the common case, and costs one formatting.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Final

from gateway.core.peer import Peer

IDENTITY: Final = (
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-prefix",
    b"x-forwarded-client-cert",
    b"x-real-ip",
    b"x-request-id",
    b"forwarded",
)
# What a peer's lines, Host, the id and the prefix line are put into, where nothing is believed.
USUAL_LINES: Final = b"%b\r\nX-Forwarded-Host: %b\r\nX-Request-Id: %b%b"
# The same of a client of HTTP/1.0 that left Host out.
_SITE_BYTES: Final = 8  # a /64
_HOSTLESS_LINES: Final = b"%b\r\nX-Request-Id: %b%b"
_PREFIX_LINE: Final = b"\r\nX-Forwarded-Prefix: %b"


def prefix_line(prefix: bytes) -> bytes:
    """Write what a route cuts off in front of paths; an empty line for nothing."""
    return _PREFIX_LINE % prefix if prefix else b""


def identity_lines(
    peer: Peer,
    host: bytes,
    request_id: bytes,
    received: dict[bytes, bytes] | None,
    prefix: bytes,
) -> bytes:
    """Write the fields that tell an instance who asked for what, by which way.

    `received` are the fields of these names as the peer sent them, by name in lower case, None for
    none; they count only if the peer is trusted. `prefix` is the route's `prefix_line`.
    """
    if peer.is_trusted and received:
        return _trusted_lines(peer, host, request_id, received, prefix)
    if host:
        lines = USUAL_LINES % (peer.lines, host, request_id, prefix)
    else:
        lines = _HOSTLESS_LINES % (peer.lines, request_id, prefix)
    return lines + _forwarded_line(peer, host, b"") if peer.forwarded else lines


def _trusted_lines(
    peer: Peer, host: bytes, request_id: bytes, received: dict[bytes, bytes], prefix: bytes
) -> bytes:
    get = received.get
    chain = get(b"x-forwarded-for", b"")
    lines = b"\r\nX-Forwarded-Proto: %b" % (get(b"x-forwarded-proto") or peer.scheme)
    if told_host := get(b"x-forwarded-host") or host:
        lines += b"\r\nX-Forwarded-Host: %b" % told_host
    lines += b"\r\nX-Request-Id: %b" % request_id
    if addresses := _listed(chain, peer.address):
        client = peer.client_behind(chain) if chain else peer.address
        lines += b"\r\nX-Forwarded-For: %b\r\nX-Real-Ip: %b" % (addresses, client)
    if port := _port_told(peer, received):
        lines += b"\r\nX-Forwarded-Port: %b" % port
    if told := _prefix_told(get(b"x-forwarded-prefix", b""), prefix):
        lines += _PREFIX_LINE % told
    # Like addresses, certificates are listed in the order of the hops that saw them.
    if certificates := _listed(get(b"x-forwarded-client-cert", b""), peer.certificate):
        lines += b"\r\nX-Forwarded-Client-Cert: %b" % certificates
    return lines + _forwarded_line(peer, host, get(b"forwarded", b""))


def client_of(peer: Peer, received: dict[bytes, bytes] | None) -> bytes:
    """Return whose request it is, as well as addresses tell: the peer, or the client behind it.

    An IPv6 address stands for its /64, which one client usually has to itself (RFC 6177). Empty if
    there is no address.
    """
    chain = received.get(b"x-forwarded-for", b"") if received and peer.is_trusted else b""
    client = peer.client_behind(chain) if chain else peer.address
    if b":" not in client:
        return client
    try:
        return IPv6Address(client.decode("latin-1").partition("%")[0]).packed[:_SITE_BYTES]
    except ValueError:  # whatever stands there in place of an address
        return client


def _listed(earlier: bytes, own: bytes) -> bytes:
    return b"%b, %b" % (earlier, own) if earlier and own else earlier or own


def _port_told(peer: Peer, received: dict[bytes, bytes]) -> bytes:
    """Tell the port that the client asked for, nothing where only the peer could know it.

    Whoever says that the client came by https, but not to which port, does not mean ours.
    """
    told = received.get(b"x-forwarded-port", b"")
    if told or received.get(b"x-forwarded-proto") or not peer.listener.port:
        return told
    return b"%d" % peer.listener.port


def _prefix_told(outer: bytes, prefix: bytes) -> bytes:
    """Join what was cut off before with what is cut off here.

    An instance writes it in front of its links, so that what is no path (`//evil.example`) would
    lead elsewhere.
    """
    own = prefix.partition(b": ")[2]
    is_path = outer.startswith(b"/") and not outer.startswith((b"//", b"/\\"))
    return outer.rstrip(b"/") + own if is_path else own


def _forwarded_line(peer: Peer, host: bytes, earlier: bytes) -> bytes:
    """Write Forwarded (RFC 7239) with our element last; a host is no token, so it is quoted."""
    own = peer.forwarded
    if own and host:
        own = b'%b;host="%b"' % (own, host)
    listed = _listed(earlier, own)
    return b"\r\nForwarded: %b" % listed if listed else b""
