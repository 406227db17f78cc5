"""Consul over TLS: who may not be trusted is not spoken to, and every refusal has a name."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from gateway.core.watch import Trouble
from gateway.discovery.consul import Consul
from gateway.discovery.consul_options import ConsulOptions
from gateway.discovery.source import SourceError
from tests.fakes.consul import FakeConsul


@dataclass(frozen=True)
class Authority:
    """A certificate authority with its files."""

    issuer: trustme.CA
    ca_file: Path
    client_cert: Path
    client_key: Path

    def server_context(self) -> ssl.SSLContext:
        """Make what a Consul needs that wants certificates from its clients."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.issuer.issue_cert("127.0.0.1").configure_cert(context)
        self.issuer.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Make an authority and a certificate for a client."""
    issuer = trustme.CA()
    client = issuer.issue_cert("gateway@example.com")
    made = Authority(issuer, tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem")
    issuer.cert_pem.write_to_path(made.ca_file)
    client.cert_chain_pems[0].write_to_path(made.client_cert)
    client.private_key_pem.write_to_path(made.client_key)
    return made


async def trouble_of(asked: ConsulOptions) -> SourceError:
    """Probe and give the error that must come of it."""
    async with Consul(asked) as consul:
        with pytest.raises(SourceError) as caught:
            await consul.probe()
    return caught.value


async def test_a_consul_that_wants_certificates_gets_ours(authority: Authority) -> None:
    async with FakeConsul(tls=authority.server_context()) as fake:
        asked = ConsulOptions(
            address=fake.address,
            ca_file=authority.ca_file,
            client_cert=authority.client_cert,
            client_key=authority.client_key,
        )
        async with Consul(asked) as consul:
            await consul.probe()


async def test_a_certificate_that_is_missing_is_a_named_trouble(authority: Authority) -> None:
    """With TLS 1.3 the refusal comes with the first read, as an error that httpx does not wrap."""
    async with FakeConsul(tls=authority.server_context()) as fake:
        error = await trouble_of(ConsulOptions(address=fake.address, ca_file=authority.ca_file))

    assert error.trouble is Trouble.CUT


async def test_a_consul_that_cannot_be_verified_is_not_spoken_to(authority: Authority) -> None:
    async with FakeConsul(tls=authority.server_context()) as fake:
        error = await trouble_of(ConsulOptions(address=fake.address))

        assert error.trouble is Trouble.UNREACHABLE
        assert "its certificate is not accepted" in error.detail
        assert error.detail.endswith("name who signed it in GATEWAY_CONSUL_CACERT")
        assert fake.questions == []


def test_no_verification_means_none() -> None:
    consul = Consul(ConsulOptions(address="https://127.0.0.1:1", verify=False))

    assert consul._tls.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize("name", ["consul.example", "other.example"])
async def test_a_consul_by_name_is_verified_for_its_name_and_not_for_its_address(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issuer.issue_cert("consul.example").configure_cert(context)
    here = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]
    async with FakeConsul(tls=context) as fake:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: here)
        port = fake.address.rpartition(":")[2]
        asked = ConsulOptions(address=f"https://{name}:{port}", ca_file=authority.ca_file)
        if name == "consul.example":
            async with Consul(asked) as consul:
                await consul.probe()
        else:
            assert (await trouble_of(asked)).trouble is Trouble.UNREACHABLE
