"""Consul's JSON -> Instances.

The one rule: a bad entry is skipped alone and named; it never takes its neighbours with it. The
entries are those of `/v1/health/service/<name>`, asked without `passing`, so that the sick ones are
in it: a refusal can then say why, and absence can be told from sickness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from heapq import merge
from typing import Any, Literal

from gateway.core.addresses import MAX_PORT, is_instance_host
from gateway.core.model import MAX_WEIGHT, Instance, Skipped, Status

TaggedAddress = Literal["lan", "wan"]

_NODE_MAINTENANCE = "_node_maintenance"
_SERVICE_MAINTENANCE = "_service_maintenance:"
# 64 MiB of the shortest entries that Consul could send are not that many.
MAX_ENTRIES = 200_000
MAX_NAMED = 10
_NAME_LENGTH = 200
_SORTED_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Listing:
    """What an answer lists: usable instances sorted by key, and the entries that are not usable.

    `skipped` names MAX_NAMED entries at most; `skipped_count` counts all of them.
    """

    instances: tuple[Instance, ...]
    skipped: tuple[Skipped, ...] = ()
    skipped_count: int = 0


def listing_of(
    entries: Iterable[Any],
    *,
    tagged_address: TaggedAddress | None = None,
    step: Callable[[], None] = lambda: None,
) -> Listing:
    """Read all entries; Consul's own order is random.

    `tagged_address` prefers the address under that tag, of the service first, then of its node.
    `step` is called between two pieces of work. Raises what `entries` raises while it is iterated,
    and ValueError when more than MAX_ENTRIES come.
    """
    found: dict[str, Instance] = {}
    skipped: list[Skipped] = []
    skipped_count = 0
    for count, entry in enumerate(entries):
        if count >= MAX_ENTRIES:
            raise ValueError(f"more than {MAX_ENTRIES} entries")
        try:
            instance = _instance(entry, tagged_address)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            skipped_count += 1
            if len(skipped) < MAX_NAMED:
                skipped.append(Skipped(_name_of(entry), _why(error)))
        else:
            found[instance.key] = instance
        step()
    instances = tuple(found[key] for key in _sorted(list(found), step))
    return Listing(instances, tuple(sorted(skipped)), skipped_count)


def _sorted(keys: list[str], step: Callable[[], None]) -> Iterable[str]:
    """Sort in parts: sorting 50,000 keys at once holds the interpreter for 40 ms."""
    parts = [sorted(keys[at : at + _SORTED_AT_ONCE]) for at in range(0, len(keys), _SORTED_AT_ONCE)]
    for key in merge(*parts):
        step()
        yield key


def _name_of(entry: Any) -> str:
    """Name an entry by what can be read of it: `NODE/ID`, or `an entry without an id`."""
    try:
        name = f"{entry['Node']['Node']}/{entry['Service']['ID']}"
    except (KeyError, TypeError):
        return "an entry without an id"
    return name[:_NAME_LENGTH].encode("ascii", "backslashreplace").decode("ascii")


def _why(error: Exception) -> str:
    """Say in words why an entry cannot be used."""
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]}"
    if isinstance(error, UnicodeError):
        return "its id is not text"
    if isinstance(error, ValueError | OverflowError):
        return str(error)[:_NAME_LENGTH]
    return "a part of it has the wrong type"


def _instance(entry: Any, tagged_address: TaggedAddress | None) -> Instance:
    """Read one entry. Raises one of the errors named above for whatever is wrong with it."""
    service: Mapping[str, Any] = entry["Service"]
    checks: Iterable[Mapping[str, Any]] = entry["Checks"] or ()
    host, port = _address(entry["Node"], service, tagged_address)
    # Ids are unique on one agent only.
    identity = f"{entry['Node']['Node']}/{service['ID']}"
    identity.encode()  # "\\ud800" is a string in JSON, and no text
    meta: Mapping[str, str] = service.get("Meta") or {}
    status = _status(checks)
    return Instance(
        key=f"{identity}/{host}:{port}",
        id=identity,
        host=host,
        port=port,
        scheme=_scheme(meta.get("scheme")),
        weight=_weight(service.get("Weights") or {}, meta, status),
        status=status,
        tags=tuple(str(tag) for tag in service.get("Tags") or ()),
        meta=tuple(sorted((str(name), str(value)) for name, value in meta.items())),
        zone=meta.get("zone") or None,
    )


def _address(
    node: Mapping[str, Any], service: Mapping[str, Any], tagged_address: TaggedAddress | None
) -> tuple[str, int]:
    host, port = service.get("Address") or node["Address"], service["Port"]
    if tagged_address is not None:
        tagged = (service.get("TaggedAddresses") or {}).get(tagged_address)
        if tagged:
            host, port = tagged["Address"], tagged["Port"]
        else:
            host = (node.get("TaggedAddresses") or {}).get(tagged_address) or host
    host = host.removeprefix("[").removesuffix("]")
    if not is_instance_host(host):
        raise ValueError(f"not an address: {host!r}")
    if port == 0 and not isinstance(port, bool):
        raise ValueError("it is registered without a port")
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port <= MAX_PORT:
        raise ValueError(f"not a port: {port!r}")
    return host, port


def _status(checks: Iterable[Mapping[str, Any]]) -> Status:
    """Sum up the checks of an instance and of its node: the worst one counts.

    Maintenance is a critical check with a reserved id (Consul, "Agent HTTP API", maintenance mode).
    """
    worst = Status.PASSING
    for check in checks:
        status, check_id = check["Status"], str(check["CheckID"])
        if status == "critical":
            if check_id == _NODE_MAINTENANCE or check_id.startswith(_SERVICE_MAINTENANCE):
                return Status.MAINTENANCE
            worst = Status.CRITICAL
        elif status == "warning" and worst is Status.PASSING:
            worst = Status.WARNING
    return worst


def _scheme(wanted: str | None) -> str:
    """Take https where the meta says so; other protocols than HTTP are not ours to speak."""
    return "https" if wanted == "https" else "http"


def _weight(weights: Mapping[str, int], meta: Mapping[str, str], status: Status) -> int:
    """Choose the weight that holds for the status.

    The meta key `weight` stands for Weights.Passing where a registration has no way to set that.
    A warning weight may be 0: no traffic while something else serves.
    """
    if status is Status.WARNING:
        return max(0, min(MAX_WEIGHT, int(weights.get("Warning", 1))))
    passing = int(weights.get("Passing", 1))
    stated = meta.get("weight", "")
    if passing == 1 and stated.isascii() and stated.isdigit():
        passing = int(stated)
    return max(1, min(MAX_WEIGHT, passing))
