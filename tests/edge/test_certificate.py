"""What is read of certificates: the names that ours are for, and whom a client's is of."""

from __future__ import annotations

import contextlib
import re
import ssl
import string
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.certificate import matches, names_in, told_of


def pem_for(*names: str, **options: Any) -> str:
    return trustme.CA().issue_cert(*names, **options).cert_chain_pems[0].bytes().decode()


def subject(*parts: tuple[str, str] | tuple[tuple[str, str], ...]) -> bytes:
    """Tell of a certificate with this subject, its most general part first."""
    listed = tuple(part if isinstance(part[0], tuple) else (part,) for part in parts)
    return told_of({"subject": listed})


# --- Names of ours -------------------------------------------------------------------------------


def test_the_host_names_of_a_certificate_are_read_and_nothing_else() -> None:
    pem = pem_for("Shop.example", "*.shop.example", "10.0.0.1", "jo@example.com", common_name="cn")

    assert ("shop.example", "*.shop.example") == names_in(pem)


@pytest.mark.parametrize("count", [1, 5, 300], ids="{} names".format)
def test_lengths_of_one_two_and_three_bytes_are_read(count: int) -> None:
    names = [f"host-{number:04}.example" for number in range(count)]

    assert tuple(names) == names_in(pem_for(*names))


def test_only_the_first_certificate_counts_and_text_around_it_does_not() -> None:
    pem = f"subject=CN=x\n{pem_for('leaf.example')}\n{pem_for('issuer.example')}"

    assert ("leaf.example",) == names_in(pem)


def test_a_certificate_without_names_is_for_none() -> None:
    own = trustme.CA().cert_pem.bytes().decode()

    assert () == names_in(own)


WHOLE = ssl.PEM_cert_to_DER_cert(pem_for("leaf.example", "*.leaf.example"))


@given(st.integers(0, len(WHOLE)), st.binary(max_size=6), st.booleans())
def test_what_is_no_certificate_is_a_value_error_and_nothing_else(
    at: int,
    piece: bytes,
    is_cut: bool,  # noqa: FBT001 -- drawn
) -> None:
    """Somebody may be writing the file while it is read."""
    broken = WHOLE[:at] + piece + (b"" if is_cut else WHOLE[at + len(piece) :])

    with contextlib.suppress(ValueError):
        assert isinstance(names_in(ssl.DER_cert_to_PEM_cert(broken)), tuple)


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\nMIIB", "junk"])
def test_a_file_without_a_whole_certificate_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="substring not found"):
        names_in(text)


@pytest.mark.parametrize(
    ("name", "pattern", "does"),
    [
        ("shop.example", "shop.example", True),
        ("a.shop.example", "*.shop.example", True),
        ("shop.example", "*.shop.example", False),
        ("a.b.shop.example", "*.shop.example", False),
        ("other.example", "shop.example", False),
        ("", "*.shop.example", False),
        ("a.", "*.", False),
    ],
)
def test_a_star_stands_for_one_label(name: str, pattern: str, does: bool) -> None:  # noqa: FBT001
    assert matches(name, pattern) is does


# --- Subjects of clients -------------------------------------------------------------------------


def test_nothing_is_told_where_there_is_no_certificate() -> None:
    assert b"" == told_of(None)
    assert b"" == told_of({})


def test_the_most_particular_part_of_a_subject_comes_first() -> None:
    told = subject(
        ("countryName", "DE"), ("organizationName", "ACME"), ("commonName", "jo"), ("title", "Dr")
    )

    assert b'Subject="title=Dr,CN=jo,O=ACME,C=DE"' == told


def test_values_that_stand_side_by_side_are_joined() -> None:
    told = subject((("commonName", "jo"), ("userId", "7")))

    assert b'Subject="CN=jo+UID=7"' == told


# RFC 4514 §4 has examples like these; within the quotes each backslash is doubled.
@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("Jo, or not", rb"Jo\\, or not"),
        ('"Jo"', rb"\\\"Jo\\\""),
        ("a+b;c<d>e=f", rb"a\\+b\\;c\\<d\\>e=f"),
        ("#1 a", rb"\\#1 a"),
        ("1 #", rb"1 #"),
        (" a ", rb"\\ a\\ "),
        ("a\\b", rb"a\\\\b"),
        ("a\r\nX: y", rb"a\\0D\\0AX: y"),
        ("a\0b", rb"a\\00b"),
        ("Lučić", rb"Lu\\C4\\8Di\\C4\\87"),
        ("", b""),
    ],
)
def test_whatever_stands_in_a_subject_is_escaped(value: str, told: bytes) -> None:
    assert b'Subject="CN=%b"' % told == subject(("commonName", value))


def read_back(told: bytes) -> str:
    """Take off the quotes (RFC 9110 §5.6.4), then the escapes (RFC 4514 §3)."""
    quoted = re.fullmatch(rb'Subject="((?:[^"\\]|\\.)*)"', told)
    assert quoted is not None
    text = re.sub(rb"\\(.)", rb"\1", quoted[1]).removeprefix(b"CN=")
    return re.sub(
        rb"\\([0-9A-F]{2}|.)",
        lambda escape: bytes.fromhex(escape[1].decode()) if len(escape[1]) == 2 else escape[1],
        text,
    ).decode()


@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(string.punctuation)))
def test_any_subject_is_one_plain_value_that_can_be_read_back(value: str) -> None:
    told = subject(("commonName", value))

    assert told.decode("ascii").isprintable()
    assert value == read_back(told)
