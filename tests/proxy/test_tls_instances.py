"""TLS with instances: which context, which name, which words, and what a change of it does."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.core.config import RoutingConfig, ServiceConfig
from gateway.core.model import Instance
from gateway.core.policy import TlsPolicy
from gateway.proxy.tls import (
    TlsClient,
    TlsClients,
    _Kept,
    client_context,
    is_of_tls,
    reason_of,
    was_cut,
)
from tests.fakes.engine import SERVICE, Stage
from tests.fakes.engine import instance as plain_instance
from tests.fakes.tls import Authority
from tests.fakes.waiting import wait_until

SECURED = Instance(key="a", id="a", host="web.internal.", port=443, scheme="https")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def service(**tls: str) -> ServiceConfig:
    return ServiceConfig(name="web", tls=TlsPolicy(**tls))  # type: ignore[arg-type]


# --- Contexts ------------------------------------------------------------------------------------


def test_instances_are_verified_unless_that_is_switched_off(authority: Authority) -> None:
    strict = client_context(TlsPolicy(ca_file=str(authority.ca_file)))
    lax = client_context(TlsPolicy(skip_verify=True))

    assert (ssl.CERT_REQUIRED, True) == (strict.verify_mode, strict.check_hostname)
    assert (ssl.CERT_NONE, False) == (lax.verify_mode, lax.check_hostname)
    assert {ssl.TLSVersion.TLSv1_2} == {strict.minimum_version, lax.minimum_version}


def test_with_a_file_of_authorities_those_of_the_system_do_not_count(authority: Authority) -> None:
    own = client_context(TlsPolicy(ca_file=str(authority.ca_file)))

    assert 1 == own.cert_store_stats()["x509_ca"]


def test_instances_may_not_renegotiate() -> None:
    assert client_context(TlsPolicy(skip_verify=True)).options & ssl.OP_NO_RENEGOTIATION


def test_a_context_is_made_once_for_each_policy_and_content(authority: Authority) -> None:
    clients = TlsClients()
    first = service(ca_file=str(authority.ca_file))
    others = [replace(first, tls_mark="another"), replace(first, tls=TlsPolicy(skip_verify=True))]

    contexts = [clients.client(one, SECURED) for one in (first, first, *others)]

    assert 3 == len({one.context for one in contexts if one is not None})
    assert contexts[0] is not None
    assert contexts[1] is not None
    assert contexts[0].context is contexts[1].context


@pytest.mark.parametrize(
    ("configured", "is_made"),
    [
        (service(), True),
        (replace(service(), instances=(plain_instance("a"),)), False),
        (replace(service(), instances=(SECURED,)), True),
        (replace(service(), tls=TlsPolicy(skip_verify=True)), True),
    ],
    ids=["the registry knows", "plain servers", "servers over TLS", "a policy of its own"],
)
def test_a_context_is_made_at_the_start_where_it_may_be_needed(
    configured: ServiceConfig,
    is_made: bool,  # noqa: FBT001 -- it is what the table says
) -> None:
    clients = TlsClients()

    clients.prepare(configured)

    assert is_made is bool(clients._contexts)


def test_plain_instances_need_nothing() -> None:
    assert TlsClients().client(service(), plain_instance("a")) is None


@pytest.mark.parametrize(
    ("tls", "name"),
    [({}, "web.internal"), ({"server_name": "other.internal"}, "other.internal")],
    ids=["its own", "that of the service"],
)
def test_an_instance_is_verified_for_a_name_without_the_dot_of_the_root(
    authority: Authority, tls: dict[str, str], name: str
) -> None:
    secured = TlsClients().client(service(ca_file=str(authority.ca_file), **tls), SECURED)

    assert secured is not None
    assert name == secured.server_name


# --- Renewed files -------------------------------------------------------------------------------


def renewing(authority: Authority) -> tuple[TlsClients, TlsClient]:
    """Give an instance that is reached with files of this authority."""
    pair = authority.pair("gateway")
    clients = TlsClients()
    policy = {
        "ca_file": str(authority.ca_file),
        "client_cert": str(pair.cert),
        "client_key": str(pair.key),
    }
    client = clients.client(service(**policy), SECURED)
    assert client is not None
    return clients, client


def test_the_files_of_a_service_are_followed(authority: Authority) -> None:
    clients, client = renewing(authority)
    before = client.context

    clients.refresh()
    assert before is client.context
    with capture_logs() as logs:
        authority.pair("gateway")
        clients.refresh()
        clients.refresh()

    assert before is not client.context
    assert ["certificate_loaded"] == [one["event"] for one in logs]
    assert str(authority.ca_file) in logs[0]["files"]


def test_an_authority_that_is_added_is_trusted_from_then_on(authority: Authority) -> None:
    clients, client = renewing(authority)
    other = Authority(authority.folder / "other")

    authority.ca_file.write_bytes(authority.ca_file.read_bytes() + other.ca_file.read_bytes())
    clients.refresh()

    assert 2 == client.context.cert_store_stats()["x509_ca"]


@pytest.mark.parametrize("broken", [b"", b"no PEM", None], ids=["empty", "no PEM", "gone"])
def test_a_file_that_cannot_be_used_is_told_once_and_the_old_one_stays(
    authority: Authority, broken: bytes | None
) -> None:
    clients, client = renewing(authority)
    before, file = client.context, authority.folder / "own.pem"

    with capture_logs() as logs:
        file.unlink() if broken is None else file.write_bytes(broken)
        for _ in range(2):
            clients.refresh()
    assert before is client.context
    assert ["certificate_refused"] == [one["event"] for one in logs]
    assert str(file) in logs[0]["reason"]

    authority.pair("gateway")
    clients.refresh()
    assert before is not client.context


async def test_a_mistake_does_not_end_the_following(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients, client = renewing(authority)
    before = client.context
    asked = [KeyError("a mistake")]

    def look(self: object) -> tuple[None, ...]:
        if asked:
            raise asked.pop()
        return ()

    monkeypatch.setattr(_Kept, "look", look)
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(clients.follow(0.0))
            await wait_until(lambda: client.context is not before)
            following.cancel()

    assert "task_failed" == logs[0]["event"]


# --- Words ---------------------------------------------------------------------------------------


def failed(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] in words (_ssl.c:1000)")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (failed("WRONG_VERSION_NUMBER"), "it does not speak TLS"),
        (failed("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "it wants a client certificate"),
        (failed("SSLV3_ALERT_HANDSHAKE_FAILURE"), "sslv3 alert handshake failure"),
        (ConnectionResetError("reset"), "it broke off in the handshake: reset"),
    ],
    ids=["plain", "no certificate", "any other", "broken off"],
)
def test_what_went_wrong_is_told_in_words(error: OSError, words: str) -> None:
    assert is_of_tls(error)
    assert words == reason_of(error)


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError(), OSError(113, "no route"), TimeoutError()]
)
def test_what_happens_before_the_handshake_is_no_failure_of_tls(error: OSError) -> None:
    assert not is_of_tls(error)


# --- Ends ----------------------------------------------------------------------------------------


class FakeSession:
    """What `read` of an SSLObject does once everything was read."""

    def __init__(self, outcome: bytes | ssl.SSLError) -> None:
        self._outcome = outcome

    def read(self, _most_bytes: int) -> bytes:
        if isinstance(self._outcome, ssl.SSLError):
            raise self._outcome
        return self._outcome


@pytest.mark.parametrize(
    ("outcome", "is_cut"),
    [
        (b"", False),
        (ssl.SSLZeroReturnError(6, "closed"), False),
        (ssl.SSLWantReadError(2, "more"), True),
        (ssl.SSLError(1, "bad record"), True),
        (b"x", True),
    ],
    ids=["ended", "ended both ways", "nothing said", "broken", "something left"],
)
def test_a_session_that_did_not_say_that_it_ends_was_cut(
    outcome: bytes | ssl.SSLError,
    is_cut: bool,  # noqa: FBT001 -- it is what the table says
) -> None:
    transport = asyncio.BaseTransport(extra={"ssl_object": FakeSession(outcome)})

    assert is_cut is was_cut(transport)


def test_a_plain_connection_cannot_tell_and_is_believed() -> None:
    assert not was_cut(asyncio.BaseTransport())


# --- Another policy ------------------------------------------------------------------------------


def reconfigure(stage: Stage, tls: TlsPolicy, mark: str = "") -> None:
    config = ServiceConfig(name=SERVICE, tls=tls, tls_mark=mark)
    routes = RoutingConfig(routes=(stage.api(),), services={SERVICE: config})
    stage.engine.use(routes, client_body_timeout_s=60.0)


@pytest.mark.parametrize(
    ("tls", "mark"),
    [(TlsPolicy(server_name="other"), ""), (TlsPolicy(), "another certificate")],
    ids=["another policy", "another content of its files"],
)
def test_another_policy_means_other_connections_for_what_comes_next(
    tls: TlsPolicy, mark: str
) -> None:
    stage = Stage("ab")
    play, connection = stage.sending()
    old = stage.pools["a"]

    reconfigure(stage, tls, mark)
    again, other = stage.sending()

    assert old.is_retired
    assert old is not stage.pools["a"]
    for request, carries in ((play, connection), (again, other)):
        carries.head()
        carries.end()
        assert ["head 200", "end"] == request.client.said
    stage.assert_all_is_settled()


def test_the_same_policy_keeps_the_connections() -> None:
    stage = Stage("ab")
    reconfigure(stage, TlsPolicy(server_name="web"))
    member, pool = stage.member("a"), stage.pools["a"]

    reconfigure(stage, TlsPolicy(server_name="web"))

    assert (member, pool) == (stage.member("a"), stage.pools["a"])


def test_an_instance_that_changes_to_https_is_another_one() -> None:
    """What its Breaker learned over http says nothing of it any more."""
    stage = Stage("a")
    stage.open_breaker("a")
    before, pool = stage.member("a"), stage.pools["a"]

    stage.publish([replace(plain_instance("a"), scheme="https")])

    after = stage.member("a")
    assert (True, False) == (before.is_gone, after.is_gone)
    assert pool.is_retired
    assert after is stage.sending()[0].exchange.attempts.member
