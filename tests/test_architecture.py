"""What the code base promises about itself: sizes, names, anchors, versions, and tests for all.

The direction of imports is checked by import-linter, not here.
"""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import gateway
from gateway.core.failure import VERDICTS
from gateway.settings import Settings

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "gateway").rglob("*.py"))
CORE = sorted((ROOT / "gateway/core").glob("*.py"))
LONGEST_FILE_LINES = 600
STATIONS = range(1, 9)

# Each of these words is ambiguous in a gateway, or says nothing.
BANNED = {
    *("backend", "server", "node", "host", "downstream"),
    *("manager", "handler", "helper", "util", "utils"),
}
ALLOWED = {
    "ServerState": "uvicorn's word for what its connections share",
    "SiteServer": "a uvicorn.Server, extended",
}
SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def path_of(source: Path) -> str:
    return source.relative_to(ROOT).as_posix()


def tree_of(source: Path) -> ast.Module:
    return ast.parse(source.read_text(encoding="utf-8"), filename=path_of(source))


# --- Files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES, ids=path_of)
def test_no_file_is_too_long_to_be_read_in_one_go(source: Path) -> None:
    lines = source.read_text(encoding="utf-8").count("\n")

    assert lines <= LONGEST_FILE_LINES


def behaves(source: Path) -> bool:
    """Tell whether a module does anything: values and Protocols alone need no test."""
    functions = [node for node in ast.walk(tree_of(source)) if isinstance(node, ast.FunctionDef)]
    return any(
        not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant)
        for function in functions
        for statement in function.body
    )


@pytest.mark.parametrize("source", [one for one in CORE if behaves(one)], ids=path_of)
def test_every_module_of_the_core_that_decides_anything_has_its_test_file(source: Path) -> None:
    assert (ROOT / "tests/core" / f"test_{source.stem}.py").is_file()


