"""Time that moves only when told, for everything that takes a clock as an argument."""

from __future__ import annotations


class FakeClock:
    """A monotonic clock: call it for the time, `advance` it to let time pass."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, by_s: float) -> None:
        """Let `by_s` seconds pass; time never goes back."""
        assert by_s >= 0, "a monotonic clock does not go back"
        self.now_s += by_s
