"""What all exchanges share: the routes, the Fleets, the clock, chance, and whoever watches.

There is one Engine in a gateway. Its routes are replaced whole; its Fleets stay for as long as some
route needs their service, with all that was learned about their instances.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from email.utils import formatdate
from functools import partial

from gateway.core.config import RoutingConfig, ServiceConfig
from gateway.core.fleet import Fleet
from gateway.core.message import Request
from gateway.core.model import Instance, Snapshot
from gateway.core.policy import TlsPolicy
from gateway.core.routing import RouteTable
from gateway.proxy.deadlines import Deadlines
from gateway.proxy.exchange import Exchange
from gateway.proxy.sides import ClientSide, ConnectionPool, Observer
from gateway.proxy.target import Target

_VIA_LINE = b"Via: 1.1 gateway\r\n"


class Engine:
    """The one place that makes exchanges.

    `make_pool` makes the connections of a new instance of a service. `wall_clock` gives seconds
    since the epoch; it is for Date alone, everything else goes by monotonic time. `random` gives
    numbers in [0, 1).
    """

    def __init__(
        self,
        make_pool: Callable[[ServiceConfig, Instance], ConnectionPool],
        *,
        random: Callable[[], float],
        wall_clock: Callable[[], float],
        observer: Observer,
        deadlines: Deadlines,
    ) -> None:
        self.random = random
        self.observer = observer
        self.deadlines = deadlines
        self.via = _VIA_LINE
        self.routes: RouteTable[Target] = RouteTable(())
        self.targets: tuple[Target, ...] = ()
        self.fleets: dict[str, Fleet[ConnectionPool]] = {}
        self._services: Mapping[str, ServiceConfig] = {}
        self._make_pool = make_pool
        self._wall_clock = wall_clock
        self._date = (0, b"")
        self._id_prefix = b"%08x" % int(random() * (1 << 32))
        self._id_count = int(random() * (1 << 32))

    def use(self, config: RoutingConfig, *, client_body_timeout_s: float) -> None:
        """Route by this configuration from now on.

        Raises RouteConflictError, and changes nothing then.
        """
        fleets = {name: self._fleet_for(service) for name, service in config.services.items()}
        targets = tuple(
            Target(route, fleets[route.service], client_body_timeout_s=client_body_timeout_s)
            for route in config.routes
        )
        self.routes = RouteTable((target.route, target) for target in targets)
        self.targets = targets
        for name, fleet in self.fleets.items():
            if name not in fleets:
                _retire(member.pool for member in fleet.members.values())
        for name, fleet in fleets.items():
            service = config.services[name]
            fleet.adopt(service.breaker)
            if _tls_of(self._services.get(name, service)) != _tls_of(service):
                make_pool = partial(self._make_pool, service)
                _retire(member.pool for member in fleet.reach_by(make_pool))
        self.fleets = fleets
        self._services = config.services

    def follow(self, snapshot: Snapshot) -> None:
        """Let a service's Fleet follow a new Snapshot; one that no route uses is ignored."""
        fleet = self.fleets.get(snapshot.service)
        if fleet is not None:
            _retire(member.pool for member in fleet.apply(snapshot))

    def exchange(self, request: Request, client: ClientSide) -> Exchange:
        """Make the Exchange of a request; `begin` starts it."""
        return Exchange(self, request, client)

    def next_request_id(self) -> bytes:
        """Make an id that no other request of this process has, and hardly any elsewhere."""
        self._id_count += 1
        return b"%b%012x" % (self._id_prefix, self._id_count)

    def http_date(self) -> bytes:
        """Write the time as Date wants it (RFC 9110 §5.6.7), made anew once a second."""
        second = int(self._wall_clock())
        if second != self._date[0]:
            self._date = (second, formatdate(second, usegmt=True).encode("ascii"))
        return self._date[1]

    def close(self) -> None:
        """Close all connections to instances."""
        for fleet in self.fleets.values():
            _retire(member.pool for member in fleet.members.values())

    def _fleet_for(self, service: ServiceConfig) -> Fleet[ConnectionPool]:
        fleet = self.fleets.get(service.name)
        make_pool = partial(self._make_pool, service)
        return fleet or Fleet(service.name, make_pool, breaker=service.breaker)


def _tls_of(service: ServiceConfig) -> tuple[TlsPolicy, str]:
    return service.tls, service.tls_mark


def _retire(pools: Iterable[ConnectionPool]) -> None:
    for pool in pools:
        pool.retire()
