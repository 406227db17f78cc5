"""A whole gateway on a real socket, in the loop of the test, with either face.

The rule: nothing in it is faked. What is only visible from inside (tasks, exchanges, connections) is
looked at directly, so that a test can say that nothing was left behind.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import uvicorn

from gateway.app import Gateway, create_app
from gateway.edge.server import Site, _config, _Server, ServeOptions, listen
from gateway.settings import load_settings

Face = Literal["fast", "asgi"]
FACES: tuple[Face, ...] = ("fast", "asgi")
