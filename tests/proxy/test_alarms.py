"""Alarms: in order, at their instant, and with one timer however many there are."""

from __future__ import annotations

import asyncio

import pytest

from gateway.proxy.alarms import Alarms
from tests.fakes.waiting import PATIENCE_S


class Diary:
    """Notes what rang, and when."""

    def __init__(self, alarms: Alarms) -> None:
        self.alarms = alarms
        self.rang: list[tuple[str, float]] = []
        self.broken: list[float] = []

    def set(self, name: str, at_s: float) -> None:
        self.alarms.set(
            at_s, lambda now_s: self.rang.append((name, now_s)), break_down=self.broken.append
        )


def test_they_ring_in_the_order_of_their_instants_and_once() -> None:
    diary = Diary(Alarms())
    for name, at_s in (("c", 3.0), ("a", 1.0), ("b", 1.0), ("d", 9.0)):
        diary.set(name, at_s)

    diary.alarms.ring(0.5)
    diary.alarms.ring(4.0)
    diary.alarms.ring(5.0)

    assert diary.rang == [("a", 4.0), ("b", 4.0), ("c", 4.0)]
    assert repr(diary.alarms) == "<Alarms 1 set>"


def test_a_mistake_in_one_ends_that_one_and_comes_out() -> None:
    diary = Diary(Alarms())

    def fail(now_s: float) -> None:
        raise RuntimeError("a bug")

    diary.alarms.set(1.0, fail, break_down=diary.broken.append)
    diary.set("next", 1.0)

    with pytest.raises(RuntimeError, match="a bug"):
        diary.alarms.ring(2.0)
    diary.alarms.ring(3.0)

    assert diary.broken == [2.0]
    assert diary.rang == [("next", 3.0)]


async def test_in_a_loop_they_ring_by_themselves_the_sooner_one_first() -> None:
    loop = asyncio.get_running_loop()
    diary = Diary(Alarms())
    diary.set("before the start", loop.time())
    diary.alarms.start(loop)
    rang = asyncio.Event()
    diary.alarms.set(loop.time() + 0.02, lambda _: rang.set(), break_down=diary.broken.append)
    diary.set("sooner", loop.time() + 0.01)

    await asyncio.wait_for(rang.wait(), PATIENCE_S)

    assert [name for name, _ in diary.rang] == ["before the start", "sooner"]
    diary.alarms.stop()


async def test_after_the_end_nothing_rings() -> None:
    loop = asyncio.get_running_loop()
    diary = Diary(Alarms())
    diary.alarms.start(loop)
    diary.set("late", loop.time() + 0.01)

    diary.alarms.stop()
    await asyncio.sleep(0.02)

    assert diary.rang == []
