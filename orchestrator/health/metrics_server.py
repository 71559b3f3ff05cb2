"""``/metrics`` of a health daemon that runs without a server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from orchestrator.metrics import Metrics, is_permitted
from registry_api.workspace import operator_token, reader_token
from registry_api.workspace.server_cli import parse_address, url_of

__all__ = ["metrics_served"]


@contextmanager
def metrics_served(metrics: Metrics, workspace: Path, address: str) -> Iterator[str]:
    """Serve the metrics on ``HOST:PORT``, loopback only; yields the URL. Raises UsageError."""
    host, port = parse_address(address, option="--metrics", remote=False)
    tokens = operator_token(workspace), reader_token(workspace)

    class Answer(BaseHTTPRequestHandler):
        """The answer to one request."""

        def do_GET(self) -> None:
            """Answer with the metrics."""
            if self.path != "/metrics":
                self.send_error(404)
            elif not is_permitted(self.headers.get("Authorization", ""), tokens):
                self.send_error(401, "Send the token in .registry/token as a bearer token")
            else:
                text = metrics.text()
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    class Server(ThreadingHTTPServer):
        """A server on either kind of loopback address."""

        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    server = Server((host, port), Answer)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield url_of(host, server.server_address[1]) + "/metrics"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
