"""Names: one lookup each, none stops another, and what was known is used meanwhile."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway import names
from gateway.names import LOOKUPS_PER_GROUP, NameLateError, Names, connect_first
from tests.fakes.waiting import PATIENCE_S, wait_until

HERE = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]


class PlayedLookup:
    """Answers as told; names in `dead` hang until `release`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.dead: set[str] = set()
        self.errors: dict[str, Exception] = {}
        self.found: dict[str, list[tuple[Any, ...]]] = {}
        self.released = threading.Event()

    def __call__(self, host: str, *_: Any, **__: Any) -> Sequence[tuple[Any, ...]]:
        self.asked.append(host)
        if host in self.dead:
            self.released.wait(PATIENCE_S)
        if host in self.errors:
            raise self.errors[host]
        return self.found.get(host, HERE)


@pytest.fixture
def lookup() -> Iterator[PlayedLookup]:
    played = PlayedLookup()
    yield played
    played.released.set()


@pytest.fixture(autouse=True)
def always_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be so fresh that it is not looked up."""
    monkeypatch.setattr(names, "_FRESH_S", -1.0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%lo"])
async def test_an_address_is_not_looked_up(lookup: PlayedLookup, host: str) -> None:
    assert await Names(lookup=lookup).addresses(host) == (host,)
    assert lookup.asked == []


async def test_the_system_is_asked() -> None:
    assert set(await Names().addresses("localhost")) <= {"127.0.0.1", "::1"}


async def test_all_who_ask_for_a_name_share_one_lookup(lookup: PlayedLookup) -> None:
    looking = Names(lookup=lookup)
    lookup.dead.add("web")
    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(looking.addresses("web")) for _ in range(50)]
        await wait_until(lambda: lookup.asked)
        asking[0].cancel()  # whoever leaves takes nothing away from the others
        lookup.released.set()

    assert lookup.asked == ["web"]
    assert {task.result() for task in asking[1:]} == {("127.0.0.1",)}


async def test_dead_names_stop_no_other_one(lookup: PlayedLookup) -> None:
    """The default executor has a few threads, and uvloop four."""
    looking = Names(lookup=lookup)
    lookup.dead |= {f"dead-{number}" for number in range(200)}
    async with asyncio.TaskGroup() as tasks:
        dead = [
            tasks.create_task(looking.addresses(name, group=name)) for name in sorted(lookup.dead)
        ]
        await wait_until(lambda: len(lookup.asked) == 200)
        assert await looking.addresses("web", within_s=PATIENCE_S) == ("127.0.0.1",)
        assert not any(task.done() for task in dead)
        lookup.released.set()


async def test_the_lookups_of_a_group_are_bounded_and_the_others_wait(
    lookup: PlayedLookup,
) -> None:
    looking = Names(lookup=lookup)
    lookup.dead |= {f"dead-{number}" for number in range(LOOKUPS_PER_GROUP + 5)}
    async with asyncio.TaskGroup() as tasks:
        for name in sorted(lookup.dead):
            tasks.create_task(looking.addresses(name, group="a"))
        await wait_until(lambda: len(lookup.asked) == LOOKUPS_PER_GROUP)
        assert await looking.addresses("web", group="b") == ("127.0.0.1",)
        with pytest.raises(NameLateError):
            await looking.addresses("waits", group="a", within_s=0.01)
        lookup.released.set()

    await wait_until(lambda: "waits" in lookup.asked)
    await wait_until(lambda: not looking._lookups)
    assert (looking._running, looking._queued) == ({}, {})


async def test_a_name_that_waits_in_one_group_begins_when_another_one_asks(
    lookup: PlayedLookup,
) -> None:
    """Dead names of health checks must not stop a request for a name that is well."""
    looking = Names(lookup=lookup)
    lookup.dead |= {f"dead-{number}" for number in range(LOOKUPS_PER_GROUP)}
    async with asyncio.TaskGroup() as tasks:
        for name in sorted(lookup.dead):
            tasks.create_task(looking.addresses(name, group="check:s"))
        waiting = tasks.create_task(looking.addresses("web", group="check:s"))
        await wait_until(lambda: len(lookup.asked) == LOOKUPS_PER_GROUP)
        assert "web" not in lookup.asked

        assert await looking.addresses("web", group="s") == ("127.0.0.1",)
        assert await waiting == ("127.0.0.1",)
        lookup.released.set()

    assert (looking._running, looking._queued, looking._lookups) == ({}, {}, {})


async def test_without_a_thread_nobody_waits_for_ever(
    lookup: PlayedLookup, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = Names(lookup=lookup)

    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_more)
        for _ in range(2):
            with pytest.raises(NameLateError, match="can't start new thread"):
                await looking.addresses("web")

    assert await looking.addresses("web") == ("127.0.0.1",)
    assert (looking._running, looking._queued, looking._lookups) == ({}, {}, {})


async def test_a_late_lookup_is_told_and_goes_on(lookup: PlayedLookup) -> None:
    looking = Names(lookup=lookup)
    lookup.dead.add("web")

    for _ in range(3):
        with pytest.raises(NameLateError, match=r"no answer about the name 'web' within 0\.01 s"):
            await looking.addresses("web", within_s=0.01)
    assert lookup.asked == ["web"]

    lookup.released.set()
    await wait_until(lambda: looking._known)
    assert await looking.addresses("web") == ("127.0.0.1",)


async def test_the_last_good_answer_is_used_while_a_lookup_is_late_or_undecided(
    lookup: PlayedLookup,
) -> None:
    looking = Names(lookup=lookup)
    await looking.addresses("web")
    lookup.errors["web"] = socket.gaierror(socket.EAI_AGAIN, "try again")
    assert await looking.addresses("web") == ("127.0.0.1",)

    lookup.dead.add("web")
    assert await looking.addresses("web") == ("127.0.0.1",)
    assert await looking.addresses("web", within_s=0.0) == ("127.0.0.1",)


@pytest.mark.parametrize(
    "error",
    [
        socket.gaierror(socket.EAI_AGAIN, "try again"),
        socket.gaierror(socket.EAI_MEMORY, "try again"),
        socket.gaierror(socket.EAI_SYSTEM, "try again"),
        OSError(24, "Too many open files: try again"),
        MemoryError("try again"),
    ],
)
async def test_a_resolver_that_cannot_find_out_says_nothing_about_the_host(
    lookup: PlayedLookup, error: Exception
) -> None:
    looking = Names(lookup=lookup)
    lookup.errors["web"] = error
    with pytest.raises(NameLateError, match="try again"):
        await looking.addresses("web")

    lookup.errors.clear()
    await looking.addresses("web")
    lookup.errors["web"] = error
    assert await looking.addresses("web") == ("127.0.0.1",)


async def test_a_name_that_does_not_exist_any_more_is_not_used_on(lookup: PlayedLookup) -> None:
    looking = Names(lookup=lookup)
    await looking.addresses("web")
    lookup.errors["web"] = socket.gaierror(socket.EAI_NONAME, "not known")

    for _ in range(2):
        with pytest.raises(socket.gaierror, match="not known"):
            await looking.addresses("web")


async def test_what_cannot_be_a_name_is_an_error() -> None:
    with pytest.raises((UnicodeError, socket.gaierror)):
        await Names().addresses("a" * 64 + ".example")


async def test_what_was_found_just_now_is_used_without_a_lookup(
    lookup: PlayedLookup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "_FRESH_S", 3600.0)
    looking = Names(lookup=lookup)
    for _ in range(3):
        await looking.addresses("web")

    assert lookup.asked == ["web"]


async def test_the_families_take_turns(lookup: PlayedLookup) -> None:
    lookup.found["web"] = [
        (socket.AF_INET6, 1, 6, "", ("fd00::1", 0, 0, 0)),
        (socket.AF_INET6, 1, 6, "", ("fd00::2", 0, 0, 0)),
        (socket.AF_INET6, 1, 6, "", ("fd00::1", 0, 0, 0)),
        (socket.AF_INET, 1, 6, "", ("10.0.0.1", 0)),
    ]

    assert await Names(lookup=lookup).addresses("web") == ("fd00::1", "10.0.0.1", "fd00::2")


# --- Several addresses ---------------------------------------------------------------------------


@contextmanager
def no_pause(monkeypatch: pytest.MonkeyPatch, pause_s: float) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(names, "_NEXT_ADDRESS_S", pause_s)
        yield


async def test_the_next_address_is_tried_at_once_when_one_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []

    async def connect(address: str) -> str:
        tried.append(address)
        if address != "c":
            raise ConnectionRefusedError(address)
        return address

    with no_pause(monkeypatch, 3600):
        assert await connect_first("abcd", connect, tried.append) == "c"
    assert tried == ["a", "b", "c"]


async def test_the_next_address_is_tried_when_one_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[str] = []

    async def connect(address: str) -> str:
        try:
            if address == "a":
                await asyncio.Event().wait()
        finally:
            ended.append(address)
        return address

    with no_pause(monkeypatch, 0.001):
        assert await connect_first("ab", connect, ended.append) == "b"
    assert ended == ["b", "a"]


async def test_when_all_fail_the_first_error_is_told() -> None:
    async def connect(address: str) -> str:
        raise ConnectionRefusedError(address)

    with pytest.raises(ConnectionRefusedError, match="a"):
        await connect_first("ab", connect, print)


async def test_a_connection_that_comes_too_late_or_to_nobody_is_discarded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = asyncio.Event()
    asked: list[str] = []
    discarded: list[str] = []

    async def connect(address: str) -> str:
        asked.append(address)
        await both.wait()
        return address

    with no_pause(monkeypatch, 0.001):
        async with asyncio.TaskGroup() as tasks:
            racing = tasks.create_task(connect_first("ab", connect, discarded.append))
            await wait_until(lambda: asked == ["a", "b"])
            both.set()
    assert [racing.result(), *discarded] in (["a", "b"], ["a"])


async def test_a_late_name_is_told_once_and_told_again_when_it_has_an_answer(
    lookup: PlayedLookup,
) -> None:
    looking = Names(lookup=lookup)
    with capture_logs() as logs:
        for _ in range(3):
            lookup.errors["web"] = socket.gaierror(socket.EAI_AGAIN, "Temporary failure")
            with pytest.raises(NameLateError):
                await looking.addresses("web")
        late = looking.late.at(0.0)
        lookup.errors.clear()
        await looking.addresses("web")

    assert ["web"] == list(late)
    assert ["name_late", "name_answered"] == [one["event"] for one in logs]
    assert {"web"} == {one["name"] for one in logs}
    assert {} == looking.late.at(0.0)


async def test_a_name_that_does_not_exist_has_an_answer(lookup: PlayedLookup) -> None:
    looking = Names(lookup=lookup)
    lookup.errors["web"] = socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with capture_logs() as logs, pytest.raises(socket.gaierror):
        await looking.addresses("web")

    assert [] == logs


def test_of_late_names_there_is_a_bound() -> None:
    looking = Names()
    with capture_logs():
        for number in range(5000):
            looking.late.note(f"web-{number}", "no answer", 1.0)

    assert 4096 == len(looking.late.at(2.0))
