"""Why nobody may get traffic, in words."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from gateway.core.absence import absence_of
from gateway.core.health import UNKNOWN, CheckState, Opinion
from gateway.core.model import Instance, Skipped, Snapshot, Status

FAILING = CheckState(opinion=Opinion.UNHEALTHY, why="/health: 503")
REFUSED = CheckState(opinion=Opinion.UNHEALTHY, why="refused")


@dataclass
class Refused:
    """An instance that somebody refuses."""

    instance: Instance
    check: CheckState = UNKNOWN


def one(status: Status = Status.PASSING, check: CheckState = UNKNOWN) -> Refused:
    return Refused(Instance(key="a", id="a", host="10.0.0.1", port=80, status=status), check)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([], "no instance registered"),
        ([one(Status.CRITICAL)] * 2, "no healthy instance: 2 critical"),
        ([one(Status.UNTAGGED)], "no healthy instance: 1 without its tags"),
        (
            [one(Status.MAINTENANCE), one(Status.CRITICAL)],
            "no healthy instance: 1 critical, 1 maintenance",
        ),
        (
            [one(Status.CRITICAL, FAILING), one(Status.CRITICAL), one(check=FAILING)],
            "no healthy instance: 2 critical, 1 failing its health check (/health: 503)",
        ),
        (
            [one(check=REFUSED), one(check=FAILING), one(check=FAILING)],
            "no healthy instance: 3 failing their health checks (/health: 503)",
        ),
    ],
    ids=["none", "critical", "untagged", "both", "all who say no", "the most frequent reason"],
)
def test_who_refuses_how_many_is_told(members: list[Refused], words: str) -> None:
    assert words == absence_of(members, snapshot())


def snapshot(*skipped: Skipped) -> Snapshot:
    return Snapshot(
        service="web", instances=(), source="consul", skipped=skipped, skipped_count=len(skipped)
    )


def test_entries_that_cannot_be_used_are_named_with_why() -> None:
    skipped = snapshot(Skipped("n/a", "no port"), Skipped("n/b", "no address"))
    words = "2 not usable (n/a: no port; n/b: no address)"

    assert absence_of([], skipped) == f"no usable instance: {words}"
    assert absence_of([one(Status.CRITICAL)], skipped) == (
        f"no healthy instance: 1 critical, {words}"
    )


def test_of_many_that_cannot_be_used_the_first_are_named() -> None:
    many = snapshot(*(Skipped(f"n/{number}", "no port") for number in range(5)))

    assert absence_of([], many) == (
        "no usable instance: 5 not usable (n/0: no port; n/1: no port; n/2: no port; …)"
    )
