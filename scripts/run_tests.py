"""Run pytest with the arguments given; in CI, run each test that failed once more, alone.

    python scripts/run_tests.py [arguments of pytest]

With CI set, a test that passes the second time is flaky: the run is green, and a line
`flaky: NAME` stands at its end, and in the file FLAKY_LIST if that is set. A test that fails both
times is broken, and so is everything when many fail at once. Without CI this is just pytest.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

# More failures than this are no accident; running them again would only hide what they have in
# common.
MOST_RERUN = 10
_FAILED_LIST = "GATEWAY_TESTS_FAILED_LIST"


class FailedTests:
    """Plugin: writes the names of the tests that failed into a file, in the order they did.

    A test whose worker crashed, or hung and was ended, is one of them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: dict[str, None] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what failed. With xdist this is called in the main process for all workers."""
        if report.failed and report.nodeid not in self._names:
            self._names[report.nodeid] = None
            with self._path.open("a", encoding="utf-8") as lines:
                lines.write(f"{report.nodeid}\n")


def pytest_configure(config: pytest.Config) -> None:
    """Register FailedTests in the main process (this module is loaded with `-p`)."""
    path = os.environ.get(_FAILED_LIST)
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(FailedTests(Path(path)))


def main(arguments: Sequence[str]) -> int:
    """Return the exit code of the run: that of pytest, or 0 if all that failed is flaky."""
    seed = f"--randomly-seed={random.randrange(2**32)}"  # noqa: S311 -- an order, no secret
    with tempfile.TemporaryDirectory() as folder:
        failed_list = Path(folder) / "failed"
        failed_list.touch()
        code = _run_pytest(["-p", "scripts.run_tests", seed, *arguments], failed_list)
        if code != pytest.ExitCode.TESTS_FAILED or not os.environ.get("CI"):
            return code
        failed = failed_list.read_text(encoding="utf-8").splitlines()
    if not failed:  # the process ended before it could say what failed
        return code
    if len(failed) > MOST_RERUN:
        print(f"{len(failed)} tests failed: too many to call any of them flaky")
        return code
    flaky = [name for name in failed if _run_pytest([seed, name]) == pytest.ExitCode.OK]
    _report(flaky)
    return pytest.ExitCode.OK if flaky == failed else pytest.ExitCode.TESTS_FAILED


def _run_pytest(arguments: Sequence[str], failed_list: Path | None = None) -> int:
    environment = dict(os.environ)
    # Each worker, and each program that a test starts, would compile everything anew.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if failed_list is not None:
        environment[_FAILED_LIST] = str(failed_list)
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603


def _report(flaky: Sequence[str]) -> None:
    lines = "".join(f"flaky: {name}\n" for name in flaky)
    print(lines, end="")
    if path := os.environ.get("FLAKY_LIST"):
        with Path(path).open("a", encoding="utf-8") as known:
            known.write(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
