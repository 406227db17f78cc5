"""The registry, played: it finds out late, and tells each gateway later still.

It checks each instance once in a while, as Consul does with an HTTP check, and each gateway hears
of a change after a delay of its own, as with blocking queries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from benchmarks.sim.instance import PlayedInstance, State
from benchmarks.sim.timeline import Timeline
from gateway.core.model import Instance, Snapshot, Status

SERVICE = "fleet"
Follow = Callable[[Snapshot], None]


class Registry:
    """What is registered, with what it says of it. `check_every_s` None means that it never checks.

    `told_within_s` is how long a gateway waits for news at most.
    """

    def __init__(
        self,
        timeline: Timeline,
        random: Random,
        *,
        check_every_s: float | None,
        told_within_s: float,
    ) -> None:
        self._timeline = timeline
        self._random = random
        self._check_every_s = check_every_s
        self._told_within_s = told_within_s
        self._statuses: dict[str, Status] = {}
        self._followers: list[Follow] = []
        self._index = 0

    def __repr__(self) -> str:
        return f"<Registry {len(self._statuses)} registered, index {self._index}>"

    def register(self, instances: Iterable[PlayedInstance]) -> None:
        """List these, as passing, and check them from now on."""
        for instance in instances:
            is_new = instance.key not in self._statuses
            self._statuses[instance.key] = Status.PASSING
            if is_new and self._check_every_s is not None:
                first_s = self._random.random() * self._check_every_s
                self._timeline.call_later(first_s, self._check, instance, self._check_every_s)
        self._tell_all()

    def deregister(self, instance: PlayedInstance) -> None:
        """List it no longer."""
        del self._statuses[instance.key]
        self._tell_all()

    def follow(self, follow: Follow) -> None:
        """Tell this gateway what there is, and then each change."""
        self._followers.append(follow)
        self._tell(follow)

    def _check(self, instance: PlayedInstance, every_s: float) -> None:
        before = self._statuses.get(instance.key)
        if before is None:
            return
        status = Status.PASSING if instance.state is State.UP else Status.CRITICAL
        if status is not before:
            self._statuses[instance.key] = status
            self._tell_all()
        self._timeline.call_later(every_s, self._check, instance, every_s)

    def _tell_all(self) -> None:
        self._index += 1
        for follow in self._followers:
            self._tell(follow)

    def _tell(self, follow: Follow) -> None:
        delay_s = self._random.random() * self._told_within_s
        self._timeline.call_later(delay_s, self._arrive, follow)

    def _arrive(self, follow: Follow) -> None:
        """Tell what is true now: an older answer never overtakes a newer one."""
        instances = tuple(
            Instance(key=key, id=key, host=key, port=80, status=status)
            for key, status in sorted(self._statuses.items())
        )
        follow(Snapshot(service=SERVICE, instances=instances, source="sim", index=self._index))
