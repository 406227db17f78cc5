"""Laws of following a registry, for any sequence of answers, errors and outages."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.watch import Reading, Trouble, WatchPolicy, WatchState

POLICY = WatchPolicy()
# The longest that any single answer or error may make a watch wait.
LONGEST_DELAY_S = max(
    POLICY.slow_max_s,
    POLICY.retry_after_max_s + POLICY.backoff_max_s,
    POLICY.noise_max_s,
    POLICY.no_index_s,
)

chances = st.floats(min_value=0, max_value=1, exclude_max=True)


@dataclass(frozen=True)
class Answered:
    reading: Reading
    changed: bool


@dataclass(frozen=True)
class Errored:
    trouble: Trouble
    chance: float
    retry_after_s: float | None


@dataclass(frozen=True)
class Parked:
    pass


@dataclass(frozen=True)
class Asking:
    after_s: float


readings = st.builds(
    Reading,
    index=st.integers(min_value=-3, max_value=2**63),
    is_empty=st.booleans(),
    woke=st.booleans(),
    was_blocking=st.booleans(),
    is_authoritative=st.booleans(),
    is_filtered=st.booleans(),
)
events = st.one_of(
    st.builds(Answered, readings, st.booleans()),
    st.builds(
        Errored,
        st.sampled_from(Trouble),
        chances,
        st.none() | st.floats(allow_nan=False, min_value=-10),
    ),
    st.builds(Parked),
    st.builds(Asking, st.floats(min_value=0, max_value=1e6)),
)


def step(state: WatchState, event: object, now_s: float) -> tuple[WatchState, float, float]:
    """Feed one event; give the next state, the delay, and the time afterwards."""
    match event:
        case Answered(reading, changed):
            state, delay_s = state.answered(reading, changed=changed, policy=POLICY)
        case Errored(trouble, chance, retry_after_s):
            state, delay_s = state.errored(
                trouble, chance=chance, policy=POLICY, retry_after_s=retry_after_s
            )
        case Asking(after_s):
            now_s += after_s
            state, delay_s = state.asking(now_s, POLICY)
        case _:
            state, delay_s = state.parked(), 0.0
    return state, delay_s, now_s + delay_s


@given(st.lists(events, max_size=60))
def test_the_index_is_never_negative_and_no_delay_is_out_of_bounds(history: list[object]) -> None:
    state, now_s = WatchState(), 0.0
    for event in history:
        state, delay_s, now_s = step(state, event, now_s)

        assert state.index >= 0
        assert 0 <= delay_s <= LONGEST_DELAY_S


@given(st.lists(events, max_size=60))
def test_an_index_comes_only_from_the_last_answer(history: list[object]) -> None:
    state, now_s = WatchState(), 0.0
    for event in history:
        before = state
        state, _, now_s = step(state, event, now_s)
        match event:
            case Answered(reading, _):
                assert state.index in {0, reading.index}
            case Asking():
                assert state.index == before.index
            case _:
                assert state.index == 0


@given(st.lists(events, max_size=60), st.integers(min_value=1, max_value=2**63))
def test_after_any_history_a_registry_that_is_well_is_trusted_soon(
    history: list[object], index: int
) -> None:
    state, now_s = WatchState(), 0.0
    for event in history:
        state, _, now_s = step(state, event, now_s)
    well = Reading(index=index, is_empty=False)

    for _ in range(2):
        state, _ = state.answered(well, changed=False, policy=POLICY)

    assert state.trusts(well)


@given(st.lists(st.floats(min_value=0, max_value=0.5), min_size=1, max_size=80))
def test_whatever_happens_no_more_than_the_rate_is_asked(gaps: list[float]) -> None:
    state, now_s, sent_at_s = WatchState(), 0.0, []
    for gap_s in gaps:
        state, _, now_s = step(state, Asking(gap_s), now_s)
        sent_at_s.append(now_s)

    for first in range(len(sent_at_s)):
        for last in range(first, len(sent_at_s)):
            window_s = sent_at_s[last] - sent_at_s[first]
            allowed = POLICY.burst + window_s * POLICY.rate_per_s + 1e-6
            assert last - first + 1 <= allowed + 1
