"""A document against the models: which keys and values are not what they should be.

pydantic finds what is wrong, this module says it: at the line and column where it stands, in words
that name the key, what is expected there, and an example.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType, UnionType
from typing import Annotated, Any, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gateway.config.document import Document, DocumentPath
from gateway.config.entry import Entry
from gateway.config.models import PLACES, RoutesFile
from gateway.core.config import Problem


def check_shape(document: Document) -> tuple[RoutesFile | None, list[Problem]]:
    """Hold a document against the models; None for the file where there are problems.

    What the document already complained of is not said again.
    """
    try:
        return RoutesFile.model_validate(document.root), []
    except ValidationError as error:
        details = error.errors(include_url=False)
    paths = map(_path_of, details)
    return None, [
        _problem(document, path, detail)
        for path, detail in zip(paths, details, strict=True)
        if not _repeats(document, path, detail)
    ]


def _path_of(detail: ErrorDetails) -> DocumentPath:
    return tuple(step for step in detail["loc"] if step != "[key]")


def _repeats(document: Document, path: DocumentPath, detail: ErrorDetails) -> bool:
    """Tell whether an error only follows from a value that could not be read.

    That value stands around the error, at it, or, for a rule about several keys, inside it.
    """
    if detail["type"] == "extra_forbidden":
        return False  # what could not be read has no keys, so this one is a mistake of its own
    if detail["type"] == "value_error" and any(at[: len(path)] == path for at in document.blocked):
        return True
    return document.is_blocked(path)


def _problem(document: Document, path: DocumentPath, detail: ErrorDetails) -> Problem:
    kind = detail["type"]
    if kind == "extra_forbidden":
        return document.problem(path, _unknown_key(path), at_key=True)
    is_about_the_key = kind == "missing" or "[key]" in detail["loc"]
    return document.problem(
        path, message_of(detail), at_key=is_about_the_key or isinstance(detail["input"], dict)
    )


def message_of(detail: ErrorDetails) -> str:
    """Say what is wrong with a value; pydantic's own words stand in for a kind we do not know."""
    words = _MESSAGES.get(detail["type"])
    return words(detail) if words is not None else detail["msg"]


def _shown(detail: ErrorDetails) -> str:
    value = detail["input"]
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _plain(detail: ErrorDetails) -> str:
    return str(detail["ctx"]["expected"]).replace("'", "")


def _limit(detail: ErrorDetails, name: str) -> str:
    return f"{_shown(detail)} is out of range; {detail['ctx'][name]:g}"


_MESSAGES: Mapping[str, Callable[[ErrorDetails], str]] = MappingProxyType(
    {
        "value_error": lambda detail: str(detail["ctx"]["error"]),
        "missing": lambda _: "is missing",
        "literal_error": lambda detail: f"{_shown(detail)} is not known; write {_plain(detail)}",
        "bool_type": lambda detail: f"{_shown(detail)} is not true or false",
        "int_type": lambda detail: f"{_shown(detail)} is not a whole number; write 3",
        "float_type": lambda detail: f"{_shown(detail)} is not a number; write 0.5",
        "tuple_type": lambda detail: f"{_shown(detail)} is not a list; put it in [ ]",
        "dict_type": lambda detail: f"{_shown(detail)} is not a mapping of keys to values",
        "model_type": lambda detail: f"{_shown(detail)} is not a mapping of keys to values",
        "greater_than_equal": lambda detail: f"{_limit(detail, 'ge')} or more",
        "less_than_equal": lambda detail: f"{_limit(detail, 'le')} or less",
        "greater_than": lambda detail: _limit(detail, "gt").replace("; ", "; more than "),
    }
)


def _unknown_key(path: DocumentPath) -> str:
    key = str(path[-1])
    known = list(_entry_at(path[:-1]).model_fields)
    near = difflib.get_close_matches(key.lower().replace("-", "_"), known, n=1)
    if near:
        return f"unknown key; did you mean {near[0]!r}?"
    places = [place for place, entry in PLACES.items() if place and key in entry.model_fields]
    if places:
        return f"unknown key; it belongs in {' or '.join(places)}"
    return f"unknown key; known here: {', '.join(known)}"


def _entry_at(path: DocumentPath) -> type[Entry]:
    """Find the model of the mapping at a path; pydantic only found an unknown key inside one."""
    annotation: Any = RoutesFile
    for step in path:
        if get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
        elif get_origin(annotation) is tuple:
            annotation = get_args(annotation)[0]
        else:
            annotation = annotation.model_fields[step].annotation
        annotation = _bare(annotation)
    entry: type[Entry] = annotation
    return entry


def _bare(annotation: Any) -> Any:
    """Take `Annotated` and `| None` off a type."""
    while get_origin(annotation) in {Annotated, UnionType}:
        annotation = get_args(annotation)[0]
    return annotation
