"""The limit of open files: how it is shared out."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from gateway.open_files import limit_for, most_beside, most_clients


@pytest.mark.parametrize(
    ("limit", "clients"), [(20_256, 10_000), (1024, 384), (512, 128), (256, 64), (3, 1), (0, 1)]
)
def test_clients_get_half_of_what_the_reserve_leaves(limit: int, clients: int) -> None:
    assert most_clients(limit) == clients


@pytest.mark.parametrize(
    ("limit", "beside"), [(64, 2), (128, 12), (256, 33), (512, 64), (20_256, 64)]
)
def test_what_is_open_beside_clients_shrinks_with_the_limit(limit: int, beside: int) -> None:
    assert most_beside(limit) == beside
    if limit >= 128:
        assert 2 * most_clients(limit) + 3 * beside + 28 <= limit


@pytest.mark.parametrize("clients", [128, 1000, 10_000])
def test_the_limit_that_is_advised_is_enough_and_no_larger(clients: int) -> None:
    assert most_clients(limit_for(clients)) == clients
    assert most_clients(limit_for(clients) - 2) < clients


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
@pytest.mark.parametrize(("soft", "hard"), [(100, 300), (300, 300)])
def test_the_soft_limit_is_raised_to_the_hard_one(soft: int, hard: int) -> None:
    """In a process of its own: the hard limit cannot be raised again."""
    program = f"""
import json, resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from gateway.open_files import raise_limit
print(json.dumps([raise_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)]))
"""
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout

    assert json.loads(said) == [[soft, hard], [hard, hard]]
