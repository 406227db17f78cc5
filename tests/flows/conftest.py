"""How flows are told: a gateway with each of its faces, on the loop that `gateway run` uses."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import pytest

from tests.fakes.gateway import FACES, Face, RunningGateway, Serve


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run on uvloop where there is one."""
    if sys.platform == "win32":
        return {"asyncio": asyncio.new_event_loop}
    import uvloop  # noqa: PLC0415 -- there is none on Windows

    return {"uvloop": uvloop.new_event_loop}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tell a story with the fast face, and with both where that is a mark of it.

    Behind the faces is one engine; what the faces have to keep, they keep in the stories with the
    mark `both_faces`, which are their contract.
    """
    definition = metafunc.definition
    given = [mark.args[0] for mark in definition.iter_markers("parametrize")]
    if "face" in metafunc.fixturenames and "face" not in given:
        is_both = definition.get_closest_marker("both_faces") is not None
        metafunc.parametrize("face", FACES if is_both else FACES[:1], indirect=True)


@pytest.fixture
def face(request: pytest.FixtureRequest) -> Face:
    """Give the face that a story is told with."""
    return cast("Face", request.param)


@pytest.fixture
def serve(face: Face, tmp_path: Path) -> Serve:
    """Make gateways with this face; routes and settings are the test's."""

    def make(routes: str, **settings: object) -> RunningGateway:
        return RunningGateway(routes, face=face, folder=tmp_path / "gateway", **settings)

    return make
