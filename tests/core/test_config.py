"""How a Problem reads, and how problems sort."""

from __future__ import annotations

import pytest

from gateway.core.config import Problem


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (
            Problem("routes.yaml", 12, 5, "routes[1].strip_prefx", "unknown key"),
            "routes.yaml:12:5: routes[1].strip_prefx: unknown key",
        ),
        (Problem("routes.yaml", 1, 1, "", "is empty"), "routes.yaml:1:1: is empty"),
        (Problem("routes.yaml", 0, 0, "", "cannot be read"), "routes.yaml: cannot be read"),
    ],
)
def test_a_problem_reads_as_compilers_write_it(problem: Problem, text: str) -> None:
    assert text == str(problem)


def test_problems_sort_by_line_and_then_column() -> None:
    places = [(10, 1), (9, 20), (9, 3), (2, 7)]
    problems = [Problem("f", line, column, "k", "m") for line, column in places]

    assert [(found.line, found.column) for found in sorted(problems)] == sorted(places)
