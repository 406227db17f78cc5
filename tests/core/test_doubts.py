"""Whom an instance has served lately."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.doubts import Witnesses

ONE, OTHER, THIRD = b"192.0.2.1", b"192.0.2.2", b"192.0.2.3"


def test_nobody_was_served_by_a_new_instance() -> None:
    witnesses = Witnesses()

    assert not witnesses.has_other(ONE, since_s=0.0)
    assert repr(witnesses) == "<Witnesses 0>"


def test_one_client_is_no_witness_for_itself() -> None:
    witnesses = Witnesses()

    witnesses.note(ONE, 10.0)

    assert not witnesses.has_other(ONE, since_s=0.0)
    assert witnesses.has_other(OTHER, since_s=10.0)
    assert not witnesses.has_other(OTHER, since_s=10.1)


def test_however_often_one_client_is_served_the_other_one_is_remembered() -> None:
    witnesses = Witnesses()
    witnesses.note(OTHER, 10.0)

    for second in range(100):
        witnesses.note(ONE, 11.0 + second)

    assert witnesses.has_other(ONE, since_s=10.0)
    assert not witnesses.has_other(ONE, since_s=10.1)


@given(
    served=st.lists(st.sampled_from([ONE, OTHER, THIRD])),
    client=st.sampled_from([ONE, OTHER, THIRD]),
    since=st.integers(-1, 20),
)
def test_two_are_enough_to_know_of_any_client_when_another_was_served_last(
    served: list[bytes], client: bytes, since: int
) -> None:
    witnesses = Witnesses()

    for number, one in enumerate(served):
        witnesses.note(one, float(number))

    expected = any(one != client and number >= since for number, one in enumerate(served))
    assert witnesses.has_other(client, since_s=float(since)) == expected
