"""What the tests of the fast face begin with."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.engine import Stage
from tests.fakes.visit import Visit


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Set a Stage whose clock is the loop's too."""
    stage = Stage()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", stage.clock)
    return stage


@pytest.fixture
async def visit(stage: Stage) -> Visit:
    """Let a client connect."""
    return Visit(stage)
