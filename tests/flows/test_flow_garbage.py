"""Requests leave nothing behind that only the garbage collector could free, with either face.

The collector stops everything while it works, the more often the more it is given.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fakes.gateway import Serve, ask, routes_to
from tests.fakes.load import hammer
from tests.fakes.scenes import respond
from tests.fakes.upstream import ScriptedUpstream

REQUESTS = {"GET": ask(), "POST": ask("/", "POST", body=b"money")}


@contextmanager
def garbage() -> Iterator[Counter[str]]:
    """Count, by type, the gateway's own objects that only the collector could free meanwhile."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds = [type(one) for one in gc.garbage]
        found.update(one.__name__ for one in kinds if one.__module__.startswith("gateway."))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.both_faces
@pytest.mark.parametrize("method", REQUESTS)
async def test_a_request_leaves_no_cycles(serve: Serve, method: str) -> None:
    async with ScriptedUpstream() as web:
        web.on_request(respond())
        async with serve(routes_to(web)) as gateway:
            url = f"http://127.0.0.1:{gateway.port}/"
            await hammer(url, total=20, make_request=lambda _: REQUESTS[method])
            with garbage() as found:
                load = await hammer(url, total=50, make_request=lambda _: REQUESTS[method])

    assert load.statuses == {200: 50}
    assert found == {}
