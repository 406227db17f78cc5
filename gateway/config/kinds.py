"""The kinds of values in routes.yaml: how each is read, and what is said of one that is wrong.

Each reader takes the plain value from the file and gives the core's value, or raises KindError (or
UnitError) with what it should have been and an example; that is the message after line and column.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated, TypeGuard
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from gateway.core.paths import PathError, normalize
from gateway.core.units import Kind, UnitError, parse_duration, parse_size, parse_timeout

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_SPACE = re.compile(r"[\s\x00-\x20]")
_LONGEST_HOST_NAME = 253  # RFC 1035 §2.3.4, without the dot of the root
_PATH_SAFE = "/!$&'()*+,;=:@%"
_DEFAULT_PORTS = {"http": 80, "https": 443}


class KindError(ValueError):
    """A value that is not of the kind that its key takes."""


@dataclass(frozen=True, slots=True)
class InstanceUrl:
    """Where a configured instance listens: scheme, host without brackets, port."""

    scheme: str
    host: str
    port: int


def _duration(value: object) -> float:
    if isinstance(value, str):
        return parse_duration(value)
    raise UnitError(f"{value!r} is not a duration; write {_with_unit(value)}")


def _some_duration(value: object) -> float:
    duration_s = _duration(value)
    if not duration_s:
        raise UnitError(f"{value!r} is no time at all; write 250ms, 5s or 1m")
    return duration_s


def _timeout(value: object) -> float | None:
    return parse_timeout(value) if isinstance(value, str) else _some_duration(value)


def _with_unit(value: object) -> str:
    """Suggest a bare number with its unit: most people who leave it out mean seconds."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return f"{value}s (or {value}ms)"
    return "250ms, 5s or 1m"


def _size(value: object) -> int:
    if isinstance(value, int | str) and not isinstance(value, bool):
        return parse_size(str(value))
    raise UnitError(f"{value!r} is not a size; write 64KiB, 1MiB or 10MB")


def _name(value: object) -> str:
    """Read a service name or route id.

    Names go into Consul's request paths, so this is also what keeps `..` out of them.
    """
    if not isinstance(value, str):
        raise KindError(f"{value!r} is not a name; write it in quotes")
    if not _NAME.fullmatch(value) or ".." in value:
        raise KindError(
            f"{value!r} is not a name; use letters, digits, '.', '_' and '-', 128 at most, "
            "a letter or digit first and no '..'"
        )
    return value


def _method(value: object) -> bytes:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise KindError(f"{value!r} is not an HTTP method; write GET or POST")
    method = value.upper()
    if method == "CONNECT":
        raise KindError("CONNECT is not for a gateway (RFC 9110 §9.3.6), so it can never match")
    return method.encode()


def _upgrade_name(value: object) -> bytes:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise KindError(f"{value!r} is not a protocol to switch to; write websocket")
    if value.lower() == "h2c":
        raise KindError("h2c would hide requests from the gateway, so it is never taken")
    return value.lower().encode()


def _host_pattern(value: object) -> str:
    """Read a name of a site, or `*.` and the name below which all names are taken."""
    if not isinstance(value, str):
        raise KindError(f"{value!r} is not a host name; write api.example.com")
    if value == "*":
        raise KindError("'*' is any host; leave hosts out for that")
    pattern = value.lower().removesuffix(".")
    name = pattern.removeprefix("*.")
    if not _HOST_NAME.fullmatch(name) or len(pattern) > _LONGEST_HOST_NAME:
        raise KindError(f"{value!r} is not a host name; {_host_advice(value)}")
    return pattern


def _host_advice(value: str) -> str:
    if "://" in value or "/" in value:
        authority = value.rpartition("://")[2].partition("/")[0]
        return f"leave scheme and path out: write {authority or 'api.example.com'}"
    name, colon, port = value.rpartition(":")
    if colon and port.isdigit() and ":" not in name:
        return f"ports are not matched: write {name}"
    if "*" in value:
        return "'*.' may only stand in front: write *.example.com"
    if not value.isascii():
        return f"write it as it is sent: {_as_sent(value)}"
    return "write api.example.com or *.example.com"


def _as_sent(name: str) -> str:
    try:
        return name.encode("idna").decode()
    except UnicodeError:
        return "xn--…"


def _path(value: object) -> bytes:
    """Read a path in the normal form that requests are brought into; no other can ever match."""
    if not isinstance(value, str) or not value.startswith("/"):
        raise KindError(f"{value!r} is not a path; write it with a slash in front: /api/users")
    for mark, name in (("?", "query"), ("#", "fragment")):
        if mark in value:
            raise KindError(f"a path has no {name}; write {_normal(value.partition(mark)[0])}")
    if any(segment.strip("*") == "" and segment for segment in value.split("/")):
        raise KindError("'*' is no pattern here; path_prefix takes all that is below it")
    if quote(value, safe=_PATH_SAFE) != value:
        raise KindError(f"{value!r} needs percent-encoding; write {_normal(value)}")
    if _normal(value) != value:
        raise KindError(f"{value!r} is not in normal form; write {_normal(value)}")
    return value.encode()


