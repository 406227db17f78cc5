"""What a service is asked to carry: its Budget, its latencies, its Gate; kept over reloads.

What is counted here must not begin at nothing when a file is read again: requests that are in hand
would no longer count, and a service that fails would get a new Budget.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gateway.core.budget import Budget
from gateway.core.config import ServiceConfig
from gateway.core.gate import Gate
from gateway.core.latencies import Latencies
from gateway.core.policy import ConcurrencyPolicy
from gateway.core.routing import Route
from gateway.proxy.admission import Admission, Door
from gateway.proxy.deadlines import Deadlines

Gates = dict[str, Gate[Admission]]


class Load:
    """What is counted of one service. `latencies` are kept only where a route hedges by them.

    `waiting` is how many requests wait for the outcome of a trial.
    """

    __slots__ = ("budget", "latencies", "waiting")

    def __init__(self) -> None:
        self.budget = Budget()
        self.latencies = Latencies()
        self.waiting = 0

    def __repr__(self) -> str:
        return f"<Load {self.budget!r}, {self.latencies!r}>"


class Loads:
    """The Loads of all services, and the Gates of all routes, of all services, and of all of it.

    Requests have some, and `tunnels` have others by the same names.
    `max_lag_s` is how late the loop may be before it sheds what is sheddable.
    """

    def __init__(self, deadlines: Deadlines) -> None:
        self.max_lag_s = float("inf")
        self.gateway: Gate[Admission] | None = None
        self.services: dict[str, Load] = {}
        self.gates: Gates = {}
        self._route_gates: Gates = {}
        self.gateway_tunnels: Gate[Admission] | None = None
        self.tunnels: Gates = {}
        self._route_tunnels: Gates = {}
        self._deadlines = deadlines

    def __repr__(self) -> str:
        return f"<Loads {list(self.gates.values())}>"

    def limit_all(
        self, policy: ConcurrencyPolicy, *, max_lag_s: float, max_tunnels: int | None = None
    ) -> None:
        """Limit what the gateway as a whole has in hand; to be called before `use`."""
        self.max_lag_s = max_lag_s
        self.gateway = Gate("the gateway", policy) if policy.is_limited else None
        tunnels = _tunnel_policy(max_tunnels)
        self.gateway_tunnels = Gate("the gateway", tunnels) if tunnels.is_limited else None

    def use(self, services: Mapping[str, ServiceConfig], routes: Iterable[Route]) -> None:
        """Keep what is counted of these, and forget all others."""
        routes = tuple(routes)
        budgets = {load.budget for load in self.services.values()}
        self.services = {name: self.services.get(name) or Load() for name in services}
        kept = {load.budget for load in self.services.values()}
        self._deadlines.swept -= budgets - kept
        self._deadlines.swept |= kept
        limits = {name: one.limit for name, one in services.items()}
        self.gates = _kept(self.gates, "service", limits)
        self._route_gates = _kept(self._route_gates, "route", {one.id: one.limit for one in routes})
        limits = {name: _tunnel_policy(one.max_tunnels) for name, one in services.items()}
        self.tunnels = _kept(self.tunnels, "service", limits)
        limits = {one.id: _tunnel_policy(one.max_tunnels) for one in routes}
        self._route_tunnels = _kept(self._route_tunnels, "route", limits)

    def of(self, service: str) -> Load:
        """Give what is counted of a service; of an app in this process nothing is."""
        return self.services.get(service) or Load()

    def door(self, route: Route) -> Door | None:
        """Make the Door of a route, None where nothing limits it."""
        door = self._door(route, self._gates_of(route), tunnel_gate_count=0)
        return door if door.is_needed else None

    def tunnel_door(self, route: Route) -> Door:
        """Make the Door for requests of a route that ask for another protocol."""
        found = (
            self._route_tunnels.get(route.id),
            self.tunnels.get(route.service),
            self.gateway_tunnels,
        )
        gates = _those(*found)
        return self._door(route, gates + self._gates_of(route), tunnel_gate_count=len(gates))

    def _gates_of(self, route: Route) -> tuple[Gate[Admission], ...]:
        return _those(self._route_gates.get(route.id), self.gates.get(route.service), self.gateway)

    def _door(
        self, route: Route, gates: tuple[Gate[Admission], ...], *, tunnel_gate_count: int
    ) -> Door:
        return Door(
            gates,
            route.priority_class,
            self._deadlines,
            max_lag_s=self.max_lag_s,
            tunnel_gate_count=tunnel_gate_count,
        )


def _those(*gates: Gate[Admission] | None) -> tuple[Gate[Admission], ...]:
    return tuple(gate for gate in gates if gate is not None)


def _tunnel_policy(most: int | None) -> ConcurrencyPolicy:
    """Bound tunnels: they may last for days, so nobody waits for one to end."""
    return ConcurrencyPolicy(limit=most, queue=0)


def _kept(before: Gates, kind: str, limits: Mapping[str, ConcurrencyPolicy]) -> Gates:
    """Make a Gate wherever there is a limit; one that is there already follows the new policy."""
    gates = {}
    for name, policy in limits.items():
        if policy.is_limited:
            gate = gates[name] = before.get(name) or Gate(f"{kind} {name!r}", policy)
            gate.adopt(policy)
    return gates
