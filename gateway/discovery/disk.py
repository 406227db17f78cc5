"""The last Snapshots on disk, for a start while the registry is away.

The one rule: a file is either whole, of this version, of this datacenter and young enough, or it is
not used at all. It is written anew and renamed over the old one, readable by its owner only, and
holds neither tokens nor indexes: an index from an earlier run means nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

try:
    import fcntl
except ImportError:  # there is none on Windows
    fcntl = None  # type: ignore[assignment]

from gateway.core.model import Instance, Snapshot
from gateway.discovery import static
from gateway.discovery.catalog import Catalog, Entry
from gateway.discovery.snapshot_file import VERSION, RefusedError, parse, read_bounded

_log = structlog.get_logger()

NAME = "disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskPolicy:
    """When the file is written, and how old it may be.

    `settle_s` after a change, so that many changes make one write; and at least every `rewrite_s`,
    so that a file of a quiet fleet does not look old.
    """

    settle_s: float = 1.0
    rewrite_s: float = 600.0
    max_age_s: float = 24 * 3600.0


class SnapshotStore:
    """Keeps the catalog in one JSON file: {v, dc, services: {name: {at, instances}}}.

    `at` is the wall-clock time (seconds since the epoch) at which the registry confirmed the
    service; it survives restarts without a registry, so nothing gets younger by being read and
    written again. `wall_clock` gives that time, `clock` is monotonic and the catalog's own.
    """

    def __init__(
        self,
        path: Path,
        *,
        datacenter: str | None,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        policy: DiskPolicy | None = None,
    ) -> None:
        self._path = path
        self._datacenter = datacenter
        self._clock = clock
        self._wall_clock = wall_clock
        self._policy = policy or DiskPolicy()
        self._confirmed_at: dict[str, float] = {}
        self._can_write = True
        self._lock: int | None = None

    def load(self) -> tuple[Snapshot, ...]:
        """Read what an earlier run left, with source "disk"; nothing when it cannot be used.

        Blocks for as long as the file takes to read. Why a file is refused is logged.
        """
        reason: str | None = None
        loaded: tuple[Snapshot, ...] = ()
        try:
            loaded = self._snapshots(read_bounded(self._path))
        except FileNotFoundError:
            return ()
        except OSError as error:
            reason = f"not readable: {error.strerror}"
        except RefusedError as error:
            reason = str(error)
        if reason:
            _log.warning("snapshot_refused", path=str(self._path), reason=reason)
        else:
            _log.info("snapshot_loaded", path=str(self._path), services=len(loaded))
        return loaded

    async def run(self, catalog: Catalog) -> None:
        """Write the file soon after each change, and once more when cancelled.

        While another process does so, it is left alone, and tried again each time.
        """
        has_changed = asyncio.Event()
        catalog.subscribe(lambda _: has_changed.set())
        loop = asyncio.get_running_loop()
        writing: asyncio.Future[None] | None = None
        try:
            while True:
                try:
                    async with asyncio.timeout(self._policy.rewrite_s):
                        await has_changed.wait()
                except TimeoutError:
                    pass  # nothing changed, but what is known was confirmed in the meantime
                else:
                    await asyncio.sleep(self._policy.settle_s)
                has_changed.clear()
                writing = loop.run_in_executor(None, self._save_alone, dict(catalog.entries()))
                await asyncio.shield(writing)
        finally:
            if writing is not None:
                await asyncio.wait([writing])  # or it might rename its older file over the last one
            self._save_alone(catalog.entries())
            self._disown()

    def save(self, entries: Mapping[str, Entry]) -> None:
        """Write the file now. Blocks; a failure is logged, once until it works again."""
        try:
            _replace_file(self._path, self._document(entries))
        except OSError as error:
            self._tell_failure(error)
        except Exception:  # noqa: BLE001 -- it would end the gateway, which can do without the file
            if self._can_write:
                _log.exception("task_failed", task="snapshots")
            self._can_write = False
        else:
            self._can_write = True

    def _tell_failure(self, error: OSError) -> None:
        if self._can_write:
            _log.warning("snapshot_not_written", path=str(self._path), reason=str(error))
        self._can_write = False

    def _save_alone(self, entries: Mapping[str, Entry]) -> None:
        """Write the file if no other process does."""
        try:
            self._own()
        except OSError as error:
            self._tell_failure(error)
        else:
            self.save(entries)

    def _disown(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _own(self) -> None:
        """Be the one process that writes this file, from now on.

        Raises OSError where another one is: two would overwrite what the other one knows.
        """
        if self._lock is not None or fcntl is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise OSError(
                "another gateway writes it; give each of them a GATEWAY_STATE_DIR of its own"
            ) from None
        except OSError:
            pass  # the file system has no locks: then nobody can tell
        self._lock = lock

    def _document(self, entries: Mapping[str, Entry]) -> bytes:
        # Piece by piece: the encoder lets no other thread run, and requests are being served.
        services = ",".join(
            f"{json.dumps(service)}:{_kept(at, entry.snapshot)}"
            for service, entry in sorted(entries.items())
            if entry.snapshot.source != static.NAME and (at := self._confirmed(entry)) is not None
        )
        datacenter = json.dumps(self._datacenter)
        return f'{{"v":{VERSION},"dc":{datacenter},"services":{{{services}}}}}'.encode()

    def _confirmed(self, entry: Entry) -> float | None:
        """Tell at which wall-clock time the registry confirmed an entry, None for never."""
        age_s = entry.age_s(self._clock())
        if age_s is None:
            return self._confirmed_at.get(entry.snapshot.service)
        return self._wall_clock() - age_s

    def _snapshots(self, content: bytes) -> tuple[Snapshot, ...]:
        found = parse(
            content,
            datacenter=self._datacenter,
            now_s=self._wall_clock(),
            max_age_s=self._policy.max_age_s,
        )
        self._confirmed_at = {name: at for name, (at, _) in found.items()}
        return tuple(
            Snapshot(service=name, instances=instances, source=NAME)
            for name, (_, instances) in found.items()
        )


def _kept(at: float, snapshot: Snapshot) -> str:
    instances = (
        json.dumps(_written(instance), separators=(",", ":")) for instance in snapshot.instances
    )
    return f'{{"at":{json.dumps(at)},"instances":[{",".join(instances)}]}}'


def _written(instance: Instance) -> dict[str, Any]:
    return {
        "key": instance.key,
        "id": instance.id,
        "host": instance.host,
        "port": instance.port,
        "scheme": instance.scheme,
        "weight": instance.weight,
        "status": instance.status.value,
        "tags": instance.tags,
        "meta": instance.meta,
        "zone": instance.zone,
    }


def _replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash at any moment, sees the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
