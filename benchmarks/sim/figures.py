"""What is read off a Ledger: success, amplification, times to eject and to recover, balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.sim.ledger import BINS_IN_S, Ledger, bin_of

FULL_SHARE = 0.8
WELL = 0.99


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time; `until_s` is not in it."""

    from_s: float
    until_s: float

    @property
    def bins(self) -> range:
        """Number the tenths of a second in it."""
        return range(bin_of(self.from_s), bin_of(self.until_s))

    def total(self, counts: Counter[int]) -> int:
        """Add up what was counted in it."""
        return sum(counts[number] for number in self.bins)


def success(ledger: Ledger, span: Span) -> float:
    """Tell which share of the requests that began in it went well; 1 if there were none."""
    requests = span.total(ledger.requests)
    return span.total(ledger.good) / requests if requests else 1.0


def amplification(ledger: Ledger, span: Span) -> float:
    """Tell how often each request was sent to instances; 1 if there were no requests.

    An attempt that finds no connection sends nothing.
    """
    requests = span.total(ledger.requests)
    return span.total(ledger.sendings) / requests if requests else 1.0


def load(ledger: Ledger, keys: Collection[str], span: Span) -> int:
    """Count the attempts at these instances."""
    return sum(span.total(ledger.attempts_at[key]) for key in keys)


def balance(ledger: Ledger, keys: Sequence[str], span: Span) -> float:
    """Tell how many times as much as the mean the instance with most got."""
    loads = [load(ledger, [key], span) for key in keys]
    return max(loads) * len(loads) / sum(loads) if any(loads) else 1.0


def highest_wave(ledger: Ledger, keys: Sequence[str], span: Span, *, of: int) -> float:
    """Tell how many times its fair share the most was that one of these got within 100 ms.

    The fair share is that of one of `of` instances, of all requests in the span.
    """
    fair = span.total(ledger.requests) / len(span.bins) / of
    return max(ledger.attempts_at[key][number] for key in keys for number in span.bins) / fair


def ejected_after_s(ledger: Ledger, keys: Collection[str], span: Span) -> list[float]:
    """List after which time each gateway left each of these alone; those that never did are not."""
    first: dict[tuple[int, str], float] = {}
    for ejection in ledger.ejections:
        if ejection.key in keys and span.from_s <= ejection.at_s < span.until_s:
            place = (ejection.gateway, ejection.key)
            first[place] = min(first.get(place, ejection.at_s), ejection.at_s)
    return sorted(at_s - span.from_s for at_s in first.values())


def recovered_after_s(
    ledger: Ledger, keys: Collection[str], span: Span, *, of: int
) -> float | None:
    """Tell after which time these had full traffic again, and clients were well, for a second.

    Full is four fifths of what is theirs, as chance has its part. None if it was not in the span.
    """
    for number in range(len(span.bins) - BINS_IN_S + 1):
        after_s = number / BINS_IN_S
        second = Span(span.from_s + after_s, span.from_s + after_s + 1)
        fair = second.total(ledger.requests) * len(keys) / of
        has_full_load = load(ledger, keys, second) >= FULL_SHARE * fair
        if has_full_load and success(ledger, second) >= WELL:
            return after_s
    return None


def middle(values: Sequence[float]) -> float | None:
    """Tell the median, None of nothing."""
    return median(values) if values else None
