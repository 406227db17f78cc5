"""Freed memory is kept, where the C library can be told so."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
if {keeps}:
    from gateway.memory import keep_freed_memory
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    pieces = [bytes(256 * 1024) for _ in range(4)]
before = faults()
for _ in range(200):
    pieces = [b"x" * 256 * 1024 for _ in range(4)]
    del pieces
print(faults() - before)
"""


def page_faults(*, keeps: bool) -> int:
    command = [sys.executable, "-c", FAULTS.format(keeps=keeps)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone can be told")
def test_pieces_of_bodies_do_not_cost_new_pages_each_time() -> None:
    assert page_faults(keeps=True) < page_faults(keeps=False) / 10
