"""The exception with all problems."""

from __future__ import annotations

from gateway.config.errors import ConfigError
from gateway.core.config import Problem


def test_it_reads_as_all_its_problems_sorted_by_place() -> None:
    later, earlier = Problem("f", 10, 1, "b", "is wrong"), Problem("f", 9, 1, "a", "is odd")

    error = ConfigError((later, earlier))

    assert error.problems == (earlier, later)
    assert str(error) == "f:9:1: a: is odd\nf:10:1: b: is wrong"
