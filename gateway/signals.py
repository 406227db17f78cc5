"""Signals before anything else is there to act on them.

SIGHUP, SIGUSR1 and SIGUSR2 end a process that does not handle them. Operators and tools send them
out of habit (log rotation, a closed terminal, "reload"). The gateway does nothing on them yet, and
must not end in the middle of requests because of them either.

SIGTERM and SIGINT end a gateway that is still starting: at once, and without a traceback. The
system drops a signal that process 1 of a container does not handle, so there has to be a handler
from the first moment on; the running gateway puts its own in the place of this one.

The one rule: this module imports nothing that is slow, because it is the first one to run.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
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
_ENDING = (signal.SIGTERM, signal.SIGINT)
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


def end_on_signals() -> None:
    """End the process on SIGTERM and SIGINT, with exit code 0, as the running gateway does.

    Only where the default action is still in place: whoever ignores one or handles it goes on.
    """
    for number in _ENDING:
        if signal.getsignal(number) in {signal.SIG_DFL, signal.default_int_handler}:
            signal.signal(number, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    """End it here: what is being imported or made is in no state to be cleaned up.

    Whoever reads the line may have gone, and that must not keep the process.
    """
    name = signal.Signals(number).name
    with suppress(OSError):
        os.write(2, f"gateway: {name} before it served anybody: ended\n".encode())
    os._exit(0)


def _do_nothing() -> None:
    pass
