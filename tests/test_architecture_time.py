"""What `make test` promises: no test of it fails because the machine is slow.

A test without the marker `soak` reads no clock, measures nothing, and waits without a limit of its
own: what it says about order and counts is true on any machine. `tests/README.md` says what to do
instead. Tests are read as syntax trees here, so that what stands in a line does not matter.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
FAKES = sorted((ROOT / "tests/fakes").glob("*.py"))

CLOCKS = {
    *("monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time"),
    *("process_time_ns", "thread_time", "time", "time_ns", "clock_gettime", "default_timer"),
    *("now", "utcnow"),
}
CLOCK_MODULES = {"time", "timeit", "datetime"}
# A method of these names without arguments is that of a loop, or of a response.
CLOCK_METHODS = {"time", "elapsed"}
# What the fakes say about how long something took.
MEASURES = {
    "tests.fakes.waiting": {"time_until"},
    "tests.fakes.following": {"time_until_there_are"},
    "tests.fakes.load": {"latency_s"},
    "tests.fakes.traffic": {"sent_at_s", "last_from"},
    "tests.fakes.crowd_busy": {"latencies_s"},
}
# Where a clock may go without being read by the test.
CLOCK_ARGUMENTS = {"clock", "wall_clock", "default"}
# Whoever waits says how long at most: PATIENCE_S, which ends only what hangs.
WAITS = {"timeout", "timeout_at", "asyncio.wait_for", "wait", "join", "settimeout", "communicate"}
LIMITS = {"timeout", "timeout_s"}
LIMITED = WAITS | {
    *("wait_for", "wait_until", "stuck_at", "RawClient", "hammer", "create_connection"),
    *("run", "get", "post", "stream", "Client", "AsyncClient", "ended", "acquire"),
}
LONGEST_TEST_S = 120

# These read a clock for another reason than to compare with it.
MAY_READ_CLOCKS = {
    "tests/flows/test_flow_balancing.py:publish": "says since when a Snapshot holds",
    "tests/flows/test_flow_breaker.py:is_trial_due": "asks a Breaker about this moment",
    "tests/observability/test_logging.py:test_times_are_iso_8601_in_utc": "a time is in a line",
    "tests/proxy/test_fakes_load.py:test_every_request_is_sent_once_over_few_connections": (
        "tests the fake that measures"
    ),
    "tests/sim/test_sim_parts.py:"
    "test_things_happen_in_order_and_those_of_one_instant_as_they_were_set": "simulated time",
    "tests/discovery/test_watcher.py:Scene": "gives a clock to what it tests",
    "tests/flows/test_flow_disconnects.py:test_with_a_trial_out_the_next_request_is_the_trial": (
        "asks Breakers about this moment"
    ),
    "tests/proxy/test_alarms.py:test_in_a_loop_they_ring_by_themselves_the_sooner_one_first": (
        "sets alarms in the loop's own time"
    ),
    "tests/proxy/test_alarms.py:test_after_the_end_nothing_rings": "the same",
    "tests/proxy/test_deadlines.py:test_it_ticks_in_its_loop_until_it_is_stopped": (
        "sets deadlines in the loop's own time"
    ),
    "tests/proxy/test_deadlines.py:"
    "test_in_a_loop_many_are_told_a_few_at_a_time_and_others_get_their_turn": "the same",
    "tests/proxy/test_deadlines.py:test_one_that_moves_on_before_its_turn_is_not_told": "the same",
    "tests/proxy/test_deadlines.py:"
    "test_a_mistake_among_many_is_told_and_the_others_hear_of_it_at_the_next_tick": "the same",
}
# These say that something does not happen: the time has to run out.
MAY_WAIT_SHORTLY = {
    # Those whom the gateway has no descriptor for wait in vain.
    "tests/flows/test_flow_safety.py": {"test_without_file_descriptors_it_lives_and_recovers"},
    "tests/flows/test_flow_tunnel.py": {"test_a_side_that_takes_no_more_stops_the_other"},
    "tests/proxy/test_fakes_upstream.py": {
        "test_a_stalled_upstream_notices_that_the_client_left",
        "test_an_upstream_that_does_not_read_stops_the_sender_until_it_reads_again",
        "test_waiting_for_what_never_comes_says_what_was_there",
    },
}
# Whose answers about time are listed in MEASURES.
FAKES_WITH_A_CLOCK = {
    *("apps", "crowd_busy", "gateway_run", "load", "traffic", "waiting"),
}

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(eq=False)
class TestFile:
    """A file of tests, as far as time is concerned."""

    __test__ = False

    path: str
    tree: ast.Module
    definitions: dict[str, Definition] = field(init=False)

    def __post_init__(self) -> None:
        found = [one for one in self.tree.body if isinstance(one, Definition)]
        self.definitions = {one.name: one for one in found}

    @classmethod
    @cache
    def read(cls, path: Path) -> TestFile:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        return cls(path.relative_to(ROOT).as_posix(), tree)

    @cached_property
    def not_of_soak(self) -> list[Definition]:
        """List the tests that `make test` runs, and what they use of this file."""
        marks = [
            one.value
            for one in self.tree.body
            if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "pytestmark"
        ]
        if any(map(names_soak, marks)):
            return []
        waiting = [
            one
            for name, one in self.definitions.items()
            if name.lower().startswith("test") and not any(map(names_soak, one.decorator_list))
        ]
        seen: dict[str, Definition] = {}
        while waiting:
            one = waiting.pop()
            if one.name not in seen:
                seen[one.name] = one
                waiting += [self.definitions[name] for name in names_in(one) & {*self.definitions}]
        return list(seen.values())

    @cached_property
    def clock_names(self) -> set[str]:
        """Give the names under which this file knows clocks, besides attributes of modules."""
        return {
            one.asname or one.name
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ImportFrom) and node.module in CLOCK_MODULES
            for one in node.names
            if one.name in CLOCKS
        }

    @cached_property
    def measures(self) -> set[str]:
        """Give the names under which what this file imports tells how long something took."""
        modules = {one.module for one in ast.walk(self.tree) if isinstance(one, ast.ImportFrom)}
        return {name for module, names in MEASURES.items() if module in modules for name in names}


def names_soak(mark: ast.expr) -> bool:
    return any(isinstance(one, ast.Attribute) and one.attr == "soak" for one in ast.walk(mark))


def names_in(tree: ast.AST) -> set[str]:
    """Collect names, and arguments: those of a test are fixtures."""
    names = {one.id for one in ast.walk(tree) if isinstance(one, ast.Name)}
    return names | {one.arg for one in ast.walk(tree) if isinstance(one, ast.arg)}


def clock_reads(tree: ast.AST, clock_names: set[str]) -> Iterator[ast.expr]:
    """Find each clock that is read, or kept to be read: all but `clock=time.monotonic`."""
    handed_on = {
        id(one.value)
        for one in ast.walk(tree)
        if isinstance(one, ast.keyword) and one.arg in CLOCK_ARGUMENTS
    }
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=attr) if module in CLOCK_MODULES:
                if attr in CLOCKS and id(node) not in handed_on:
                    yield node
            case ast.Call(func=ast.Attribute(value=owner, attr=attr), args=[], keywords=[]):
                if attr in CLOCK_METHODS and ast.unparse(owner) not in CLOCK_MODULES:
                    yield node
            case ast.Name(id=name) if name in clock_names:
                yield node


def measured(tree: ast.AST, names: set[str]) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) | ast.Name(id=name) if name in names:
                yield node


def limits(tree: ast.AST) -> Iterator[ast.expr]:
    """Find each number that bounds a wait, except where it is to run out."""
    to_run_out = {
        id(inner)
        for block in ast.walk(tree)
        if isinstance(block, ast.With | ast.AsyncWith)
        and any("raises(TimeoutError" in ast.unparse(one) for one in block.items)
        for inner in ast.walk(block)
    }
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and id(call) not in to_run_out:
            names = {ast.unparse(call.func), ast.unparse(call.func).rpartition(".")[2]}
            given = [*call.args] if names & WAITS else []
            given += [one.value for one in call.keywords if names & LIMITED and one.arg in LIMITS]
            yield from (one for one in given if is_number(one))


def is_number(value: ast.expr) -> bool:
    """Tell whether a value is computed from nothing but numbers."""
    inner = [one for one in ast.walk(value) if isinstance(one, ast.expr)]
    kinds = (ast.Constant, ast.BinOp, ast.UnaryOp)
    numbers = [one.value for one in inner if isinstance(one, ast.Constant)]
    return all(isinstance(one, kinds) for one in inner) and any(
        isinstance(one, int | float) and one > 0 for one in numbers
    )


def wrongs(file: TestFile) -> Iterator[str]:
    """Name what makes a test of this file depend on how fast the machine is."""
    clock_names, names = file.clock_names, file.measures
    for one in file.not_of_soak:
        place = f"{file.path}:{one.name}"
        if place not in MAY_READ_CLOCKS:
            yield from (f"{place} reads {ast.unparse(it)}" for it in clock_reads(one, clock_names))
            yield from (f"{place} measures {ast.unparse(it)}" for it in measured(one, names))
        if one.name not in MAY_WAIT_SHORTLY.get(file.path, ()):
            yield from (f"{place} waits {ast.unparse(it)} s at most" for it in limits(one))


@pytest.mark.parametrize("path", TESTS, ids=lambda one: one.relative_to(ROOT).as_posix())
def test_a_test_without_the_marker_soak_has_no_bound_on_time(path: Path) -> None:
    assert list(wrongs(TestFile.read(path))) == []


def test_every_exception_is_still_needed() -> None:
    may = {path.partition(":")[0] for path in MAY_READ_CLOCKS} | {*MAY_WAIT_SHORTLY}
    files = [TestFile.read(ROOT / path) for path in sorted(may)]
    reading = {
        f"{file.path}:{one.name}"
        for file in files
        for one in file.not_of_soak
        if any(clock_reads(one, file.clock_names)) or any(measured(one, file.measures))
    }
    waiting = {
        file.path: names
        for file in files
        if (names := {one.name for one in file.not_of_soak if any(limits(one))})
    }

    assert reading == {*MAY_READ_CLOCKS}
    assert waiting == MAY_WAIT_SHORTLY


def test_every_fake_that_has_a_clock_is_known() -> None:
    """One that tells of new times must have them in MEASURES."""
    found = {
        path.stem
        for path in FAKES
        if any(clock_reads(TestFile.read(path).tree, TestFile.read(path).clock_names))
    }

    assert found == FAKES_WITH_A_CLOCK


def test_no_test_may_take_less_than_all_may() -> None:
    """A limit that is shorter than the usual one would end what is only slow."""
    marks = re.compile(r"pytest\.mark\.timeout\((\d+)\)")
    limits_s = [int(one) for path in TESTS for one in marks.findall(path.read_text("utf-8"))]

    assert min(limits_s) >= LONGEST_TEST_S


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("began = time.monotonic()", ["reads time.monotonic"]),
        ("now = time.perf_counter", ["reads time.perf_counter"]),
        ("took = loop.time() - began", ["reads loop.time()"]),
        (
            "assert asyncio.get_running_loop().time() < 5",
            ["reads asyncio.get_running_loop().time()"],
        ),
        ("laps.append(tick())", ["reads tick"]),
        ("helper()", ["reads time.monotonic"]),
        ("assert answer.elapsed() < limit", ["reads answer.elapsed()"]),
        ("assert await time_until(ready) < 1", ["measures time_until"]),
        ("assert load.latency_s(1.0) < 1", ["measures load.latency_s"]),
        ("async with asyncio.timeout(5): await it", ["waits 5 s at most"]),
        ("await asyncio.wait_for(it, 0.5)", ["waits 0.5 s at most"]),
        ("event.wait(10)", ["waits 10 s at most"]),
        ("await wait_for(it, timeout=2 * 3)", ["waits 2 * 3 s at most"]),
        ("RawClient(port, timeout_s=1.0)", ["waits 1.0 s at most"]),
        ("process.communicate(timeout=9)", ["waits 9 s at most"]),
        ("await asyncio.wait_for(it, PATIENCE_S)", []),
        ("Catalog(clock=time.monotonic)", []),
        ("with pytest.raises(TimeoutError): wait_for(it, 0.05)", []),
        ("assert order == [1, 2]", []),
    ],
)
def test_what_would_be_found(body: str, said: list[str]) -> None:
    text = (
        "from time import perf_counter as tick\n"
        "from tests.fakes.waiting import time_until\nfrom tests.fakes.load import hammer\n"
        "def helper(): return time.monotonic()\n"
        f"async def test_it():\n    {body}\n"
        "@pytest.mark.soak\ndef test_other(): assert helper() < time.monotonic() - 1\n"
    )

    found = [one.partition(" ")[2] for one in wrongs(TestFile("a.py", ast.parse(text)))]

    assert found == said
