"""Write the tables of docs/routes.md and docs/settings.md from the models and the core's defaults.

`python scripts/gen_docs.py` rewrites what stands between `<!-- table: NAME -->` and `<!-- end -->`,
and nothing else. A test compares the files with what this would write, so they cannot rot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from gateway.config.balancing import BalancingKeys
from gateway.config.compiling import PLAIN_DEFAULTS
from gateway.config.entry import Entry, Policy
from gateway.config.models import PLACES
from gateway.consul_variables import CONSUL_VARIABLES
from gateway.core.failure import VERDICTS, Again, Verdict
from gateway.core.policy import BalancingPolicy
from gateway.core.units import Kind, format_duration, format_size
from gateway.settings import Settings, variable_of

DOCS = Path(__file__).parents[1] / "docs"
NOTHING = "-"

_TABLE = re.compile(r"(<!-- table: (?P<name>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_PLAIN_KINDS = MappingProxyType(
    {bool: "`true` or `false`", int: "whole number", float: "number", dict: "mapping"}
)


def tables() -> dict[str, str]:
    """Make a table for each place in routes.yaml (`top` is the outermost), and `settings`."""
    made = {place or "top": _entry_table(entry) for place, entry in PLACES.items()}
    return made | {"settings": _settings_table(), "failures": _failures_table()}


def rewrite(text: str, made: Mapping[str, str]) -> str:
    """Put the tables where the text says. Raises KeyError where it names one that is not made."""
    return _TABLE.sub(lambda found: f"{found[1]}\n{made[found['name']]}\n{found[3]}", text)


def _entry_table(entry: type[Entry]) -> str:
    rows = [
        (f"`{key}`", _kind(field), _entry_default(entry, key, field), str(field.description))
        for key, field in entry.model_fields.items()
    ]
    return _table(("key", "value", "default", "meaning"), rows)


def _settings_table() -> str:
    rows = []
    for name, field in Settings.model_fields.items():
        variable = variable_of(name)
        theirs = CONSUL_VARIABLES.get(variable)
        names = f"`{variable}`<br>`{theirs}`" if theirs else f"`{variable}`"
        default = NOTHING if field.default_factory else _shown(name, field.default)
        rows.append((names, _kind(field), default, str(field.description)))
    return _table(("variable", "value", "default", "meaning"), rows)


def _counts(verdict: Verdict) -> str:
    if not verdict.counts:
        return "no"
    return "yes" if verdict.again is Again.ALWAYS else "unless it is one client's"


def _failures_table() -> str:
    rows = [
        (
            f"`{failure.value}`",
            NOTHING if verdict.status is None else str(verdict.status),
            verdict.side.value,
            verdict.again.value,
            _counts(verdict),
            verdict.title,
            verdict.advice,
        )
        for failure, verdict in VERDICTS.items()
    ]
    head = ("reason", "status", "whose", "may be sent again", "counts for the Breaker")
    return _table((*head, "what happened", "what to look at"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _entry_default(entry: type[Entry], key: str, field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if issubclass(entry, Policy):
        name = entry.core_field(key)
        return _shown(name, getattr(entry.CORE(), name))
    if entry is PLACES["defaults"] and key in PLAIN_DEFAULTS:
        return _shown(key, PLAIN_DEFAULTS[key])
    if entry is PLACES["defaults"] and key in BalancingKeys.model_fields:
        return _balancing_default(key)
    return NOTHING if field.default_factory else _shown(key, field.default)


def _balancing_default(key: str) -> str:
    """Show the default of a key that stands for a field of the core's policy by itself."""
    if key == "slow_start":
        return _shown("slow_start_s", BalancingPolicy().slow_start_s)
    return NOTHING if key == "sticky" else _shown(key, getattr(BalancingPolicy(), key))


def _shown(name: str, value: object) -> str:
    """Write a default as it would be written by hand; the field's name says its unit."""
    if name.endswith("_s") and isinstance(value, float | None):
        return f"`{format_duration(value)}`"
    if name.endswith("_bytes") and isinstance(value, int):
        return f"`{format_size(value)}`"
    if isinstance(value, frozenset):
        texts = (item.decode() if isinstance(item, bytes) else str(item) for item in value)
        return f"`[{', '.join(sorted(texts))}]`"
    if isinstance(value, tuple) and value:
        return f"`[{', '.join(map(str, value))}]`"
    value = value.value if isinstance(value, Enum) else value
    if value is None or not str(value) or value in ((), b""):
        return NOTHING
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _kind(field: FieldInfo) -> str:
    """Name the kind of value that a field takes, with its limits."""
    marks = [*field.metadata, *_marks_within(field.annotation)]
    named = [mark.name for mark in marks if isinstance(mark, Kind)]
    return ", ".join([named[0] if named else _plain_kind(field.annotation), *_limits(marks)])


def _limits(marks: list[object]) -> Iterator[str]:
    for mark in marks:
        if isinstance(mark, Ge):
            yield f"{mark.ge} or more"
        elif isinstance(mark, Gt):
            yield f"more than {mark.gt}"
        elif isinstance(mark, Le):
            yield f"{mark.le} or less"


def _marks_within(annotation: Any) -> Iterator[object]:
    """List what `Annotated` says inside a type, but not of the items of a list or mapping."""
    yield from getattr(annotation, "__metadata__", ())
    if get_origin(annotation) not in {dict, tuple}:
        for part in get_args(annotation):
            yield from _marks_within(part)


def _plain_kind(annotation: Any) -> str:
    parts = (annotation, get_origin(annotation), *get_args(annotation))
    return next((_PLAIN_KINDS[part] for part in parts if part in _PLAIN_KINDS), "mapping")


def main() -> None:
    """Rewrite the files."""
    made = tables()
    for path in (DOCS / name for name in ("routes.md", "settings.md", "failures.md")):
        path.write_text(rewrite(path.read_text(encoding="utf-8"), made), encoding="utf-8")
        print(f"wrote {path.relative_to(DOCS.parent)}")


if __name__ == "__main__":
    main()
