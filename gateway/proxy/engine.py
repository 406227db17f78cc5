"""What all exchanges share: the routes, the Fleets, the clock, chance, and whoever watches.

There is one Engine in a gateway. Its routes are replaced whole; its Fleets stay for as long as some
route needs their service, with all that was learned about their instances.
"""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from email.utils import formatdate
from functools import partial
from itertools import chain
from math import inf
from os import urandom
from struct import Struct

from gateway.core.config import RoutingConfig, ServiceConfig
from gateway.core.fleet import Fleet
from gateway.core.message import Request
from gateway.core.model import Instance, Snapshot
from gateway.core.paths import PathError, PathRules, is_plain, readings
from gateway.core.policy import PathPolicy, TlsPolicy
from gateway.core.routing import NoMatch, RouteMatch, RouteTable
from gateway.proxy.deadlines import Deadlines
from gateway.proxy.ending import Ending
from gateway.proxy.exchange import Exchange
from gateway.proxy.load import Loads
from gateway.proxy.outbox import Outbox
from gateway.proxy.sides import ClientSide, ConnectionPool, Observer
from gateway.proxy.target import Target
from gateway.runtime.backlog import Backlog
from gateway.runtime.pieces import Buffer

Mount = Callable[[Target], None]

_PREFLIGHT_METHOD = b"access-control-request-method"
_VIA_LINE = b"\r\nVia: 1.1 gateway"
_IDS = Struct("20s" * 256)


def _mount_nothing(target: Target) -> None:
    raise RuntimeError(f"route {target.route.id!r} needs a place to run apps and middleware")


