"""YAML to plain values, and where each key and value of the file stands.

The one rule: a text in the file becomes what a person who reads it expects. So YAML 1.1's traps are
out (`on`, `no` and `off` are texts, `1:30` is no number in base sixty, `010` is ten), a key that
stands twice is an error, and so is a key without a value, because a `methods:` that lost its list
must not come to mean "any method".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import yaml

from gateway.config.errors import ConfigError
from gateway.config.variables import VariableError, substitute
from gateway.core.config import Problem

DocumentPath = tuple[str | int, ...]

_INT = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_LITERALS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False}
_LITERALS |= {"FALSE": False}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_KNOWN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))
_DEEPEST = 100
_SHORTEST_SECRET = 4  # what is shorter stands in half of all messages by chance
_MOST_VALUES = 200_000  # some ten thousand routes


@dataclass(frozen=True, slots=True)
class Place:
    """Line and column, both from 1."""

    line: int
    column: int


@dataclass(slots=True)
class Document:
    """One routes.yaml as plain values, with the places of its keys and values.

    `problems` are those of the file itself. `blocked` are the paths whose values could not be read
    because of them: what is said of such a value later would only repeat the first problem.
    `references` are texts as they are written, `${NAME}`, where a variable filled one in, and
    `held` is what came of them: no message shows it, because it may be a secret.
    """

    file: str
    root: object = None
    keys: dict[DocumentPath, Place] = field(default_factory=dict)
    values: dict[DocumentPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    blocked: set[DocumentPath] = field(default_factory=set)
    references: dict[DocumentPath, str] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)

    def place_of(self, path: DocumentPath, *, at_key: bool = False) -> Place:
        """Find where a value (or its key) stands, or the nearest thing around it that stands."""
        for length in range(len(path), -1, -1):
            around = path[:length]
            place = self.keys.get(around) if at_key else None
            place = place or self.values.get(around)
            if place is not None:
                return place
            at_key = True
        return Place(1, 1)

    def problem(self, path: DocumentPath, message: str, *, at_key: bool = False) -> Problem:
        """Make a Problem with the value (or the key) at `path`."""
        place = self.place_of(path, at_key=at_key)
        for text, reference in self.held.items():
            message = message.replace(text, reference)
        return Problem(self.file, place.line, place.column, written(path), message)

    def is_filled(self, path: DocumentPath) -> bool:
        """Tell whether a variable filled in the value at `path`, or one around it."""
        return any(path[:length] in self.references for length in range(len(path) + 1))

    def is_blocked(self, path: DocumentPath) -> bool:
        """Tell whether the value at `path` stands in something that could not be read."""
        return any(path[:length] in self.blocked for length in range(len(path) + 1))


def written(path: DocumentPath) -> str:
    """Write a path as people do: `routes[1].match.hosts[0]`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).removeprefix(".")


def read_document(text: str, *, file: str, env: Mapping[str, str]) -> Document:
    """Read YAML; raise ConfigError where it is not YAML at all, so nothing further can be said."""
    try:
        return _Reader(Document(file), env).read(_compose(text))
    except yaml.MarkedYAMLError as error:
        raise ConfigError((_syntax_problem(error, text, file),)) from error
    except yaml.reader.ReaderError as error:
        place = place_in(text, error.position)
        message = f"the character #x{error.character:02x} is not allowed in YAML"
        raise ConfigError((Problem(file, place.line, place.column, "", message),)) from error
    except RecursionError as error:
        raise ConfigError((Problem(file, 1, 1, "", "is nested too deeply"),)) from error


def place_in(text: str, offset: int) -> Place:
    """Find the place of the character at `offset`."""
    before = text[:offset]
    return Place(before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1)


class _PlainLoader(yaml.SafeLoader):
    """Gives every scalar as the text it is."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - typed so by PyYAML, and never written to


class _FastLoader(yaml.CSafeLoader):
    """Does the same with libyaml, five times as fast."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - typed so by PyYAML, and never written to


def _compose(text: str) -> yaml.Node | None:
    """Make YAML's own tree: by libyaml where it can, else by the loader in Python.

    The latter is slow, but says better what is wrong, and knows an end to nesting: deep nesting
    makes libyaml's composer end the process.
    """
    try:
        if _is_flat(text):
            return _FastLoader(text).get_single_node()
    except yaml.YAMLError:
        pass
    return _PlainLoader(text).get_single_node()


