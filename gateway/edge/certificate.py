"""What is read of certificates: the names that ours are for, and whom a client's is of.

It knows no files and no sockets. What comes in was read or verified by OpenSSL before; the one rule
is that whatever a name holds, the field that tells it stays one field.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

# RFC 4514 §3; other attributes go by the name that OpenSSL has for them.
_SHORT_NAMES: Final = MappingProxyType(
    {
        "commonName": "CN",
        "localityName": "L",
        "stateOrProvinceName": "ST",
        "organizationName": "O",
        "organizationalUnitName": "OU",
        "countryName": "C",
        "streetAddress": "STREET",
        "domainComponent": "DC",
        "userId": "UID",
    }
)
_ESCAPED: Final = frozenset('"+,;<>\\')
_PEM_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_PEM_END: Final = "-----END CERTIFICATE-----"
_SUBJECT_ALT_NAME: Final = bytes.fromhex("551d11")  # 2.5.29.17 (RFC 5280 §4.2.1.6)
_DNS_NAME, _EXTENSIONS = 0x82, 0xA3  # their tags, both implicit ones of a context


def names_in(pem: str) -> tuple[str, ...]:
    """List the host names that the first certificate is for, in lower case (RFC 5280 §4.1).

    Raises ValueError where there is no certificate, or only a part of one.
    """
    begin = pem.index(_PEM_BEGIN)
    end = pem.index(_PEM_END, begin)
    der = ssl.PEM_cert_to_DER_cert(pem[begin:end] + _PEM_END)
    to_be_signed = _elements(_first(_first(der)))
    for extensions in (content for tag, content in to_be_signed if tag == _EXTENSIONS):
        for _, extension in _elements(_first(extensions)):
            (_, kind), *_, (_, value) = _elements(extension)
            if kind == _SUBJECT_ALT_NAME:
                names = _elements(_first(value))
                return tuple(one.decode("ascii").lower() for tag, one in names if tag == _DNS_NAME)
    return ()


def matches(name: str, pattern: str) -> bool:
    """Tell whether a certificate's name is for this host; `*` is one label (RFC 9525 §6.3)."""
    if pattern.startswith("*."):
        return name.partition(".")[2] == pattern[2:] != ""
    return name == pattern


def told_of(certificate: Mapping[str, Any] | None) -> bytes:
    """Write the element of X-Forwarded-Client-Cert for a certificate as `getpeercert` gives it.

    Empty where there is none. The subject is quoted as in RFC 9110 §5.6.4.
    """
    if not certificate:
        return b""
    quoted = _subject(certificate).replace("\\", "\\\\").replace('"', '\\"')
    return f'Subject="{quoted}"'.encode("ascii")


def _subject(certificate: Mapping[str, Any]) -> str:
    """Write the subject: the most particular part first (RFC 4514 §2.1)."""
    parts = (
        "+".join(f"{_SHORT_NAMES.get(name, name)}={_escaped(value)}" for name, value in part)
        for part in reversed(certificate.get("subject", ()))
    )
    return ",".join(parts)


def _escaped(value: str) -> str:
    """Escape a value (RFC 4514 §2.4); what is not plain ASCII as the bytes of its UTF-8."""
    last = len(value) - 1
    return "".join(
        _escaped_character(character, is_at_edge=index in {0, last}, is_first=index == 0)
        for index, character in enumerate(value)
    )


def _escaped_character(character: str, *, is_at_edge: bool, is_first: bool) -> str:
    if not character.isascii() or not character.isprintable():
        return "".join(f"\\{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
    is_special = character in _ESCAPED or (character == " " and is_at_edge)
    return f"\\{character}" if is_special or (character == "#" and is_first) else character


def _first(der: bytes) -> bytes:
    """Give the content of the first element."""
    for _, content in _elements(der):
        return content
    raise ValueError("an element is empty that should not be")


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Split DER into its elements: tag and content (X.690 §8.1). Raises ValueError."""
    while der:
        tag, size_bytes, start = der[0], int.from_bytes(der[1:2], "big"), 2
        if size_bytes & 0x80:
            start = 2 + (size_bytes & 0x7F)
            size_bytes = int.from_bytes(der[2:start], "big")
        if start + size_bytes > len(der):
            raise ValueError("an element is cut short")
        yield tag, der[start : start + size_bytes]
        der = der[start + size_bytes :]
