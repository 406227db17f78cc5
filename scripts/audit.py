"""Ask for known faults of the locked versions, and fail when there is one.

Called by `make audit` with the path of pip-audit and the lock files. Where its data cannot be
reached, pip-audit still says that it found nothing; here that is told as what it is. The faults in
`KNOWN` are looked for in any case: those that a gateway would be attacked by.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

_LONGEST_S = 120
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([0-9][^\s;\\]*)", re.MULTILINE)

# name -> (the first version without the fault, the fault)
KNOWN = {
    "h11": ("0.16.0", "CVE-2025-43859: line endings of chunks are not checked"),
    "httptools": ("0.6.4", "CVE-2024-27982: a space before Content-Length hides it"),
    "idna": ("3.7", "CVE-2024-3651: long names take quadratic time"),
    "pygments": ("2.15.1", "CVE-2022-40896: an expression takes exponential time"),
    "pyyaml": ("5.4", "CVE-2020-14343: a loader runs what it reads"),
    "starlette": ("1.0.1", "CVE-2026-48710: Host poisons request.url"),
}


def pins_of(lock: str) -> dict[str, str]:
    """Give name -> version of each package in the text of a lock file."""
    return {name.lower(): version for name, version in _PIN.findall(lock)}


def known_faults(pins: dict[str, str]) -> list[str]:
    """List the pinned versions that have one of the faults in `KNOWN`."""
    return [
        f"{name} {pins[name]} (mended in {good}): {fault}"
        for name, (good, fault) in KNOWN.items()
        if name in pins and _numbers(pins[name]) < _numbers(good)
    ]


def findings_of(report: str) -> tuple[list[str], list[str]]:
    """Read pip-audit's JSON: the faults that it found, and the packages it knows nothing of."""
    faults: list[str] = []
    unknown: list[str] = []
    for one in json.loads(report)["dependencies"]:
        if "skip_reason" in one:
            unknown.append(one["name"])
        for fault in one.get("vulns", ()):
            mended = ", ".join(fault["fix_versions"]) or "no version yet"
            faults.append(f"{one['name']} {one['version']} (mended in {mended}): {fault['id']}")
    return faults, unknown


def main() -> int:
    """Audit each lock; return 1 when a fault is found."""
    program, *locks = sys.argv[1:]
    found = False
    for lock in locks:
        pins = pins_of(Path(lock).read_text(encoding="utf-8"))
        faults, unknown = known_faults(pins), list(pins)
        report = _report(program, lock)
        if report is not None:
            more, unknown = findings_of(report)
            faults += more
        for fault in faults:
            print(f"{lock}: {fault}")
        if unknown:
            print(f"{lock}: NOT AUDITED, the data cannot be reached: {len(unknown)} of {len(pins)}")
        else:
            print(f"{lock}: {len(pins)} packages audited")
        found = found or bool(faults)
    return int(found)


def _report(program: str, lock: str) -> str | None:
    """Run pip-audit; None when it could not reach what it asks."""
    command = [program, "--requirement", lock, "--no-deps", "--disable-pip", "--format=json"]
    try:
        done = subprocess.run(  # noqa: S603 -- the program that the Makefile installed
            [*command, "--timeout=5"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_LONGEST_S,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.stdout.startswith("{") else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]+", version)[:3])


if __name__ == "__main__":
    sys.exit(main())
