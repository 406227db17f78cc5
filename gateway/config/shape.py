"""A document against the models: which keys and values are not what they should be.

pydantic finds what is wrong, this module says it: at the line and column where it stands, in words
that name the key, what is expected there, and an example.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType, UnionType
from typing import Annotated, Any, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gateway.config.document import Document, DocumentPath
from gateway.config.entry import Entry
from gateway.config.kinds import shown
from gateway.config.models import PLACES, RoutesFile
from gateway.core.addresses import without_password
from gateway.core.config import Problem
from gateway.core.units import Kind


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
    message = message_of(detail)
    if document.is_filled(path) and (
        kind != "value_error" or not isinstance(detail["input"], dict)
    ):
        message = _of_a_variable(document, path)
    return document.problem(
        path, message, at_key=is_about_the_key or isinstance(detail["input"], dict)
    )


def message_of(detail: ErrorDetails) -> str:
    """Say what is wrong with a value; pydantic's own words stand in for a kind we do not know."""
    words = _MESSAGES.get(detail["type"])
    return words(detail) if words is not None else detail["msg"]


def _of_a_variable(document: Document, path: DocumentPath) -> str:
    """Say what is wrong with a value that a variable filled in, never what it is."""
    reference = document.references.get(path, "a variable")
    for length in range(len(path), 0, -1):
        if isinstance(path[length - 1], str):
            kinds = _kinds_at(path[:length])
            return f"what {reference} holds cannot be used here; set it to: {kinds}"
    return f"what {reference} holds cannot be used here"


def _kinds_at(path: DocumentPath) -> str:
    try:
        entry_field = _entry_at(path[:-1]).model_fields[str(path[-1])]
    except (AttributeError, KeyError, IndexError):
        return "another value"
    named = [one.name for one in entry_field.metadata if isinstance(one, Kind)]
    is_number = "int" in str(entry_field.annotation) or "float" in str(entry_field.annotation)
    plain = "true or false" if "bool" in str(entry_field.annotation) else "another value"
    return named[0] if named else "a number" if is_number else plain


def _shown(detail: ErrorDetails) -> str:
    return shown(detail["input"])


def _not_a_switch(detail: ErrorDetails) -> str:
    value = detail["input"]
    if value in {"true", "false"}:
        return f"{_shown(detail)} is a text; write {value} without quotes"
    return f"{_shown(detail)} is not a switch; write true or false"


def _not_a_number(detail: ErrorDetails) -> str:
    value = detail["input"]
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
        return f"{_shown(detail)} is a text; write {value} without quotes"
    if isinstance(value, str) and re.fullmatch(r"[45]xx", value.lower()):
        few = {"4": "write 408, 429", "5": "write 500, 502, 503, 504"}[value[0]]
        few = few.replace("write 500, 502, 503", "write 503, 500, 502")
        return f"{_shown(detail)} is not one status; name each: {few}"
    example = 503 if "statuses" in detail["loc"] else 3
    return f"{_shown(detail)} is not a whole number; write {example}"


def _not_a_list(detail: ErrorDetails) -> str:
    value = detail["input"]
    if isinstance(value, str | int):
        return f"{_shown(detail)} is not a list; write [{without_password(str(value))}]"
    return f"{_shown(detail)} is not a list; put it in [ ]"


def _not_a_mapping(detail: ErrorDetails) -> str:
    place = next((step for step in reversed(detail["loc"]) if isinstance(step, str)), "")
    example = _EXAMPLES.get(place)
    advice = f"; write {example}" if example else "; write {key: value}"
    return f"{_shown(detail)} is not a mapping of keys to values{advice}"


_EXAMPLES: Mapping[str, str] = MappingProxyType(
    {
        "timeouts": "timeouts: {response: 5s}",
        "retry": "retry: {attempts: 3}",
        "circuit_breaker": "circuit_breaker: {consecutive_failures: 5}",
        "health_check": "health_check: {path: /health}",
        "tls": "tls: {ca_file: certs/ca.pem}",
        "sticky": "sticky: {cookie: route}",
        "match": "match: {path_prefix: /api}",
        "paths": "paths: {merge_slashes: true}",
    }
)


def _plain(detail: ErrorDetails) -> str:
    return str(detail["ctx"]["expected"]).replace("'", "")


def _limit(detail: ErrorDetails, name: str) -> str:
    return f"{_shown(detail)} is out of range; {detail['ctx'][name]:g}"


_MESSAGES: Mapping[str, Callable[[ErrorDetails], str]] = MappingProxyType(
    {
        "value_error": lambda detail: str(detail["ctx"]["error"]),
        "missing": lambda _: "is missing",
        "literal_error": lambda detail: f"{_shown(detail)} is not known; write {_plain(detail)}",
        "bool_type": _not_a_switch,
        "int_type": _not_a_number,
        "float_type": lambda detail: f"{_shown(detail)} is not a number; write 0.5",
        "tuple_type": _not_a_list,
        "dict_type": _not_a_mapping,
        "model_type": _not_a_mapping,
        "greater_than_equal": lambda detail: f"{_limit(detail, 'ge')} or more",
        "less_than_equal": lambda detail: f"{_limit(detail, 'le')} or less",
        "greater_than": lambda detail: _limit(detail, "gt").replace("; ", "; more than "),
    }
)


_NOT_MATCHED = frozenset(
    {"header", "headers", "query", "queries", "params", "cookie", "cookies", "client_ip"}
)
# What other gateways call it.
_OTHER_WORDS: Mapping[str, str] = MappingProxyType(
    {"read": "response, the time until the head of the answer", "prefix": "path_prefix"}
)


def _unknown_key(path: DocumentPath) -> str:
    key = str(path[-1])
    missing_space = re.match(r"([a-z_]+):(?=[{\[\w])", key)
    if missing_space:
        return f"write a space after the colon: {missing_space[1]}: …"
    if len(path) > 1 and path[-2] == "match" and key in _NOT_MATCHED:
        return (
            "unknown key; routes are chosen by path_prefix, path, hosts and methods only: take it "
            "out, and look at the rest in middleware of the route"
        )
    if key in _OTHER_WORDS:
        return f"unknown key; write {_OTHER_WORDS[key]}"
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
