"""The PROXY protocol: what is read of it, what is refused, and that no byte is taken too many."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.proxy_protocol import MAX_SIZE_BYTES, ProxyProtocolError, Told, read_told

START = b"\r\n\r\n\0\r\nQUIT\n"
LONGEST_V1 = b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535".ljust(105, b" ") + b"\r\n"


def v2(
    command: int = 0x21, family: int = 0x11, body: bytes = b"", length: int | None = None
) -> bytes:
    size = len(body) if length is None else length
    return START + struct.pack("!BBH", command, family, size) + body


FROM_4 = IPv4Address("203.0.113.7").packed + IPv4Address("10.0.0.1").packed + b"\xc7\x38\x01\xbb"
FROM_6 = IPv6Address("2001:db8::7").packed + IPv6Address("::1").packed + b"\xc7\x38\x01\xbb"
TLV = b"\x04\0\x05hello"

GOOD = {
    "version 1, IPv4": (b"PROXY TCP4 203.0.113.7 10.0.0.1 51000 443\r\n", "203.0.113.7", 443),
    "version 1, IPv6": (b"PROXY TCP6 2001:DB8::7 ::1 51000 443\r\n", "2001:db8::7", 443),
    "version 1, port 0": (b"PROXY TCP4 203.0.113.7 10.0.0.1 0 65535\r\n", "203.0.113.7", 65535),
    "version 1, unknown": (b"PROXY UNKNOWN\r\n", "", 0),
    "version 1, unknown and more": (b"PROXY UNKNOWN ffff::1 ::1 1 2\r\n", "", 0),
    "version 1, the longest": (LONGEST_V1, "", 0),
    "version 2, IPv4": (v2(body=FROM_4), "203.0.113.7", 443),
    "version 2, IPv6": (v2(family=0x21, body=FROM_6), "2001:db8::7", 443),
    "version 2, with more behind": (v2(body=FROM_4 + TLV), "203.0.113.7", 443),
    "version 2, the longest": (
        v2(body=FROM_4.ljust(MAX_SIZE_BYTES - 16, b"\0")),
        "203.0.113.7",
        443,
    ),
    "version 2, local": (v2(0x20, 0), "", 0),
    "version 2, local with addresses": (v2(0x20, body=FROM_4), "", 0),
    "version 2, unspecified": (v2(family=0, body=TLV), "", 0),
    "version 2, datagrams": (v2(family=0x12, body=FROM_4), "", 0),
    "version 2, a Unix socket": (v2(family=0x31, body=b"/".ljust(216, b"\0")), "", 0),
}
BAD = {
    "HTTP": b"GET / HTTP/1.1\r\n",
    "TLS": b"\x16\x03\x01\x02\0",
    "small letters": b"proxy TCP4 203.0.113.7 10.0.0.1 1 2\r\n",
    "two spaces": b"PROXY TCP4  203.0.113.7 10.0.0.1 1 2\r\n",
    "a space at the end": b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2 \r\n",
    "no ports": b"PROXY TCP4 203.0.113.7 10.0.0.1\r\n",
    "a port with a zero in front": b"PROXY TCP4 203.0.113.7 10.0.0.1 01 2\r\n",
    "a port that is too large": b"PROXY TCP4 203.0.113.7 10.0.0.1 65536 2\r\n",
    "IPv6 as IPv4": b"PROXY TCP4 ::1 ::1 1 2\r\n",
    "IPv4 as IPv6": b"PROXY TCP6 10.0.0.1 10.0.0.1 1 2\r\n",
    "no address": b"PROXY TCP4 999.0.113.7 10.0.0.1 1 2\r\n",
    "a wrong second address": b"PROXY TCP4 203.0.113.7 10.0.0.256 1 2\r\n",
    "a bare line feed": b"PROXY UNKNOWN\nGET / HTTP/1.1\r\n",
    "another family": b"PROXY UDP4 203.0.113.7 10.0.0.1 1 2\r\n",
    "unknown with no space": b"PROXY UNKNOWNS\r\n",
    "a line that is too long": b"PROXY UNKNOWN ".ljust(106, b"x") + b"\r\n",
    "a line without an end": b"PROXY UNKNOWN ".ljust(107, b"x"),
    "version 3": v2(0x31, body=FROM_4),
    "command 2": v2(0x22, body=FROM_4),
    "a family that is not known": v2(family=0x41, body=FROM_4),
    "a transport that is not known": v2(family=0x13, body=FROM_4),
    "addresses that do not fit": v2(body=FROM_4, length=11),
    "IPv6 in the room of IPv4": v2(family=0x21, body=FROM_4),
    "more than is ever sent": v2(body=FROM_4, length=MAX_SIZE_BYTES - 15),
    "64 KiB, local": v2(0x20, 0, length=0xFFFF),
}


@pytest.mark.parametrize(("raw", "address", "port"), GOOD.values(), ids=GOOD.keys())
@pytest.mark.parametrize("rest", [b"", b"GET / HTTP/1.1\r\n", b"\r\n\r\n\0"], ids=repr)
def test_it_tells_the_client_and_where_it_ends(
    raw: bytes, address: str, port: int, rest: bytes
) -> None:
    assert Told(address, len(raw), port) == read_told(raw + rest)


@pytest.mark.parametrize("raw", [raw for raw, *_ in GOOD.values()], ids=GOOD.keys())
def test_each_part_of_it_only_asks_for_more(raw: bytes) -> None:
    assert [None] * len(raw) == [read_told(raw[:end]) for end in range(len(raw))]


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD.keys())
def test_what_is_not_exactly_it_is_refused(raw: bytes) -> None:
    with pytest.raises(ProxyProtocolError):
        read_told(raw)


nearly = st.one_of(
    st.binary(max_size=80),
    st.builds(lambda rest: START + rest, st.binary(max_size=60)),
    st.builds(
        v2,
        st.sampled_from([0x20, 0x21, 0x22]),
        st.sampled_from([0, 0x11, 0x12, 0x21, 0x31, 0x41]),
        st.binary(max_size=600),
    ),
    st.builds(lambda rest: b"PROXY " + rest, st.binary(max_size=120)),
    st.builds(
        lambda family, source, target, ports: (
            f"PROXY {family} {source} {target} {ports[0]} {ports[1]}\r\n".encode()
        ),
        st.sampled_from(["TCP4", "TCP6", "UNKNOWN"]),
        st.ip_addresses(),
        st.ip_addresses(),
        st.tuples(st.integers(0, 70_000), st.integers(0, 70_000)),
    ),
)


@given(nearly, st.binary(max_size=40))
def test_any_bytes_are_one_thing_only_however_they_are_split(raw: bytes, rest: bytes) -> None:
    """More bytes never change what was said, and nobody is asked for more than the limit."""

    def outcome(start: bytes) -> Told | str | None:
        try:
            return read_told(start)
        except ProxyProtocolError:
            return "refused"

    whole = raw + rest
    outcomes = [outcome(whole[:end]) for end in range(len(whole) + 1)]
    first = next((one for one in outcomes if one is not None), None)
    decided_at = outcomes.index(first) if first is not None else len(outcomes)

    assert {first} == set(outcomes[decided_at:]) or first is None
    assert decided_at <= MAX_SIZE_BYTES or first is None
    if isinstance(first, Told):
        assert decided_at == first.size_bytes <= MAX_SIZE_BYTES
        assert not first.address or str(ip_address(first.address)) == first.address
    if first is None:
        assert len(whole) < MAX_SIZE_BYTES


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.integers(0, 65_535))
def test_both_versions_tell_the_same(source: IPv4Address, target: IPv4Address, port: int) -> None:
    line = f"PROXY TCP4 {source} {target} {port} 443\r\n".encode()
    binary = v2(body=source.packed + target.packed + struct.pack("!HH", port, 443))

    first, second = read_told(line), read_told(binary)

    assert first is not None
    assert second is not None
    assert str(source) == first.address == second.address
