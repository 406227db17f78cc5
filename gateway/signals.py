"""Signals that end a process which does not handle them: SIGHUP, SIGUSR1 and SIGUSR2.

Operators and tools send them out of habit (log rotation, a closed terminal, "reload"). The gateway
does nothing on them yet, and must not end in the middle of requests because of them either.

The one rule: this module imports nothing that is slow, because it is the first one to run.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    Tell = Callable[[str, str], None]

_MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "SIGHUP": "routes and settings are read at the start only, restart to use changed ones; "
        "certificates and rotated log files are noticed without a signal",
        "SIGUSR1": "rotated log files are noticed without a signal",
        "SIGUSR2": "a running gateway cannot be replaced in place: start a new one, then stop "
        "this one with SIGTERM",
    }
)
IGNORED = tuple(signal.Signals[name] for name in _MEANINGS if hasattr(signal, name))


_TOLD_EVERY_S = 1.0


class IgnoredSignals:
    """The handler of these signals: tells of each while a loop runs, and keeps it before that."""

    def __init__(self) -> None:
        self._untold: list[int] = []
        # Each kind once: another process can send a million of them in a second.
        self._seen: set[int] = set()
        self._notify: Callable[[], object] = _do_nothing

    def __repr__(self) -> str:
        return f"<IgnoredSignals, {len(self._untold)} to be told>"

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Keep the signal; this runs between any two instructions, so the loop tells of it.

        It may run again inside of itself, so it does next to nothing.
        """
        if number not in self._seen:
            self._seen.add(number)
            self._untold.append(number)
            self._notify()

    @contextmanager
    def told_in(self, loop: asyncio.AbstractEventLoop, tell: Tell) -> Iterator[None]:
        """Call `tell` in this loop with the name and the meaning of each kind that came or comes.

        Those of one kind that come within a second are told once.
        """

        def tell_all() -> None:
            while self._untold:
                number = self._untold.pop(0)
                name = signal.Signals(number).name
                tell(name, _MEANINGS[name])
                loop.call_later(_TOLD_EVERY_S, self._seen.discard, number)

        self._notify = lambda: loop.call_soon_threadsafe(tell_all)
        tell_all()
        try:
            yield
        finally:
            self._notify = _do_nothing


def ignore_signals() -> IgnoredSignals:
    """Install the handler where the default action, to end the process, is still in place.

    Returns the one that was installed before, if there is one. A signal that is ignored already
    (`nohup`) or handled by other code stays as it is.
    """
    handlers = {number: signal.getsignal(number) for number in IGNORED}
    installed = (one for one in handlers.values() if isinstance(one, IgnoredSignals))
    ignored = next(installed, None) or IgnoredSignals()
    for number, handler in handlers.items():
        if handler is signal.SIG_DFL:
            signal.signal(number, ignored)
    return ignored


def _do_nothing() -> None:
    pass
