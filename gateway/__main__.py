"""Runs the command line: `gateway`, or `python -m gateway`.

The imports take most of a second, and a signal must not end the process in that time either.
"""

from gateway.signals import ignore_signals


def main() -> None:
    """Run the command line."""
    ignore_signals()
    from gateway.cli import main as run  # noqa: PLC0415 -- slow, see above

    run()


if __name__ == "__main__":
    main()
