"""What is believed when a registry says that instances are gone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.hold import HoldPolicy, View
from gateway.core.model import Instance, Status

POLICY = HoldPolicy()


def instance(name: str, port: int = 80, status: Status = Status.PASSING) -> Instance:
    return Instance(key=f"{name}@{port}", id=name, host="h", port=port, status=status)


def fleet(count: int) -> tuple[Instance, ...]:
    return tuple(instance(f"{number:02}") for number in range(count))


def after(
    view: View, listed: tuple[Instance, ...], *, trusted: bool = True, now_s: float = 0.0
) -> View:
    return view.after(listed, trusted=trusted, now_s=now_s, policy=POLICY)


def held(view: View) -> list[str]:
    return [item.id for item in view.instances if item.held]


def ids(view: View) -> list[str]:
    return [item.id for item in view.instances]


def test_one_of_two_that_is_missing_from_a_trusted_answer_is_gone_at_once() -> None:
    view = after(View(fleet(2)), fleet(1))

    assert (ids(view), held(view)) == (["00"], [])


def test_all_missing_from_a_trusted_answer_are_held_for_a_short_while() -> None:
    view = after(View(fleet(2)), (), now_s=100.0)

    assert held(view) == ["00", "01"]
    assert view.next_release_s == 130.0
    assert view.released(129.9) is view
    assert View() == view.released(130.0)


def test_the_hold_of_an_empty_answer_ends_when_a_trusted_answer_lists_others() -> None:
    """A single instance that is replaced must not leave a dead one in rotation beside the new."""
    view = after(after(View((instance("old"),)), ()), (instance("new"),))

    assert (ids(view), held(view)) == (["new"], [])


def test_the_hold_of_an_empty_answer_can_be_turned_off() -> None:
    view = View(fleet(2)).after((), trusted=True, now_s=0.0, policy=HoldPolicy(empty_hold_s=0.0))

    assert View() == view


def test_few_missing_from_an_untrusted_answer_are_held_for_a_moment() -> None:
    """A new leader of Consul can answer once from before the last registrations."""
    view = after(View(fleet(5)), fleet(3), trusted=False, now_s=100.0)
    later = after(view, fleet(3), now_s=101.0)

    assert held(view) == held(later) == ["03", "04"]
    assert later.next_release_s == 105.0
    assert fleet(3) == later.released(105.0).instances
    assert fleet(5) == after(view, fleet(5), now_s=101.0).instances


def test_the_hold_of_few_can_be_turned_off() -> None:
    policy = HoldPolicy(few_hold_s=0.0)
    view = View(fleet(5)).after(fleet(3), trusted=False, now_s=0.0, policy=policy)

    assert fleet(3) == view.instances


def test_half_missing_from_an_untrusted_answer_are_held() -> None:
    view = after(View(fleet(4)), fleet(2), trusted=False, now_s=100.0)

    assert (ids(view), held(view)) == (["00", "01", "02", "03"], ["02", "03"])
    assert view.next_release_s == 250.0


def test_instances_that_come_back_in_parts_are_joined_by_the_held_ones_until_the_end() -> None:
    """The first ones to register again must not get all the traffic."""
    view = after(View(fleet(20)), (), trusted=False, now_s=0.0)
    for count in (2, 9, 17):
        view = after(view, fleet(count), now_s=float(count))
        assert len(view.instances) == 20
        assert len(held(view)) == 20 - count

    assert fleet(17) == view.released(150.0).instances


def test_a_held_instance_that_is_seen_again_is_as_it_is_listed() -> None:
    view = after(View(fleet(2)), (), trusted=False)
    sick = instance("00", status=Status.CRITICAL)
    view = after(view, (sick,))

    assert (sick, replace(fleet(2)[1], held=True)) == view.instances


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("status", [Status.CRITICAL, Status.MAINTENANCE])
def test_what_is_listed_as_sick_is_sick_at_once(status: Status, trusted: bool) -> None:  # noqa: FBT001 - a table
    listed = tuple(instance(f"{number:02}", status=status) for number in range(3))
    view = after(View(fleet(3)), listed, trusted=trusted)

    assert listed == view.instances


def test_sick_instances_are_not_held_and_do_not_count() -> None:
    sick = tuple(instance(f"s{n}", status=Status.CRITICAL) for n in range(6))
    view = after(View((*fleet(4), *sick)), fleet(2), trusted=False)

    assert ids(view) == ["00", "01", "02", "03"]
    assert view.next_release_s == POLICY.hold_for_s


@pytest.mark.parametrize("trusted", [True, False])
def test_an_instance_that_moved_is_not_absent(trusted: bool) -> None:  # noqa: FBT001 - a table
    view = after(View((instance("a", 80),)), (instance("a", 81),), trusted=trusted)

    assert (instance("a", 81),) == view.instances


def test_a_registry_that_loses_its_state_again_starts_the_time_anew() -> None:
    view = after(View(fleet(2)), (), trusted=False, now_s=0.0)
    view = after(view, (), trusted=False, now_s=500.0)

    assert held(view) == ["00", "01"]
    assert view.next_release_s == 650.0


def test_trusted_answers_do_not_prolong_a_hold() -> None:
    view = after(View(fleet(2)), (), trusted=False, now_s=0.0)
    for now_s in (10.0, 100.0, 149.0):
        view = after(view, (), now_s=now_s)
    assert held(view) == ["00", "01"]

    assert View() == after(view, (), now_s=150.0)


def test_untrusted_answers_that_list_some_do_not_prolong_a_hold() -> None:
    """A connection that breaks off again and again makes every answer an untrusted one."""
    view = after(View(fleet(2)), fleet(1), trusted=False, now_s=0.0)
    for now_s in (60.0, 120.0):
        view = after(view, fleet(1), trusted=False, now_s=now_s)
    assert held(view) == ["01"]

    assert fleet(1) == after(view, fleet(1), trusted=False, now_s=180.0).instances


def test_the_first_answer_of_all_is_taken_as_it_is() -> None:
    view = after(View(), fleet(3), trusted=False)

    assert (fleet(3), None) == (view.instances, view.next_release_s)
