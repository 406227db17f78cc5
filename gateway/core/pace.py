"""Whether somebody who sends or takes bytes does so fast enough to be waited for.

A wait for the next byte alone lets a client that sends one now and then stay for days. So what has
come is counted over windows: whoever moved less than the least in one of them is too slow.
"""

from __future__ import annotations

from math import inf
from typing import Final

WINDOW_S: Final = 60.0


class Pace:
    """The pace of one side: at least `least_bytes` in each minute. Times are monotonic seconds.

    A window is so many `minutes`. `moved_bytes` are those that have moved in all. `due_s` is when
    the window ends, and `until_s` until when the next byte is waited for.
    """

    __slots__ = ("_least_bytes", "_moved_bytes", "_window_s", "due_s", "until_s")

    def __init__(
        self, least_bytes: int, moved_bytes: int, now_s: float, *, minutes: int = 1
    ) -> None:
        self._least_bytes = least_bytes * minutes
        self._moved_bytes = moved_bytes
        self._window_s = WINDOW_S * minutes
        self.due_s = now_s + self._window_s
        self.until_s = inf

    def __repr__(self) -> str:
        return f"<Pace {self._least_bytes} bytes until {self.due_s}>"

    def is_too_slow(self, moved_bytes: int, now_s: float) -> bool:
        """Judge the window if it is over, and begin the next one."""
        if now_s < self.due_s:
            return False
        has_moved_bytes = moved_bytes - self._moved_bytes
        self._moved_bytes = moved_bytes
        self.due_s = now_s + self._window_s
        return has_moved_bytes < self._least_bytes
