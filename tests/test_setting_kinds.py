"""Settings of listeners: what goes together, and the words for what does not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gateway.core.addresses import ListenAddress
from gateway.settings import Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in os.environ if one.upper().startswith(("GATEWAY_", "CONSUL_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    made = {name: tmp_path / name for name in ("a.pem", "a.key", "b.pem", "b.key", "ca.pem")}
    for file in made.values():
        file.touch()
    return made


def problems(**options: object) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as refused:
        load_settings({"config": "routes.yaml", **options})
    return refused.value.problems


def test_without_a_word_there_is_one_plain_listener() -> None:
    settings = Settings()

    assert (None, (), ()) == (settings.tls_bind, settings.tls_cert, settings.tls_key)
    assert ("off", "off", "off") == (
        settings.tls_client_auth,
        settings.http_redirect,
        settings.proxy_protocol,
    )


def test_certificates_and_keys_are_lists_in_the_same_order(files: dict[str, Path]) -> None:
    settings = load_settings(
        {
            "tls_bind": "0.0.0.0:8443",
            "tls_cert": f"{files['a.pem']}, {files['b.pem']}",
            "tls_key": f"{files['a.key']},{files['b.key']},",
        }
    )

    assert ListenAddress("0.0.0.0", 8443) == settings.tls_bind
    assert (files["a.pem"], files["b.pem"]) == settings.tls_cert
    assert (files["a.key"], files["b.key"]) == settings.tls_key


@pytest.mark.parametrize(
    ("text", "value"), [("ON", "on"), ("off", "off"), ("443", 443), (8443, 8443)], ids=repr
)
def test_a_redirect_goes_to_the_listener_or_to_a_port(
    files: dict[str, Path], text: Any, value: Any
) -> None:
    settings = load_settings(
        {
            "tls_bind": "127.0.0.1:0",
            "tls_cert": str(files["a.pem"]),
            "tls_key": str(files["a.key"]),
            "http_redirect": text,
        }
    )

    assert value == settings.http_redirect


@pytest.mark.parametrize("text", ["yes", "0", "65536", "-1", "²"])
def test_a_redirect_to_anything_else_is_refused(text: str) -> None:
    assert (
        f"--http-redirect: {text!r} is not known; write on, off or the port that clients see",
    ) == problems(http_redirect=text)


def test_a_file_that_is_not_there_is_named(files: dict[str, Path], tmp_path: Path) -> None:
    gone = tmp_path / "gone.pem"

    assert (f"--tls-cert: there is no file {str(gone)!r}",) == problems(
        tls_bind="127.0.0.1:0", tls_cert=f"{files['a.pem']},{gone}", tls_key=str(files["a.key"])
    )


BIND_NEEDS = "GATEWAY_TLS_BIND needs GATEWAY_TLS_CERT, and without it there is no use for that"
PAIRS = "GATEWAY_TLS_CERT and GATEWAY_TLS_KEY go together, one key for each certificate"
CLIENTS = "GATEWAY_TLS_CLIENT_AUTH needs GATEWAY_TLS_CLIENT_CA, and is off without it"
NOWHERE = "GATEWAY_HTTP_REDIRECT needs GATEWAY_TLS_BIND: there is nowhere to go"
ANYBODY = "GATEWAY_PROXY_PROTOCOL needs GATEWAY_TRUSTED_PROXIES, or anybody could be anybody"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tls_bind": "127.0.0.1:0"}, [BIND_NEEDS]),
        ({"tls_cert": "a.pem", "tls_key": "a.key"}, [BIND_NEEDS]),
        ({"tls_bind": "127.0.0.1:0", "tls_cert": "a.pem"}, [PAIRS]),
        ({"tls_bind": "127.0.0.1:0", "tls_cert": "a.pem,b.pem", "tls_key": "a.key"}, [PAIRS]),
        ({"tls_client_auth": "required"}, [CLIENTS]),
        ({"tls_client_ca": "ca.pem"}, [CLIENTS]),
        ({"http_redirect": "on"}, [NOWHERE]),
        ({"proxy_protocol": "on"}, [ANYBODY]),
        ({"proxy_protocol": "on", "http_redirect": "443"}, [NOWHERE, ANYBODY]),
    ],
)
def test_what_contradicts_itself_is_told_one_line_for_each(
    files: dict[str, Path], given: dict[str, str], said: list[str]
) -> None:
    """Nothing that an operator wrote for safety may be without effect and nobody says so."""
    options = {
        name: ",".join(str(files.get(part, part)) for part in value.split(","))
        for name, value in given.items()
    }

    assert tuple(said) == problems(**options)
