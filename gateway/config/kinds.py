"""The kinds of values in routes.yaml: how each is read, and what is said of one that is wrong.

Each reader takes the plain value from the file and gives the core's value, or raises KindError (or
UnitError) with what it should have been and an example; that is the message after line and column.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from typing import Annotated, Literal, TypeGuard, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from gateway.core.addresses import without_password
from gateway.core.headers import HOP_BY_HOP, alike
from gateway.core.identity import IDENTITY
from gateway.core.paths import PathError, PathRules
from gateway.core.policy import Hedge, PathPolicy, PriorityClass, WhenAllOpen
from gateway.core.units import Kind, UnitError, parse_duration, parse_size, parse_timeout

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DATACENTER = re.compile(r"[A-Za-z0-9_-]+")  # Consul, "Datacenter"
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_IMPORT_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_QUANTILE = re.compile(r"p([0-9]{1,2}(?:\.[0-9]{1,3})?)")
_NOT_FOR_DEADLINES = {name.decode() for name in (*HOP_BY_HOP, *IDENTITY)} | {
    *("host", "content-length", "via", "date", "authorization", "cookie"),
}
_NEEDED_FIELDS = {name.decode() for name in HOP_BY_HOP} | {"host", "content-length"}
# What the parser of requests (llhttp) knows; it refuses any other before a route is looked for.
_KNOWN_METHODS = (
    *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"),
    *("ACL", "BIND", "CHECKOUT", "COPY", "LINK", "LOCK", "M-SEARCH", "MERGE", "MKACTIVITY"),
    *("MKCALENDAR", "MKCOL", "MOVE", "NOTIFY", "PROPFIND", "PROPPATCH", "PURGE", "REBIND"),
    *("REPORT", "SEARCH", "SOURCE", "SUBSCRIBE", "UNBIND", "UNLINK", "UNLOCK", "UNSUBSCRIBE"),
)
_PATTERN = re.compile(r"^[~^]|\$$|[\[\]{}]|[+*)]\)|\.[*+]|\\[dwsDWS.]|\(\?|\|")
_SPACE = re.compile(r"[\s\x00-\x20]")
_LONGEST_HOST_NAME = 253  # RFC 1035 §2.3.4, without the dot of the root
_PATH_SAFE = "/!$&'()*+,;=:@%"
# What paths the file takes is only known when all of it is read: see `crosscheck`.
_LENIENT = PathRules(
    PathPolicy(
        merge_slashes=False,
        encoded_backslash="keep",
        overlong_utf8="keep",
    )
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


Choice = TypeVar("Choice", bound=Enum)


class KindError(ValueError):
    """A value that is not of the kind that its key takes."""


@dataclass(frozen=True, slots=True)
class InstanceUrl:
    """Where a configured instance listens: scheme, host without brackets, port."""

    scheme: str
    host: str
    port: int


def shown(value: object) -> str:
    """Show a value in a message as the file has it: without a password, and no lists in full."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, bool):
        return str(value).lower()
    return without_password(repr(value))