def _normal(path: str) -> str:
    try:
        return normalize(quote(path, safe=_PATH_SAFE).encode()).decode() if path else "/"
    except PathError as error:
        raise KindError(f"{path!r} can never match: {error}") from error


def _added_prefix(value: object) -> bytes:
    prefix = _path(value)
    if prefix.endswith(b"/"):
        advice = prefix.rstrip(b"/").decode()
        instead = f"write {advice}" if advice else "leave it out"
        raise KindError(f"must not end with a slash; {instead}")
    return prefix


def _instance_url(value: object) -> InstanceUrl:
    if not isinstance(value, str) or _SPACE.search(value):
        raise KindError(f"{value!r} is not a URL; write http://127.0.0.1:9001")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise KindError(f"{value!r} is not a URL: {error}") from error
    if parts.scheme not in _DEFAULT_PORTS or not parts.netloc:
        advice = value.rpartition("://")[2] or "127.0.0.1:9001"
        raise KindError(f"{value!r} is not an http or https URL; write http://{advice}")
    if parts.username is not None or parts.path not in {"", "/"} or parts.query or parts.fragment:
        advice = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        raise KindError(f"only scheme, host and port can stand here; write {advice}")
    if not _can_be_dialled(parts.hostname) or port == 0:
        raise KindError(f"{value!r} has no valid host and port; write http://127.0.0.1:9001")
    return InstanceUrl(parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme])


def _can_be_dialled(host: str | None) -> TypeGuard[str]:
    """Tell whether a host is a name or an address (urlsplit has checked what was in brackets)."""
    return bool(host and (":" in host or _HOST_NAME.fullmatch(host)) and "%" not in host)


def _file_name(value: object) -> str:
    """Read the name of a file; whether it is there is seen when all of routes.yaml is read."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise KindError(f"{value!r} is not the name of a file; write certs/ca.pem")
    return value


def _server_name(value: object) -> str:
    """Read the name (or the address) that a certificate must be for."""
    name = value.lower() if isinstance(value, str) else ""
    if _HOST_NAME.fullmatch(name):
        return name
    try:
        return str(ip_address(name))
    except ValueError as error:
        raise KindError(f"{value!r} is not a host name; write api.example.com") from error


def _texts(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern})


_DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"

Timeout = Annotated[
    float | None,
    BeforeValidator(_timeout),
    Kind("duration or `off`"),
    _texts(rf"^off$|^none$|{_DURATION_PATTERN}"),
]
Duration = Annotated[
    float, BeforeValidator(_some_duration), Kind("duration"), _texts(_DURATION_PATTERN)
]
Size = Annotated[
    int,
    BeforeValidator(_size),
    Kind("size"),
    WithJsonSchema({"type": ["string", "integer"]}),
]
Name = Annotated[str, BeforeValidator(_name), Kind("name"), _texts(f"^{_NAME.pattern}$")]
UpgradeName = Annotated[
    bytes, BeforeValidator(_upgrade_name), Kind("name"), _texts(f"^{_TOKEN.pattern}$")
]
Method = Annotated[bytes, BeforeValidator(_method), Kind("method"), _texts(f"^{_TOKEN.pattern}$")]
HostPattern = Annotated[str, BeforeValidator(_host_pattern), Kind("host"), _texts(r"^[^/:]+$")]
RoutePath = Annotated[bytes, BeforeValidator(_path), Kind("path"), _texts("^/")]
AddedPrefix = Annotated[bytes, BeforeValidator(_added_prefix), Kind("path"), _texts("^/")]
FileName = Annotated[str, BeforeValidator(_file_name), Kind("path"), _texts(".")]
ServerName = Annotated[str, BeforeValidator(_server_name), Kind("host"), _texts(r"^[^/]+$")]
Url = Annotated[InstanceUrl, BeforeValidator(_instance_url), Kind("URL"), _texts("^https?://")]


def _not_empty(values: tuple[object, ...]) -> tuple[object, ...]:
    if not values:
        raise KindError("is empty; leave it out instead")
    return values


def _distinct(values: tuple[object, ...]) -> tuple[object, ...]:
    for value in values:
        if values.count(value) > 1:
            shown = value.decode() if isinstance(value, bytes) else value
            raise KindError(f"{shown!r} stands twice")
    return values


NOT_EMPTY = AfterValidator(_not_empty)
DISTINCT = AfterValidator(_distinct)
