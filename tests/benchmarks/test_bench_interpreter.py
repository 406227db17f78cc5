"""Which Python is measured with."""

from __future__ import annotations

import sys

from benchmarks.interpreter import _fastest_of, _probe, fastest


def test_a_python_that_is_there_is_timed() -> None:
    took_s = _probe(sys.executable)

    assert took_s is not None
    assert took_s > 0


def test_what_is_no_python_is_passed_over() -> None:
    assert _probe("/nowhere/python3") is None
    assert _probe("/bin/false") is None
    assert sys.executable == _fastest_of(["/bin/false", sys.executable])
    assert _fastest_of(["/bin/false"]) is None


def test_there_is_always_one() -> None:
    assert _probe(fastest()) is not None
