"""The certificates for clients: which one is chosen, and what a change of the files does."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from structlog.testing import capture_logs

from gateway.edge.tls import Certificates, ClientAuth, TlsFiles, without_odd_names
from gateway.pem import PemError
from tests.fakes.tls import Authority, Pair
from tests.fakes.waiting import wait_until


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "certificates")


def files(*pairs: Pair, client_ca: Path | None = None, client_auth: ClientAuth = "off") -> TlsFiles:
    return TlsFiles(
        pairs=tuple((pair.cert, pair.key) for pair in pairs),
        client_ca=client_ca,
        client_auth=client_auth,
    )


def shake_hands(front: ssl.SSLContext, client: ssl.SSLContext, name: str | None) -> ssl.SSLObject:
    """Let both sides agree without a socket; give the client's session."""
    to_client, to_front = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_front, server_hostname=name)
    other = front.wrap_bio(to_front, to_client, server_side=True)
    waiting = [one, other]
    for session in (one, other) * 4:
        try:
            if session in waiting:
                session.do_handshake()
                waiting.remove(session)
        except ssl.SSLWantReadError:
            continue
    assert [] == waiting
    return one


def names_shown(certificates: Certificates, authority: Authority, name: str | None) -> list[str]:
    client = authority.client_context()
    client.check_hostname = False
    shown = shake_hands(certificates.context, client, name).getpeercert()
    assert shown is not None
    listed: tuple[tuple[str, str], ...] = shown["subjectAltName"]  # type: ignore[assignment]
    return [one for _, one in listed]


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("first.example", "first.example"),
        ("FIRST.example", "first.example"),
        ("a.star.example", "*.star.example"),
        ("exact.star.example", "exact.star.example"),
        ("a.b.star.example", "first.example"),
        ("unknown.example", "first.example"),
        (None, "first.example"),
    ],
)
def test_the_certificate_is_the_one_for_the_name_that_is_asked_for(
    authority: Authority, asked: str | None, shown: str
) -> None:
    names = ("first.example", "*.star.example", "exact.star.example")
    pairs = [authority.pair(name, file=f"pair-{at}") for at, name in enumerate(names)]

    assert [shown] == names_shown(Certificates(files(*pairs)), authority, asked)


def test_a_session_is_one_of_http_1_1_even_where_more_is_offered(authority: Authority) -> None:
    certificates = Certificates(files(authority.pair("localhost")))

    session = shake_hands(certificates.context, authority.client_context(), "localhost")

    assert ("http/1.1", "TLSv1.3") == (session.selected_alpn_protocol(), session.version())


def test_tls_1_2_is_the_oldest_that_is_spoken(authority: Authority) -> None:
    certificates = Certificates(files(authority.pair("localhost")))
    client = authority.client_context()
    client.maximum_version = ssl.TLSVersion.TLSv1_2

    assert ssl.TLSVersion.TLSv1_2 is certificates.context.minimum_version
    assert "TLSv1.2" == shake_hands(certificates.context, client, "localhost").version()


@pytest.mark.parametrize("missing", ["cert", "key"])
def test_files_that_are_not_there_stop_the_start(authority: Authority, missing: str) -> None:
    pair = authority.pair("localhost")
    gone: Path = getattr(pair, missing)
    gone.unlink()

    with pytest.raises(PemError, match="cannot be read") as refused:
        Certificates(files(pair))

    assert gone == refused.value.file


def test_what_has_not_changed_is_not_read_again(authority: Authority) -> None:
    certificates = Certificates(files(authority.pair("localhost")))
    chosen = certificates.choose("localhost")

    with capture_logs() as events:
        certificates.refresh()

    assert [] == events
    assert chosen is certificates.choose("localhost")


def test_a_change_is_shown_from_the_next_handshake_on(authority: Authority) -> None:
    certificates = Certificates(files(authority.pair("before.example")))
    authority.pair("after.example")

    with capture_logs() as events:
        certificates.refresh()

    assert [("certificate_loaded", ["after.example"])] == [
        (one["event"], one["names"]) for one in events
    ]
    assert ["after.example"] == names_shown(certificates, authority, "after.example")


