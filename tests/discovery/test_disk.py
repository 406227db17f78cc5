"""Snapshots on disk: whole, of this version and datacenter, young, or not used at all."""

from __future__ import annotations

import asyncio
import json
import math
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.core.model import Instance, Snapshot, Status
from gateway.discovery.catalog import Catalog
from gateway.discovery.disk import DiskPolicy, SnapshotStore
from tests.fakes.clock import FakeClock
from tests.fakes.waiting import wait_until

DAY_S = 24 * 3600


@dataclass
class Disk:
    """A folder with stores in it, and the two clocks that they are told."""

    path: Path
    clock: FakeClock
    wall_clock: FakeClock

    def store(
        self, *, datacenter: str | None = "dc1", policy: DiskPolicy | None = None
    ) -> SnapshotStore:
        return SnapshotStore(
            self.path,
            datacenter=datacenter,
            clock=self.clock,
            wall_clock=self.wall_clock,
            policy=policy,
        )

    def catalog(self, *snapshots: Snapshot) -> Catalog:
        catalog = Catalog(clock=self.clock)
        for snapshot in snapshots:
            catalog.publish(snapshot, confirmed_at_s=self.clock())
        return catalog

    def restarted(self) -> Catalog:
        """Make the catalog of a new run from the file."""
        catalog = Catalog(clock=self.clock)
        catalog.restore(self.store().load())
        return catalog


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "state" / "snapshot.json", FakeClock(50.0), FakeClock(1e9))


RICH = Instance(
    key="n1/web-1/::1:8080",
    id="n1/web-1",
    host="::1",
    port=8080,
    scheme="https",
    weight=7,
    status=Status.WARNING,
    tags=("v2", "blue"),
    meta=(("version", "7"), ("zone", "eu")),
    zone="eu",
)


def web(*instances: Instance, **changes: Any) -> Snapshot:
    one = Snapshot(service="web", instances=instances or (RICH,), source="consul", index=42)
    return replace(one, **changes)


def test_what_was_saved_is_loaded_as_it_was_but_from_disk_and_without_an_index(
    disk: Disk,
) -> None:
    disk.store().save(disk.catalog(web()).entries())

    assert disk.store().load() == (web(source="disk", index=0),)


def test_a_held_instance_is_kept_but_its_hold_is_not(disk: Disk) -> None:
    held = replace(RICH, held=True)
    disk.store().save(disk.catalog(web(held, held_until_s=99.0)).entries())

    assert disk.store().load() == (web(source="disk", index=0),)


def test_the_file_is_for_its_owner_only_and_nothing_else_is_left(disk: Disk) -> None:
    store = disk.store()
    for _ in range(2):
        store.save(disk.catalog(web()).entries())

    assert stat.S_IMODE(disk.path.stat().st_mode) == 0o600
    assert list(disk.path.parent.iterdir()) == [disk.path]


def test_the_file_says_what_it_is(disk: Disk) -> None:
    disk.store().save(disk.catalog(web()).entries())
    document = json.loads(disk.path.read_text(encoding="utf-8"))

    assert (document["v"], document["dc"]) == (1, "dc1")
    assert document["services"]["web"]["at"] == 1e9


def test_configured_instances_are_not_kept(disk: Disk) -> None:
    disk.store().save(disk.catalog(web(source="static")).entries())

    assert disk.store().load() == ()


def test_no_file_is_no_reason_to_complain(disk: Disk) -> None:
    with capture_logs() as logs:
        loaded = disk.store().load()

    assert (loaded, logs) == ((), [])