def is_token(text: str) -> bool:
    """Tell whether this may be the name of a header or a cookie (RFC 9110 §5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def _duration(value: object) -> float:
    if isinstance(value, str):
        return parse_duration(value)
    raise UnitError(f"{shown(value)} is not a duration; write {_with_unit(value)}")


def _some_duration(value: object) -> float:
    duration_s = _duration(value)
    if not duration_s:
        raise UnitError(f"{shown(value)} is no time at all; write 250ms, 5s or 1m")
    return duration_s


def _rate(value: object) -> int | None:
    """Read how many bytes there have to be in each minute, None for any number."""
    if value == "off":
        return None
    rate_bytes = _size(value)
    if not rate_bytes:
        raise KindError(f"{shown(value)} asks for nothing; write off for no limit")
    return rate_bytes


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
    raise UnitError(f"{shown(value)} is not a size; write 64KiB, 1MiB or 10MB")


def _name(value: object) -> str:
    """Read a service name or route id.

    Names go into Consul's request paths, so this is also what keeps `..` out of them.
    """
    if not isinstance(value, str):
        advice = "one name" if isinstance(value, dict | list) else "it in quotes"
        raise KindError(f"{shown(value)} is not a name; write {advice}")
    if "://" in value:
        raise KindError(
            f"{shown(value)} is an address and not a name; put it in servers of an entry of "
            "services, and write the name of that here"
        )
    if not _NAME.fullmatch(value) or ".." in value:
        raise KindError(
            f"{shown(value)} is not a name; use letters, digits, '.', '_' and '-', 128 at most, "
            "a letter or digit first and no '..'"
        )
    return value


def _method(value: object) -> bytes:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise KindError(f"{shown(value)} is not an HTTP method; write GET or POST")
    method = value.upper()
    if method == "CONNECT":
        raise KindError("CONNECT is not for a gateway (RFC 9110 §9.3.6), so it can never match")
    if method not in _KNOWN_METHODS:
        near = difflib.get_close_matches(method, _KNOWN_METHODS, n=1, cutoff=0.65)
        advice = f"write {near[0]}" if near else "write GET or POST, or leave methods out for any"
        raise KindError(
            f"{shown(value)} is a method that is not taken, so it can never match; {advice}"
        )
    return method.encode()


def _upgrade_name(value: object) -> bytes:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise KindError(f"{shown(value)} is not a protocol to switch to; write websocket")
    if value.lower() == "h2c":
        raise KindError("h2c would hide requests from the gateway, so it is never taken")
    return value.lower().encode()


def _host_pattern(value: object) -> str:
    """Read a name of a site, or `*.` and the name below which all names are taken."""
    if not isinstance(value, str):
        raise KindError(f"{shown(value)} is not a host name; write api.example.com")
    if value == "*":
        raise KindError("'*' is any host; leave hosts out for that")
    pattern = value.lower().removesuffix(".")
    name = pattern.removeprefix("*.")
    if not _HOST_NAME.fullmatch(name) or len(pattern) > _LONGEST_HOST_NAME:
        raise KindError(f"{shown(value)} is not a host name; {_host_advice(value)}")
    return pattern


def _host_advice(value: str) -> str:
    if "://" in value or "/" in value:
        authority = value.partition("://")[2] or value
        name = authority.partition("/")[0].rpartition("@")[2].partition(":")[0].lower()
        is_name = _HOST_NAME.fullmatch(name.removeprefix("*."))
        return f"leave scheme, port and path out: write {name if is_name else 'api.example.com'}"
    if "@" in value:
        name = value.rpartition("@")[2].partition(":")[0].lower()
        return f"write {name if _HOST_NAME.fullmatch(name) else 'api.example.com'}"
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
    """Read a path in the normal form that requests are brought into; no other can ever match.

    Whether its `//`, `%2F` … are taken here is another matter, for `gateway.config.crosscheck`.
    """
    if isinstance(value, str) and _PATTERN.search(value):
        raise KindError(
            f"{shown(value)} looks like a pattern, and a path is none; write path_prefix with "
            "what stands before it (path_prefix: /api takes all that is below /api)"
        )
    if not isinstance(value, str) or not value.startswith("/"):
        raise KindError(
            f"{shown(value)} is not a path; write it with a slash in front: {_slashed(value)}"
        )
    for mark, name in (("?", "query"), ("#", "fragment")):
        if mark in value:
            raise KindError(f"a path has no {name}; write {_normal(value.partition(mark)[0])}")
    if any(segment.strip("*") == "" and segment for segment in value.split("/")):
        raise KindError("'*' is no pattern here; path_prefix takes all that is below it")
    if quote(value, safe=_PATH_SAFE) != value:
        raise KindError(f"{shown(value)} needs percent-encoding; write {_normal(value)}")
    if _normal(value) != value:
        raise KindError(f"{shown(value)} is not in normal form; write {_normal(value)}")
    return value.encode()


def _slashed(value: object) -> str:
    is_plain = isinstance(value, str) and re.fullmatch(r"[\w/-]+", value, re.ASCII)
    return f"/{value}" if is_plain else "/api/users"


def _normal(path: str) -> str:
    try:
        return _LENIENT.normalize(quote(path, safe=_PATH_SAFE).encode()).decode() if path else "/"
    except PathError as error:
        raise KindError(f"{path!r} can never match: {error}") from error


def _added_prefix(value: object) -> bytes:
    prefix = _path(value)
    if b"//" in prefix:
        raise KindError(f"has slashes that follow one another; write {_merged(prefix)}")
    if prefix.endswith(b"/"):
        advice = prefix.rstrip(b"/").decode()
        instead = f"write {advice}" if advice else "leave it out"
        raise KindError(f"must not end with a slash; {instead}")
    return prefix


def _merged(path: bytes) -> str:
    return re.sub("/{2,}", "/", path.decode()).rstrip("/")


def _instance_url(value: object) -> InstanceUrl:
    if not isinstance(value, str) or _SPACE.search(value):
        raise KindError(f"{shown(value)} is not a URL; write http://127.0.0.1:9001")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise KindError(f"{shown(value)} is not a URL; {_url_advice(value)}") from error
    if parts.scheme not in _DEFAULT_PORTS or not parts.netloc:
        advice = value.rpartition("://")[2].rpartition("@")[2] or "127.0.0.1:9001"
        raise KindError(f"{shown(value)} is not an http or https URL; write http://{advice}")
    if parts.username is not None or parts.path not in {"", "/"} or parts.query or parts.fragment:
        advice = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        raise KindError(f"only scheme, host and port can stand here; write {advice}")
    if not _can_be_dialled(parts.hostname) or port == 0:
        raise KindError(f"{shown(value)} has no valid host and port; write http://127.0.0.1:9001")
    return InstanceUrl(parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme])


def _url_advice(value: str) -> str:
    """Say what is wrong with the host or port of a URL that cannot be split."""
    authority = value.partition("://")[2].partition("/")[0].rpartition("@")[2]
    if authority.count(":") > 1:
        address, _, port = authority.replace("[", "").replace("]", "").rpartition(":")
        try:
            return f"IPv6 stands in brackets: write http://[{ip_address(address)}]:{int(port)}"
        except ValueError:
            return "IPv6 stands in brackets: write http://[::1]:9001"
    return f"a port is a number from 1 to 65535: write http://{authority.partition(':')[0]}:9001"


def _can_be_dialled(host: str | None) -> TypeGuard[str]:
    """Tell whether a host is a name or an address (urlsplit has checked what was in brackets).

    A dot behind a name keeps resolvers from trying it in other domains first.
    """
    is_name = host is not None and _HOST_NAME.fullmatch(host.removesuffix("."))
    return bool(host and (":" in host or is_name) and "%" not in host)


def _file_name(value: object) -> str:
    """Read the name of a file; whether it is there is seen when all of routes.yaml is read."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise KindError(f"{shown(value)} is not the name of a file; write certs/ca.pem")
    return value


