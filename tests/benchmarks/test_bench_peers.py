"""How peers are told what to do, how it is checked, and who is measured when."""

from __future__ import annotations

import http.server
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trustme

from benchmarks.__main__ import options_of
from benchmarks.check import Asked, DoesLessError, check_forwarding, check_log
from benchmarks.layout import Certificate, Layout, Site, fleet, many_routes
from benchmarks.peers import PEERS, Peer
from benchmarks.peers.gateway import GATEWAY
from benchmarks.peers.peer import EVERYTHING
from benchmarks.processes import Command, EndedEarlyError, cpu_s, rss_bytes, running
from benchmarks.rounds import Plan
from benchmarks.works import WORKS
from gateway.config.loading import load_routes
from gateway.discovery.disk import SnapshotStore

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="cores are a matter of Linux")
ONE = many_routes(["users"], [8001, 8002])


def site(folder: Path, layout: Layout = ONE, **options: Path | Certificate) -> Site:
    return Site(folder=folder, port=8000, layout=layout, **options)  # type: ignore[arg-type]


# --- Peers ---------------------------------------------------------------------------------------


def test_every_work_is_known_and_done_by_the_gateway() -> None:
    keys = {work.key for work in WORKS}

    assert keys == GATEWAY.works == EVERYTHING
    assert all(peer.works <= keys for peer in PEERS)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.key)
