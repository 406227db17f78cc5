"""What `tls` in routes.yaml says: merged, its files checked at their lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import ConfigError, load_routes
from gateway.core.config import RoutingConfig
from gateway.core.policy import TlsPolicy
from tests.fakes.tls import Authority

ROUTES = "version: 1\nroutes:\n  - {match: {path_prefix: /}, service: web}\n"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Put ca.pem, own.pem with own.key, and other.pem with other.key beside routes.yaml."""
    made = Authority(tmp_path)
    made.pair("gateway@example.com")
    made.pair("other@example.com", file="other")
    return made


def load(authority: Authority, *lines: str) -> RoutingConfig:
    """Load routes to the service `web` with these lines behind them."""
    file = authority.folder / "routes.yaml"
    file.write_text(ROUTES + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return load_routes(file, {})


def problems(authority: Authority, *lines: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load(authority, *lines)
    folder = str(authority.folder)
    return [
        str(problem).removeprefix(f"{folder}/routes.yaml:").replace(f"{folder}/", "")
        for problem in refused.value.problems
    ]


def test_with_nothing_said_the_authorities_of_the_system_hold(authority: Authority) -> None:
    service = load(authority).services["web"]

    assert (TlsPolicy(), "") == (service.tls, service.tls_mark)


def test_a_service_overrides_the_defaults_key_by_key(authority: Authority) -> None:
    config = load(
        authority,
        "defaults: {tls: {ca_file: ca.pem, server_name: a.internal, skip_verify: true}}",
        "services: {web: {tls: {server_name: B.internal, skip_verify: false}}}",
    )

    ca_file = str(authority.ca_file)
    assert TlsPolicy(ca_file=ca_file, server_name="b.internal") == config.services["web"].tls


def test_files_count_from_the_folder_of_the_file_or_from_the_root(authority: Authority) -> None:
    own = authority.folder / "own.pem"

    tls = (
        load(authority, f"services: {{web: {{tls: {{client_cert: {own}, client_key: own.key}}}}}}")
        .services["web"]
        .tls
    )

    assert (str(own), str(own.with_suffix(".key"))) == (tls.client_cert, tls.client_key)


def test_another_content_of_a_file_makes_another_configuration(authority: Authority) -> None:
    line = "services: {web: {tls: {ca_file: ca.pem}}}"
    before = load(authority, line).services["web"]
    again = load(authority, line).services["web"]
    authority.ca_file.write_bytes(authority.ca_file.read_bytes() + b"# a comment\n")

    after = load(authority, line).services["web"]

    assert before == again
    assert (before.tls, True) == (after.tls, before.tls_mark != after.tls_mark)


def test_files_that_cannot_be_used_are_told_at_their_lines(authority: Authority) -> None:
    assert [
        "5:18: defaults.tls.ca_file: nowhere.pem cannot be read: no such file or directory",
        "8:20: services.a.tls.ca_file: own.key holds no certificates in PEM",
        "9:47: services.b.tls.client_key: other.key does not belong to own.pem",
    ] == problems(
        authority,
        "defaults:",
        "  tls: {ca_file: nowhere.pem}",
        "services:",
        "  a:",
        "    tls: {ca_file: own.key}",
        "  b: {tls: {client_cert: own.pem, client_key: other.key, ca_file: ca.pem}}",
    )


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            ["services: {web: {tls: {client_cert: own.pem}}}"],
            ["4:37: services.web.tls.client_cert: needs client_key beside it"],
        ),
        (
            ["services: {web: {tls: {client_key: own.key}}}"],
            ["4:36: services.web.tls.client_key: needs client_cert beside it"],
        ),
        (
            [
                "defaults: {tls: {client_cert: own.pem, client_key: own.key}}",
                "services: {web: {tls: {client_cert: other.pem}}}",
            ],
            ["5:37: services.web.tls.client_cert: own.key does not belong to other.pem"],
        ),
    ],
    ids=["no key", "no certificate", "one of a pair overridden"],
)
def test_a_certificate_and_its_key_go_together(
    authority: Authority, lines: list[str], said: list[str]
) -> None:
    assert said == problems(authority, *lines)


@pytest.mark.parametrize("name", ["https://a", "a:443", "", "*.internal"])
def test_a_name_that_no_certificate_can_be_checked_for_is_a_mistake(
    authority: Authority, name: str
) -> None:
    (said,) = problems(authority, f"services: {{web: {{tls: {{server_name: '{name}'}}}}}}")

    assert said.endswith(f"{name!r} is not a host name; write api.example.com")


def test_the_name_may_be_an_address(authority: Authority) -> None:
    config = load(authority, "services: {web: {tls: {server_name: '2001:DB8::0'}}}")

    assert "2001:db8::" == config.services["web"].tls.server_name


def test_an_unknown_key_of_tls_is_told_with_the_nearest_one(authority: Authority) -> None:
    (said,) = problems(authority, "services: {web: {tls: {skip_verfy: true}}}")

    assert "4:24: services.web.tls.skip_verfy: unknown key; did you mean 'skip_verify'?" == said


def test_taking_any_certificate_is_a_warning_wherever_it_is_said(authority: Authority) -> None:
    config = load(
        authority,
        "defaults: {tls: {skip_verify: true}}",
        "services: {web: {tls: {skip_verify: true}}}",
    )

    assert [
        (4, 18, "defaults.tls.skip_verify"),
        (5, 24, "services.web.tls.skip_verify"),
    ] == [(one.line, one.column, one.key) for one in config.warnings]
    assert "certificates are not checked" in config.warnings[0].message
    assert () == load(authority, "defaults: {tls: {skip_verify: false}}").warnings
