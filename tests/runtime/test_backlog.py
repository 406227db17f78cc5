"""How connections with bytes that were put off take turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.runtime.backlog import TURN_S, Backlog


class Turns:
    """Turns of a loop that pass when the test says so, and a clock that only work moves."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.due: list[Callable[[], None]] = []
        self.done: list[str] = []
        self.backlog = Backlog(lambda: self.now_s, self.due.append)

    def end(self) -> None:
        due, self.due[:] = self.due[:], []
        assert len(due) <= 1, "asked for twice"
        for act in due:
            act()


class Waiting:
    """A connection that has so many shares of work, each of which takes so long."""

    def __init__(
        self, turns: Turns, name: str, shares: int, takes_s: float = 0.0, peer: str = ""
    ) -> None:
        self._turns = turns
        self._name = name
        self._shares = shares
        self._takes_s = takes_s
        self.peer = peer or name
        turns.backlog.add(self, self.peer)

    def go_on(self) -> None:
        self._shares -= 1
        self._turns.now_s += self._takes_s
        self._turns.done.append(self._name)
        if self._shares:
            self._turns.backlog.add(self, self.peer)


class Broken(Waiting):
    """One that makes a mistake."""

    def go_on(self) -> None:
        super().go_on()
        raise KeyError("a mistake")


def test_each_does_one_share_in_a_turn() -> None:
    turns = Turns()
    Waiting(turns, "a", 3)
    Waiting(turns, "b", 1)
    Waiting(turns, "c", 2)
    assert "<Backlog 3 waiting>" == repr(turns.backlog)

    turns.end()
    assert ["a", "b", "c"] == turns.done
    turns.end()
    turns.end()

    assert ["a", "b", "c", "a", "c", "a"] == turns.done
    assert [] == turns.due


def test_who_has_waited_longest_goes_first_when_the_time_of_a_turn_is_over() -> None:
    turns = Turns()
    for name in "abc":
        Waiting(turns, name, 2, takes_s=TURN_S * 0.6)

    turns.end()
    assert ["a", "b"] == turns.done
    turns.end()
    assert ["a", "b", "c", "a"] == turns.done
    turns.end()
    assert ["a", "b", "c", "a", "b", "c"] == turns.done
    turns.end()  # in which long reads heard that the time of the last one was over
    assert [] == turns.due


def test_peers_take_turns_before_the_connections_of_each() -> None:
    turns = Turns()
    for name in ("a1", "a2", "a3"):
        Waiting(turns, name, 2, takes_s=TURN_S * 0.6, peer="a")
    Waiting(turns, "b1", 3, takes_s=TURN_S * 0.6, peer="b")

    for _ in range(5):
        turns.end()
    assert ["a1", "b1", "a2", "b1", "a3", "b1", "a1", "a2", "a3"] == turns.done
    assert [] == turns.due


def test_nobody_has_two_shares_in_a_turn_however_few_peers_there_are() -> None:
    turns = Turns()
    Waiting(turns, "a1", 3, peer="a")
    for name in ("b1", "b2"):
        Waiting(turns, name, 2, peer="b")

    turns.end()
    assert ["a1", "b1", "b2"] == turns.done
    turns.end()
    assert ["a1", "b1", "b2", "a1", "b1", "b2"] == turns.done


def test_the_first_long_read_of_a_turn_begins_the_time_for_all_of_them() -> None:
    turns = Turns()
    backlog = turns.backlog

    assert not backlog.is_over()
    turns.now_s += TURN_S * 0.9
    assert not backlog.is_over()
    turns.now_s += TURN_S * 0.2
    assert backlog.is_over()
    assert backlog.is_over()

    turns.end()
    assert [] == turns.due
    assert not backlog.is_over()


def test_whoever_puts_off_first_leaves_the_long_reads_of_its_turn_their_time() -> None:
    turns = Turns()
    turns.now_s = 100.0
    Waiting(turns, "a", 1)

    assert not turns.backlog.is_over()
    turns.now_s += TURN_S
    assert turns.backlog.is_over()


def test_long_reads_have_no_time_left_after_what_waited_already_took_it() -> None:
    turns = Turns()
    Waiting(turns, "a", 2, takes_s=TURN_S * 1.1)

    for _ in range(2):
        turns.end()
        assert turns.backlog.is_over()
    turns.end()

    assert [] == turns.due
    assert not turns.backlog.is_over()
    assert ["a", "a"] == turns.done


def test_who_waits_already_waits_once() -> None:
    turns = Turns()
    one = Waiting(turns, "a", 1)
    turns.backlog.add(one, one.peer)

    turns.end()
    assert ["a"] == turns.done


def test_who_left_is_forgotten_also_in_the_middle_of_a_turn() -> None:
    turns = Turns()
    backlog = turns.backlog

    class Leaves(Waiting):
        def go_on(self) -> None:
            super().go_on()
            backlog.discard(last, last.peer)

    Leaves(turns, "a", 1)
    last = Waiting(turns, "b", 1)
    never = Waiting(turns, "c", 1)
    backlog.discard(never, "c")
    backlog.discard(never, "c")
    backlog.discard(never, "b")

    turns.end()
    assert ["a"] == turns.done
    assert [] == turns.due


async def test_a_mistake_of_one_is_told_to_the_loop_and_holds_up_nobody() -> None:
    turns = Turns()
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: told.append(repr(context["exception"]))
    )
    Broken(turns, "a", 1)
    Waiting(turns, "b", 1)

    turns.end()
    assert ["a", "b"] == turns.done
    assert ["KeyError('a mistake')"] == told


async def test_it_goes_on_in_the_next_turn_of_the_loop() -> None:
    class Once:
        def __init__(self) -> None:
            self.count = 0

        def go_on(self) -> None:
            self.count += 1

    one = Once()
    Backlog().add(one, "a peer")
    assert 0 == one.count
    await asyncio.sleep(0)

    assert 1 == one.count