def edit(disk: Disk, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(disk.path.read_text(encoding="utf-8"))
    change(document)
    disk.path.write_text(json.dumps(document), encoding="utf-8")


def web_of(document: dict[str, Any]) -> dict[str, Any]:
    service: dict[str, Any] = document["services"]["web"]
    return service


def spoil_text(disk: Disk, before: str, after: str) -> None:
    text = disk.path.read_text(encoding="utf-8")
    assert before in text
    disk.path.write_text(text.replace(before, after), encoding="utf-8")


def disk_is_a_fifo(disk: Disk) -> None:
    disk.path.unlink()
    os.mkfifo(disk.path)


def disk_is_a_folder(disk: Disk) -> None:
    disk.path.unlink()
    disk.path.mkdir()


ODD: list[tuple[str, object]] = [
    *(("port", value) for value in ("80", 0, -1, 65536, True, 8.5, None)),
    *(("weight", value) for value in (-1, 65537, 10**400, True, "1")),
    *(("host", value) for value in (None, "", "a b", "a\r\nX: y", "\xfc", "a/b", "user@a")),
    *(("status", "fine"), ("scheme", "ftp"), ("key", 1), ("id", None)),
    *(("tags", [1]), ("meta", [["a", 1]]), ("zone", ["x"])),
]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda disk: disk.path.write_bytes(disk.path.read_bytes()[:-9]), "torn"),
        (lambda disk: disk.path.write_bytes(b""), "torn"),
        (lambda disk: disk.path.write_bytes(b"\xff\xfe"), "torn"),
        (lambda disk: disk.path.write_bytes(b"[" * 100_000), "torn"),
        (lambda disk: disk.path.write_bytes(b"[]"), "changed: a part of it has the wrong type"),
        (lambda disk: edit(disk, lambda all_: all_.pop("services")), "changed: it has no services"),
        (lambda disk: edit(disk, lambda all_: web_of(all_).pop("at")), "changed: it has no at"),
        (lambda disk: edit(disk, lambda all_: first(all_).pop("key")), "changed: it has no key"),
        (
            lambda disk: edit(disk, lambda all_: web_of(all_).update(at=1e9 + 301)),
            "from the future",
        ),
        (lambda disk: edit(disk, lambda all_: web_of(all_).update(at="x")), "changed: at: 'x'"),
        (lambda disk: edit(disk, lambda all_: web_of(all_).update(at=True)), "changed: at: True"),
        (lambda disk: edit(disk, lambda all_: web_of(all_).update(at=math.nan)), "torn"),
        (lambda disk: spoil_text(disk, '"at":1000000000.0', '"at":1e400'), "changed: at: inf"),
        (
            lambda disk: edit(disk, lambda all_: web_of(all_)["instances"].append(first(all_))),
            "changed: two instances have one key",
        ),
        *(
            (
                partial(
                    lambda disk, change: edit(disk, lambda all_: first(all_).update(change)),
                    change=change,
                ),
                f"changed: {name}: {value!r}"[:89],
            )
            for name, value in ODD
            for change in ({name: value},)
        ),
        (disk_is_a_fifo, "not a regular file"),
        (disk_is_a_folder, "not a regular file"),
        (lambda disk: disk.path.chmod(0o666), "writable by everybody"),
        (lambda disk: edit(disk, lambda all_: all_.update(v=2)), "other version"),
        (lambda disk: edit(disk, lambda all_: all_.update(dc="dc2")), "other datacenter"),
        (lambda disk: disk.wall_clock.advance(DAY_S + 1), "too old"),
    ],
)
def test_a_file_that_cannot_be_relied_on_is_refused_with_its_reason(
    disk: Disk, spoil: Callable[[Disk], object], reason: str
) -> None:
    disk.store().save(disk.catalog(web()).entries())
    spoil(disk)

    with capture_logs() as logs:
        loaded = disk.store().load()

    assert loaded == ()
    assert [(one["event"], one["reason"]) for one in logs] == [("snapshot_refused", reason)]


def first(document: dict[str, Any]) -> dict[str, Any]:
    instance: dict[str, Any] = document["services"]["web"]["instances"][0]
    return instance


def test_a_path_that_cannot_be_read_is_refused(disk: Disk) -> None:
    disk.path.parent.write_text("a file in the place of the folder")

    with capture_logs() as logs:
        assert disk.store().load() == ()

    assert logs[0]["reason"] == "not readable: Not a directory"


def test_what_is_more_in_the_file_than_we_write_is_left_out(disk: Disk) -> None:
    disk.store().save(disk.catalog(web()).entries())
    edit(disk, lambda all_: first(all_).update(priority=-3, held=True, more=1))

    (loaded,) = disk.store().load()
    assert loaded.instances == (RICH,)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_refused(disk: Disk) -> None:
    disk.store().save(disk.catalog(web()).entries())
    os.chown(disk.path, 12345, 12345)

    with capture_logs() as logs:
        assert disk.store().load() == ()

    assert [one["reason"] for one in logs] == ["owned by another user (12345)"]


def test_only_a_warning_may_weigh_nothing(disk: Disk) -> None:
    passing = replace(RICH, status=Status.PASSING, weight=0)
    disk.store().save(disk.catalog(web(passing)).entries())
    assert disk.store().load() == ()

    disk.store().save(disk.catalog(web(replace(RICH, weight=0))).entries())
    assert len(disk.store().load()) == 1


def test_only_services_that_are_too_old_are_left_out(disk: Disk) -> None:
    catalog = disk.catalog(web())
    disk.clock.advance(DAY_S)
    disk.wall_clock.advance(DAY_S)
    catalog.publish(web(service="young"), confirmed_at_s=disk.clock())
    disk.store().save(catalog.entries())
    disk.wall_clock.advance(1)

    assert [one.service for one in disk.store().load()] == ["young"]


def test_reading_and_writing_again_does_not_make_anything_younger(disk: Disk) -> None:
    """A gateway that restarts every hour beside a dead registry must not keep it alive for ever."""
    disk.store().save(disk.catalog(web()).entries())
    disk.wall_clock.advance(DAY_S - 10)
    second = disk.store()
    catalog = Catalog(clock=disk.clock)
    catalog.restore(second.load())
    second.save(catalog.entries())

    assert len(disk.store().load()) == 1
    disk.wall_clock.advance(11)
    assert disk.store().load() == ()


