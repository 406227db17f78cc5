"""The rules of following a registry, one by one."""

from __future__ import annotations

import pytest

from gateway.core.watch import Phase, Reading, Trouble, WatchPolicy, WatchState

POLICY = WatchPolicy()


def answered(state: WatchState, reading: Reading, *, changed: bool = True) -> WatchState:
    return state.answered(reading, changed=changed, policy=POLICY)[0]


def errored(state: WatchState, trouble: Trouble = Trouble.CUT) -> WatchState:
    return state.errored(trouble, chance=0.5, policy=POLICY)[0]


def live(index: int = 10) -> WatchState:
    """Make a watch that has had two good answers."""
    return answered(answered(WatchState(), reading(index)), reading(index))


def reading(index: int = 10, *, is_empty: bool = False, woke: bool = False) -> Reading:
    return Reading(index=index, is_empty=is_empty, woke=woke, was_blocking=woke)


def test_the_first_answer_is_not_trusted_and_the_second_is() -> None:
    first = WatchState()
    second = answered(first, reading())

    assert not first.trusts(reading())
    assert second.trusts(reading())


def test_an_answer_gives_the_index_for_the_next_question() -> None:
    assert answered(WatchState(), reading(42)).index == 42


def test_an_index_that_goes_back_starts_from_zero_and_is_distrusted_twice() -> None:
    state = live(42)
    back = reading(11)
    after = answered(state, back)

    assert not state.trusts(back)
    assert after.index == 0
    assert not after.trusts(back)
    assert answered(after, back).trusts(back)


@pytest.mark.parametrize("trouble", Trouble)
def test_any_error_starts_from_zero_and_makes_the_next_answer_untrusted(trouble: Trouble) -> None:
    state = errored(live(42), trouble)

    assert state.index == 0
    assert not state.trusts(reading(43))


def test_an_answer_without_an_index_is_polled_slowly() -> None:
    state, delay_s = live().answered(reading(0), changed=True, policy=POLICY)

    assert (state.index, delay_s) == (0, 1.0)


def test_an_answer_that_admits_to_be_wrong_is_not_trusted_nor_is_the_next() -> None:
    state = live()
    doubtful = Reading(index=11, is_empty=True, is_authoritative=False)

    assert not state.trusts(doubtful)
    assert not answered(state, doubtful).trusts(reading(12))


def test_wakes_that_change_nothing_are_damped_up_to_the_cap_and_a_change_resets() -> None:
    state, delays = live(), []
    for index in range(20, 30):
        state, delay_s = state.answered(reading(index, woke=True), changed=False, policy=POLICY)
        delays.append(round(delay_s, 3))
    changed, delay_s = state.answered(reading(40, woke=True), changed=True, policy=POLICY)

    assert delays == [0, 0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert (changed.unchanged_wakes, delay_s) == (0, 0.0)


def test_the_end_of_a_wait_is_not_noise() -> None:
    state = live()
    for index in range(20, 23):
        state = answered(state, reading(index, woke=True), changed=False)
    state, delay_s = state.answered(reading(22), changed=False, policy=POLICY)

    assert (state.unchanged_wakes, delay_s) == (0, 0.0)


def test_backoff_doubles_with_full_jitter_up_to_the_cap() -> None:
    state, delays = WatchState(), []
    for _ in range(9):
        state, delay_s = state.errored(Trouble.CUT, chance=1.0, policy=POLICY)
        delays.append(delay_s)

    assert delays == [0.25, 0.5, 1, 2, 4, 8, 15, 15, 15]
    assert WatchState().errored(Trouble.CUT, chance=0.0, policy=POLICY)[1] == 0.0


def test_only_a_good_answer_resets_the_backoff() -> None:
    state = errored(errored(WatchState()))

    assert state.parked().failures == 2
    assert answered(state, reading()).failures == 0


@pytest.mark.parametrize("trouble", [Trouble.DENIED, Trouble.BAD])
def test_what_an_operator_must_mend_is_asked_slowly(trouble: Trouble) -> None:
    soonest = WatchState().errored(trouble, chance=0.0, policy=POLICY)[1]
    state, latest = WatchState(), 0.0
    for _ in range(10):
        state, latest = state.errored(trouble, chance=1.0, policy=POLICY)

    assert (soonest, latest) == (2.0, 30.0)


def test_retry_after_is_honoured_with_jitter_on_top_and_within_reason() -> None:
    def delay_s(wish_s: float) -> float:
        return WatchState().errored(
            Trouble.LIMITED, chance=1.0, policy=POLICY, retry_after_s=wish_s
        )[1]

    assert delay_s(7.0) == 7.25
    assert delay_s(1e9) == 60.25
    assert delay_s(-5.0) == 0.25


def test_a_burst_of_questions_is_free_and_then_they_come_ten_a_second() -> None:
    state, delays = WatchState(), []
    for _ in range(10):
        state, delay_s = state.asking(100.0, POLICY)
        delays.append(round(delay_s, 3))

    assert delays == [0, 0, 0, 0, 0, 0, 0, 0, 0.1, 0.2]


def test_tokens_come_back_with_time_but_never_more_than_a_burst() -> None:
    state = WatchState()
    for _ in range(8):
        state, _ = state.asking(0.0, POLICY)
    later, delay_s = state.asking(1000.0, POLICY)

    assert (delay_s, later.tokens) == (0.0, 7.0)


def test_phases_follow_what_happens() -> None:
    asked = WatchState().asking(0.0, POLICY)[0]
    filtered = Reading(index=12, is_empty=True, is_authoritative=False, is_filtered=True)

    assert asked.phase is Phase.SYNCING
    assert answered(asked, reading()).phase is Phase.LIVE
    assert answered(asked, reading(is_empty=True)).phase is Phase.ABSENT
    assert errored(live()).phase is Phase.DEGRADED
    assert live().parked().phase is Phase.DEGRADED
    assert errored(live(), Trouble.DENIED).phase is Phase.DENIED
    assert errored(live(), Trouble.DENIED).parked().phase is Phase.DENIED
    assert answered(live(), filtered).phase is Phase.DENIED
    assert errored(live()).asking(0.0, POLICY)[0].phase is Phase.DEGRADED


def test_only_an_answer_to_a_blocking_question_clears_the_record_of_a_watch() -> None:
    """A limit on connections that live long lets every first, quick read through."""
    state = errored(errored(live()))
    first_read = answered(state, reading())
    blocking = answered(first_read, reading(11, woke=True))

    assert (
        state.failed_watches,
        first_read.failed_watches,
        blocking.failed_watches,
    ) == (2, 2, 0)


def test_an_outage_of_the_registry_does_not_speak_against_a_watch() -> None:
    assert errored(errored(live())).parked().failed_watches == 0


@pytest.mark.parametrize("trouble", Trouble)
def test_only_what_a_limit_on_connections_looks_like_speaks_against_a_watch(
    trouble: Trouble,
) -> None:
    """An election makes every question fail for some seconds, and is over then."""
    counts = trouble in {Trouble.CUT, Trouble.TIMEOUT, Trouble.LIMITED}

    assert errored(live(), trouble).failed_watches == int(counts)
