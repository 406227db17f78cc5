"""The real Helm, rendering the chart of this repository as `helm template` does.

The rule: nothing here knows a cluster.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.fakes.programs import ROOT, find_program
from tests.fakes.waiting import PATIENCE_S

CHART = ROOT / "helm" / "gateway"

Manifest = dict[str, Any]
Values = Mapping[str, Any]


class RefusedError(Exception):
    """Helm did not take the chart or the values; the message is its own."""


def helm(*arguments: str | Path, values: Values | None = None) -> str:
    """Run Helm on the chart and give what it wrote; raises RefusedError when it fails."""
    stdin = yaml.safe_dump(dict(values or {}))
    program = find_program("helm", fetch="tests/packaging/get_helm.py .cache/servers")
    command = [program, *arguments, "--values", "-"]
    result = subprocess.run(
        command,
        input=stdin,
        env={**os.environ, "KUBECONFIG": os.devnull},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    if result.returncode != 0:
        raise RefusedError(result.stderr + result.stdout)
    return result.stdout


def render(
    values: Values | None = None, *options: str | Path, release: str = "gw"
) -> list[Manifest]:
    """Render the chart into Kubernetes objects, as release `release` in the namespace "edge"."""
    text = helm("template", release, CHART, "--namespace", "edge", *options, values=values)
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


def only(manifests: list[Manifest], kind: str) -> Manifest:
    """Give the one object of that kind."""
    (manifest,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return manifest