def test_a_peer_is_told_prefix_instances_certificate_and_log(peer: Peer, tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("localhost")
    certificate = Certificate(tmp_path / "chain.pem", tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(certificate.chain)
    issued.private_key_pem.write_to_path(certificate.key)
    log = tmp_path / "access.log"

    command = peer.start(site(tmp_path, certificate=certificate, access_log=log))

    files = [path for path in tmp_path.iterdir() if path.suffix != ".pem"]
    told = " ".join(path.read_text(encoding="utf-8") for path in files)
    told += " ".join((*map(str, command.words), *command.environment.values(), str(command.stdout)))
    assert "8001" in told
    assert "8000" in told
    if "log" in peer.works:
        assert str(log) in told
        assert "/api/users" in told


@pytest.mark.parametrize(
    "peer", [peer for peer in PEERS if "fleet1000" in peer.works], ids=lambda peer: peer.key
)
def test_a_fleet_is_told_service_by_service(peer: Peer, tmp_path: Path) -> None:
    peer.start(site(tmp_path, fleet([f"s{number}" for number in range(20)], 20, 9000)))

    told = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "127.1.20.20" in told


def test_the_gateway_can_read_what_it_is_told(tmp_path: Path) -> None:
    GATEWAY.start(site(tmp_path, many_routes(["a", "b"], [8001, 8002])))

    config = load_routes(tmp_path / "routes.yaml", {})
    assert len(config.routes) == 2
    assert len(config.services["users"].instances or ()) == 2


def test_the_gateway_finds_a_fleet_on_disk(tmp_path: Path) -> None:
    command = GATEWAY.start(site(tmp_path, fleet(["a", "b", "c"], 20, 9000)))

    folder = Path(command.environment["GATEWAY_STATE_DIR"])
    store = SnapshotStore(
        folder / "snapshots.json",
        datacenter=None,
        clock=time.monotonic,
        wall_clock=time.time,  # noqa: TID251 -- as the program does
    )
    assert [len(one.instances) for one in store.load()] == [20, 20, 20]


# --- Whether a peer does its work ----------------------------------------------------------------

TOLD = {
    "target": "/told/0?page=1",
    "host": "shop.example.com",
    "port": "8001",
    "for": "127.0.0.1",
    "proto": "http",
    "id": "1",
}


class Answering(http.server.BaseHTTPRequestHandler):
    """Says what an instance would say; `{n}` counts, ports take turns."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together, or each answer waits for an acknowledgement
    count = 0

    def __init__(self, told: dict[str, str], *args: object) -> None:
        self.told = told
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        number = self.count
        self.count += 1
        told = {**self.told, "port": ("8001", "8002")[number % 2]}
        told["id"] = told["id"].replace("{n}", str(number))
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Asked]:
    """Answer as if an instance had been told this."""
    make = partial(Answering, {**TOLD, "id": "{n}", **request.param})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), make) as answering:
        serving = threading.Thread(target=partial(answering.serve_forever, 0.01))
        serving.start()
        try:
            port = answering.server_address[1]
            yield Asked(Site(folder=tmp_path, port=port, layout=ONE), ["users"])
        finally:
            answering.shutdown()
            serving.join()


@pytest.mark.parametrize("told", [{}], indirect=True)
def test_a_peer_that_does_it_all_may_be_measured(told: Asked) -> None:
    check_forwarding(GATEWAY, told, [8001, 8002])


@pytest.mark.parametrize(
    ("told", "missing"),
    [
        ({"target": "/api/users/told/0?page=1"}, "prefix is stripped"),
        ({"for": ""}, "X-Forwarded-For"),
        ({"proto": "https"}, "X-Forwarded-Proto"),
        ({"id": ""}, "has an id"),
        ({"id": "always the same"}, "has an id"),
        ({"host": "127.0.0.1:8001"}, "keeps Host"),
    ],
    indirect=["told"],
)
def test_a_peer_that_does_less_is_not_measured(told: Asked, missing: str) -> None:
    with pytest.raises(DoesLessError, match=missing):
        check_forwarding(GATEWAY, told, [8001, 8002])


@pytest.mark.parametrize("told", [{}], indirect=True)
def test_a_peer_that_leaves_an_instance_out_is_not_measured(told: Asked) -> None:
    with pytest.raises(DoesLessError, match="all instances"):
        check_forwarding(GATEWAY, told, [8001, 8002, 8003])


@pytest.mark.parametrize(
    ("lines", "wrong"), [(100, None), (98, "98 lines"), (99, None), (0, "0 lines")]
)
def test_an_access_log_has_a_line_for_each_request(
    lines: int, wrong: str | None, tmp_path: Path
) -> None:
    log = tmp_path / "access.log"
    log.write_text('{"status": 200}\n' * lines, encoding="ascii")

    if wrong is None:
        check_log(log, 100)
    else:
        with pytest.raises(DoesLessError, match=wrong):
            check_log(log, 100)


def test_an_access_log_is_json(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text("GET / 200\n", encoding="ascii")

    with pytest.raises(DoesLessError, match="not JSON"):
        check_log(log, 1)


# --- Rounds and options --------------------------------------------------------------------------


def test_every_peer_has_its_turn_in_each_round_in_another_order() -> None:
    plan = Plan(works=WORKS, peers=PEERS, rounds=5, until_s=0)

    rounds = [list(plan.turns(number)) for number in range(3)]

    assert [{peer.key: work.key for peer, work in one} for one in rounds]
    browser = [[peer.key for peer, work in one if work.key == "browser"] for one in rounds]
    assert [sorted(one) for one in browser] == [sorted(peer.key for peer in PEERS)] * 3
    assert browser[0] != browser[1]


def test_a_work_has_no_more_rounds_than_it_needs() -> None:
    plan = Plan(works=WORKS, peers=PEERS, rounds=5, until_s=0)

    assert {work.key for _, work in plan.turns(4)} == {"browser", "routes10", "routes10000"}


def test_a_whole_run_writes_the_page_and_a_part_does_not() -> None:
    assert options_of({}).writes_docs
    assert not options_of({"QUICK": "1"}).writes_docs
    assert not options_of({"WORK": "get"}).writes_docs
    assert options_of({"QUICK": "1", "DOCS": "1"}).writes_docs


def test_works_peers_and_rounds_can_be_chosen() -> None:
    chosen = options_of({"WORK": "get, post2k", "PEERS": "envoy", "ROUNDS": "7"})

    assert [(work.key, work.rounds) for work in chosen.works] == [("get", 7), ("post2k", 7)]
    assert [peer.key for peer in chosen.peers] == ["envoy"]


def test_a_work_that_nobody_knows_is_told_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"posts: not known; choose among get, browser"):
        options_of({"WORK": "posts"})


# --- Programs ------------------------------------------------------------------------------------


@linux_only
def test_a_program_is_weighed_and_ends_with_its_block(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    text = f"sum(range(10**6)); open({str(ready)!r}, 'w'); import signal; signal.pause()"
    command = Command(words=[sys.executable, "-S", "-c", text])

    with running(command, tmp_path, frozenset(os.sched_getaffinity(0))) as program:
        while not ready.exists():
            program.check()
            time.sleep(0.005)
        assert cpu_s(program.pid) > 0
        assert rss_bytes(program.pid) > 1_000_000

    assert program.process.returncode is not None
    assert cpu_s(program.pid) == 0


@linux_only
def test_a_program_that_ended_early_says_why(tmp_path: Path) -> None:
    command = Command(words=[sys.executable, "-S", "-c", "import sys; sys.exit('no such route')"])

    with running(command, tmp_path, frozenset(os.sched_getaffinity(0))) as program:
        program.process.wait()
        with pytest.raises(EndedEarlyError, match="exit code 1: no such route"):
            program.check()
