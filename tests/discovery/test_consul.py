"""Consul over httpx: whatever comes back is an answer or a named trouble."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.watch import Trouble
from gateway.discovery.consul import Consul
from gateway.discovery.consul_options import ConsulOptions, is_service_name
from gateway.discovery.source import SourceError
from tests.fakes.consul import CUT, SILENCE, FakeConsul, Misbehaviour
from tests.fakes.waiting import PATIENCE_S, wait_until


@pytest.fixture
async def fake() -> AsyncIterator[FakeConsul]:
    """Run a fake Consul with one instance of web."""
    async with FakeConsul() as running:
        await running.register("web", "a", 8001)
        yield running


def options(fake: FakeConsul) -> ConsulOptions:
    return ConsulOptions(
        address=fake.address, wait_s=0.2, grace_s=0.1, read_timeout_s=0.3, probe_timeout_s=0.3
    )


async def trouble_of(asked: ConsulOptions, service: str = "web", index: int = 0) -> SourceError:
    """Ask for a service and give the error that must come of it."""
    async with Consul(asked) as consul:
        watch = consul.open_watch()
        try:
            with pytest.raises(SourceError) as caught:
                await watch.query(service, index=index)
        finally:
            await watch.aclose()
    return caught.value


async def test_an_answer_has_instances_and_the_index(fake: FakeConsul) -> None:
    async with Consul(options(fake)) as consul:
        answer = await consul.poll.query("web", index=0)

    assert [instance.authority for instance in answer.instances] == ["127.0.0.1:8001"]
    assert (answer.index, answer.skipped_count) == (11, 0)
    assert answer.has_leader
    assert not answer.is_filtered


async def test_a_plain_read_has_neither_index_nor_wait_and_a_blocking_one_has_both(
    fake: FakeConsul,
) -> None:
    async with Consul(options(fake)) as consul:
        watch = consul.open_watch()
        await watch.query("web", index=0)
        await watch.query("web", index=11)
        await watch.aclose()

    assert [one.params for one in fake.asked("web")] == [{}, {"index": "11", "wait": "200ms"}]


async def test_a_watch_keeps_its_connection(fake: FakeConsul) -> None:
    async with Consul(options(fake)) as consul:
        watch = consul.open_watch()
        for _ in range(3):
            await watch.query("web", index=0)
        open_meanwhile = fake.connection_count
        await watch.aclose()

    assert open_meanwhile == 1


async def test_a_poll_never_blocks(fake: FakeConsul) -> None:
    async with Consul(options(fake)) as consul:
        await consul.poll.query("web", index=11)
        await consul.poll.aclose()
        await consul.poll.query("web", index=11)  # closing it leaves the shared connections open

    assert [one.params for one in fake.asked("web")] == [{}, {}]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Misbehaviour(200, "<html>It works!</html>"), Trouble.PROTOCOL),
        (Misbehaviour(200, "<html></html>", {"X-Consul-Index": "7"}), Trouble.PROTOCOL),
        (Misbehaviour(200, "[]"), Trouble.PROTOCOL),
        (Misbehaviour(200, "[]", {"X-Consul-Index": "many"}), Trouble.PROTOCOL),
        (Misbehaviour(200, "{}", {"X-Consul-Index": "7"}), Trouble.PROTOCOL),
        (Misbehaviour(200, "null", {"X-Consul-Index": "7"}), Trouble.PROTOCOL),
        (Misbehaviour(302, "", {"Location": "http://127.0.0.1:1/"}), Trouble.PROTOCOL),
        (Misbehaviour(404, "not here", {"X-Consul-Index": "7"}), Trouble.PROTOCOL),
        (Misbehaviour(502, "<html>Bad Gateway</html>"), Trouble.PROTOCOL),
        (Misbehaviour(500, "panic"), Trouble.PROTOCOL),
        (Misbehaviour(500, "No cluster leader", {"X-Consul-Index": "1"}), Trouble.NO_LEADER),
        (Misbehaviour(500, "rpc error making call: EOF"), Trouble.NO_LEADER),
        (Misbehaviour(500, "No known Consul servers"), Trouble.NO_LEADER),
        (Misbehaviour(401, "ACL disabled"), Trouble.DENIED),
        (Misbehaviour(403, "ACL not found"), Trouble.DENIED),
        (Misbehaviour(400, "Invalid wait time"), Trouble.BAD),
        (Misbehaviour(429, "slow down"), Trouble.LIMITED),
        (Misbehaviour(503, "overloaded"), Trouble.LIMITED),
        (CUT, Trouble.CUT),
        (SILENCE, Trouble.TIMEOUT),
    ],
    ids=str,
)
async def test_whatever_is_not_an_answer_is_a_named_trouble(
    fake: FakeConsul, answer: Misbehaviour, expected: Trouble
) -> None:
    fake.every_answer = answer

    error = await trouble_of(options(fake))

    assert error.trouble is expected
    assert error.detail


@pytest.mark.parametrize(
    ("header", "expected"), [("7", 7.0), ("soon", None), ("-1", None), ("", None)]
)
async def test_retry_after_is_passed_on(
    fake: FakeConsul, header: str, expected: float | None
) -> None:
    fake.every_answer = Misbehaviour(429, "", {"Retry-After": header})

    assert (await trouble_of(options(fake))).retry_after_s == expected


async def test_a_denial_says_which_rights_are_needed(fake: FakeConsul) -> None:
    fake.every_answer = Misbehaviour(403, "Permission denied")

    assert 'service_prefix "" read' in (await trouble_of(options(fake))).detail


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            Misbehaviour(200, "[]"),
            "what answers is not Consul: 200: it has no X-Consul-Index",
        ),
        (
            Misbehaviour(
                200, "<html>", {"X-Consul-Index": "7", "Content-Type": "text/html; charset=utf-8"}
            ),
            "what answers is not Consul: 200, Content-Type 'text/html; charset=utf-8': not a list",
        ),
    ],
    ids=["no index", "a page"],
)
async def test_something_else_that_answers_is_said_in_words(
    fake: FakeConsul, answer: Misbehaviour, words: str
) -> None:
    fake.every_answer = answer

    assert (await trouble_of(options(fake))).detail == words


async def test_entries_that_are_not_usable_are_named(fake: FakeConsul) -> None:
    await fake.register("web", "b", 0)
    async with Consul(options(fake)) as consul:
        answer = await consul.poll.query("web", index=0)

    assert [str(one) for one in answer.skipped] == ["fake/b: it is registered without a port"]


async def test_an_empty_answer_is_believed_when_something_else_can_be_seen(
    fake: FakeConsul,
) -> None:
    async with Consul(options(fake)) as consul:
        assert (await consul.poll.query("missing", index=0)).instances == ()


async def test_an_empty_answer_of_a_registry_that_shows_nothing_is_a_denial(
    fake: FakeConsul,
) -> None:
    fake.is_blind = True

    error = await trouble_of(options(fake), service="missing")

    assert error.trouble is Trouble.DENIED
    assert "no node at all" in error.detail


async def test_an_empty_answer_that_says_that_it_was_filtered_is_a_denial(
    fake: FakeConsul,
) -> None:
    fake.extra_headers = {"X-Consul-Results-Filtered-By-ACLs": "true"}

    assert (await trouble_of(options(fake), service="missing")).trouble is Trouble.DENIED


async def test_many_empty_answers_are_checked_together(fake: FakeConsul) -> None:
    async with Consul(options(fake)) as consul:
        for number in range(20):
            await consul.poll.query(f"missing-{number}", index=0)

    looks = [one for one in fake.questions if one.path == "/v1/catalog/nodes"]
    assert len(looks) < 20


async def test_a_token_file_that_never_ends_is_no_token(fake: FakeConsul) -> None:
    error = await trouble_of(replace(options(fake), token_file=Path("/dev/zero")))

    assert error.trouble is Trouble.DENIED
    assert "more than a token" in error.detail


async def test_nobody_there_is_unreachable(fake: FakeConsul) -> None:
    asked = options(fake)
    await fake.stop()
    error = await trouble_of(asked)
    await fake.start()

    assert error.trouble is Trouble.UNREACHABLE


async def test_a_silent_blocking_query_is_cut_when_its_answer_is_overdue(
    fake: FakeConsul,
) -> None:
    fake.every_answer = SILENCE

    async with asyncio.timeout(PATIENCE_S):
        error = await trouble_of(options(fake), index=11)

    assert error.trouble is Trouble.TIMEOUT


async def test_an_answer_that_drips_is_cut_too(fake: FakeConsul) -> None:
    """The limit of httpx is for each read: single bytes would keep a question open for ever."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nContent-Length: 100000\r\n\r\n")
        try:
            while not reader.at_eof():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        slow = replace(options(fake), address=f"127.0.0.1:{port}", connect_timeout_s=0.2)
        async with asyncio.timeout(PATIENCE_S):
            error = await trouble_of(slow)

    assert error.trouble is Trouble.TIMEOUT


