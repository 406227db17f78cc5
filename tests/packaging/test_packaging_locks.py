"""The locks name all that pyproject.toml asks for, and the audit reads them rightly."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scripts.audit import KNOWN, findings_of, known_faults, pins_of

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "scripts" / "locks"


def pins(name: str) -> dict[str, str]:
    return pins_of((LOCKS / name).read_text(encoding="utf-8"))


def asked_for(*, dev: bool) -> list[Requirement]:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = document["project"]["dependencies"]
    return [
        Requirement(one) for one in (*asked, *(document["dependency-groups"]["dev"] if dev else ()))
    ]


@pytest.mark.parametrize("name", ["run.txt", "dev.txt"])
def test_a_lock_has_a_version_that_fits_of_all_that_is_asked_for(name: str) -> None:
    """When this fails: `make lock`."""
    locked = pins(name)

    missing = [
        str(one)
        for one in asked_for(dev=name == "dev.txt")
        if not one.specifier.contains(locked.get(one.name.lower(), "0"), prereleases=True)
    ]

    assert missing == []


def test_the_tests_run_with_the_versions_of_the_image() -> None:
    tested = pins("dev.txt")

    assert {name: tested.get(name) for name in pins("run.txt")} == pins("run.txt")


@pytest.mark.parametrize("name", ["run.txt", "dev.txt"])
def test_each_package_of_a_lock_has_hashes_and_none_is_a_place(name: str) -> None:
    text = (LOCKS / name).read_text(encoding="utf-8")
    blocks = text.split("\n")

    assert sum(line.endswith("\\") and "==" in line for line in blocks) == len(pins(name))
    assert not [line for line in blocks if "://" in line or line.startswith("-")]


@pytest.mark.parametrize("name", ["run.txt", "dev.txt"])
def test_nothing_that_is_locked_has_a_fault_that_is_known_here(name: str) -> None:
    assert known_faults(pins(name)) == []


@pytest.mark.parametrize("name", KNOWN)
def test_a_version_before_the_mended_one_is_found(name: str) -> None:
    good, fault = KNOWN[name]

    assert known_faults({name: "0.0.1"}) == [f"{name} 0.0.1 (mended in {good}): {fault}"]
    assert known_faults({name: good}) == []


def test_the_audit_tells_faults_from_packages_that_nothing_is_known_of() -> None:
    report = json.dumps(
        {
            "dependencies": [
                {"name": "a", "version": "1", "vulns": []},
                {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]},
                {"name": "c", "version": "2", "vulns": [{"id": "PYSEC-2", "fix_versions": []}]},
                {"name": "d", "skip_reason": "not found"},
            ]
        }
    )

    assert findings_of(report) == (
        ["b 2 (mended in 3): PYSEC-1", "c 2 (mended in no version yet): PYSEC-2"],
        ["d"],
    )
