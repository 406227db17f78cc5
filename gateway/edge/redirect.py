"""The listener that only sends clients on to TLS: one answer to every request.

The one rule: what was asked for stays as it is, byte for byte; the listener to which the client is
sent judges it. The method stays too, because 308 keeps it (RFC 9110 §15.4.9).
"""

from __future__ import annotations

from http import HTTPStatus

from gateway.core.failure import Failure
from gateway.core.message import NO_FIELDS, AnswerHead, Request, lines_of
from gateway.edge.fast import FastFace
from gateway.proxy.engine import Engine
from gateway.proxy.exchange import Exchange
from gateway.proxy.refusal import reason_phrase
from gateway.proxy.sides import ClientSide

_HTTPS_PORT = 443


class RedirectFace(FastFace):
    """A fast face whose exchanges never reach an instance: see other, over TLS, at `port`.

    It stands beside the face of that port: their connections count together, and they drain
    together.
    """

    def __init__(self, beside: FastFace, *, port: int) -> None:
        super().__init__(beside.engine, beside.peers, beside.options)
        self.places = beside.places
        beside.join(self)
        self._port = port

    def exchange(self, request: Request, client: ClientSide) -> Exchange:
        """Make an Exchange that sends its client on."""
        return _Redirect(self.engine, request, client, port=self._port)


class _Redirect(Exchange):
    """An Exchange that is over as soon as it begins."""

    def __init__(self, engine: Engine, request: Request, client: ClientSide, *, port: int) -> None:
        super().__init__(engine, request, client)
        self._port = port

    def begin(self, now_s: float) -> None:
        """Answer with the same place, over TLS."""
        request = self.request
        if not request.host:
            self.reject(Failure.BAD_REQUEST, "without Host there is nowhere to send it", now_s)
            return
        request.started_at_s = now_s
        location = place_over_tls(request, self._port)
        head = AnswerHead(
            HTTPStatus.PERMANENT_REDIRECT,
            reason_phrase(HTTPStatus.PERMANENT_REDIRECT),
            lines_of(
                [
                    (b"Location", location),
                    (b"Content-Length", b"0"),
                    (b"Date", self.engine.http_date()),
                ]
            ),
        )
        head.length, head.has_body = 0, False
        self.status = head.status
        self._settle(now_s)
        self.client.send_head(head)
        self.client.send_end(NO_FIELDS)
        self.client.flush()


def place_over_tls(request: Request, port: int) -> bytes:
    """Write where a request is to go: the same host and target, another scheme and port.

    The host was found to be one when the request was accepted, so nothing else can stand there.
    """
    name, colon, last = request.host.rpartition(b":")
    host = name if colon and b"]" not in last else request.host
    shown_port = b"" if port == _HTTPS_PORT else b":%d" % port
    return b"https://%b%b%b%b" % (host, shown_port, request.path, request.query)
