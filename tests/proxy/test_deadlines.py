"""The coarse clock: who is told, in which order of events, and that one mistake costs no other."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest

from gateway.proxy.deadlines import TICK_S, Deadlines
from tests.fakes.waiting import PATIENCE_S, wait_until


class Waiting:
    """Waits until a deadline, then does what the test says."""

    def __init__(self, deadlines: Deadlines, deadline_s: float, *, is_wrong: bool = False) -> None:
        self.deadline_s = deadline_s
        self.is_wrong = is_wrong
        self.heard: list[float] = []
        self.has_broken_down = False
        self.settles: list[Waiting] = []
        self._deadlines = deadlines
        deadlines.watched.add(self)

    def expire(self, now_s: float) -> None:
        self.heard.append(now_s)
        if self.is_wrong:
            raise KeyError("a mistake")
        self._deadlines.watched.discard(self)
        for other in self.settles:
            self._deadlines.watched.discard(other)

    def break_down(self, now_s: float) -> None:
        self.has_broken_down = True
        self._deadlines.watched.discard(self)


class Swept:
    """Counts how often it was told to throw things away."""

    def __init__(self, deadlines: Deadlines) -> None:
        self.times: list[float] = []
        deadlines.swept.add(self)

    def sweep(self, now_s: float) -> None:
        self.times.append(now_s)


def test_only_those_whose_deadline_has_passed_are_told() -> None:
    deadlines = Deadlines()
    early, late = Waiting(deadlines, 5.0), Waiting(deadlines, 5.1)

    deadlines.look(4.9)
    deadlines.look(5.0)

    assert ([5.0], []) == (early.heard, late.heard)
    assert {late} == deadlines.watched
    assert 5.0 == deadlines.now_s


def test_whoever_was_settled_by_another_in_the_same_tick_is_not_told() -> None:
    deadlines = Deadlines()
    one, other = Waiting(deadlines, 1.0), Waiting(deadlines, 1.0)
    one.settles, other.settles = [other], [one]

    deadlines.look(1.0)

    assert 1 == len(one.heard) + len(other.heard)


def test_one_that_goes_on_waiting_is_told_again() -> None:
    deadlines = Deadlines()
    one = Waiting(deadlines, 1.0)
    deadlines.look(1.0)
    deadlines.watched.add(one)

    deadlines.look(2.0)

    assert [1.0, 2.0] == one.heard


def test_a_mistake_comes_out_and_costs_nobody_else_more_than_a_tick() -> None:
    deadlines = Deadlines()
    wrong = Waiting(deadlines, 1.0, is_wrong=True)
    others = [Waiting(deadlines, 1.0) for _ in range(5)]

    with pytest.raises(KeyError):
        deadlines.look(1.0)
    deadlines.look(1.1)

    assert wrong.has_broken_down
    assert [1.0] == wrong.heard
    assert [1] * 5 == [len(one.heard) for one in others]
    assert set() == deadlines.watched


def test_sweeping_is_done_every_tenth_tick() -> None:
    deadlines = Deadlines()
    swept = Swept(deadlines)

    for tick in range(1, 31):
        deadlines.look(tick * TICK_S)

    assert [pytest.approx(1.0), pytest.approx(2.0), pytest.approx(3.0)] == swept.times


async def test_it_ticks_in_its_loop_until_it_is_stopped() -> None:
    loop = asyncio.get_running_loop()
    deadlines = Deadlines()
    due = Waiting(deadlines, loop.time() + TICK_S / 2)

    deadlines.start(loop)
    await wait_until(lambda: due.heard)
    deadlines.stop()
    deadlines.stop()  # was stopped already

    stopped_at_s = deadlines.now_s
    due.deadline_s = 0.0
    deadlines.watched.add(due)
    await asyncio.wait_for(_three_ticks(), PATIENCE_S)
    assert stopped_at_s == deadlines.now_s
    assert 1 == len(due.heard)


async def test_a_mistake_does_not_stop_the_clock() -> None:
    loop = asyncio.get_running_loop()
    reported: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    deadlines = Deadlines()
    wrong = Waiting(deadlines, 0.0, is_wrong=True)

    deadlines.start(loop)
    assert wrong.has_broken_down
    later = Waiting(deadlines, 0.0, is_wrong=True)
    await wait_until(lambda: later.has_broken_down)
    due = Waiting(deadlines, 0.0)
    await wait_until(lambda: due.heard)
    deadlines.stop()

    assert [type(one["exception"]) for one in reported] == [KeyError, KeyError]


async def test_in_its_loop_a_mistake_costs_nobody_else_anything() -> None:
    """Neither other deadlines, nor alarms, nor sweeps, in the same tick or ever after."""

    class Wrong(Waiting):
        def break_down(self, now_s: float) -> None:
            raise ValueError("it cannot even break down")

        def sweep(self, now_s: float) -> None:
            raise LookupError("a mistake in a sweep")

    def ring_wrong(now_s: float) -> None:
        raise OSError(f"a mistake of an alarm at {now_s}")

    loop = asyncio.get_running_loop()
    kinds: list[type] = []
    loop.set_exception_handler(lambda _, context: kinds.append(type(context["exception"])))
    deadlines, rang = Deadlines(), list[float]()
    wrong = [Wrong(deadlines, 0.0, is_wrong=True) for _ in range(3)]
    deadlines.swept.update(wrong)
    others = [Waiting(deadlines, 0.0) for _ in range(3)]
    sweeps = [Swept(deadlines) for _ in range(3)]
    deadlines.alarms.set(0.0, ring_wrong, break_down=lambda _: None)
    deadlines.alarms.set(0.0, rang.append, break_down=lambda _: None)

    deadlines.start(loop)
    assert (len(rang), [len(one.heard) for one in (*wrong, *others)]) == (1, [1] * 6)
    await wait_until(lambda: all(len(one.times) == 2 for one in sweeps))
    deadlines.stop()

    assert [len(one.heard) for one in wrong] == [1, 1, 1]
    assert sorted(one.__name__ for one in kinds) == sorted(
        ["OSError"] + ["KeyError", "ValueError"] * 3 + ["LookupError"] * 6
    )


async def _three_ticks() -> None:
    ticked = asyncio.Event()
    asyncio.get_running_loop().call_later(3 * TICK_S, ticked.set)
    await ticked.wait()


# --- How late the loop is ------------------------------------------------------------------------


async def test_it_tells_how_late_the_loop_was_and_forgets_by_and_by() -> None:
    loop = asyncio.get_running_loop()
    deadlines = Deadlines()
    deadlines.start(loop)
    before_s = deadlines.lag_s

    time.sleep(TICK_S + 0.1)  # noqa: ASYNC251 -- this is what makes it late
    await wait_until(lambda: deadlines.lag_s > before_s + 0.05)
    latest_s = deadlines.lag_s
    await wait_until(lambda: deadlines.lag_s < latest_s)

    deadlines.stop()


async def test_alarms_ring_with_its_loop_and_with_each_look() -> None:
    deadlines = Deadlines()
    rang: list[float] = []
    deadlines.alarms.set(5.0, rang.append, break_down=rang.append)

    deadlines.look(5.0)

    assert rang == [5.0]


async def test_in_a_loop_many_are_told_a_few_at_a_time_and_others_get_their_turn() -> None:
    loop, deadlines, turns = asyncio.get_running_loop(), Deadlines(), []
    now_s = loop.time()
    many = [Waiting(deadlines, now_s - 1) for _ in range(100)]

    deadlines.start(loop)
    while any(not one.heard for one in many):
        turns.append(sum(bool(one.heard) for one in many))
        await asyncio.sleep(0)
    deadlines.stop()

    steps = [later - earlier for earlier, later in pairwise(turns)]
    assert max(steps) <= 8
    assert len(turns) > 10
    assert {1} == {len(one.heard) for one in many}


async def test_one_that_moves_on_before_its_turn_is_not_told() -> None:
    loop, deadlines = asyncio.get_running_loop(), Deadlines()
    many = [Waiting(deadlines, loop.time() - 1) for _ in range(20)]

    deadlines.start(loop)
    spared = [one for one in many if not one.heard]
    for one in spared:
        one.deadline_s += 60
    await asyncio.sleep(0.01)
    deadlines.stop()

    assert 12 == len(spared)
    assert [] == [one for one in spared if one.heard]


async def test_a_mistake_among_many_is_told_and_the_others_hear_of_it_at_the_next_tick() -> None:
    loop, deadlines, mistakes = asyncio.get_running_loop(), Deadlines(), []
    loop.set_exception_handler(lambda _, context: mistakes.append(context))
    deadlines.start(loop)  # before them: what the first tick raises comes out of it
    many = [Waiting(deadlines, loop.time(), is_wrong=at % 5 == 0) for at in range(20)]

    await wait_until(lambda: deadlines.watched == set())
    deadlines.stop()

    assert {1} == {len(one.heard) for one in many}
    assert 4 == len(mistakes) == sum(one.has_broken_down for one in many)