def test_a_change_behind_a_symbolic_link_is_seen(authority: Authority) -> None:
    """As Kubernetes mounts secrets: the link is what changes, not the file that it named."""
    old, new = (authority.pair(f"{name}.example", file=name) for name in ("old", "new"))
    pair = Pair(authority.folder / "link.pem", authority.folder / "link.key")
    for link, target in ((pair.cert, old.cert), (pair.key, old.key)):
        link.symlink_to(target)
    certificates = Certificates(files(pair))

    for link, target in ((pair.cert, new.cert), (pair.key, new.key)):
        link.unlink()
        link.symlink_to(target)
    certificates.refresh()

    assert ["new.example"] == names_shown(certificates, authority, None)


@pytest.mark.parametrize("broken", ["junk", "gone", "of another"])
def test_a_pair_that_cannot_be_used_is_told_once_and_the_old_one_stays(
    authority: Authority, broken: str
) -> None:
    pair = authority.pair("before.example")
    certificates = Certificates(files(pair))
    if broken == "gone":
        pair.key.unlink()
    else:
        other = authority.pair("other.example", file="other").key.read_bytes()
        pair.key.write_bytes(other if broken == "of another" else b"junk")

    with capture_logs() as events:
        certificates.refresh()
        certificates.refresh()

    assert [("certificate_refused", "error")] == [
        (one["event"], one["log_level"]) for one in events
    ]
    assert str(pair.key) in events[0]["reason"]
    assert ["before.example"] == names_shown(certificates, authority, None)


def test_a_certificate_of_an_odd_kind_is_refused_like_any_other(authority: Authority) -> None:
    """OpenSSL takes files with this mark, but nothing says which names they are for."""
    pair = authority.pair("before.example")
    certificates = Certificates(files(pair))
    odd = pair.cert.read_text(encoding="ascii").replace("CERTIFICATE", "TRUSTED CERTIFICATE")
    pair.cert.write_text(odd, encoding="ascii")

    with capture_logs() as events:
        certificates.refresh()

    assert ["certificate_refused"] == [one["event"] for one in events]
    assert ["before.example"] == names_shown(certificates, authority, None)


def test_another_authority_for_clients_holds_from_the_next_handshake_on(
    authority: Authority, tmp_path: Path
) -> None:
    pair = authority.pair("localhost")
    others = Authority(tmp_path / "others")
    asked = files(pair, client_ca=authority.ca_file, client_auth="required")
    certificates = Certificates(asked)
    mine = authority.client_context(others.pair("jo@x"))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(certificates.context, mine, "localhost")

    authority.ca_file.write_bytes(others.ca_file.read_bytes())
    certificates.refresh()

    assert shake_hands(certificates.context, mine, "localhost").version()


async def test_files_are_followed_until_that_is_cancelled(authority: Authority) -> None:
    pair = authority.pair("before.example")
    certificates = Certificates(files(pair))
    with capture_logs() as events:
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(certificates.follow(poll_s=0.001))
            os.utime(pair.cert)
            await wait_until(lambda: events)
            following.cancel()

    assert ["certificate_loaded"] == [one["event"] for one in events]


@pytest.mark.parametrize(
    ("thing", "error", "is_told"),
    [
        (b"\xff", UnicodeDecodeError("ascii", b"\xff", 0, 1, "not ASCII"), False),
        (object(), UnicodeDecodeError("ascii", b"\xff", 0, 1, "not ASCII"), True),
        (b"\xff", KeyError("x"), True),
    ],
    ids=["an odd name", "another mistake with text", "another mistake"],
)
def test_only_what_ssl_says_of_odd_names_is_kept_quiet(
    monkeypatch: pytest.MonkeyPatch,
    thing: object,
    error: Exception,
    is_told: bool,  # noqa: FBT001 -- it is what the table says
) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    unraisable = cast("sys.UnraisableHookArgs", SimpleNamespace(object=thing, exc_value=error))

    with without_odd_names():
        sys.unraisablehook(unraisable)
    sys.unraisablehook(unraisable)

    assert [unraisable] * (2 if is_told else 1) == told


async def test_a_mistake_while_files_are_read_is_told_and_they_are_followed_on(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = Certificates(files(authority.pair("first.example")))
    asked: list[None] = []

    def refresh() -> None:
        asked.append(None)
        raise RuntimeError("a mistake")

    monkeypatch.setattr(certificates, "refresh", refresh)
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(certificates.follow(poll_s=0.001))
            await wait_until(lambda: len(asked) >= 2)
            following.cancel()

    assert {(one["event"], one["task"]) for one in logs} == {("task_failed", "certificates")}
