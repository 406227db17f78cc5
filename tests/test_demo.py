"""`gateway demo` as a new user meets it: a program that is started, tried out, and ended.

The rule that matters most: whatever ends it, nothing is left behind, neither a process nor a file.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.demo import DemoError, run_demo
from gateway.demo.consul import find_consul
from gateway.demo.ports import free_port, free_ports
from gateway.settings import Settings
from tests.fakes.programs import find_program
from tests.fakes.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.slow

LAST_LINE = "Ctrl-C ends it all.\n"


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2][1] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids_that_name(text: str) -> list[int]:
    """Find the processes that have `text` among their arguments."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if text.encode() in arguments:
            pids.append(int(folder.name))
    return [pid for pid in pids if is_alive(pid)]


def wait_for(condition: Callable[[], object]) -> None:
    asyncio.run(wait_until(condition))


def found(pattern: str, said: str) -> str:
    match = re.search(pattern, said, re.MULTILINE)
    assert match is not None, said
    return match[1]


class Demo:
    """A running `gateway demo`, with what it said at its start."""

    def __init__(self, process: subprocess.Popen[str], said: str) -> None:
        self.process = process
        self.pids = [int(pid) for pid in re.findall(r" pid (\d+)$", said, re.MULTILINE)]
        self.killed_first = int(found(r"^  kill (\d+) ", said))
        self.gateway = found(r"curl (http://[\d.:]+)/api/users/42 ", said)
        self.admin = found(r"curl (http://[\d.:]+)/health ", said)
        self.folder = Path(found(r"^(/.*)/routes.yaml:$", said))

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.gateway + path, trust_env=False, timeout=PATIENCE_S)

    def health(self) -> dict[str, Any]:
        health: dict[str, Any] = httpx.get(
            f"{self.admin}/health", trust_env=False, timeout=PATIENCE_S
        ).json()
        return health

    def breakers_open(self) -> int:
        count: int = self.health()["services"]["user-service"]["breakers"]["open"]
        return count

    def stop(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal; return the exit code and what was said since."""
        self.process.send_signal(number)
        said, _ = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, said

    def has_left_something(self) -> bool:
        pids = [pid for pid in self.pids if is_alive(pid)]
        return bool(pids or pids_that_name(str(self.folder)))


Start = Callable[..., AbstractContextManager[Demo]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start the demo with its folder in tmp_path and wait until it serves."""

    @contextmanager
    def started(*options: str, **environment: str) -> Iterator[Demo]:
        with (
            (tmp_path / "stderr").open("w") as errors,
            subprocess.Popen(
                [sys.executable, "-m", "gateway", "demo", *options],
                env=clean_environment(TMPDIR=str(tmp_path), **environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            ) as process,
        ):
            try:
                assert process.stdout is not None
                said = "".join(iter(process.stdout.readline, LAST_LINE))
                assert process.poll() is None, (tmp_path / "stderr").read_text(encoding="utf-8")
                demo = Demo(process, said)
                wait_for(lambda: serves(demo.admin))
                yield demo
            finally:
                process.kill()

    return started


def clean_environment(**more: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GATEWAY_", "CONSUL_"))
    }
    return kept | more


def serves(address: str) -> bool:
    try:
        return (
            httpx.get(f"{address}/readyz", trust_env=False, timeout=PATIENCE_S).status_code == 200
        )
    except httpx.TransportError:
        return False


def test_what_it_says_to_try_works(start: Start) -> None:
    with start() as demo:
        answers = [demo.get("/api/users/42").json() for _ in range(20)]
        order = httpx.post(
            f"{demo.gateway}/api/orders", json={"n": 1}, trust_env=False, timeout=PATIENCE_S
        )
        refusal = demo.get("/nowhere")
        wrong_method = httpx.delete(
            f"{demo.gateway}/api/orders", trust_env=False, timeout=PATIENCE_S
        )
        health = demo.health()

    assert {answer["instance"] for answer in answers} == {"user-1", "user-2"}
    assert {answer["pid"] for answer in answers} == set(demo.pids[:2])
    assert {answer["path"] for answer in answers} == {"/42"}
    assert "x-request-id" in dict(answers[0]["headers"])
    assert (order.json()["service"], order.json()["method"]) == ("order-service", "POST")
    assert (refusal.status_code, refusal.json()["reason"]) == (404, "no_route")
    assert (wrong_method.status_code, wrong_method.headers["allow"]) == (405, "GET, POST")
    assert health["status"] == "ok"


def test_events_come_as_they_are_made(start: Start) -> None:
    with (
        start() as demo,
        httpx.stream(
            "GET", f"{demo.gateway}/api/users/events", trust_env=False, timeout=PATIENCE_S
        ) as answer,
    ):
        lines = (line for line in answer.iter_lines() if line.startswith("data:"))
        first = json.loads(next(lines).removeprefix("data:"))
        second = json.loads(next(lines).removeprefix("data:"))

    assert (first["tick"], second["tick"]) == (0, 1)


@pytest.mark.soak
def test_when_an_instance_is_killed_nobody_notices_but_the_logs(start: Start) -> None:
    with start() as demo:
        os.kill(demo.killed_first, signal.SIGTERM)
        wait_for(lambda: not is_alive(demo.killed_first))

        answers = [demo.get("/api/users/42") for _ in range(40)]
        wait_for(demo.breakers_open)
        status = demo.health()["status"]
        code, said = demo.stop(signal.SIGINT)

    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["instance"] for answer in answers} == {"user-2"}
    assert status == "degraded"
    assert code == 0
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    requests = [line for line in lines if line["event"] == "request"]
    assert len(requests) == 40
    failed_over = [line for line in requests if line["attempts"] == 2]
    assert failed_over
    assert all(line["failed_attempts"][0]["failure"] == "connect_failed" for line in failed_over)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda one: one.name
)
def test_a_signal_ends_it_in_order_and_leaves_nothing_behind(
    start: Start, number: signal.Signals
) -> None:
    with start() as demo:
        assert len([pid for pid in demo.pids if is_alive(pid)]) == 3

        code, _ = demo.stop(number)

        assert code == 0
        assert not demo.has_left_something()
        assert not demo.folder.exists()