@pytest.mark.parametrize(
    "name", ["../agent/self", "a/b", "a?x=1", "", "a" * 129, ".hidden", "a..b", "a b", "ä", "a\n"]
)
async def test_a_name_that_could_lead_elsewhere_never_reaches_consul(
    fake: FakeConsul, name: str
) -> None:
    error = await trouble_of(options(fake), service=name)

    assert error.trouble is Trouble.BAD
    assert fake.questions == []
    assert not is_service_name(name)


@pytest.mark.parametrize("name", ["web", "user-service", "a.b_c-9", "9", "a" * 128])
def test_ordinary_names_are_service_names(name: str) -> None:
    assert is_service_name(name)


async def test_token_datacenter_and_consistency_go_with_the_question(fake: FakeConsul) -> None:
    asked = replace(options(fake), token="secret", datacenter="dc2", consistency="consistent")
    async with Consul(asked) as consul:
        await consul.poll.query("web", index=0)
    question = fake.asked("web")[0]

    assert question.headers["x-consul-token"] == "secret"
    assert question.params == {"dc": "dc2", "consistent": ""}


async def test_a_service_in_another_datacenter_is_asked_of_that_one(fake: FakeConsul) -> None:
    async with Consul(replace(options(fake), datacenter="dc2")) as consul:
        await consul.poll.query("web@dc3", index=0)

    assert [question.params for question in fake.asked("web")] == [{"dc": "dc3"}]


