"""A world: gateways, instances, a registry and clients, put together; and time, to let pass in it.

Everything that is drawn comes from the seed of its Setting, so it comes out the same each time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from benchmarks.sim.connections import Network
from benchmarks.sim.gateways import SimGateway
from benchmarks.sim.instance import PlayedInstance
from benchmarks.sim.ledger import Ledger
from benchmarks.sim.registry import SERVICE, Registry
from benchmarks.sim.timeline import Timeline
from gateway.core.config import RoutingConfig, ServiceConfig
from gateway.core.policy import BalancingPolicy, BreakerPolicy, RetryPolicy, Timeouts
from gateway.core.routing import Route, RouteMatch

_LONGEST_WAIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How large a world is, and how fast. `rate` are requests a second at all gateways together.

    Each instance has `workers`, which take about `work_s` for a request. `starts_within_s` is how
    far apart gateways start. `check_every_s` None means that the registry never notices anything.
    """

    gateways: int = 10
    instances: int = 20
    rate: float = 1000.0
    post_share: float = 0.1
    workers: int = 4
    work_s: float = 0.02
    one_way_s: float = 0.0005
    starts_within_s: float = 5.0
    check_every_s: float | None = 10.0
    told_within_s: float = 0.1
    seed: int = 1
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeouts: Timeouts = field(default_factory=Timeouts)
    balancing: BalancingPolicy = field(default_factory=BalancingPolicy)
    max_per_instance: int | None = None

    @property
    def routing(self) -> RoutingConfig:
        """One route to one service, as in a routes.yaml."""
        route = Route(
            id="all",
            match=RouteMatch(path=b"/"),
            service=SERVICE,
            retry=self.retry,
            timeouts=self.timeouts,
        )
        service = ServiceConfig(
            name=SERVICE,
            breaker=self.breaker,
            balancing=self.balancing,
            max_per_instance=self.max_per_instance,
        )
        return RoutingConfig(routes=(route,), services={SERVICE: service})


class World:
    """A world that runs: `timeline` says what happens in it, `ledger` what has happened."""

    def __init__(self, setting: Setting) -> None:
        random = Random(setting.seed)
        self.setting = setting
        self.timeline = Timeline()
        self.ledger = Ledger()
        self.instances = [
            PlayedInstance(
                f"i{number:04}",
                self.timeline,
                Random(random.random()),
                workers=setting.workers,
                work_s=setting.work_s,
            )
            for number in range(setting.instances)
        ]
        self.registry = Registry(
            self.timeline,
            Random(random.random()),
            check_every_s=setting.check_every_s,
            told_within_s=setting.told_within_s,
        )
        self.registry.register(self.instances)
        self.gateways = self._start(random)

    def __repr__(self) -> str:
        return f"<World {self.timeline!r}, {self.ledger!r}>"

    def run_until(self, until_s: float) -> None:
        """Let time pass."""
        self.timeline.run_until(until_s)

    def finish(self) -> Ledger:
        """Let clients send no more and all requests end; give what was counted.

        Raises RuntimeError if some never do.
        """
        for gateway in self.gateways:
            gateway.send(0, post_share=0)
        last_s = self.timeline.now_s + _LONGEST_WAIT_S
        while any(gateway.is_busy for gateway in self.gateways):
            if self.timeline.now_s > last_s:
                raise RuntimeError(f"requests that never end: {self!r}")
            self.run_until(self.timeline.now_s + 0.1)
        return self.ledger

    def _start(self, random: Random) -> list[SimGateway]:
        setting = self.setting
        network = Network(self.timeline, one_way_s=setting.one_way_s)
        by_key = {instance.key: instance for instance in self.instances}
        config = setting.routing
        gateways = []
        for number in range(setting.gateways):
            gateway = SimGateway(number, network, by_key, self.ledger, Random(random.random()))
            gateways.append(gateway)
            at_s = random.random() * setting.starts_within_s
            self.timeline.call_at(at_s, gateway.start, config)
            self.timeline.call_at(at_s, self.registry.follow, gateway.follow)
            # Nobody sends it requests before it says that it is ready.
            ready_s = at_s + setting.told_within_s
            self.timeline.call_at(ready_s, self._send_to, gateway)
        return gateways

    def _send_to(self, gateway: SimGateway) -> None:
        setting = self.setting
        gateway.send(setting.rate / setting.gateways, post_share=setting.post_share)
