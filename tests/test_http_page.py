"""docs/http.md names a test for each case; a name that is not a test would be an empty promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/http.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(test_\w+)`", PAGE)))
WITH_CASE = sorted(set(re.findall(r"`(test_\w+)\[([^]]+)\]`", PAGE)))


def texts_of_tests() -> list[str]:
    return [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]


def names_of_tests() -> set[str]:
    texts = texts_of_tests()
    return {name for text in texts for name in re.findall(r"def (test_\w+)\(", text)}


@pytest.mark.parametrize("name", NAMED)
def test_every_case_is_shown_by_a_test_that_exists(name: str) -> None:
    assert name in names_of_tests()


@pytest.mark.parametrize(("name", "case"), WITH_CASE)
def test_a_case_of_a_test_exists_too(name: str, case: str) -> None:
    (text,) = [text for text in texts_of_tests() if f"def {name}(" in text]

    assert f'"{case}"' in text
