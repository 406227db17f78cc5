"""How long to wait before a failover: not at all the first time, then by chance, ever longer.

The first failover goes to an instance that has done nothing wrong, so there is nothing to wait for.
If that fails too, the service as a whole may be short of breath, and requests that failed together
must not come again together: full jitter, which spreads best
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
"""

from __future__ import annotations

_LONGEST_DOUBLING = 30


def backoff_s(failover: int, *, first_s: float, longest_s: float, chance: float) -> float:
    """Tell for how long to wait before a failover; the first one of a request is number 1.

    `first_s` is the longest wait before the second one, doubled for each later one up to
    `longest_s`; `chance` in [0, 1) draws from it.
    """
    if failover <= 1:
        return 0.0
    doublings = min(failover - 2, _LONGEST_DOUBLING)
    return chance * min(first_s * 2.0**doublings, longest_s)
