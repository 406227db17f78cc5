"""Settings: where each value comes from, what wins, and the words for what is wrong."""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.consul_variables import CONSUL_VARIABLES
from gateway.core.addresses import ListenAddress
from gateway.settings import (
    Settings,
    SettingsError,
    default_state_dir,
    load_settings,
    unknown_variables,
    variable_of,
)


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith(("GATEWAY_", "CONSUL_", "XDG_STATE_HOME")):
            monkeypatch.delenv(name)


def load(monkeypatch: pytest.MonkeyPatch, **env: str) -> Settings:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return load_settings({})


def problems(monkeypatch: pytest.MonkeyPatch, **env: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as refused:
        load(monkeypatch, **env)
    return refused.value.problems


def test_with_nothing_set_the_defaults_hold() -> None:
    settings = load_settings({})

    assert settings.config == Path("routes.yaml")
    assert settings.bind == ListenAddress("127.0.0.1", 8080)
    assert settings.admin == ListenAddress("127.0.0.1", 9901)
    assert settings.registry == "consul"
    assert settings.consul_address == "http://127.0.0.1:8500"
    assert settings.trusted_proxies == ()
    assert settings.access_log == "on"


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("GATEWAY_CONFIG", "/etc/gateway/routes.yaml", "config", Path("/etc/gateway/routes.yaml")),
        ("GATEWAY_BIND", "[::]:80", "bind", ListenAddress("::", 80)),
        ("GATEWAY_ADMIN", "off", "admin", None),
        ("GATEWAY_ADMIN", "0.0.0.0:9901", "admin", ListenAddress("0.0.0.0", 9901)),
        ("GATEWAY_REGISTRY", "Static", "registry", "static"),
        ("GATEWAY_CONSUL_ADDRESS", "consul:8500", "consul_address", "http://consul:8500"),
        ("GATEWAY_CONSUL_TOKEN_FILE", "/run/token", "consul_token_file", Path("/run/token")),
        ("GATEWAY_CONSUL_DATACENTER", "eu", "consul_datacenter", "eu"),
        ("GATEWAY_CONSUL_VERIFY", "false", "consul_verify", False),
        ("GATEWAY_CONSUL_WAIT", "10s", "consul_wait_s", 10.0),
        ("GATEWAY_CONSUL_CONSISTENCY", "stale", "consul_consistency", "stale"),
        ("GATEWAY_STATE_DIR", "/var/lib/gateway", "state_dir", Path("/var/lib/gateway")),
        ("GATEWAY_STATE_DIR", "off", "state_dir", None),
        (
            "GATEWAY_TRUSTED_PROXIES",
            "10.0.0.0/8,::1",
            "trusted_proxies",
            (ip_network("10.0.0.0/8"), ip_network("::1")),
        ),
        ("GATEWAY_ACCESS_LOG", "off", "access_log", "off"),
        ("GATEWAY_ACCESS_LOG", "/var/log/access", "access_log", Path("/var/log/access")),
        ("GATEWAY_LOG_LEVEL", "DEBUG", "log_level", "debug"),
        ("GATEWAY_LOG_FORMAT", "json", "log_format", "json"),
        ("GATEWAY_DRAIN_DELAY", "5s", "drain_delay_s", 5.0),
        ("GATEWAY_DRAIN_TIMEOUT", "0s", "drain_timeout_s", 0.0),
        ("GATEWAY_KEEPALIVE_TIMEOUT", "1m", "keepalive_timeout_s", 60.0),
        ("GATEWAY_CLIENT_HEAD_TIMEOUT", "1s", "client_head_timeout_s", 1.0),
        ("GATEWAY_CLIENT_BODY_TIMEOUT", "1s", "client_body_timeout_s", 1.0),
        ("GATEWAY_MAX_REQUEST_LINE", "4KiB", "max_request_line_bytes", 4096),
        ("GATEWAY_MAX_HEADER_SIZE", "1000", "max_header_size_bytes", 1000),
        ("GATEWAY_MAX_HEADER_FIELDS", "50", "max_header_fields", 50),
        ("GATEWAY_MAX_CONNECTIONS", "50", "max_connections", 50),
    ],
)
def test_each_setting_is_read_from_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, field: str, value: object
) -> None:
    settings = load(monkeypatch, **{variable: text})

    assert value == getattr(settings, field)
    assert variable == variable_of(field)