def test_other_signals_do_not_end_it(start: Start) -> None:
    with start() as demo:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            demo.process.send_signal(number)

        assert demo.get("/api/users/42").status_code == 200
        assert demo.stop(signal.SIGINT)[0] == 0


def test_an_open_stream_does_not_keep_it_from_ending(start: Start) -> None:
    with (
        start() as demo,
        httpx.stream(
            "GET", f"{demo.gateway}/api/users/events", trust_env=False, timeout=PATIENCE_S
        ) as answer,
    ):
        next(answer.iter_lines())
        code, _ = demo.stop(signal.SIGINT)

        assert code == 0
        assert not demo.has_left_something()


@pytest.mark.soak
def test_its_children_do_not_outlive_it_even_when_it_is_killed(start: Start) -> None:
    with start() as demo:
        code, _ = demo.stop(signal.SIGKILL)

        assert code == -signal.SIGKILL
        wait_for(lambda: not demo.has_left_something())


@pytest.mark.consul
def test_with_consul_the_registry_knows_the_instances(start: Start) -> None:
    program = find_program("consul", fetch="scripts/get-servers .cache/servers")

    with start("--consul", GATEWAY_TEST_CONSUL=str(program)) as demo:
        answers = {demo.get("/api/users/42").json()["instance"] for _ in range(20)}
        health = demo.health()
        os.kill(demo.killed_first, signal.SIGTERM)
        wait_for(lambda: not is_alive(demo.killed_first))
        after = {demo.get("/api/users/42").status_code for _ in range(20)}
        code, _ = demo.stop(signal.SIGINT)

        assert answers == {"user-1", "user-2"}
        assert after == {200}
        assert [one["name"] for one in health["registries"]] == ["consul"]
        assert health["status"] == "ok"
        assert code == 0
        assert not demo.has_left_something()


@pytest.mark.soak
@pytest.mark.consul
def test_consul_does_not_outlive_it_even_when_it_is_killed(start: Start) -> None:
    program = find_program("consul", fetch="scripts/get-servers .cache/servers")

    with start("--consul", GATEWAY_TEST_CONSUL=str(program)) as demo:
        assert pids_that_name(str(demo.folder))

        demo.stop(signal.SIGKILL)

        wait_for(lambda: not demo.has_left_something())


def test_without_a_consul_program_it_says_so_and_exits_with_1(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "gateway", "demo", "--consul"],
        env=clean_environment(PATH=str(tmp_path), TMPDIR=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )

    assert told.returncode == 1
    assert "there is no consul program on the PATH" in told.stderr
    assert told.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_consul_program_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    program = tmp_path / "consul"
    program.touch()

    with pytest.raises(DemoError, match=r"consul cannot be run"):
        find_consul({"GATEWAY_TEST_CONSUL": str(program)})


def test_a_consul_that_does_not_start_is_shown_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "consul"
    program.write_text("#!/bin/sh\necho no port is free\nexit 3\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("GATEWAY_TEST_CONSUL", str(program))
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    with pytest.raises(DemoError, match="no port is free"):
        run_demo(lambda _: 0, with_consul=True)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_gateway_that_fails_leaves_nothing_behind(
    error: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    folders: list[Path] = []

    def fail(settings: Settings) -> int:
        folders.append(settings.config.parent)
        raise error

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(error):
        run_demo(fail, with_consul=False)

    assert not folders[0].exists()
    pids = [int(pid) for pid in re.findall(r" pid (\d+)$", capsys.readouterr().out, re.MULTILINE)]
    assert len(pids) == 3
    assert not any(is_alive(pid) for pid in pids)
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_a_setting_that_cannot_be_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_MAX_CONNECTIONS", "many")

    with pytest.raises(DemoError, match="GATEWAY_MAX_CONNECTIONS"):
        run_demo(lambda _: 0, with_consul=False)


def test_the_usual_port_is_taken_where_it_is_free() -> None:
    (port,) = free_ports(1)

    assert port == free_port(port)


def test_another_port_is_taken_where_the_usual_one_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        assert free_port(port) not in {0, port}


GUARD = [sys.executable, "-m", "gateway.demo.guard"]


def test_a_guard_ends_its_program_when_its_input_ends() -> None:
    script = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with subprocess.Popen(
        [*GUARD, sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as guard:
        assert guard.stdin is not None
        assert guard.stdout is not None
        pid = int(guard.stdout.readline())
        assert is_alive(pid)

        guard.stdin.close()
        guard.wait(PATIENCE_S)

        assert not is_alive(pid)


def test_a_guard_kills_a_program_that_does_not_want_to_end() -> None:
    script = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [*GUARD, sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as guard:
        assert guard.stdout is not None
        pid = int(guard.stdout.readline())

        guard.terminate()
        guard.wait(PATIENCE_S)

        assert not is_alive(pid)


def test_a_guard_ends_with_its_program() -> None:
    with subprocess.Popen(
        [*GUARD, sys.executable, "-c", "raise SystemExit(7)"], stdin=subprocess.PIPE
    ) as guard:
        assert guard.wait(PATIENCE_S) == 7
