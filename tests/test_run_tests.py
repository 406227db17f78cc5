"""In CI a test that fails runs once more, alone: the real pytest on small files of tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow

GOOD = "def test_good(): pass\n"
BROKEN = "def test_broken(): assert 1 == 2\n"
# Fails at the first run, and passes when it runs again.
FLAKY = """
from pathlib import Path
def test_flaky(name="{name}"):
    before = Path(__file__).with_name(name)
    ran, _ = before.exists(), before.touch()
    assert ran
"""
# Fails whenever it is not the only test of its process.
UNHAPPY_IN_COMPANY = """
import pytest
@pytest.fixture
def company(request): return len(request.session.items) - 1
def test_alone(company): assert company == 0
def test_other(): pass
"""
HANGS = "import time\ndef test_hangs(): time.sleep(600)\n"
WAITS = """
import asyncio
async def test_waits():
    async def forgotten():
        await asyncio.get_running_loop().create_future()
    await asyncio.wait([asyncio.create_task(forgotten())])
"""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run ended."""

    code: int
    said: str
    listed: str

    @property
    def flaky(self) -> list[str]:
        return [line for line in self.said.splitlines() if line.startswith("flaky: ")]


def run(folder: Path, *arguments: str, in_ci: bool = True, files: Mapping[str, str]) -> Ran:
    """Run `test_NAME.py` for each of `files`."""
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {
        "FLAKY_LIST": str(folder / "flaky"),
        "PYTHONPATH": str(ROOT),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # most of them take longer to load than all else
        "PYTEST_ADDOPTS": "-p xdist -p randomly -p timeout -p asyncio",
    }
    ran = subprocess.run(
        [sys.executable, str(ROOT / "scripts/run_tests.py"), *arguments],
        cwd=folder,
        env=environment | ({"CI": "true"} if in_ci else {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    listed = folder / "flaky"
    return Ran(ran.returncode, ran.stdout, listed.read_text() if listed.exists() else "")


@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_fails_once_is_named_at_the_end_and_the_run_is_green(
    tmp_path: Path, workers: str
) -> None:
    ran = run(tmp_path, "-n", workers, files={"good": GOOD, "sometimes": FLAKY.format(name="a")})

    assert ran.code == 0, ran.said
    assert ran.flaky == ["flaky: test_sometimes.py::test_flaky"]
    assert ran.said.splitlines()[-1] == ran.flaky[0]
    assert ran.listed == "flaky: test_sometimes.py::test_flaky\n"


def test_what_fails_twice_is_red_and_is_not_called_flaky(tmp_path: Path) -> None:
    ran = run(tmp_path, files={"broken": BROKEN, "sometimes": FLAKY.format(name="a")})

    assert ran.code == 1, ran.said
    assert ran.flaky == ["flaky: test_sometimes.py::test_flaky"]


def test_it_runs_alone_the_second_time(tmp_path: Path) -> None:
    ran = run(tmp_path, files={"unhappy": UNHAPPY_IN_COMPANY})

    assert ran.code == 0, ran.said
    assert ran.flaky == ["flaky: test_unhappy.py::test_alone"]


def test_when_many_fail_none_of_them_is_tried_again(tmp_path: Path) -> None:
    many = {f"many_{number}": FLAKY.format(name=number) for number in range(11)}

    ran = run(tmp_path, files=many)

    assert ran.code == 1, ran.said
    assert ran.flaky == []


def test_without_ci_nothing_runs_twice(tmp_path: Path) -> None:
    ran = run(tmp_path, in_ci=False, files={"sometimes": FLAKY.format(name="a")})

    assert ran.code == 1, ran.said
    assert ran.flaky == []
    assert ran.listed == ""


def test_what_cannot_be_collected_is_red_at_once(tmp_path: Path) -> None:
    ran = run(tmp_path, files={"wrong": "import nothing_of_this_name\n"})

    assert ran.code == 2, ran.said
    assert ran.flaky == []


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize(
    ("text", "place"),
    [
        (HANGS, "line 2 in test_hangs"),
        (WAITS, "await asyncio.get_running_loop().create_future()"),
    ],
    ids=["sleeping", "awaiting"],
)
def test_what_hangs_is_ended_and_says_where(
    tmp_path: Path, text: str, place: str, workers: str
) -> None:
    limit = ("-p", "tests.hanging", "--timeout", "1", "-o", "asyncio_mode=auto")

    ran = run(tmp_path, *limit, "-n", workers, in_ci=False, files={"hangs": text})

    assert ran.code == 1, ran.said
    assert "HANGS: test_hangs.py::test_" in ran.said
    assert place in ran.said


def test_what_hangs_in_a_worker_does_not_end_the_others(tmp_path: Path) -> None:
    limit = ("-p", "tests.hanging", "--timeout", "1", "-n", "1")

    ran = run(tmp_path, *limit, in_ci=False, files={"good": GOOD, "hangs": HANGS})

    assert ran.code == 1, ran.said
    assert "1 failed, 1 passed" in ran.said
