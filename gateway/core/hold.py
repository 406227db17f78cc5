"""What to believe when a registry says that instances are gone.

A registry that lost its state answers `200 []`, with every sign of health, for up to a minute and a
half, and then lists the instances again in parts. Who believes it drops every instance, and then
sends all traffic to the first two that come back. One that has just elected a leader may answer
from before its last changes. So there is one rule: **what is listed is believed at once; what is
absent is believed only from an answer that can be trusted and that does not drop everything.**
Everything else is held: kept for a while, marked, equal in rotation.

    absent from                       is
    a trusted answer that lists some  gone at once
    a trusted answer, empty           held for empty_hold_s, or until a trusted answer lists others
    an untrusted answer               held, for few_hold_s if it drops few, else for hold_for_s

Critical and maintenance are positive evidence: an instance that is listed is never held.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from gateway.core.model import Instance


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldPolicy:
    """How much absence is too much to be believed, and for how long it is doubted.

    `ratio`: from this share of the known routable instances on, absence in an untrusted answer is
    held for `hold_for_s`, below it for `few_hold_s`. `empty_hold_s` is for a trusted answer that
    lists nothing. 0 turns a hold off. The 150 s cover Consul's anti-entropy, which is a minute and
    more for small clusters and grows with their size; the 5 s cover a leader that does not yet
    know all that was decided before it was elected.
    """

    ratio: float = 0.5
    hold_for_s: float = 150.0
    few_hold_s: float = 5.0
    empty_hold_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Hold:
    """Until when one instance is held, and whether any trusted list without it ends that earlier.

    It does where the hold came from a trusted but empty answer: a list that is not empty shows that
    the registry is in its right mind. It does not after an untrusted one, because then instances
    come back in parts.
    """

    until_s: float
    ends_at_list: bool


@dataclass(frozen=True, slots=True)
class View:
    """What is published of one service: its instances sorted by key, and the holds among them."""

    instances: tuple[Instance, ...] = ()
    holds: Mapping[str, Hold] = field(default_factory=dict)

    @property
    def next_release_s(self) -> float | None:
        """When the next held instance is to be let go, None while nothing is held."""
        return min((hold.until_s for hold in self.holds.values()), default=None)

    def after(
        self, listed: Collection[Instance], *, trusted: bool, now_s: float, policy: HoldPolicy
    ) -> View:
        """Take a new answer: all that it lists, and those of the known that are to be held.

        An instance that is listed as it is known stays the same object, so that comparing two
        Views of many instances costs little.
        """
        known = {instance.key: instance for instance in self.instances}
        listed = [
            before if (before := known.get(instance.key)) == instance else instance
            for instance in listed
        ]
        ids = {instance.id for instance in listed}
        # By id, not by key: one that is listed at another address has moved and is not absent.
        absent = [instance for instance in self.instances if instance.id not in ids]
        hold = self._new_hold(listed, absent, trusted=trusted, now_s=now_s, policy=policy)
        holds: dict[str, Hold] = {}
        for instance in absent:
            earlier = self.holds.get(instance.key)
            if earlier is not None:
                kept = _kept(earlier, hold, listed=bool(listed), trusted=trusted)
            else:
                kept = hold if instance.is_routable else None
            if kept is not None and kept.until_s > now_s:
                holds[instance.key] = kept
        held = [replace(instance, held=True) for instance in absent if instance.key in holds]
        return View(tuple(sorted([*listed, *held], key=_by_key)), holds)

    def released(self, now_s: float) -> View:
        """Let go of what has been held for long enough; the same View when there is nothing."""
        over = {key for key, hold in self.holds.items() if hold.until_s <= now_s}
        if not over:
            return self
        holds = {key: hold for key, hold in self.holds.items() if key not in over}
        return View(tuple(item for item in self.instances if item.key not in over), holds)

    def _new_hold(
        self,
        listed: Collection[Instance],
        absent: Collection[Instance],
        *,
        trusted: bool,
        now_s: float,
        policy: HoldPolicy,
    ) -> Hold | None:
        """Decide how those are held that are absent for the first time; None is not at all."""
        if trusted:
            return None if listed else Hold(now_s + policy.empty_hold_s, ends_at_list=True)
        known = sum(1 for item in self.instances if item.is_routable and not item.held)
        lost = sum(1 for item in absent if item.is_routable and not item.held)
        few = bool(listed) and lost < policy.ratio * known
        return Hold(now_s + (policy.few_hold_s if few else policy.hold_for_s), ends_at_list=False)


def _kept(earlier: Hold, new: Hold | None, *, listed: bool, trusted: bool) -> Hold | None:
    """Decide how an instance that was held already, and is absent again, is held on."""
    if trusted:
        return None if listed and earlier.ends_at_list else earlier
    # A registry that is empty once more after trouble has lost its state once more.
    return earlier if listed else new


def _by_key(instance: Instance) -> str:
    return instance.key
