"""YAML to plain values with places: traps of YAML 1.1, anchors, and files that are not YAML."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.document import Document, Place, place_in, read_document, written
from gateway.config.errors import ConfigError


def read(text: str, **env: str) -> Document:
    return read_document(text, file="routes.yaml", env=env)


def complaints(document: Document) -> list[str]:
    return [str(problem) for problem in document.problems]


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        read(text)
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("no", "no"),
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("12", 12),
        ("-3", -3),
        ("010", 10),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("2024-01-01", "2024-01-01"),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1.2.3", "1.2.3"),
        ("9" * 5_000, float("inf")),
        ("=", "="),
        ("'12'", "12"),
        ('"true"', "true"),
        ("''", ""),
        ("|\n  12\n", "12\n"),
    ],
)
def test_a_text_means_what_a_person_expects(text: str, value: object) -> None:
    document = read(f"key: {text}")

    assert document.root == {"key": value}
    assert document.problems == []


@pytest.mark.parametrize("key", ["on", "no", "12", "true", "null", "~"])
def test_a_key_is_always_a_text(key: str) -> None:
    assert read(f"{key}: x").root == {key: "x"}


@pytest.mark.parametrize("text", ["", "~", "null", "NULL"])
def test_a_key_without_a_value_is_a_problem(text: str) -> None:
    document = read(f"a: 1\nmethods: {text}\n")

    assert complaints(document) == [
        f"routes.yaml:2:{10 if text else 9}: methods: has no value; give it one or take the key out"
    ]
    assert document.is_blocked(("methods", 0))
    assert not document.is_blocked(("a",))


def test_every_key_and_value_has_its_place() -> None:
    document = read("version: 1\nroutes:\n  - match: {path: /é}\n    service: x\n")

    assert document.place_of(("version",)) == Place(1, 10)
    assert document.place_of(("version",), at_key=True) == Place(1, 1)
    assert document.place_of(("routes", 0)) == Place(3, 5)
    assert document.place_of(("routes", 0), at_key=True) == Place(3, 5)
    assert document.place_of(("routes", 0, "match", "path")) == Place(3, 19)
    assert document.place_of(("routes", 0, "service"), at_key=True) == Place(4, 5)


def test_what_is_not_in_the_file_has_the_place_of_what_is_around_it() -> None:
    document = read("routes:\n  - match: {path: /}\n")

    assert document.place_of(("routes", 0, "service")) == Place(2, 5)
    assert document.place_of(("routes", 0, "match", "hosts", 3)) == Place(2, 5)
    assert document.place_of(("nothing", "at", "all")) == Place(1, 1)


def test_a_place_in_a_text_counts_lines_and_characters_from_one() -> None:
    assert [place_in("ab\ncd", offset) for offset in (0, 1, 3, 5)] == [
        Place(1, 1),
        Place(1, 2),
        Place(2, 1),
        Place(2, 3),
    ]


def test_a_path_is_written_as_people_do() -> None:
    assert written(("routes", 1, "match", "hosts", 0)) == "routes[1].match.hosts[0]"
    assert written(()) == ""


def test_a_key_that_stands_twice_is_a_problem_and_the_first_one_holds() -> None:
    document = read("a: 1\nb: 2\na: 3\n")

    assert document.root == {"a": 1, "b": 2}
    assert complaints(document) == [
        "routes.yaml:3:1: a: stands twice, first on line 1; take one out"
    ]


def test_variables_are_filled_in_before_a_text_is_read() -> None:
    document = read("weight: ${W}\nname: '${W}'\nempty: ${E:-}\nlist: [a, '${W}']\n", W="5")

    assert document.root == {"weight": 5, "name": "5", "empty": "", "list": ["a", "5"]}


def test_a_variable_cannot_add_keys() -> None:
    assert read("a: ${V}", V="x\nb: y").root == {"a": "x\nb: y"}


def test_a_variable_that_is_not_set_is_a_problem_at_its_place() -> None:
    document = read("a:\n  - x\n  - http://${HOST}\n")

    assert complaints(document) == [
        "routes.yaml:3:5: a[1]: ${HOST} is not set; set it or write ${HOST:-default}"
    ]


def test_anchors_and_merge_keys_work_and_own_keys_win() -> None:
    text = (
        "base: &base {a: 1, b: 2}\n"
        "other: &other {b: 3, c: 4, d: 5}\n"
        "one: {<<: *base, b: 9}\n"
        "two: {d: 0, <<: [*base, *other]}\n"
        "again: *base\n"
    )

    root = read(text).root

    assert isinstance(root, dict)
    assert root["one"] == {"a": 1, "b": 9}
    assert root["two"] == {"a": 1, "b": 2, "c": 4, "d": 0}
    assert root["again"] == {"a": 1, "b": 2}


def test_a_merge_within_a_merge_is_followed() -> None:
    text = "a: &a {x: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b}\n"

    assert read(text).root == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 1, "y": 2}}


def test_what_is_merged_has_the_place_where_it_is_written() -> None:
    document = read("base: &base\n  a: 1\none:\n  <<: *base\n")

    assert document.place_of(("one", "a")) == Place(2, 6)


def test_a_quoted_merge_key_is_a_key_like_any_other() -> None:
    assert read("'<<': {a: 1}").root == {"<<": {"a": 1}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: {<<: 5}", "routes.yaml:1:9: a: << takes a mapping, or a list of mappings"),
        ("a: &a {<<: *a}", "routes.yaml:1:4: a: contains itself"),
        ("a: &a [*a]", "routes.yaml:1:4: a[0]: contains itself"),
        ("? [x]\n: 1", "routes.yaml:1:3: a key must be a text"),
        (
            "a: !!python/name:os.system x",
            (
                "routes.yaml:1:4: a: YAML tags such as tag:yaml.org,2002:python/name:os.system are "
                "not understood here"
            ),
        ),
        ("# nothing", "routes.yaml:1:1: is empty; it needs at least version and routes"),
    ],
)
def test_what_cannot_be_read_is_a_problem(text: str, expected: str) -> None:
    assert complaints(read(text)) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a: [1, 2\nb: 3",
            (
                "routes.yaml:2:2: is not valid YAML: a [ is not closed; write ] or a comma "
                "(expected ',' or ']', but got ':')"
            ),
        ),
        (
            "a: {b: ${C}}",
            (
                "routes.yaml:1:9: is not valid YAML: a { is not closed; write } or a comma "
                "(expected ',' or '}', but got '{'); "
                "inside { } and [ ], put ${…} in quotes"
            ),
        ),
        ("a: *nope", "routes.yaml:1:4: is not valid YAML: found undefined alias 'nope'"),
        (
            "a: 1\n---\nb: 2",
            (
                "routes.yaml:2:1: is not valid YAML: a file is one document; "
                "take out `---` and what follows (but found another document)"
            ),
        ),
        ("a: \x07", "routes.yaml:1:4: the character #x07 is not allowed in YAML"),
        ("[" * 500, "routes.yaml:1:1: is nested too deeply"),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_place(text: str, expected: str) -> None:
    assert expected == refusal(text)


@pytest.mark.parametrize("depth", range(40, 400, 40))
def test_any_depth_of_nesting_is_read_or_refused(depth: int) -> None:
    try:
        document = read("[" * depth + "]" * depth)
    except ConfigError as error:
        assert error.problems[0].message == "is nested too deeply"  # noqa: PT017 - either is right
    else:
        assert document.problems == []


@pytest.mark.slow
@pytest.mark.parametrize("form", ["[{}]", "{{<<: [{}]}}"], ids=["lists", "merges"])
def test_aliases_cannot_blow_the_file_up(form: str) -> None:
    lines = ["a0: &a0 {x: 1}"]
    for number in range(1, 8):
        tenfold = ", ".join([f"*a{number - 1}"] * 10)
        lines.append(f"a{number}: &a{number} {form.format(tenfold)}")

    assert "aliases make the file too large" in refusal("\n".join(lines))


@given(st.text(alphabet="ab:-[]{}&*<!'\"|>%@$ \n\t0~?#,", max_size=40))
def test_any_text_is_a_document_or_a_refusal(text: str) -> None:
    try:
        document = read(text)
    except ConfigError as error:
        assert error.problems  # noqa: PT017 - either outcome is right, no other exception is
    else:
        assert all(problem.line >= 1 for problem in document.problems)
