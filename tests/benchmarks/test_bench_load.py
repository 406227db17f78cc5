"""What the loads send, and how what they say is read."""

from __future__ import annotations

import json
import queue
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import frames
from benchmarks.floods import FLOODS
from benchmarks.load.flood import Asking, Flooding, Where
from benchmarks.load.h2load import read_log
from benchmarks.load.idle import connected
from benchmarks.load.outcome import Outcome, percentile
from benchmarks.load.wrk import write_script
from benchmarks.requests import Request, requests_of
from benchmarks.works import WORKS, Load, Work
from tests.fakes.waiting import PATIENCE_S

BY_KEY = {work.key: work for work in WORKS}

# --- Requests ------------------------------------------------------------------------------------


def parsed(request: Request) -> tuple[h11.Request, bytes]:
    """Read a request with a parser that is not ours."""
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(bytes(request))
    head, body = reader.next_event(), b""
    assert isinstance(head, h11.Request)
    while isinstance(event := reader.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    return head, body


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.key)
def test_no_two_requests_of_a_work_are_the_same(work: Work) -> None:
    requests = requests_of(work)

    assert len({bytes(one) for one in requests}) == len(requests)
    assert len(requests) >= 10
    assert requests == requests_of(work)


def test_a_browser_sends_ten_fields_and_more_than_a_kilobyte() -> None:
    for request in requests_of(BY_KEY["browser"]):
        head, _ = parsed(request)

        assert len(head.headers) == 10
        assert 1100 < len(bytes(request)) < 1300


@pytest.mark.parametrize("key", ["post2k", "post64k"])
def test_a_posted_body_is_json_of_exactly_the_size(key: str) -> None:
    for request in requests_of(BY_KEY[key])[:3]:
        _, body = parsed(request)

        assert len(body) == BY_KEY[key].body_bytes
        assert json.loads(body)["note"]


def test_of_many_routes_some_from_all_over_are_asked_for() -> None:
    names = {one.target.split("/")[2] for one in requests_of(BY_KEY["routes10000"])}

    assert len(names) > 500
    assert max(names) > "part-09500"


def test_the_same_services_are_asked_for_however_many_are_known() -> None:
    few, many = (requests_of(BY_KEY[key]) for key in ("fleet10", "fleet1000"))

    assert few == many


def test_the_script_for_wrk_holds_every_request(tmp_path: Path) -> None:
    requests = requests_of(BY_KEY["post2k"])

    text = write_script(tmp_path / "wrk.lua", requests).read_text(encoding="ascii")

    strings = re.findall(r'^(".*")(?:,|$)', text, re.MULTILINE)
    assert [json.loads(one).encode() for one in strings] == [bytes(one) for one in requests]


# --- Outcomes ------------------------------------------------------------------------------------


def test_an_outcome_is_read_from_the_last_line() -> None:
    outcome = Outcome(count=7, seconds=1.5, wrong=1, bytes=900, p50_us=3, p99_us=9.5)

    assert Outcome.read(f"Running 1s test\n  1 threads\n{outcome}\n") == outcome


def test_what_is_no_outcome_is_shown() -> None:
    with pytest.raises(ValueError, match="unable to connect"):
        Outcome.read("unable to connect to 127.0.0.1:1\n")


@given(st.lists(st.integers(0, 1000), min_size=1), st.floats(0, 100))
def test_so_many_percent_do_not_exceed_a_percentile(values: list[int], percent: float) -> None:
    found = percentile(sorted(values), percent)

    assert found in values
    assert sum(value <= found for value in values) >= len(values) * percent / 100 - 1e-9


def test_the_log_of_h2load_gives_latencies_after_the_warm_up() -> None:
    warm = [f"{1_000_000 + number}\t200\t90000\n" for number in range(5)]
    then = [f"{1_500_000 + number * 10_000}\t200\t{number + 1}\n" for number in range(100)]
    failed = ["2500000\t503\t7\n", "3000000\t-1\t7\n"]

    outcome = read_log([*warm, *then, *failed], warm_up_s=0.5)

    assert outcome == Outcome(count=107, seconds=2.0, wrong=2, p50_us=49, p99_us=99)


def test_a_log_without_requests_is_an_error() -> None:
    with pytest.raises(ValueError, match="no request"):
        read_log([], warm_up_s=0)


# --- WebSocket -----------------------------------------------------------------------------------


@given(st.binary(max_size=125), st.binary(min_size=4, max_size=4))
def test_an_echo_has_the_payload_that_was_masked(payload: bytes, key: bytes) -> None:
    assert frames.echo(frames.masked(payload, key)) == frames.plain(payload)


def test_the_answer_to_a_key_is_that_of_the_rfc() -> None:
    assert frames.accept(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


# --- Idle connections ----------------------------------------------------------------------------


@contextmanager
def serving(accepted: Callable[[socket.socket], object]) -> Iterator[int]:
    """Hand over each connection that is made to this port."""

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            accepted(client)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture
def greeter() -> Iterator[tuple[int, list[socket.socket]]]:
    """Give every connection one answer, and keep it in the list."""
    clients: list[socket.socket] = []

    def greet(client: socket.socket) -> None:
        clients.append(client)
        client.recv(10_000)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with serving(greet) as port:
        yield port, clients
    for client in clients:
        client.close()


def test_idle_connections_stay(greeter: tuple[int, list[socket.socket]]) -> None:
    port, accepted = greeter

    with connected(port, 5, requests_of(BY_KEY["idle"])[0]):
        assert len(accepted) == 5


def test_a_connection_that_is_closed_meanwhile_is_no_idle_one(
    greeter: tuple[int, list[socket.socket]],
) -> None:
    port, accepted = greeter

    with (
        pytest.raises(ConnectionError, match="1 of 3"),
        connected(port, 3, requests_of(BY_KEY["idle"])[0]),
    ):
        accepted[1].shutdown(socket.SHUT_RDWR)


# --- Floods --------------------------------------------------------------------------------------


@pytest.fixture
def taker() -> Iterator[tuple[int, queue.Queue[bytes]]]:
    """Take from every connection what comes at first, keep it in the queue, and close."""
    taken: queue.Queue[bytes] = queue.Queue()

    def take(client: socket.socket) -> None:
        with client:
            taken.put(client.recv(100_000))

    with serving(take) as port:
        yield port, taken


def test_a_flood_whose_connection_is_closed_goes_on_over_another_one(
    taker: tuple[int, queue.Queue[bytes]],
) -> None:
    port, taken = taker
    flooding = Flooding(Where(port, None), FLOODS["upload"])

    flooding.start()
    starts = [taken.get(timeout=PATIENCE_S)[:50] for _ in range(3)]
    flooding.stop()
    flooding.join()

    assert starts == [FLOODS["upload"].start[:50]] * 3


def test_who_asks_beside_a_flood_counts_answers_and_what_went_wrong(
    greeter: tuple[int, list[socket.socket]], taker: tuple[int, queue.Queue[bytes]]
) -> None:
    answered, dropped = (Asking(Where(port, None)) for port in (greeter[0], taker[0]))

    answered.run(0)
    dropped.run(0)

    assert (len(answered.took_s), answered.wrong) == (1, 0)
    assert (len(dropped.took_s), dropped.wrong) == (0, 1)


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_many_small_pieces_or_comes_from_the_instance(name: str) -> None:
    flood = FLOODS[name]

    assert flood.start or flood.again
    assert len(flood.piece) % max(len(flood.again), 1) == 0
    assert all(work.flood in {"", *FLOODS} for work in WORKS)


def test_every_load_has_a_work() -> None:
    assert {work.load for work in WORKS} == set(Load)
