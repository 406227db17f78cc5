"""Reads an environment as the gateway would in a container: nothing else is set."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import pytest

from gateway.settings import Settings, load_settings

SettingsOf = Callable[[Mapping[str, str]], Settings]


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> SettingsOf:
    """Give a function that makes Settings of an environment; SettingsError when it is refused."""

    def read(env: Mapping[str, str]) -> Settings:
        for name in os.environ:
            if name.startswith(("GATEWAY_", "CONSUL_")):
                monkeypatch.delenv(name)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        return load_settings({})

    return read
