"""How much may be sent again: a share of what goes well, so that failing makes no storm.

When a service fails as a whole, each failed request that is sent again is one more for instances
that cannot take those they have. So a service has one Budget for all its routes:

    sent again, in any stretch of time  <=  share x good answers  +  per second x (seconds + 10)

Both parts are saved up over ten seconds, no longer. That is enough for all that an instance had in
hand when it died. While nothing goes well any more there is nothing to live on: the share has
nothing to grow by, and of what is always allowed ten seconds' worth is spent before the next good
answer, however long it takes. A failover of which nothing was sent costs nothing: no instance had
any work with it.
"""

from __future__ import annotations

from math import inf
from typing import Final

SAVED_FOR_S: Final = 10.0


class Budget:
    """The Budget of one service. All times are monotonic seconds.

    `answered` is counted up by whoever gets a good answer. `spent` and `refused` are counted for
    people.
    """

    __slots__ = (
        "_at_s",
        "_saved_answers",
        "_saved_s",
        "_seen",
        "_spent_in_vain_s",
        "answered",
        "refused",
        "spent",
    )

    def __init__(self) -> None:
        self.answered = 0
        self.spent = 0
        self.refused = 0
        self._seen = 0
        self._at_s = -inf
        self._saved_answers = 0.0
        self._saved_s = SAVED_FOR_S
        self._spent_in_vain_s = 0.0

    def __repr__(self) -> str:
        return f"<Budget {self.spent} spent, {self.refused} refused, {self.answered} answered>"

    def sweep(self, now_s: float) -> None:
        """Save up what came; to be told about once a second."""
        self._catch_up(now_s)

    def has_room(self, now_s: float, *, share: float, per_s: float) -> bool:
        """Tell whether one more attempt can be paid for.

        `share` is of the good answers, `per_s` how many a second are always allowed. Routes of one
        service may differ in both.
        """
        self._catch_up(now_s)
        return share * self._saved_answers >= 1 or per_s * self._always_s >= 1

    def spend(self, now_s: float, *, share: float, per_s: float) -> bool:
        """Take what one more attempt costs; False, and counted, if there is not so much."""
        if not self.has_room(now_s, share=share, per_s=per_s):
            self.refused += 1
            return False
        if share * self._saved_answers >= 1:
            self._saved_answers -= 1 / share
        else:
            self._saved_s -= 1 / per_s
            self._spent_in_vain_s += 1 / per_s
        self.spent += 1
        return True

    @property
    def _always_s(self) -> float:
        """For how many seconds there is what is always allowed."""
        return min(self._saved_s, SAVED_FOR_S - self._spent_in_vain_s)

    def _catch_up(self, now_s: float) -> None:
        """Save up what came since the last time; what is older than ten seconds is gone."""
        passed_s = max(now_s - self._at_s, 0.0)
        came, self._seen, self._at_s = self.answered - self._seen, self.answered, now_s
        if came:
            self._spent_in_vain_s = 0.0
        if passed_s == inf:  # the first time: they came just now
            self._saved_answers = float(came)
        elif passed_s > SAVED_FOR_S:
            self._saved_answers = came * SAVED_FOR_S / passed_s
            self._saved_s = SAVED_FOR_S
        else:
            kept = self._saved_answers * (1 - passed_s / SAVED_FOR_S)
            self._saved_answers = kept + came
            self._saved_s = min(self._saved_s + passed_s, SAVED_FOR_S)
