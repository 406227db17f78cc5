"""One figure: a peer is started, checked, warmed up, loaded and weighed, and ended again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.check import (
    Asked,
    DoesLessError,
    check_failover,
    check_forwarding,
    check_log,
    wait_ready,
)
from benchmarks.instances import Ports, free_port
from benchmarks.layout import (
    LOOPBACK,
    Certificate,
    Layout,
    Site,
    beside,
    fleet,
    many_routes,
    prefix,
)
from benchmarks.load import echo, flood
from benchmarks.load.h2load import FixedRate
from benchmarks.load.idle import connected
from benchmarks.load.outcome import Outcome
from benchmarks.load.wrk import ClosedLoop, write_script
from benchmarks.peers.peer import Peer
from benchmarks.processes import Cores, Program, cpu_s, most_connections, rss_bytes, running
from benchmarks.requests import requests_of
from benchmarks.sample import Sample
from benchmarks.works import IDLE_CONNECTIONS, INSTANCES_EACH, Load, Work, asked_of, names_of

_SETTLE_S = 0.3
_MOST_WRONG = 0.001
_SPARE = 100  # connections of other clients


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What all measurements share. Times are in seconds, for each load."""

    folder: Path
    cores: Cores
    ports: Ports
    certificate: Certificate
    authority: Path
    seconds: float
    warm_up_s: float


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What a load gave: the CPU time of the proxy meanwhile, and how much its memory grew."""

    outcome: Outcome
    cpu_s: float
    grown_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Case:
    """A peer that runs, ready for the load."""

    bench: Bench
    work: Work
    site: Site
    program: Program

    def weigh(self, load: Callable[[], Outcome]) -> _Loaded:
        """Load it, and take its CPU time before and after."""
        before_s = cpu_s(self.program.pid)
        outcome = load()
        return _Loaded(outcome, cpu_s(self.program.pid) - before_s)

    def closed_loop(self, connections: int) -> ClosedLoop:
        """Make the load that asks as fast as answers come."""
        scheme = "http" if self.site.certificate is None else "https"
        script = self.site.folder / "requests.lua"
        if not script.exists():
            write_script(script, requests_of(self.work))
        return ClosedLoop(f"{scheme}://{LOOPBACK}:{self.site.port}", script, connections)


def measure(peer: Peer, work: Work, bench: Bench, number: int) -> Sample:
    """Take one figure in round `number`.

    Raises DoesLessError, EndedEarlyError, and whatever a load raises.
    """
    site = _site(work, bench, _layout(work, bench.ports))
    asked = Asked(site, asked_of(work), bench.authority)
    try:
        command = peer.start(site)
        started_s = time.monotonic()
        with running(command, site.folder, bench.cores.proxy) as program:
            wait_ready(asked, program)
            ready_s = time.monotonic() - started_s
            if work.load is not Load.ECHO:
                check_forwarding(peer, asked, _listening(work, bench.ports))
            loaded = _LOADS[work.load](_Case(bench, work, site, program))
            rss = rss_bytes(program.pid)
        _check_answers(loaded.outcome)
        if site.access_log is not None:
            check_log(site.access_log, loaded.outcome.count)
    finally:
        shutil.rmtree(site.folder, ignore_errors=True)
    return Sample.of(
        peer.key,
        work,
        number,
        outcome=loaded.outcome,
        cpu_s=loaded.cpu_s,
        rss_bytes=rss,
        ready_s=ready_s,
        grown_bytes=loaded.grown_bytes,
    )


def _check_answers(outcome: Outcome) -> None:
    """Raise DoesLessError where more went wrong than chance explains: refusing is easy."""
    if outcome.wrong > outcome.count * _MOST_WRONG:
        raise DoesLessError(f"{outcome.wrong} of {outcome.count} answers were wrong or missing")


def prove_failover(peer: Peer, work: Work, bench: Bench) -> None:
    """Start a peer with one instance that is there and one that is not; raises DoesLessError."""
    site = _site(work, bench, many_routes(["users"], (bench.ports.plain[0], bench.ports.nobody)))
    asked = Asked(site, ["users"], bench.authority)
    try:
        with running(peer.start(site), site.folder, bench.cores.proxy) as program:
            wait_ready(asked, program)
            check_failover(asked)
    finally:
        shutil.rmtree(site.folder, ignore_errors=True)


def _site(work: Work, bench: Bench, layout: Layout) -> Site:
    folder = bench.folder / "peer"
    folder.mkdir()
    certificate = bench.certificate if work.has_tls else None
    log = folder / "access.log" if work.has_log else None
    return Site(
        folder=folder, port=free_port(), layout=layout, certificate=certificate, access_log=log
    )


def _layout(work: Work, ports: Ports) -> Layout:
    if work.flood:
        return beside(many_routes(names_of(work), ports.plain), ports.flood)
    if work.services:
        return fleet(names_of(work), INSTANCES_EACH, ports.everywhere)
    listening = ports.echo if work.load is Load.ECHO else ports.plain
    return many_routes(names_of(work), listening)


def _listening(work: Work, ports: Ports) -> tuple[int, ...]:
    return (ports.everywhere,) if work.services else ports.plain


def _closed(case: _Case) -> _Loaded:
    loop = case.closed_loop(case.work.connections)
    loop.run(case.bench.warm_up_s)
    return case.weigh(lambda: loop.run(case.bench.seconds))


def _half(case: _Case) -> _Loaded:
    highest = _closed(case).outcome
    requests = requests_of(case.work)
    fixed = FixedRate(case.site.port, requests, case.site.folder)
    per_s = highest.count / highest.seconds / 2
    return case.weigh(
        lambda: fixed.run(per_s, seconds=case.bench.seconds, warm_up_s=case.bench.warm_up_s)
    )


def _echo(case: _Case) -> _Loaded:
    target, connections = f"{prefix('users')}/ws/1", case.work.connections
    port, seconds = case.site.port, case.bench.seconds
    return case.weigh(lambda: echo.run(port, target, connections=connections, seconds=seconds))


def _idle(case: _Case) -> _Loaded:
    case.closed_loop(case.work.connections).run(case.bench.warm_up_s)
    time.sleep(_SETTLE_S)
    before_bytes, before_s = rss_bytes(case.program.pid), cpu_s(case.program.pid)
    started_s, count = time.monotonic(), min(IDLE_CONNECTIONS, most_connections() - _SPARE)
    with connected(case.site.port, count, requests_of(case.work)[0]):
        time.sleep(_SETTLE_S)
        grown = rss_bytes(case.program.pid) - before_bytes
        outcome = Outcome(count=count, seconds=time.monotonic() - started_s, wrong=0)
    return _Loaded(outcome, cpu_s(case.program.pid) - before_s, grown)


def _flood(case: _Case) -> _Loaded:
    bench, work = case.bench, case.work
    authority = bench.authority if work.has_tls else None
    return case.weigh(
        lambda: flood.run(case.site.port, work.flood, seconds=bench.seconds, authority=authority)
    )


_LOADS = {
    Load.CLOSED: _closed,
    Load.HALF: _half,
    Load.ECHO: _echo,
    Load.IDLE: _idle,
    Load.FLOOD: _flood,
}
