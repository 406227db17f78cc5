"""The fast face: what all connections of clients share, and the maker of each.

`gateway run` gives it to uvicorn in place of a protocol class.
"""

from __future__ import annotations

from gateway.core.message import Peer, Request
from gateway.edge.face import ConnectionCounts, FaceOptions, ServerState
from gateway.edge.peers import Peers
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
        self.max_requests = options.max_requests_per_connection
        self.connection_counts = ConnectionCounts()

    def __call__(
        self, config: object, server_state: ServerState, app_state: object, _loop: object = None
    ) -> ClientConnection:
        """Make the protocol of a new connection."""
        del config, app_state, _loop
        return ClientConnection(self, server_state)

    def enter(self, peer: Peer) -> str | None:
        """Count a connection; say which limit it is over, None if it is over none."""
        options, counts = self.options, self.connection_counts
        count = counts.enter(peer)
        if counts.total > options.max_connections:
            return f"there are {options.max_connections} connections already"
        if 0 < options.max_connections_per_address < count:
            return f"there are {options.max_connections_per_address} from this address already"
        return None

    def exchange(self, request: Request, client: ClientSide) -> Exchange:
        """Make the Exchange of a request."""
        return Exchange(self.engine, request, client)