def test_an_option_wins_over_the_environment_and_none_is_not_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GATEWAY_BIND", "127.0.0.1:1")
    monkeypatch.setenv("GATEWAY_ADMIN", "127.0.0.1:2")

    settings = load_settings({"bind": "127.0.0.1:3", "admin": None, "config": Path("other.yaml")})

    assert settings.bind == ListenAddress("127.0.0.1", 3)
    assert settings.admin == ListenAddress("127.0.0.1", 2)
    assert settings.config == Path("other.yaml")


def test_values_can_be_given_as_they_are_kept() -> None:
    address, network = ListenAddress("127.0.0.1", 0), ip_network("10.0.0.0/8")

    settings = load_settings(
        {
            "bind": address,
            "admin": address,
            "trusted_proxies": (network,),
            "drain_timeout_s": 1.5,
            "max_header_size_bytes": 9,
        }
    )

    assert (settings.bind, settings.admin) == (address, address)
    assert settings.trusted_proxies == (network,)
    assert (settings.drain_timeout_s, settings.max_header_size_bytes) == (1.5, 9)


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, GATEWAY_BIND="", CONSUL_HTTP_ADDR="", CONSUL_HTTP_SSL="")

    assert str(settings.bind) == "127.0.0.1:8080"
    assert settings.consul_address == "http://127.0.0.1:8500"


def test_the_variables_of_consuls_tools_are_honoured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "a.pem"
    file.touch()

    settings = load(
        monkeypatch,
        CONSUL_HTTP_ADDR="https://consul.test:8501/",
        CONSUL_HTTP_TOKEN="secret",
        CONSUL_HTTP_TOKEN_FILE="/run/token",
        CONSUL_HTTP_SSL_VERIFY="0",
        CONSUL_CACERT=str(file),
        CONSUL_CLIENT_CERT=str(file),
        CONSUL_CLIENT_KEY=str(file),
    )

    assert settings.consul_address == "https://consul.test:8501"
    assert settings.consul_token is not None
    assert settings.consul_token.get_secret_value() == "secret"
    assert settings.consul_token_file == Path("/run/token")
    assert settings.consul_verify is False
    assert settings.consul_cacert == settings.consul_client_cert == file
    assert settings.consul_client_key == file


def test_our_own_variable_wins_over_the_one_of_consuls_tools(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = load(
        monkeypatch,
        GATEWAY_CONSUL_ADDRESS="ours:8500",
        CONSUL_HTTP_ADDR="theirs:8500",
        CONSUL_HTTP_SSL="true",
        GATEWAY_CONSUL_VERIFY="true",
        CONSUL_HTTP_SSL_VERIFY="false",
    )

    assert settings.consul_address == "http://ours:8500"
    assert settings.consul_verify is True


def test_our_own_token_wins_over_the_token_file_of_consuls_tools(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = load(
        monkeypatch,
        GATEWAY_CONSUL_TOKEN="ours",
        CONSUL_HTTP_TOKEN="theirs",
        CONSUL_HTTP_TOKEN_FILE="/run/theirs",
    )

    assert settings.consul_token is not None
    assert settings.consul_token.get_secret_value() == "ours"
    assert settings.consul_token_file is None


@pytest.mark.parametrize(
    ("address", "switch", "url"),
    [
        ("", "true", "https://127.0.0.1:8500"),
        ("consul.test:8501", "1", "https://consul.test:8501"),
        ("http://consul.test:8501", "TRUE", "https://consul.test:8501"),
        ("https://consul.test:8501", "true", "https://consul.test:8501"),
        ("https://consul.test:8501", "false", "https://consul.test:8501"),
        ("consul.test:8500", "F", "http://consul.test:8500"),
        ("unix:///run/consul.sock", "true", "unix:///run/consul.sock"),
    ],
)
def test_consul_http_ssl_changes_the_scheme_and_never_back(
    monkeypatch: pytest.MonkeyPatch, address: str, switch: str, url: str
) -> None:
    settings = load(monkeypatch, CONSUL_HTTP_ADDR=address, CONSUL_HTTP_SSL=switch)

    assert url == settings.consul_address


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GATEWAY_DRAIN_TIMEOUT", "hunter2"),
        ("GATEWAY_MAX_HEADER_SIZE", "s3cr3t!"),
        ("GATEWAY_MAX_CONNECTIONS", "Tr0ub4dor&3"),
        ("GATEWAY_LOG_LEVEL", "4f2e9c0a-1111-2222-3333-444455556666"),
        ("GATEWAY_BIND", "user:pa55word"),
        ("GATEWAY_CONSUL_ADDRESS", "http://user:pa55word@h:x"),
        ("GATEWAY_CONSUL_ADDRESS", "https://:pa55@consul"),
        ("GATEWAY_CONSUL_WAIT", "correct horse"),
        ("GATEWAY_TRUSTED_PROXIES", "10.0.0.0/8, hunter2"),
        ("GATEWAY_HTTP_REDIRECT", "hunter2"),
        ("GATEWAY_CONSUL_VERIFY", "hunter2"),
        ("GATEWAY_CONSUL_TOKEN", "hunter2\nhunter2"),
        ("GATEWAY_LOG_LEVEL", "hunter"),
        ("GATEWAY_START_WAIT", "hunter"),
        ("GATEWAY_BIND", "hunter"),
        ("GATEWAY_CONSUL_VERIFY", "hunter"),
        ("GATEWAY_ERROR_DETAIL", "deadbeef"),
        ("GATEWAY_START_WAIT", "7hunter"),
        ("CONSUL_HTTP_ADDR", "hunter"),
        ("GATEWAY_CONSUL_TOKEN", "hunter2 s3cr3t"),
    ],
)
def test_what_could_be_a_secret_is_not_in_the_message(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError) as caught:
        load_settings({})

    said = str(caught.value)
    assert variable in said
    assert not [
        part
        for part in ("hunter", "deadbeef", "s3cr3t", "Tr0", "4f2e", "pa55", "horse")
        if part in said
    ]


