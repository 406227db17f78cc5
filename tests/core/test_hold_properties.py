"""Laws of holding, for any sequence of answers."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.hold import HoldPolicy, View
from gateway.core.model import Instance, Status

POLICY = HoldPolicy()


@dataclass(frozen=True)
class Answer:
    listed: tuple[Instance, ...]
    trusted: bool
    after_s: float


instances = st.builds(
    lambda name, port, status: Instance(
        key=f"{name}@{port}", id=name, host="h", port=port, status=status
    ),
    st.sampled_from("abcdefgh"),
    st.integers(min_value=1, max_value=2),
    st.sampled_from(Status),
)
answers = st.builds(
    Answer,
    st.lists(instances, max_size=8, unique_by=lambda item: item.id).map(tuple),
    st.booleans(),
    st.floats(min_value=0, max_value=200),
)


def routable(view: View) -> set[str]:
    return {item.id for item in view.instances if item.is_routable}


@given(st.lists(answers, min_size=1, max_size=20))
def test_what_is_listed_is_published_as_listed_and_the_rest_is_held(history: list[Answer]) -> None:
    view, now_s = View(), 0.0
    for answer in history:
        now_s += answer.after_s
        before, view = (
            view,
            view.after(answer.listed, trusted=answer.trusted, now_s=now_s, policy=POLICY),
        )
        rest = [item for item in view.instances if item not in answer.listed]

        assert set(answer.listed) <= set(view.instances)
        assert all(item.held and item.is_routable for item in rest)
        assert {item.key for item in rest} <= {item.key for item in before.instances}
        assert view.holds.keys() == {item.key for item in rest}
        assert sorted(item.key for item in view.instances) == [i.key for i in view.instances]
        assert len({item.id for item in view.instances}) == len(view.instances)


@given(st.lists(answers, min_size=1, max_size=20))
def test_an_untrusted_answer_alone_takes_nothing_that_serves(history: list[Answer]) -> None:
    view, now_s = View(), 0.0
    for answer in history:
        now_s += answer.after_s
        before = routable(view) - {item.id for item in view.instances if item.held}
        view = view.after(answer.listed, trusted=answer.trusted, now_s=now_s, policy=POLICY)

        if not answer.trusted:
            assert before <= {item.id for item in view.instances}


@given(st.lists(answers, min_size=1, max_size=20))
def test_every_hold_ends_and_what_is_left_is_what_was_listed_last(history: list[Answer]) -> None:
    view, now_s = View(), 0.0
    for answer in history:
        now_s += answer.after_s
        view = view.after(answer.listed, trusted=answer.trusted, now_s=now_s, policy=POLICY)
        assert all(
            now_s < hold.until_s <= now_s + POLICY.hold_for_s for hold in view.holds.values()
        )

    settled = view.released(now_s + POLICY.hold_for_s)

    assert set(history[-1].listed) == set(settled.instances)
    assert settled.next_release_s is None
