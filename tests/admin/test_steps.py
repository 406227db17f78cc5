"""Pages are made in steps: some in a turn of the loop, one page at a time, shared by who asks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from itertools import count

import pytest

from gateway.admin import report
from gateway.admin.steps import Pages, Steps, all_at_once, mapped, paced, written
from tests.fakes.admin import FakeView, instance, route
from tests.fakes.waiting import wait_until


def steps_of(steps: Steps[object]) -> int:
    """Count the steps, without the last one."""
    return sum(1 for _ in steps)


def hurrying() -> Callable[[], float]:
    """Give a clock by which each step takes a whole turn."""
    return map(float, count()).__next__


def test_what_is_made_in_steps_is_what_is_made_at_once() -> None:
    content: dict[str, object] = {
        "text": "ä\n",
        "numbers": list(range(1000)),
        "none": None,
        "nested": [{"a": []}],
    }

    assert all_at_once(mapped(range(100), str)) == [str(number) for number in range(100)]
    assert all_at_once(written(content)) == json.dumps(content, indent=2).encode() + b"\n"


@pytest.mark.parametrize("page", ["health", "services", "service", "routes"])
def test_a_page_of_ten_times_as_much_takes_ten_times_as_many_steps(page: str) -> None:
    """So that no step grows with what is shown."""

    def steps(size: int) -> tuple[int, int]:
        view = FakeView([route(f"/{number}", "users") for number in range(size)])
        view.publish("users", *(instance(f"user-{number}") for number in range(size)))
        made: dict[str, Callable[[], Steps[object]]] = {
            "health": lambda: report.health(view, 1000.0),
            "services": lambda: report.services(view, 1000.0),
            "service": lambda: report.service(view, "users", 1000.0),
            "routes": lambda: report.routes(view),
        }
        begin = made[page]
        return steps_of(begin()), steps_of(written(all_at_once(begin())))

    few, many = steps(100), steps(1000)

    assert many[0] >= 9 * few[0] > 0
    if page != "health":  # which is a summary
        assert many[1] >= 9 * few[1] > 0


async def test_other_work_gets_its_turn_between_the_steps() -> None:
    loop = asyncio.get_running_loop()
    turns: list[None] = []

    def note() -> None:
        turns.append(None)
        if len(turns) < 20:
            loop.call_soon(note)

    def work() -> Steps[str]:
        for _ in range(10):
            yield
        return "made"

    loop.call_soon(note)
    made = await paced(work(), hurrying())

    assert made == "made"
    assert len(turns) >= 10


async def test_a_page_is_made_once_for_all_who_ask_meanwhile() -> None:
    begun: list[str] = []
    pages = Pages(hurrying())

    def begin(name: str) -> Steps[str]:
        begun.append(name)
        yield
        return name

    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(pages.make(n, partial(begin, n))) for n in "aabab"]
    again = await pages.make("a", lambda: begin("a"))

    assert [one.result() for one in asked] == [b'"%b"\n' % n.encode() for n in "aabab"]
    assert again == b'"a"\n'
    assert begun == ["a", "b", "a"]


async def test_whoever_waits_for_a_page_has_it_also_when_its_maker_leaves() -> None:
    pages = Pages(hurrying())
    begun: list[str] = []

    def never() -> Steps[str]:
        begun.append("never")
        while True:
            yield

    def soon() -> Steps[str]:
        begun.append("soon")
        yield
        return "soon"

    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(pages.make("a", never))
        await wait_until(lambda: bool(begun))
        others = [tasks.create_task(pages.make("a", soon)) for _ in range(3)]
        await asyncio.sleep(0)
        first.cancel()

    assert [one.result() for one in others] == [b'"soon"\n'] * 3
    assert begun == ["never", "soon"]


async def test_a_mistake_in_a_page_is_told_to_all_who_asked_and_the_next_page_is_made() -> None:
    pages = Pages(hurrying())

    def broken() -> Steps[str]:
        yield
        raise KeyError("a mistake")

    def well() -> Steps[str]:
        yield
        return "well"

    found = await asyncio.gather(
        *(pages.make("a", broken) for _ in range(3)), return_exceptions=True
    )

    assert [type(one) for one in found] == [KeyError] * 3
    assert await pages.make("a", well) == b'"well"\n'
