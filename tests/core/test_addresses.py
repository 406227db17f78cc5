"""Addresses of listeners, of Consul and of trusted proxies."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from gateway.core.addresses import (
    ListenAddress,
    consul_url,
    parse_listen_address,
    parse_networks,
    without_password,
)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("localhost:0", "localhost", 0),
        ("0.0.0.0:80", "0.0.0.0", 80),
        ("[::1]:8080", "::1", 8080),
        ("[::]:65535", "::", 65535),
    ],
)
def test_a_listen_address_is_read_and_written_the_same(text: str, host: str, port: int) -> None:
    address = parse_listen_address(text)

    assert address == ListenAddress(host, port)
    assert text == str(address)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("8080", "write 127.0.0.1:8080"),
        ("http://0.0.0.0:8080/", "write 0.0.0.0:8080"),
        ("127.0.0.1", "write 127.0.0.1:8080"),
        ("127.0.0.1:", "write 127.0.0.1:8080"),
        ("127.0.0.1:http", "write 127.0.0.1:8080"),
        ("127.0.0.1:65536", "write 127.0.0.1:8080"),
        ("127.0.0.1:٨٠", "write 127.0.0.1:8080"),
        (":8080", r"write 0.0.0.0:8080 or \[::\]:8080 for all"),
        ("::1:8080", r"write IPv6 as \[::1\]:8080"),
        ("[::1:8080", r"write IPv6 as \[::1\]:8080"),
        ("[localhost]:80", r"write IPv6 as \[::1\]:8080"),
    ],
)
def test_what_is_no_listen_address_is_refused_with_advice(text: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        parse_listen_address(text)


def test_networks_stand_with_commas_or_spaces_between() -> None:
    expected = (ip_network("10.0.0.0/8"), ip_network("192.0.2.1/32"), ip_network("fd00::/8"))

    assert expected == parse_networks("10.0.0.0/8, 192.0.2.1,\n fd00::/8 ,")
    assert parse_networks(" ") == ()


def test_an_address_with_bits_behind_its_network_is_refused_with_what_is_meant() -> None:
    with pytest.raises(ValueError, match=r"^'10.0.0.1/8' is not a network; write 10.0.0.0/8$"):
        parse_networks("10.0.0.1/8")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:secret@consul:8501", "https://***@consul:8501"),
        ("user:secret@consul:8501", "***@consul:8501"),
        ("'https://:secret@consul' has no port", "'https://***@consul' has no port"),
        ("https://consul:8501/a@b", "https://consul:8501/a@b"),
        ("10.0.0.0/8, ::1", "10.0.0.0/8, ::1"),
    ],
)
def test_a_password_in_an_address_is_left_out(text: str, shown: str) -> None:
    assert without_password(text) == shown


@pytest.mark.parametrize("text", ["10.0.0.0/33", "example.com"])
def test_what_is_no_network_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"write networks as in 10.0.0.0/8, ::1"):
        parse_networks(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:8500", "http://127.0.0.1:8500"),
        ("consul:8500", "http://consul:8500"),
        ("[::1]:8500", "http://[::1]:8500"),
        ("http://consul:8500/", "http://consul:8500"),
        ("https://consul.example.com", "https://consul.example.com"),
        ("https://proxy.example.com/consul/", "https://proxy.example.com/consul"),
        ("unix:///run/consul.sock", "unix:///run/consul.sock"),
    ],
)
def test_an_address_of_consul_has_the_forms_that_its_tools_take(text: str, url: str) -> None:
    assert url == consul_url(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("consul", "has no port; write consul:8500"),
        ("consul:port", "is not an address of Consul"),
        ("ftp://consul:8500", "write 127.0.0.1:8500"),
        ("http://", "write 127.0.0.1:8500"),
        ("unix://relative", "write 127.0.0.1:8500"),
        ("http://[::1", "is not an address of Consul"),
    ],
)
def test_what_is_no_address_of_consul_is_refused_with_advice(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        consul_url(text)


def test_a_password_in_an_address_of_consul_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="cannot hold a password") as refusal:
        consul_url("http://me:hunter2@consul:8500")

    assert "hunter2" not in str(refusal.value)