def test_a_folder_that_cannot_be_written_is_logged_once_until_it_can(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way", encoding="utf-8")
    disk = Disk(blocked / "snapshot.json", FakeClock(), FakeClock())
    store, entries = disk.store(), disk.catalog(web()).entries()
    with capture_logs() as logs:
        store.save(entries)
        store.save(entries)
        blocked.unlink()
        store.save(entries)
        disk.path.unlink()
        disk.path.parent.rmdir()
        blocked.write_text("again", encoding="utf-8")
        store.save(entries)

    assert [one["event"] for one in logs] == ["snapshot_not_written"] * 2


def test_a_write_that_fails_at_the_end_leaves_no_half_file_behind(disk: Disk) -> None:
    disk.path.mkdir(parents=True)

    disk.store().save(disk.catalog(web()).entries())

    assert list(disk.path.parent.iterdir()) == [disk.path]


async def test_a_change_is_written_soon_and_many_make_one_write(disk: Disk) -> None:
    catalog = disk.catalog()
    store = disk.store(policy=DiskPolicy(settle_s=0.05))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(store.run(catalog))
        await asyncio.sleep(0)
        for port in range(1, 100):
            catalog.publish(web(replace(RICH, port=port)), confirmed_at_s=disk.clock())
        await wait_until(disk.path.exists)
        loaded = disk.store().load()
        running.cancel()

    assert loaded[0].instances[0].port == 99


async def test_a_quiet_catalog_is_written_again_now_and_then(disk: Disk) -> None:
    """Else a fleet in which nothing changes for a day would be refused as too old."""
    catalog = disk.catalog(web())
    store = disk.store(policy=DiskPolicy(rewrite_s=0.02))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(store.run(catalog))
        await wait_until(disk.path.exists)
        written_ns = disk.path.stat().st_mtime_ns
        await wait_until(lambda: disk.path.stat().st_mtime_ns > written_ns)
        running.cancel()


async def test_the_last_state_is_written_when_it_ends(disk: Disk) -> None:
    catalog = disk.catalog()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(disk.store().run(catalog))
        await asyncio.sleep(0)
        catalog.publish(web(), confirmed_at_s=disk.clock())
        running.cancel()

    assert len(disk.store().load()) == 1


async def test_of_two_gateways_with_one_file_the_second_leaves_it_alone(disk: Disk) -> None:
    """Each would overwrite what the other one knows; when the first one ends it is the second's."""
    policy = DiskPolicy(settle_s=0.0, rewrite_s=0.02)
    first, second = disk.catalog(web()), disk.catalog(web(replace(RICH, port=2)))
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            one = tasks.create_task(disk.store(policy=policy).run(first))
            await wait_until(disk.path.exists)
            other = tasks.create_task(disk.store(policy=policy).run(second))
            await wait_until(lambda: [one["event"] for one in logs] == ["snapshot_not_written"])
            port_before = disk.store().load()[0].instances[0].port
            one.cancel()
            await wait_until(lambda: disk.store().load()[0].instances[0].port == 2)
            other.cancel()

    assert port_before == RICH.port
    assert "GATEWAY_STATE_DIR" in logs[0]["reason"]


@pytest.mark.soak
def test_a_thousand_services_are_loaded_quickly(disk: Disk) -> None:
    instances = tuple(replace(RICH, key=f"{number:02}") for number in range(20))
    catalog = disk.catalog(
        *(web(*instances, service=f"service-{number}") for number in range(1000))
    )
    disk.store().save(catalog.entries())

    started_s = time.perf_counter()
    restarted = disk.restarted()
    took_s = time.perf_counter() - started_s

    assert len(restarted.entries()) == 1000
    assert took_s < 10.0  # a quarter of a second on a quiet machine


def test_a_file_that_is_larger_than_any_of_ours_is_not_read(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.store().save(disk.catalog(web()).entries())
    monkeypatch.setattr("gateway.discovery.snapshot_file.MAX_FILE_BYTES", 100)

    with capture_logs() as logs:
        assert disk.store().load() == ()

    assert [one["reason"] for one in logs] == ["larger than 100B"]


def test_a_mistake_while_it_is_written_is_told_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path / "snapshot.json", FakeClock(), FakeClock())
    store, entries = disk.store(), disk.catalog(web()).entries()
    with capture_logs() as logs, monkeypatch.context() as patch:
        patch.setattr(store, "_document", lambda _: 1 // 0)
        store.save(entries)
    store.save(entries)

    assert [(one["event"], one["task"]) for one in logs] == [("task_failed", "snapshots")]
    assert len(disk.store().load()) == 1
