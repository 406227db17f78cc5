"""The command: `python -m benchmarks`, told by the environment what to do.

QUICK, WORK, PEERS, ROUNDS, RUN_S and DOCS are explained in docs/benchmarks.md.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

import trustme

from benchmarks.instances import instances
from benchmarks.layout import LOOPBACK, Certificate
from benchmarks.machine import circumstances
from benchmarks.measure import Bench
from benchmarks.peers import PEERS, Peer
from benchmarks.processes import Cores, EndedEarlyError, raise_file_limit
from benchmarks.report import spoken, write
from benchmarks.rounds import Plan, Results, run
from benchmarks.tools import install, which
from benchmarks.works import WORKS, Work

QUICK_WORKS, QUICK_PEERS = "browser,post2k,tls", "gateway,envoy,haproxy"
RUN_S = 2
FULL_WITHIN_S = 30 * 60.0
_FILES = 65_536


class _Keyed(Protocol):
    @property
    def key(self) -> str: ...


K = TypeVar("K", bound=_Keyed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for."""

    works: Sequence[Work]
    peers: Sequence[Peer]
    rounds: int
    seconds: float
    writes_docs: bool


def options_of(env: Mapping[str, str]) -> Options:
    """Read the environment; raises ValueError where it names what is not there."""
    is_quick = bool(env.get("QUICK"))
    wanted = env.get("WORK") or (QUICK_WORKS if is_quick else "")
    against = env.get("PEERS") or (QUICK_PEERS if is_quick else "")
    works, rounds = chosen(WORKS, wanted), 3 if is_quick else 5
    if env.get("ROUNDS"):
        rounds = int(env["ROUNDS"])
        works = [replace(work, rounds=rounds) for work in works]
    is_whole = not (is_quick or env.get("WORK") or env.get("PEERS"))
    return Options(
        works=works,
        peers=chosen(PEERS, against),
        rounds=rounds,
        seconds=float(env.get("RUN_S") or RUN_S),
        writes_docs=bool(env.get("DOCS")) or is_whole,
    )


def chosen(known: Sequence[K], keys: str) -> list[K]:
    """Pick by keys with commas between; no keys mean all. Raises ValueError."""
    wanted = [key.strip() for key in keys.split(",") if key.strip()]
    names = [one.key for one in known]
    if unknown := [key for key in wanted if key not in names]:
        raise ValueError(f"{', '.join(unknown)}: not known; choose among {', '.join(names)}")
    return [one for one in known if not wanted or one.key in wanted]


def main() -> int:
    """Install, measure, and say what came of it; return the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    try:
        options, cores = options_of(os.environ), Cores.of_this_machine()
    except (ValueError, RuntimeError) as error:
        return _give_up(str(error))
    install()
    if missing := [name for name in ("wrk", "h2load", "nginx") if not which(name).exists()]:
        return _give_up(f"it cannot be measured without {', '.join(missing)}")
    load = os.getloadavg()[0]
    os.sched_setaffinity(0, cores.rest)
    raise_file_limit(_FILES)
    try:
        results = _measure(options, cores)
    except (EndedEarlyError, TimeoutError) as error:
        return _give_up(f"the instances do not run: {error}")
    about = circumstances(seconds=options.seconds, rounds=results.rounds, load=load)
    if options.writes_docs:
        write(results, about)
    print(spoken(results, about))
    return int(bool(results.notes))


def _give_up(why: str) -> int:
    print(f"make bench: {why}", file=sys.stderr)
    return 2


def _measure(options: Options, cores: Cores) -> Results:
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # workers of nginx are somebody else
        authority, certificate = _certificate(folder)
        with instances(folder, cores.rest) as ports:
            bench = Bench(
                folder=folder,
                cores=cores,
                ports=ports,
                certificate=certificate,
                authority=authority,
                seconds=options.seconds,
                warm_up_s=1.0,
            )
            plan = Plan(
                works=options.works,
                peers=[peer for peer in options.peers if peer.is_here],
                rounds=options.rounds,
                until_s=time.monotonic() + FULL_WITHIN_S,
            )
            return run(plan, bench)


def _certificate(folder: Path) -> tuple[Path, Certificate]:
    """Make an authority and a certificate that it signed (P-256)."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", LOOPBACK)
    paths = [folder / name for name in ("authority.pem", "chain.pem", "key.pem")]
    authority.cert_pem.write_to_path(paths[0])
    for blob in issued.cert_chain_pems:
        blob.write_to_path(paths[1], append=True)
    issued.private_key_pem.write_to_path(paths[2])
    return paths[0], Certificate(paths[1], paths[2])


if __name__ == "__main__":
    sys.exit(main())