def _is_flat(text: str) -> bool:
    """Tell whether no value stands deeper than any route needs; raises YAMLError."""
    depth = 0
    for event in yaml.parse(text, Loader=_FastLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                return False
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return True


class _Reader:
    """Turns YAML's own tree into plain values and fills in a Document on the way."""

    def __init__(self, document: Document, env: Mapping[str, str]) -> None:
        self._document = document
        self._env = env
        self._around: list[yaml.Node] = []
        self._value_count = 0

    def read(self, root: yaml.Node | None) -> Document:
        if root is None:
            self._block((), "is empty; it needs at least version and routes")
        else:
            self._document.root = self._value(root, ())
        return self._document

    def _value(self, element: yaml.Node, path: DocumentPath) -> object:
        self._document.values[path] = _place(element)
        self._count(path)
        if any(element is outer for outer in self._around):
            self._block(path, "contains itself")
            return None
        if element.tag not in _KNOWN_TAGS:
            self._block(path, f"YAML tags such as {element.tag} are not understood here")
            return None
        if isinstance(element, yaml.ScalarNode):
            return self._scalar(element, path)
        self._around.append(element)
        value = self._collection(element, path)
        self._around.pop()
        return value

    def _collection(self, element: yaml.Node, path: DocumentPath) -> object:
        if isinstance(element, yaml.MappingNode):
            return self._mapping(element, path)
        return [self._value(item, (*path, index)) for index, item in enumerate(element.value)]

    def _mapping(self, element: yaml.MappingNode, path: DocumentPath) -> dict[str, object]:
        values: dict[str, object] = {}
        for key, item in self._own_pairs(element, path) + self._merged_pairs(element, path):
            if key.value in values:
                continue
            at = (*path, key.value)
            self._document.keys[at] = _place(key)
            values[key.value] = self._value(item, at)
        return values

    def _own_pairs(
        self, element: yaml.MappingNode, path: DocumentPath
    ) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
        first: dict[str, yaml.ScalarNode] = {}
        pairs: list[tuple[yaml.ScalarNode, yaml.Node]] = []
        for key, item in element.value:
            if not isinstance(key, yaml.ScalarNode):
                self._complain(path, key, "a key must be a text")
            elif key.value in first:
                line = _place(first[key.value]).line
                self._complain(
                    (*path, key.value), key, f"stands twice, first on line {line}; take one out"
                )
            else:
                first[key.value] = key
                if not _is_merge(key):
                    pairs.append((key, item))
        return pairs

    def _merged_pairs(
        self, element: yaml.MappingNode, path: DocumentPath
    ) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
        pairs: list[tuple[yaml.ScalarNode, yaml.Node]] = []
        self._around.append(element)
        for source in _merged(element):
            self._count(path)
            if any(source is outer for outer in self._around):
                self._complain(path, source, "contains itself")
            elif isinstance(source, yaml.MappingNode):
                pairs += self._own_pairs(source, path) + self._merged_pairs(source, path)
            else:
                self._complain(path, source, "<< takes a mapping, or a list of mappings")
        self._around.pop()
        return pairs

    def _count(self, path: DocumentPath) -> None:
        """Count what is read, because a few aliases of aliases stand for more than memory holds."""
        self._value_count += 1
        if self._value_count > _MOST_VALUES:
            raise ConfigError((self._document.problem(path, "aliases make the file too large"),))

    def _scalar(self, element: yaml.ScalarNode, path: DocumentPath) -> object:
        is_plain = not element.style
        if is_plain and element.value in _NULLS:
            self._block(path, "has no value; give it one or take the key out")
            return None
        try:
            text = substitute(element.value, self._env)
        except VariableError as error:
            self._block(path, str(error))
            return None
        if text != element.value and "${" in element.value:
            self._document.references[path] = element.value
            if len(text) >= _SHORTEST_SECRET:
                self._document.held[text] = element.value
        return _plain_value(text) if is_plain else text

    def _block(self, path: DocumentPath, message: str) -> None:
        self._document.blocked.add(path)
        self._document.problems.append(self._document.problem(path, message))

    def _complain(self, path: DocumentPath, element: yaml.Node, message: str) -> None:
        place = _place(element)
        problem = Problem(self._document.file, place.line, place.column, written(path), message)
        self._document.problems.append(problem)


def _is_merge(key: yaml.ScalarNode) -> bool:
    return not key.style and key.value == "<<"


def _merged(element: yaml.MappingNode) -> Iterator[yaml.Node]:
    """List what `<<` of a mapping names (https://yaml.org/type/merge.html), earlier ones first."""
    for key, value in element.value:
        if isinstance(key, yaml.ScalarNode) and _is_merge(key):
            yield from value.value if isinstance(value, yaml.SequenceNode) else (value,)


def _plain_value(text: str) -> object:
    """Read an unquoted text as YAML 1.2 does (§10.3.2), without octal and hexadecimal."""
    if text in _LITERALS:
        return _LITERALS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _place(element: yaml.Node) -> Place:
    return Place(element.start_mark.line + 1, element.start_mark.column + 1)


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    mark = error.problem_mark
    place = Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
    message = f"is not valid YAML: {_syntax_advice(error)}"
    lines = text.splitlines()
    if place.line <= len(lines) and "${" in lines[place.line - 1]:
        message += "; inside { } and [ ], put ${…} in quotes"
    return Problem(file, place.line, place.column, "", message)


def _syntax_advice(error: yaml.MarkedYAMLError) -> str:
    """Say in our words what the parser found, its own behind it."""
    said = error.problem or ""
    for found, advice in _SYNTAX.items():
        if found in said:
            return f"{advice} ({said})"
    return said


_SYNTAX = {
    "another document": "a file is one document; take out `---` and what follows",
    "\\t": "a tab indents; write spaces",
    "expected <block end>": "the indentation is off; keys of one mapping begin at the same column",
    "unexpected end of stream": "a quote is not closed; write the other one",
    "expected ',' or '}'": "a { is not closed; write } or a comma",
    "expected ',' or ']'": "a [ is not closed; write ] or a comma",
    "mapping values are not allowed": "a value with ': ' in it needs quotes, or the "
    "indentation is off",
    "could not find expected ':'": "a key has no colon; write key: value",
}