class Engine:
    """The one place that makes exchanges.

    `make_pool` makes the connections of a new instance of a service. `wall_clock` gives seconds
    since the epoch; it is for Date alone, everything else goes by monotonic time. `random` gives
    numbers in [0, 1). Both sides write through `outbox`, and put off in `backlog` what is too much
    for one turn of the loop. `tells_details` says whether clients are told what exactly failed,
    with addresses of instances and texts of libraries. `zone` is where the gateway is, None where
    that does not matter; to be set before `use`.
    """

    def __init__(  # noqa: PLR0913 -- they are all different things
        self,
        make_pool: Callable[[ServiceConfig, Instance], ConnectionPool],
        *,
        random: Callable[[], float],
        wall_clock: Callable[[], float],
        observer: Observer,
        deadlines: Deadlines,
        outbox: Outbox | None = None,
        backlog: Backlog | None = None,
        tells_details: bool = False,
    ) -> None:
        self.tells_details = tells_details
        self.random = random
        self.observer = observer
        self.deadlines = deadlines
        self.outbox = outbox or Outbox()
        self.backlog = backlog or Backlog()
        self.buffer = Buffer()
        self.loads = Loads(deadlines)
        self.via = _VIA_LINE
        self.zone: str | None = None
        self.routes: RouteTable[Target] = RouteTable(())
        self.targets: tuple[Target, ...] = ()
        self.paths = PathRules(PathPolicy())
        self.fleets: dict[str, Fleet[ConnectionPool]] = {}
        self._services: Mapping[str, ServiceConfig] = {}
        self._make_pool = make_pool
        self._wall_clock = wall_clock
        self._date = (0, b"")
        self.next_request_id = _request_ids().__next__

    def use(
        self, config: RoutingConfig, *, client_body_timeout_s: float, mount: Mount = _mount_nothing
    ) -> None:
        """Route by this configuration from now on; `mount` is told each Target in this process.

        Raises RouteConflictError, and changes nothing then; and what `mount` raises, when no route
        has changed yet, but limits and Breakers have.
        """
        RouteTable((route, None) for route in config.routes)  # nothing has changed if this raises
        fleets = {name: self._fleet_for(service) for name, service in config.services.items()}
        nobody = self._fleet_for(ServiceConfig(name=""))
        for name, fleet in fleets.items():
            fleet.adopt(config.services[name].breaker)
            _limit(fleet, config.services[name])
        self.loads.use(config.services, config.routes)
        targets = tuple(
            Target(
                route,
                fleets[route.service] if route.service else nobody,
                self.loads,
                client_body_timeout_s=client_body_timeout_s,
            )
            for route in config.routes
        )
        table = RouteTable((target.route, target) for target in targets)
        self._mount(targets, PathRules(config.paths), mount)
        self.routes = table
        self.targets = targets
        for name, fleet in self.fleets.items():
            if name not in fleets:
                _retire(member.pool for member in fleet.members.values())
        for name, fleet in fleets.items():
            service = config.services[name]
            fleet.balance_by(service.balancing, self.zone)
            if _tls_of(self._services.get(name, service)) != _tls_of(service):
                make_pool = partial(self._make_pool, service)
                _retire(member.pool for member in fleet.reach_by(make_pool))
        self.fleets = fleets
        self._services = config.services
        self.deadlines.swept.add(self)

    def follow(self, snapshot: Snapshot) -> None:
        """Let a service's Fleet follow a new Snapshot; one that no route uses is ignored."""
        fleet = self.fleets.get(snapshot.service)
        if fleet is not None:
            _retire(member.pool for member in fleet.apply(snapshot, self.deadlines.now_s))

    def prepare(self, snapshot: Snapshot) -> Iterator[None]:
        """Do a part of `follow` beforehand, step by step."""
        fleet = self.fleets.get(snapshot.service)
        return iter(()) if fleet is None else fleet.prepare(snapshot.instances)

    def sweep(self, now_s: float) -> None:
        """Bring up to date what changes with time, about once a second."""
        for fleet in self.fleets.values():
            fleet.refresh(now_s)

    def match(self, request: Request) -> Target | NoMatch:
        """Find where a request goes; from here on its path is in normal form.

        Raises PathError for paths that are not taken.
        """
        if is_plain(request.path):
            return self.routes.match(request.host, request.path, request.method)
        return self._match_suspect(request)

    def match_preflight(self, request: Request) -> Target | None:
        """Find the middleware that may answer an OPTIONS that no route takes; None for none.

        A browser asks in this way whether it may send another method (Fetch, "CORS-preflight
        request"), and that is what the middleware of the route for that method knows.
        """
        if request.method != b"OPTIONS" or not is_plain(request.path):
            return None
        told = {name.lower(): value for name, value in request.fields}
        method = told.get(_PREFLIGHT_METHOD)
        if method is None or b"origin" not in told:
            return None
        found = self.routes.match(request.host, request.path, method)
        return found if isinstance(found, Target) and found.route.middleware else None

    def exchange(self, request: Request, client: ClientSide) -> Exchange:
        """Make the Exchange of a request; `begin` starts it."""
        return Exchange(self, request, client)

    def pinned_to(self, target: Target) -> Engine:
        """Make an Engine for requests that were matched already: each takes this Target.

        Its exchanges use this one's clock, Breakers and rules for paths, but are not told to the
        log when they are over: whoever has the request in hand around them is.
        """
        pinned = Engine(
            self._make_pool,
            random=self.random,
            wall_clock=self._wall_clock,
            observer=_BreakersOnly(self.observer),
            deadlines=self.deadlines,
            outbox=self.outbox,
            backlog=self.backlog,
            tells_details=self.tells_details,
        )
        any_request = replace(target.route, match=RouteMatch(path=b"/"))
        pinned.routes = RouteTable([(any_request, target)])
        pinned.paths = self.paths
        return pinned

    def http_date(self) -> bytes:
        """Write the time as Date wants it (RFC 9110 §5.6.7), made anew once a second."""
        second = int(self._wall_clock())
        if second != self._date[0]:
            self._date = (second, formatdate(second, usegmt=True).encode("ascii"))
        return self._date[1]

    def close(self) -> None:
        """Close all connections to instances."""
        self.outbox.send()
        for fleet in self.fleets.values():
            _retire(member.pool for member in fleet.members.values())

    def _match_suspect(self, request: Request) -> Target | NoMatch:
        """Match a path that instances could read in another way; it must come to the same.

        What it must not come to is a more specific route, whose filters would have been passed by.
        A route that spells such a path out is meant as it is written.
        """
        path = request.path = self.paths.normalize(request.path)
        target = self.routes.match(request.host, path, request.method)
        if isinstance(target, Target):
            precision = target.route.match.precision
            # Where there is one segment more than in any route, all further ones change nothing.
            for reading in readings(path, self.routes.most_segments + 1):
                other = self.routes.match(request.host, reading, request.method)
                if isinstance(other, Target) and other.route.match.precision > precision:
                    raise PathError("some instances would read it as the path of another route")
        return target

    def _mount(self, targets: tuple[Target, ...], paths: PathRules, mount: Mount) -> None:
        """Take these rules for paths, for what is mounted pins Engines by them.

        Where `mount` raises, those before stay.
        """
        before, self.paths = self.paths, paths
        try:
            for target in targets:
                if target.route.app or target.route.middleware:
                    mount(target)
        except BaseException:
            self.paths = before
            raise

    def _fleet_for(self, service: ServiceConfig) -> Fleet[ConnectionPool]:
        fleet = self.fleets.get(service.name)
        make_pool = partial(self._make_pool, service)
        return fleet or Fleet(service.name, make_pool, breaker=service.breaker)


class _BreakersOnly:
    """An Observer that passes on what it hears of Breakers."""

    def __init__(self, observer: Observer) -> None:
        self.breaker_changed = observer.breaker_changed

    def settled(self, exchange: Ending, now_s: float) -> None:
        """Leave it to whoever has the request in hand."""


def _request_ids() -> Iterator[bytes]:
    """Return ids of 80 random bits, in hex, drawn from the system some hundreds at a time.

    A counter, or anything that can be computed from earlier ids, would tell each client how many
    requests others made in between. Nothing is drawn before the first request: processes that are
    forked from this one draw their own.
    """
    return chain.from_iterable(iter(_some_ids, ()))


def _some_ids() -> tuple[bytes, ...]:
    return _IDS.unpack(hexlify(urandom(_IDS.size // 2)))


def _limit(fleet: Fleet[ConnectionPool], service: ServiceConfig) -> None:
    """Say how many requests at once an instance may have: each takes a connection."""
    fleet.limit(
        most_requests=service.max_per_instance or inf,
        most_connections=service.max_connections or inf,
    )


def _tls_of(service: ServiceConfig) -> tuple[TlsPolicy, str]:
    return service.tls, service.tls_mark


def _retire(pools: Iterable[ConnectionPool]) -> None:
    for pool in pools:
        pool.retire()
