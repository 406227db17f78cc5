"""The entry `health_check` of routes.yaml: its keys, and the kinds of values that only it has."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from gateway.config.entry import Policy
from gateway.config.kinds import NOT_EMPTY, Duration, KindError, shown
from gateway.core.policy import HealthCheckPolicy, StatusRange
from gateway.core.units import Kind

_LISTED = Field(strict=False)  # YAML has lists, frozen values have tuples
_TARGET = re.compile(r"/[\x21\x22\x24-\x7e]*")  # printable, without the # of a fragment
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?")
_AUTHORITY = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_STATUSES = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?")
_OWN_FIELDS = frozenset({"host", "connection", "content-length", "transfer-encoding"})


def _target(value: object) -> str:
    if not isinstance(value, str) or not _TARGET.fullmatch(value):
        raise KindError(f"{shown(value)} is not a path; write it with a slash in front: /health")
    return value


def _statuses(value: object) -> StatusRange:
    """Read one status or a range of them, both ends included: `204`, `200-399`."""
    found = _STATUSES.fullmatch(str(value))
    if found is None or isinstance(value, bool | float):
        raise KindError(f"{shown(value)} is not a status; write 200 or 200-399")
    first, last = int(found[1]), int(found[2] or found[1])
    if last < first:
        raise KindError(f"{shown(value)} goes backwards; write {last}-{first}")
    return StatusRange(first, last)


def _authority(value: object) -> str:
    if not isinstance(value, str) or not _AUTHORITY.fullmatch(value):
        raise KindError(f"{shown(value)} is not a host; write shop.example or shop.example:8080")
    return value


def _field_name(value: object) -> str:
    if not isinstance(value, str) or not _FIELD_NAME.fullmatch(value):
        raise KindError(f"{shown(value)} is not the name of a header; write X-Token")
    if value.lower() in _OWN_FIELDS:
        instead = "; there is a key `host`" if value.lower() == "host" else ""
        raise KindError(f"{value} is written by the gateway itself{instead}")
    return value


def _field_value(value: object) -> str:
    if not isinstance(value, str) or not _FIELD_VALUE.fullmatch(value):
        raise KindError("is not the value of a header; write printable ASCII in quotes")
    return value


_Statuses = Annotated[
    StatusRange, BeforeValidator(_statuses), WithJsonSchema({"type": ["integer", "string"]})
]
_FieldName = Annotated[str, BeforeValidator(_field_name)]
_FieldValue = Annotated[str, BeforeValidator(_field_value)]
_OF_HTTP = ("path", "expect", "host", "headers")


class HealthCheckEntry(Policy):
    """How the gateway itself checks the instances of a service."""

    CORE: ClassVar[Any] = HealthCheckPolicy

    type: Annotated[Literal["http", "tcp"] | None, Kind("`http` or `tcp`")] = Field(
        default=None,
        description="`http` asks with GET; `tcp` only connects, which finds the dead but not the "
        "frozen.",
    )
    path: Annotated[str | None, BeforeValidator(_target), Kind("path")] = Field(
        default=None, description="What is asked for, a query included; `http` needs it."
    )
    interval: Duration | None = Field(
        default=None,
        description="From one check to the next, a tenth more or less by chance; a fifth of it, "
        "but a second at least, while the results contradict each other and in the first time of "
        "an outage.",
    )
    timeout: Duration | None = Field(
        default=None, description="A check without a result after this time has failed."
    )
    healthy_after: int | None = Field(
        default=None, ge=1, description="So many passed in a row let an instance in again."
    )
    unhealthy_after: int | None = Field(
        default=None, ge=1, description="So many failed in a row take an instance out."
    )
    expect: Annotated[
        tuple[_Statuses, ...] | None, _LISTED, NOT_EMPTY, Kind("list of statuses and ranges")
    ] = Field(
        default=None,
        description="Statuses that pass; redirects are not followed.",
    )
    host: Annotated[str | None, BeforeValidator(_authority), Kind("host")] = Field(
        default=None, description="The Host that is sent; left out, each one's own address."
    )
    headers: Annotated[dict[_FieldName, _FieldValue] | None, Kind("mapping")] = Field(
        default=None, description="More fields that are sent, as in `{X-Token: secret}`."
    )

    def overrides(self) -> dict[str, Any]:
        """List what is set here; headers are pairs to the core."""
        found = super().overrides()
        if self.headers is not None:
            found["headers"] = tuple(self.headers.items())
        return found

    @model_validator(mode="after")
    def _keys_of_its_type(self) -> HealthCheckEntry:
        if self.type != "tcp":
            if self.path is None:
                raise ValueError("needs a path; write path: /health, or type: tcp to only connect")
            return self
        for key in _OF_HTTP:
            if getattr(self, key) is not None:
                raise ValueError(f"type tcp only connects: leave {key} out, or write type: http")
        return self
