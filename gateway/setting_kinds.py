"""The kinds of values that settings have: how each is read, and what is said of one that is wrong.

Each reader takes a text of the environment or of an option, and lets anything else pass: a value
that is given in Python is one already.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from gateway.core.addresses import (
    MAX_PORT,
    ListenAddress,
    consul_url,
    parse_listen_address,
    parse_networks,
)
from gateway.core.units import Kind, is_one_word, parse_duration, parse_size

_SHORTEST_CONSUL_WAIT_S = 1.0
_LONGEST_CONSUL_WAIT_S = 600.0


def _listen_address(value: object) -> object:
    return parse_listen_address(value) if isinstance(value, str) else value


def _listen_address_or_off(value: object) -> object:
    return None if value == "off" else _listen_address(value)


def _duration(value: object) -> object:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        raise ValueError(f"{value!r} has no unit; write {value}s (or {value}ms)")
    return parse_duration(value) if isinstance(value, str) else value


def _some_duration(value: object) -> object:
    duration_s = _duration(value)
    if duration_s == 0:
        raise ValueError(f"{value!r} is no time at all; write 250ms, 5s or 1m")
    return duration_s


def _consul_wait(value: object) -> object:
    wait_s = _duration(value)
    if (
        isinstance(wait_s, float)
        and not _SHORTEST_CONSUL_WAIT_S <= wait_s <= _LONGEST_CONSUL_WAIT_S
    ):
        raise ValueError(f"{value!r} is out of range; write 1s to 10m")
    return wait_s


def _size(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


def lower(value: object) -> object:
    """Take capitals for small letters."""
    return value.lower() if isinstance(value, str) else value


def _directory_or_off(value: object) -> object:
    return None if value == "off" else _file(value)


def _file(value: object) -> object:
    return Path(value).expanduser() if isinstance(value, str) else value


def _existing_file(value: object) -> object:
    path = _file(value)
    if isinstance(path, Path) and not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    return path


def _access_log(value: object) -> object:
    if isinstance(value, str) and value.lower() in {"json", "text", "auto"}:
        raise ValueError(
            f"{value!r} is a format; write on, and set GATEWAY_LOG_FORMAT={value.lower()}"
        )
    if isinstance(value, str) and value.lower() in {"stdout", "stderr", "-"}:
        raise ValueError(f"{value!r} is no file; write on for standard output")
    if isinstance(value, str) and value.lower() in {"true", "false", "yes", "no", "1", "0"}:
        raise ValueError(f"{value!r} is not known; write on, off or the path of a file")
    return value if value in {"on", "off"} else _file(value)


def _token(value: object) -> object:
    """Take a token without the line break that often stands behind it; never show it."""
    if not isinstance(value, str):
        return value
    token = value.strip()
    if not is_one_word(token):
        raise ValueError("holds more than a token: a line break, say, or a blank")
    return token


def _networks(value: object) -> object:
    return parse_networks(value) if isinstance(value, str) else value


def _names(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _existing_files(value: object) -> object:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    return tuple(map(_existing_file, value)) if isinstance(value, list | tuple) else value


def _redirect(value: object) -> object:
    text = str(value).lower()
    if text in {"on", "off"}:
        return text
    if text.isascii() and text.isdigit() and 0 < int(text) <= MAX_PORT:
        return int(text)
    raise ValueError(f"{value!r} is not known; write on, off or the port that clients see")


def _consul_address(value: object) -> object:
    return consul_url(value) if isinstance(value, str) else value


Address = Annotated[ListenAddress, NoDecode, BeforeValidator(_listen_address), Kind("`host:port`")]
AddressOrOff = Annotated[
    ListenAddress | None,
    NoDecode,
    BeforeValidator(_listen_address_or_off),
    Kind("`host:port` or `off`"),
]
Duration = Annotated[float, BeforeValidator(_duration), Kind("duration")]
SomeDuration = Annotated[float, BeforeValidator(_some_duration), Kind("duration")]
Size = Annotated[int, BeforeValidator(_size), Field(ge=1), Kind("size")]
Count = Annotated[int, Field(ge=1), Kind("number")]
CountOrNone = Annotated[int, Field(ge=0), Kind("number")]
FilePath = Annotated[Path, BeforeValidator(_file), Kind("path")]
ExistingFile = Annotated[Path | None, BeforeValidator(_existing_file), Kind("path")]
Directory = Annotated[Path | None, BeforeValidator(_directory_or_off), Kind("path or `off`")]
Networks = Annotated[
    tuple[IPv4Network | IPv6Network, ...],
    NoDecode,
    BeforeValidator(_networks),
    Kind("networks, with commas between"),
]
Names = Annotated[
    tuple[str, ...],
    NoDecode,
    BeforeValidator(_names),
    Kind("names, with commas between"),
]
ExistingFiles = Annotated[
    tuple[Path, ...],
    NoDecode,
    BeforeValidator(_existing_files),
    Kind("paths, with commas between"),
]
AccessLog = Annotated[
    Literal["on", "off"] | Path, BeforeValidator(_access_log), Kind("`on`, `off` or a path")
]
Redirect = Annotated[
    Literal["on", "off"] | int, BeforeValidator(_redirect), Kind("`on`, `off` or a port")
]
ConsulAddress = Annotated[str, BeforeValidator(_consul_address), Kind("address")]
Token = Annotated[SecretStr | None, BeforeValidator(_token), Kind("text")]
ConsulWait = Annotated[float, BeforeValidator(_consul_wait), Kind("duration")]