async def test_a_token_file_goes_before_a_token_and_is_read_for_each_question(
    fake: FakeConsul, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    async with Consul(replace(options(fake), token="value", token_file=file)) as consul:
        for token in ("first\n", " second "):
            file.write_text(token, encoding="utf-8")
            await consul.poll.query("web", index=0)
        file.unlink()
        with pytest.raises(SourceError) as caught:
            await consul.poll.query("web", index=0)

    assert [one.headers["x-consul-token"] for one in fake.questions] == ["first", "second"]
    assert caught.value.trouble is Trouble.DENIED


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(ConsulOptions(token="secret"))


@pytest.mark.parametrize("token", ["two\nlines", "schlüssel-\u20ac"])
async def test_a_token_that_cannot_be_sent_is_our_own_mistake_and_is_not_told(
    fake: FakeConsul, token: str, tmp_path: Path
) -> None:
    """Texts of libraries hold what they could not send."""
    error = await trouble_of(replace(options(fake), token=token))
    file = tmp_path / "token"
    file.write_text(token, encoding="utf-8")
    of_file = await trouble_of(replace(options(fake), token_file=file))

    assert error.trouble is Trouble.BAD
    assert of_file.trouble is Trouble.DENIED
    assert "holds more than a token" in of_file.detail
    for said in (error.detail, of_file.detail):
        assert not [part for part in ("two", "lines", "schl", "ssel") if part in said.lower()]


@pytest.mark.parametrize(
    "doubt",
    [{"X-Consul-KnownLeader": "false"}, {"X-Consul-LastContact": "5001"}],
    ids=["no leader", "lagging"],
)
async def test_a_stale_answer_that_is_too_stale_is_asked_again_of_the_leader(
    fake: FakeConsul, doubt: dict[str, str]
) -> None:
    headers = {"X-Consul-Index": "99"} | doubt
    fake.next_answers.append(Misbehaviour(200, "[]", headers))
    async with Consul(replace(options(fake), consistency="stale")) as consul:
        answer = await consul.poll.query("web", index=0)

    assert [one.params for one in fake.asked("web")] == [{"stale": ""}, {}]
    assert len(answer.instances) == 1


async def test_what_an_answer_admits_is_passed_on(fake: FakeConsul) -> None:
    fake.extra_headers = {
        "X-Consul-KnownLeader": "false",
        "X-Consul-Results-Filtered-By-ACLs": "true",
    }
    async with Consul(options(fake)) as consul:
        answer = await consul.poll.query("web", index=0)

    assert not answer.has_leader
    assert answer.is_filtered


async def test_the_probe_wants_a_leader(fake: FakeConsul) -> None:
    async with Consul(options(fake)) as consul:
        await consul.probe()
        fake.has_leader = False
        with pytest.raises(SourceError) as caught:
            await consul.probe()

    assert caught.value.trouble is Trouble.NO_LEADER


async def test_polls_leave_a_connection_for_the_probe(fake: FakeConsul) -> None:
    fake.every_answer = SILENCE
    async with Consul(options(fake)) as consul, asyncio.TaskGroup() as tasks:
        polls = [tasks.create_task(consul.poll.query("web", index=0)) for _ in range(5)]
        await wait_until(lambda: fake.asked("web"))

        await consul.probe()

        assert not any(poll.done() for poll in polls)
        for poll in polls:
            poll.cancel()


async def test_a_cancelled_question_frees_its_connection_at_once(fake: FakeConsul) -> None:
    fake.next_answers.append(SILENCE)
    async with Consul(options(fake)) as consul:
        watch = consul.open_watch()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await watch.query("web", index=0)
        answer = await watch.query("web", index=0)
        await watch.aclose()

    assert len(answer.instances) == 1


async def test_a_question_that_is_cancelled_at_any_step_leaves_the_next_one_a_connection(
    fake: FakeConsul,
) -> None:
    """Httpcore loses a place of its pool where that falls between two of its steps."""
    async with Consul(options(fake)) as consul, asyncio.TaskGroup() as tasks:
        turns, is_done = 0, False
        while not is_done:
            watch = consul.open_watch()
            question = tasks.create_task(watch.query("web", index=0))
            for _ in range(turns):
                await asyncio.sleep(0)
            is_done = question.done()
            question.cancel()
            await asyncio.wait([question])

            answer = await watch.query("web", index=0)
            await watch.aclose()
            assert len(answer.instances) == 1, turns
            turns += 1

    assert turns > 10


@pytest.mark.parametrize("form", ["{host}", "http://{host}", "http://{host}/"])
async def test_addresses_are_read_as_consuls_own_tools_do(fake: FakeConsul, form: str) -> None:
    address = form.format(host=fake.address.removeprefix("http://"))
    async with Consul(replace(options(fake), address=address)) as consul:
        await consul.probe()


async def test_a_unix_socket_is_an_address(fake: FakeConsul, tmp_path: Path) -> None:
    path = tmp_path / "consul.sock"
    asked = replace(options(fake), address=f"unix://{path}")
    async with await asyncio.start_unix_server(fake._converse, path), Consul(asked) as consul:
        await consul.probe()


@pytest.mark.parametrize("address", ["ftp://x", "http://", "", "http://a:b:c", "http://[::1"])
def test_what_is_no_address_is_refused_at_construction(address: str) -> None:
    with pytest.raises(ValueError, match="not an address of Consul"):
        Consul(ConsulOptions(address=address))


@pytest.mark.parametrize("wait_s", [0, -3, 0.001, 601])
def test_a_wait_that_consul_would_take_for_another_is_refused(wait_s: float) -> None:
    with pytest.raises(ValueError, match="wait_s"):
        ConsulOptions(wait_s=wait_s)


def test_a_certificate_that_is_not_there_is_an_error_at_construction(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Consul(ConsulOptions(address="https://127.0.0.1:1", ca_file=tmp_path / "no.pem"))


async def test_the_environment_changes_nothing(
    fake: FakeConsul, monkeypatch: pytest.MonkeyPatch
) -> None:
    """python-consul2 lets it override arguments, and httpx would send us through a proxy."""
    for name in ("CONSUL_HTTP_ADDR", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "from the environment")
    async with Consul(options(fake)) as consul:
        await consul.poll.query("web", index=0)

    assert "x-consul-token" not in fake.asked("web")[0].headers
