"""Certificates and keys as files: what is wrong with each that cannot be used, in words."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from gateway.pem import PemError, load_pair, trust_authorities
from tests.fakes.tls import Authority, Pair


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.pair("localhost")


def problem_of(pair: Pair) -> tuple[Path, str]:
    """Load a pair that cannot be used; tell which file is to blame, and why."""
    with pytest.raises(PemError) as refused:
        load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), pair.cert, pair.key)
    return refused.value.file, str(refused.value).removeprefix(f"{refused.value.file} ")


def test_a_pair_may_stand_in_one_file(pair: Pair) -> None:
    pair.cert.write_bytes(pair.key.read_bytes() + pair.cert.read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    load_pair(context, pair.cert, pair.cert)


def test_a_certificate_without_its_key_is_refused(authority: Authority, pair: Pair) -> None:
    other = authority.pair("other.example", file="other")

    assert (other.key, f"does not belong to {pair.cert}") == problem_of(Pair(pair.cert, other.key))


def test_a_key_with_a_password_is_refused_and_nobody_is_asked(pair: Pair) -> None:
    key = load_pem_private_key(pair.key.read_bytes(), password=None)
    secret = BestAvailableEncryption(b"secret")
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))

    assert (pair.key, "has a password; nobody is there to type it") == problem_of(pair)


@pytest.mark.parametrize("text", ["", "junk", "-----BEGIN PRIVATE KEY-----\nMII=\n"])
def test_what_is_no_key_is_refused(pair: Pair, text: str) -> None:
    pair.key.write_text(text, encoding="ascii")

    assert (pair.key, "cannot be used: no private key") == problem_of(pair)


@pytest.mark.parametrize("text", ["", "junk", "-----BEGIN CERTIFICATE-----\nMII=\n"])
def test_what_is_no_certificate_is_refused(pair: Pair, text: str) -> None:
    pair.cert.write_text(text, encoding="ascii")

    assert (pair.cert, "holds no certificates in PEM") == problem_of(pair)


def test_files_that_are_not_there_are_named(pair: Pair) -> None:
    pair.key.unlink()
    gone = (pair.key, "cannot be read: no such file or directory")

    assert gone == problem_of(pair)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(PemError, match="cannot be read: is a directory"):
        trust_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), tmp_path)
