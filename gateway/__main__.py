"""Runs the command line: `gateway`, or `python -m gateway`.

The imports take most of a second, and a signal must neither be lost in that time nor end it badly.
"""

import os
import sys

from gateway.signals import end_on_signals, ignore_signals


def open_standard_streams() -> None:
    """Open the null device in the place of each standard stream that is closed.

    Some supervisors start programs without them. The next file or socket that is opened would get
    the number of a closed one, and log lines would be written to it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is given, and all lower ones are open by now.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 -- it stays


def main() -> None:
    """Run the command line."""
    open_standard_streams()
    ignore_signals()
    # The other commands end as programs do: what they were to find out is not found out.
    if "run" in sys.argv[1:2]:
        end_on_signals()
    from gateway.cli import main as run  # noqa: PLC0415 -- slow, see above

    run()


if __name__ == "__main__":
    main()