def test_no_two_test_files_have_the_same_name() -> None:
    """The folders of tests are no packages: of two files with one name only one would run."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))

    assert [name for name, count in names.items() if count > 1] == []


def all_expressions() -> Iterator[tuple[str, str]]:
    """Find every regular expression at the level of modules, with its place."""
    for source in SOURCES:
        name = ".".join(source.relative_to(ROOT).with_suffix("").parts)
        if name.endswith("__main__"):
            continue
        for attribute, value in vars(importlib.import_module(name)).items():
            owner = value if isinstance(value, re.Pattern) else getattr(value, "__self__", None)
            if isinstance(owner, re.Pattern):
                text = owner.pattern
                yield f"{name}.{attribute}", text if isinstance(text, str) else text.decode()


def has_possessive_group(expression: str) -> bool:
    """Tell whether a group is atomic, or repeated possessively; a set of characters may be."""
    bare = re.sub(r"\\.", "x", expression, flags=re.DOTALL)
    bare = re.sub(r"\[\^?\]?[^]]*\]", "x", bare)
    return re.search(r"\(\?>|\)(?:[*+?]|\{[0-9,]+\})\+", bare) is not None


def test_no_group_of_an_expression_is_possessive() -> None:
    """CPython before 3.11.5 matches too much where such a group can match in several ways."""
    found = dict(all_expressions())

    assert [place for place, text in found.items() if has_possessive_group(text)] == []
    assert "gateway.core.paths.is_plain" in found


@pytest.mark.parametrize(
    ("expression", "has_one"),
    [
        ("(?:/[a-z]*+)+", False),
        (r"[)+]+\)++(?:a)+", False),
        ("(?:/[a-z]*+)++", True),
        ("(?:a|b){2,3}+", True),
        ("(?>a|b)c", True),
        (r"[)]++", False),
    ],
)
def test_a_possessive_group_is_found(expression: str, *, has_one: bool) -> None:
    assert has_one == has_possessive_group(expression)


def test_the_page_on_tests_maps_every_folder_and_every_fake() -> None:
    page = (ROOT / "tests/README.md").read_text(encoding="utf-8")
    _, _, rest = page.partition("## The folders")
    folders, _, fakes = rest.partition("## The fakes")
    rows_of_folders = re.findall(r"^\| (`.+?) \|", folders, re.MULTILINE)
    named = [name for row in rows_of_folders for name in re.findall(r"`(\w+)`", row)]
    there = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}

    assert sorted(named) == sorted(there - {"tests"})
    assert re.findall(r"^\| `(\w+)` \| \S", fakes, re.MULTILINE) == sorted(
        path.stem for path in (ROOT / "tests/fakes").glob("*.py")
    )


# --- Names ---------------------------------------------------------------------------------------


def class_names() -> Iterator[tuple[str, str]]:
    for source in SOURCES:
        for node in ast.walk(tree_of(source)):
            if isinstance(node, ast.ClassDef):
                yield path_of(source), node.name


def words_of(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*", name)}


def test_no_class_has_a_name_that_is_ambiguous_or_says_nothing() -> None:
    wrong = [(path, name) for path, name in class_names() if words_of(name) & BANNED]

    assert [(path, name) for path, name in wrong if name not in ALLOWED] == []


def test_every_exception_from_the_names_is_still_needed() -> None:
    assert {name for _, name in class_names() if words_of(name) & BANNED} == set(ALLOWED)


def logged_events(source: Path) -> Iterator[tuple[str, ast.expr]]:
    """Find each call such as `_log.info(event, …)`, with its place."""
    for node in ast.walk(tree_of(source)):
        match node:
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Name(id="log" | "_log") | ast.Attribute(attr="log" | "_log"),
                    attr="debug" | "info" | "warning" | "error" | "exception" | "critical",
                ),
                args=[event, *_],
            ):
                yield f"{path_of(source)}:{node.lineno}", event


def test_every_logged_event_has_a_literal_name_in_snake_case() -> None:
    """People search and alert for these names; prose changes, names stay."""
    events = [found for source in SOURCES for found in logged_events(source)]

    wrong = [
        place
        for place, event in events
        if not isinstance(event, ast.Constant) or not SNAKE_CASE.fullmatch(str(event.value))
    ]

    assert wrong == []
    assert len(events) > 10


# --- Pages and code agree ------------------------------------------------------------------------


def anchors() -> set[tuple[int, str]]:
    """Find the comments `:: Station 5: Choose` of the code that a request passes through."""
    pattern = re.compile(r"# :: Station (\d+): (.+?)(?: -- .*)?$", re.MULTILINE)
    found = set()
    for folder in ("proxy", "edge"):
        for source in (ROOT / "gateway" / folder).glob("*.py"):
            text = source.read_text(encoding="utf-8")
            found |= {(int(number), name) for number, name in pattern.findall(text)}
    return found


def stations() -> set[tuple[int, str]]:
    """Read the table of docs/architecture.md: rows such as `| 1 | **Accept** | …`."""
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|\s*(\d+)\s*\|\s*\*\*(.+?)\*\*", page, re.MULTILINE)
    return {(int(number), name) for number, name in rows}


def test_the_stations_of_the_page_and_the_anchors_in_the_code_agree() -> None:
    assert stations() == anchors()
    assert [*STATIONS] == sorted(number for number, _ in stations())


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d[^\]]*)\]", changes, re.MULTILINE)

    assert newest is not None
    assert {gateway.__version__} == {project["version"], newest[1]}


def test_every_setting_that_an_advice_names_exists() -> None:
    """Whoever is on call follows the advice of a failure; it must not send them astray."""
    advice = " ".join(verdict.advice for verdict in VERDICTS.values())
    named = set(re.findall(r"GATEWAY_[A-Z_]+", advice))

    assert len(named) >= 5
    assert named - {str(field.alias) for field in Settings.model_fields.values()} == set()