def test_all_that_is_wrong_is_told_at_once_under_the_name_it_was_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GATEWAY_DRAIN_TIMEOUT", "5 s")
    monkeypatch.setenv("GATEWAY_MAX_CONNECTIONS", "many")
    monkeypatch.setenv("CONSUL_HTTP_SSL", "maybe")
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "consul")

    with pytest.raises(SettingsError) as refused:
        load_settings({"bind": ":80", "client_head_timeout_s": "0s"})

    assert str(refused.value).splitlines() == [
        "CONSUL_HTTP_SSL: 'maybe' is not true or false",
        "--bind: ':80' names no address; write 0.0.0.0:80 or [::]:80 for all",
        "CONSUL_HTTP_ADDR: what it holds has no port; write HOST:8500",
        "GATEWAY_DRAIN_TIMEOUT: '5 s' is not a duration; write 250ms, 5s or 1m",
        "--client-head-timeout: '0s' is no time at all; write 250ms, 5s or 1m",
        "GATEWAY_MAX_CONNECTIONS: what it holds is not a whole number; write 1000",
    ]


@pytest.mark.parametrize(
    ("variable", "text", "reason"),
    [
        ("GATEWAY_ADMIN", "9901", "'9901' is not an address to listen on; write 127.0.0.1:8080"),
        ("GATEWAY_REGISTRY", "etcd", "what it holds is not known; write 'consul' or 'static'"),
        ("GATEWAY_CONSUL_VERIFY", "perhaps", "what it holds is no switch; write true or false"),
        ("GATEWAY_CONSUL_WAIT", "500ms", "'500ms' is out of range; write 1s to 10m"),
        ("GATEWAY_CONSUL_WAIT", "11m", "'11m' is out of range; write 1s to 10m"),
        ("GATEWAY_CONSUL_CACERT", "/not/there", "there is no file '/not/there'"),
        ("CONSUL_CACERT", "/not/there", "there is no file '/not/there'"),
        ("GATEWAY_TRUSTED_PROXIES", "10.0.0.0/8;::1", "write networks as in 10.0.0.0/8, ::1"),
        (
            "GATEWAY_ACCESS_LOG",
            "yes",
            "what it holds is not known; write on, off or the path of a file",
        ),
        ("GATEWAY_LOG_LEVEL", "loud", "what it holds is not known; write 'debug', 'info'"),
        ("GATEWAY_MAX_HEADER_SIZE", "64K", "'64K' is not a size; write 64KiB, 1MiB or 10MB"),
        ("GATEWAY_MAX_HEADER_SIZE", "0", "must be 1 or more"),
        ("GATEWAY_MAX_HEADER_FIELDS", "0", "must be 1 or more"),
        ("GATEWAY_DRAIN_DELAY", "5", "'5' has no unit; write 5s (or 5ms)"),
    ],
)
def test_a_wrong_value_is_told_with_what_to_write(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, reason: str
) -> None:
    (problem,) = problems(monkeypatch, **{variable: text})

    assert problem.startswith(f"{variable}: ")
    assert reason in problem