def _import_name(value: object) -> str:
    """Read the name of something to import; whether it is there is seen when all is read."""
    if not isinstance(value, str) or not _IMPORT_NAME.fullmatch(value):
        raise KindError(f"{shown(value)} is not a name to import; write package.module:attribute")
    return value


def _server_name(value: object) -> str:
    """Read the name (or the address) that a certificate must be for."""
    name = value.lower() if isinstance(value, str) else ""
    if _HOST_NAME.fullmatch(name):
        return name
    try:
        return str(ip_address(name))
    except ValueError as error:
        raise KindError(f"{shown(value)} is not a host name; write api.example.com") from error


def _tag(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise KindError(f"{shown(value)} is not a tag; write it in quotes")
    return value


def _datacenter(value: object) -> str:
    if not isinstance(value, str) or not _DATACENTER.fullmatch(value):
        raise KindError(f"{shown(value)} is not a datacenter; use letters, digits, '_' and '-'")
    return value


def _field_name(value: object) -> bytes:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise KindError(f"{shown(value)} is no name of a field; write X-Request-Timeout-Ms")
    if value.lower() in _NOT_FOR_DEADLINES:
        raise KindError(f"{value} means something else; write X-Request-Timeout-Ms")
    return value.lower().encode()


def _removed_field(value: object) -> bytes:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise KindError(f"{shown(value)} is no name of a field; write X-Client-Ip")
    if value.lower() in _NEEDED_FIELDS:
        raise KindError(f"{value} frames or routes the request and cannot be left out")
    return alike(value.encode())


def _hedge(value: object) -> Hedge | None:
    """Read after how long a second instance is asked: a quantile, a duration, or never."""
    if isinstance(value, str) and (found := _QUANTILE.fullmatch(value)):
        quantile = round(float(found[1]) / 100, 6)
        if 0 < quantile < 1:
            return Hedge(quantile=quantile)
        raise KindError(f"{shown(value)} leaves nobody to hedge; write p95 or p99")
    try:
        after_s = _timeout(value)
    except UnitError as error:
        raise KindError(
            f"{shown(value)} is neither a quantile nor a duration; write p95"
        ) from error
    return None if after_s is None else Hedge(after_s=after_s)


def _limit(value: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise KindError(f"{shown(value)} is no limit; write a whole number above 0, or auto")


def _one_of(choices: type[Choice]) -> Callable[[object], Choice]:
    """Make a reader of names of an Enum, in small letters."""
    names = {choice.name.lower(): choice for choice in choices}

    def read(value: object) -> Choice:
        if isinstance(value, str) and value in names:
            return names[value]
        raise KindError(f"{shown(value)} is not known; write {' or '.join(names)}")

    return read


def _texts(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern})


def _named(choices: type[Enum]) -> tuple[BeforeValidator, Kind, WithJsonSchema]:
    """Say how the members of an Enum are read, documented, and checked by others."""
    names = [choice.name.lower() for choice in choices]
    kind = Kind(" or ".join(f"`{name}`" for name in names))
    return BeforeValidator(_one_of(choices)), kind, WithJsonSchema({"enum": names})


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
HedgeAfter = Annotated[
    Hedge | None,
    BeforeValidator(_hedge),
    Kind("`p50` to `p99.9`, duration or `off`"),
    _texts(rf"^off$|^none$|^p[0-9]+(\.[0-9]+)?$|{_DURATION_PATTERN}"),
]
Limit = Annotated[
    int | Literal["auto"] | None,
    BeforeValidator(_limit),
    Kind("whole number, 1 or more, or `auto`"),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]}),
]
PriorityName = Annotated[PriorityClass | None, *_named(PriorityClass)]
WhatIfAllOpen = Annotated[WhenAllOpen | None, *_named(WhenAllOpen)]
Size = Annotated[
    int,
    BeforeValidator(_size),
    Kind("size"),
    WithJsonSchema({"type": ["string", "integer"]}),
]
Rate = Annotated[
    int | None,
    BeforeValidator(_rate),
    Kind("size or `off`"),
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
Tag = Annotated[str, BeforeValidator(_tag), Kind("tag"), _texts(".")]
Datacenter = Annotated[
    str, BeforeValidator(_datacenter), Kind("name"), _texts(f"^{_DATACENTER.pattern}$")
]
FileName = Annotated[str, BeforeValidator(_file_name), Kind("path"), _texts(".")]
ImportName = Annotated[
    str, BeforeValidator(_import_name), Kind("`module:attribute`"), _texts(_IMPORT_NAME.pattern)
]
FieldName = Annotated[
    bytes, BeforeValidator(_field_name), Kind("name"), _texts(f"^{_TOKEN.pattern}$")
]
RemovedField = Annotated[
    bytes, BeforeValidator(_removed_field), Kind("name"), _texts(f"^{_TOKEN.pattern}$")
]
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
