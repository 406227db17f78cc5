"""The way of a request through the Gates that limit how many are in hand at once.

There are none unless something is limited, and then a request passes those of its route, of its
service and of the gateway, from narrow to wide; so whoever waits holds up only those that it would
hold up anyway. Whoever got in leaves exactly once, when it is settled.

A request that asks for another protocol has to pass Gates for tunnels before those. When it has
switched it stays within these and leaves the others: a tunnel may last for days and do nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.failure import Failure
from gateway.core.gate import Entry, Gate
from gateway.core.policy import PriorityClass
from gateway.core.units import format_duration
from gateway.proxy.phase import Phase

if TYPE_CHECKING:
    from gateway.core.fleet import Member
    from gateway.proxy.deadlines import Deadlines
    from gateway.proxy.exchange import Exchange
    from gateway.proxy.sides import ConnectionPool

_TIMEOUTS = frozenset({Failure.HEAD_TIMEOUT, Failure.REQUEST_DEADLINE})


class Door:
    """All Gates of one route, and what else keeps a request of it out.

    What is sheddable is kept out too while the loop is late by more than `max_lag_s`. The first
    `tunnel_gate_count` of the Gates are for tunnels.
    """

    __slots__ = ("_deadlines", "_max_lag_s", "gates", "priority_class", "tunnel_gate_count")

    def __init__(
        self,
        gates: tuple[Gate[Admission], ...],
        priority_class: PriorityClass,
        deadlines: Deadlines,
        *,
        max_lag_s: float,
        tunnel_gate_count: int,
    ) -> None:
        self.tunnel_gate_count = tunnel_gate_count
        self.gates = gates
        self.priority_class = priority_class
        self._deadlines = deadlines
        self._max_lag_s = max_lag_s

    def __repr__(self) -> str:
        return f"<Door {self.priority_class.name.lower()}, {list(self.gates)}>"

    @property
    def is_needed(self) -> bool:
        """Whether it can keep anybody out at all."""
        return bool(self.gates) or self.priority_class is PriorityClass.SHEDDABLE

    @property
    def is_late(self) -> bool:
        """Whether the loop is so late that this route's requests are not taken."""
        is_sheddable = self.priority_class is PriorityClass.SHEDDABLE
        return is_sheddable and self._deadlines.lag_s > self._max_lag_s

    def lets_in(self, exchange: Exchange, now_s: float) -> bool:
        """Let a request in at once, or let it wait, or turn it away: it is told of the last two."""
        if self.is_late:
            lag = format_duration(round(self._deadlines.lag_s, 3))
            _turn_away(exchange, f"the gateway is late by {lag}, and this is sheddable", now_s)
            return False
        admission = exchange.admission = Admission(self, exchange)
        return admission.proceed(now_s)


class Admission:
    """Where one request is on its way through a Door."""

    __slots__ = ("_door", "_entered", "_exchange", "_is_waiting", "_tunnel_member")

    def __init__(self, door: Door, exchange: Exchange) -> None:
        self._door = door
        self._exchange = exchange
        self._entered = 0
        self._is_waiting = False
        self._tunnel_member: Member[ConnectionPool] | None = None

    def __repr__(self) -> str:
        waits = ", waits" if self._is_waiting else ""
        return f"<Admission {self._entered} of {len(self._door.gates)}{waits}>"

    def proceed(self, now_s: float) -> bool:
        """Go through as many Gates as there is room in; True if it is in."""
        for gate in self._door.gates[self._entered :]:
            entry, pushed_out = gate.enter(self, self._door.priority_class, now_s)
            if pushed_out is not None:
                pushed_out.is_pushed_out(gate, now_s)
            if entry is Entry.WAITS:
                self._wait_for(gate, now_s)
                return False
            if entry is Entry.REFUSED:
                what = "tunnels" if self._entered < self._door.tunnel_gate_count else "in hand"
                _turn_away(self._exchange, f"{gate.name} has {gate.limit} {what} already", now_s)
                return False
            self._entered += 1
        return True

    def _wait_for(self, gate: Gate[Admission], now_s: float) -> None:
        exchange, wait_s = self._exchange, gate.policy.queue_wait_s
        self._is_waiting = True
        waited = format_duration(wait_s)
        exchange.detail = f"no place among the {gate.limit} of {gate.name} came free in {waited}"
        exchange.hold(Phase.QUEUED, now_s + wait_s)

    def is_let_in(self, now_s: float) -> None:
        """Hear that its turn has come at the Gate that it waits for."""
        self._is_waiting = False
        self._exchange.detail = ""
        self._entered += 1
        if self.proceed(now_s):
            self._exchange.admitted(now_s)

    def is_pushed_out(self, gate: Gate[Admission], now_s: float) -> None:
        """Hear that it has to leave the queue, for somebody who matters more."""
        self._is_waiting = False
        _turn_away(self._exchange, f"{gate.name} is full, and others matter more", now_s)

    def leave(self, now_s: float) -> None:
        """Give back all that it holds, and let in whoever waits for it."""
        gates = self._door.gates
        if self._tunnel_member is not None:
            self._tunnel_member.tunnels -= 1
        if self._is_waiting:
            self._is_waiting = False
            is_in_vain = self._exchange.failure is Failure.OVER_CAPACITY
            gates[self._entered].withdraw(self, in_vain=is_in_vain)
        self._leave_down_to(0, now_s)

    def switched(self, member: Member[ConnectionPool], now_s: float) -> None:
        """Give back what a tunnel does not need: from now on it is one, with this instance."""
        self._tunnel_member = member
        member.tunnels += 1
        self._leave_down_to(self._door.tunnel_gate_count, now_s)

    def _leave_down_to(self, kept_count: int, now_s: float) -> None:
        gates = self._door.gates[kept_count : self._entered]
        self._entered = kept_count
        has_timed_out = self._has_timed_out
        for gate in reversed(gates):
            if has_timed_out:
                gate.timed_out()
            gate.leave()
            gate.fill(lambda one: one.is_let_in(now_s), now_s)

    @property
    def _has_timed_out(self) -> bool:
        """Whether an instance did not answer it in time: there is too much for it already."""
        exchange = self._exchange
        failed = [one.failure for one in exchange.attempts.failed]
        return exchange.failure in _TIMEOUTS or not _TIMEOUTS.isdisjoint(failed)


def _turn_away(exchange: Exchange, detail: str, now_s: float) -> None:
    exchange.give_up(Failure.OVER_CAPACITY, detail, now_s)
