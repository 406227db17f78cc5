"""A sample service: it answers every request with its own name and the path that it was asked for.

    python sample.py PORT NAME

It knows nothing of Consul or of the gateway, as most services do not.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Sample(BaseHTTPRequestHandler):
    """Answers one connection; HTTP/1.1, so that the gateway can keep it open."""

    protocol_version = "HTTP/1.1"
    # Head and body are two writes; without this the second one waits for the client's ACK.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Say who answers, and what."""
        self._answer()

    def do_POST(self) -> None:
        """Read the body and say how long it was."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(received_bytes=len(body))

    def _answer(self, **more: int) -> None:
        name = sys.argv[2]
        body = json.dumps({"instance": name, "path": self.path, **more}).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until the program is ended."""
    server = ThreadingHTTPServer(("", int(sys.argv[1])), Sample)
    sys.stdout.write(f"{sys.argv[2]} listens on port {server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
