"""Why nobody may get traffic, in words."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from gateway.core.absence import absence_of
from gateway.core.health import UNKNOWN, CheckState, Opinion
from gateway.core.model import Instance, Status

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
    assert words == absence_of(members)
