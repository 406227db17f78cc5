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


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> Face:
    """Tell every story with both faces."""
    return cast("Face", request.param)


@pytest.fixture
def serve(face: Face, tmp_path: Path) -> Serve:
    """Make gateways with this face; routes and settings are the test's."""

    def make(routes: str, **settings: object) -> RunningGateway:
        return RunningGateway(routes, face=face, folder=tmp_path / "gateway", **settings)

    return make