def test_a_certificate_without_its_key_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "cert.pem"
    file.touch()

    assert problems(monkeypatch, CONSUL_CLIENT_CERT=str(file)) == (
        "GATEWAY_CONSUL_CLIENT_CERT and GATEWAY_CONSUL_CLIENT_KEY go together; one is missing",
    )


def test_an_option_that_is_none_of_ours_is_told_in_the_words_of_pydantic() -> None:
    with pytest.raises(SettingsError, match=r"^--wings: Extra inputs are not permitted$"):
        load_settings({"wings": 2})


def test_a_variable_that_is_nearly_ours_is_told_with_the_one_that_is_meant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = problems(monkeypatch, GATEWAY_DRAIN_TIMOUT="5s", GATEWAY_TRUSTED_PROXY="::1")

    assert found == (
        "GATEWAY_DRAIN_TIMOUT: is not known; did you mean GATEWAY_DRAIN_TIMEOUT?",
        "GATEWAY_TRUSTED_PROXY: is not known; did you mean GATEWAY_TRUSTED_PROXIES?",
    )


@pytest.mark.parametrize(
    "variable",
    [
        "GATEWAY_SERVICE_HOST",
        "GATEWAY_SERVICE_PORT_HTTP",
        "GATEWAY_PORT",
        "GATEWAY_PORT_8080_TCP_ADDR",
        "GATEWAY_ADMIN_PORT",
        "GATEWAY_ADMIN_PORT_9901_TCP",
        "GATEWAY_ADMIN_SERVICE_HOST",
        "GATEWAY_COLOUR",
        "NEARLY_GATEWAY_BIND",
    ],
)
def test_what_kubernetes_and_others_set_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    assert load(monkeypatch, **{variable: "tcp://10.0.0.1:80"}) == load_settings({})


def test_variables_that_nobody_reads_are_listed_without_those_of_kubernetes() -> None:
    env = {"GATEWAY_LISTEN": ":80", "gateway_colour": "red", "GATEWAY_EMPTY": "", "PATH": "/bin"}
    links = {"GATEWAY_PORT": "tcp://10.0.0.1:80", "GATEWAY_SERVICE_HOST": "10.0.0.1"}

    assert unknown_variables(env | links | {"GATEWAY_BIND": "127.0.0.1:0"}) == [
        "GATEWAY_COLOUR",
        "GATEWAY_LISTEN",
    ]


def test_a_token_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, GATEWAY_CONSUL_TOKEN="hunter2")

    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings.model_dump())


def test_a_token_does_not_show_where_something_else_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "cert.pem"
    file.touch()
    monkeypatch.setenv("GATEWAY_CONSUL_CLIENT_CERT", str(file))
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "hunter2")

    with pytest.raises(SettingsError) as refused:
        load_settings({})

    assert "hunter2" not in repr(refused.value)
    assert "hunter2" not in str(refused.value.__cause__)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings({}).registry = "static"


def test_the_snapshot_file_is_in_the_state_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, GATEWAY_STATE_DIR="/var/lib/gateway")

    assert settings.snapshot_file == Path("/var/lib/gateway/snapshots.json")


def test_without_a_state_dir_there_is_no_snapshot_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, GATEWAY_STATE_DIR="off").snapshot_file is None


def test_a_tilde_in_a_path_is_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load(monkeypatch, HOME=str(tmp_path), GATEWAY_CONFIG="~/routes.yaml")

    assert settings.config == tmp_path / "routes.yaml"


def test_the_state_dir_is_where_programs_keep_state(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert default_state_dir({"XDG_STATE_HOME": "/state"}) == Path("/state/gateway")
    assert default_state_dir({"XDG_STATE_HOME": "relative"}) == tmp_path / ".local/state/gateway"
    assert default_state_dir({}) == tmp_path / ".local/state/gateway"


def test_a_user_without_a_home_keeps_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs with a numeric user."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 2)

    assert default_state_dir({}) is None


def test_every_setting_is_described_and_every_name_of_consuls_tools_has_one() -> None:
    described = [field.description for field in Settings.model_fields.values()]
    variables = {variable_of(field) for field in Settings.model_fields}

    assert all(text is not None and text.endswith(".") for text in described)
    assert set(CONSUL_VARIABLES) <= variables
