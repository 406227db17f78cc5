"""The references in docs/ say what the code says."""

from __future__ import annotations

import re

import pytest

from gateway.config.models import PLACES
from gateway.settings import Settings, variable_of
from scripts.gen_docs import DOCS, rewrite, tables

FILES = ("routes.md", "settings.md", "failures.md")


@pytest.mark.parametrize("name", FILES)
def test_the_tables_are_up_to_date(name: str) -> None:
    """If this fails, run `python scripts/gen_docs.py`."""
    text = (DOCS / name).read_text(encoding="utf-8")

    assert rewrite(text, tables()) == text


def test_every_table_stands_somewhere() -> None:
    texts = "".join((DOCS / name).read_text(encoding="utf-8") for name in FILES)

    assert sorted(re.findall(r"<!-- table: (\S+) -->", texts)) == sorted(tables())


def test_every_key_and_every_variable_has_a_row() -> None:
    made = tables()

    for place, entry in PLACES.items():
        assert all(f"| `{key}` |" in made[place or "top"] for key in entry.model_fields)
    assert all(f"| `{variable_of(name)}`" in made["settings"] for name in Settings.model_fields)


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("timeouts", "| `connect` | duration or `off` | `2s` |"),
        ("timeouts", "| `request` | duration or `off` | `off` |"),
        ("retry", "| `attempts` | whole number, 1 or more | `3` |"),
        ("retry", "| `statuses` | list of statuses, 400 to 599 | `[502, 503, 504]` |"),
        ("retry", "| `buffer` | size | `64KiB` |"),
        ("circuit_breaker", "| `failure_ratio` | number, more than 0, 1 or less | `0.5` |"),
        ("circuit_breaker", "| `open_for` | duration | `10s` |"),
        ("defaults", "| `preserve_host` | `true` or `false` | `true` |"),
        ("routes[]", "| `preserve_host` | `true` or `false` | - |"),
        ("routes[]", "| `match` | mapping | required |"),
        ("routes[]", "| `strip_prefix` | `true` or `false` | `false` |"),
        ("routes[]", "| `add_prefix` | path | - |"),
        ("routes[]", "| `timeouts` | mapping | - |"),
        ("routes[].match", "| `hosts` | list of host names | - |"),
        ("services.NAME.servers[]", "| `weight` | whole number, 1 or more, 65535 or less | `1` |"),
        ("top", "| `version` | `1` | required |"),
        ("top", "| `services` | mapping | - |"),
        ("settings", "| `GATEWAY_BIND` | `host:port` or `off` | `127.0.0.1:8080` |"),
        ("settings", "| `GATEWAY_CONSUL_TOKEN`<br>`CONSUL_HTTP_TOKEN` | text | - |"),
        ("settings", "| `GATEWAY_CONSUL_WAIT` | duration | `30s` |"),
        ("settings", "| `GATEWAY_MAX_REQUEST_LINE` | size, 1 or more | `8KiB` |"),
        ("settings", "| `GATEWAY_STATE_DIR` | path or `off` | - |"),
        ("settings", "| `GATEWAY_TRUSTED_PROXIES` | networks, with commas between | - |"),
        ("settings", "| `GATEWAY_DRAIN_DELAY` | duration | `0s` |"),
    ],
)
def test_a_row_names_the_kind_of_value_and_the_default(table: str, row: str) -> None:
    assert row in tables()[table]


def test_only_what_stands_between_the_marks_is_rewritten() -> None:
    text = (
        "before\n<!-- table: a -->\nold\n<!-- end -->\n"
        "between <!-- table: b -->\n<!-- end --> after"
    )

    assert rewrite(text, {"a": "A\n", "b": "B\n"}) == (
        "before\n<!-- table: a -->\n\nA\n\n<!-- end -->\n"
        "between <!-- table: b -->\n\nB\n\n<!-- end --> after"
    )


def test_a_table_that_is_not_made_is_an_error() -> None:
    with pytest.raises(KeyError):
        rewrite("<!-- table: c -->\n<!-- end -->", {})
