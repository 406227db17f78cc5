"""Certificates and keys: loaded into a TLS context, or why they are not accepted, in words.

The one rule: nobody is asked. A key that needs a password is refused, where OpenSSL would ask for
the password on the terminal and stop everything meanwhile.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

# How often files are looked at that may be renewed (seconds).
POLL_S: Final = 2.0

Mark = tuple[int, int, int]


class PemError(ValueError):
    """A PEM file that cannot be used; `file` is which, the text says why."""

    def __init__(self, file: Path, reason: str) -> None:
        self.file = file
        super().__init__(f"{file} {reason}")


# X509_V_ERR_* of OpenSSL: who signed it is not known here, or it names somebody else.
_UNKNOWN_AUTHORITY = frozenset({18, 19, 20, 21})
_OTHER_NAME = frozenset({62, 64})


def why_refused(error: ssl.SSLCertVerificationError, *, ca: str, name: str = "") -> str:
    """Say why the certificate of another side is not accepted, and which setting may be the cause.

    `ca` is the setting for the authorities, `name` that for the name, empty if there is none.
    """
    said = f"its certificate is not accepted: {error.verify_message.rstrip('.')}"
    if error.verify_code in _UNKNOWN_AUTHORITY:
        return f"{said}; name who signed it in {ca}"
    return (
        f"{said}; {name} is the name to verify"
        if name and error.verify_code in _OTHER_NAME
        else said
    )


def mark_of(file: Path) -> Mark | None:
    """Tell whether a file may have changed without reading it; None where there is none.

    A symbolic link is followed, for that is how some tools renew files.
    """
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def read_pem(file: Path) -> bytes:
    """Read a file; raises PemError."""
    try:
        return file.read_bytes()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise PemError(file, f"cannot be read: {reason}") from error


def trust_authorities(context: ssl.SSLContext, ca_file: Path) -> None:
    """Trust those whose certificates stand in this file; raises PemError."""
    read_pem(ca_file)
    try:
        context.load_verify_locations(ca_file)
    except (OSError, ValueError) as error:
        raise PemError(ca_file, "holds no certificates in PEM") from error


def load_pair(context: ssl.SSLContext, cert_file: Path, key_file: Path) -> None:
    """Use this certificate (its chain behind it) with this key; raises PemError."""
    trust_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), cert_file)  # only to see it read
    has_password = b"ENCRYPTED" in read_pem(key_file)
    try:
        context.load_cert_chain(cert_file, key_file, password="")
    except OSError as error:  # of TLS, or one of the files has gone since it was read
        reason = getattr(error, "reason", None) or ""
        if reason == "KEY_VALUES_MISMATCH":
            raise PemError(key_file, f"does not belong to {cert_file}") from error
        if has_password:
            raise PemError(key_file, "has a password; nobody is there to type it") from error
        words = reason.replace("_", " ").lower() or "no private key"
        raise PemError(key_file, f"cannot be used: {words}") from error
