"""The fast face: what all connections of clients share, and the maker of each.

`gateway run` gives it to uvicorn in place of a protocol class.
"""

from __future__ import annotations

from gateway.core.message import Peer, Request
from gateway.edge.face import FaceOptions, ServerState
from gateway.edge.peers import Peers
from gateway.edge.places import Places
from gateway.edge.protocol import ClientConnection
from gateway.proxy.engine import Engine
from gateway.proxy.exchange import Exchange
from gateway.proxy.sides import ClientSide


class FastFace:
    """Makes the protocol of each connection; uvicorn calls it as if it were the class.

    While it `is_draining`, each answer asks its client to come back over another connection.
    """

    def __init__(self, engine: Engine, peers: Peers, options: FaceOptions) -> None:
        self.is_draining = False
        self.engine = engine
        self.peers = peers
        self.options = options
        self._joined: list[FastFace] = []
        self.max_requests = options.max_requests_per_connection
        self.places = Places(
            max_connections=options.max_connections,
            max_per_address=options.max_connections_per_address,
            most_beside=options.max_beside,
            tick=lambda: engine.deadlines.now_s,
        )

    def __call__(
        self, config: object, server_state: ServerState, app_state: object, _loop: object = None
    ) -> ClientConnection:
        """Make the protocol of a new connection."""
        del config, app_state, _loop
        return ClientConnection(self, server_state)

    def join(self, other: FastFace) -> None:
        """Let another face drain with this one."""
        self._joined.append(other)

    def drain(self) -> None:
        """Be draining from now on."""
        self.is_draining = True
        for one in self._joined:
            one.drain()

    def exchange(self, request: Request, client: ClientSide) -> Exchange:
        """Make the Exchange of a request."""
        return Exchange(self.engine, request, client)

    def unread(self, peer: Peer, client: ClientSide) -> Exchange:
        """Make the Exchange of a request that cannot be read: it is refused, whatever it is."""
        request = Request(b"-", b"", query=b"", lines=b"", host=b"")
        request.peer = peer
        request.request_id = self.engine.next_request_id()
        return self.engine.exchange(request, client)
