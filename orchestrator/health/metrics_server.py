"""``/metrics`` of a health daemon that runs without a server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from orchestrator.metrics import Metrics, is_permitted
from orchestrator.service import Orchestrator
from registry_api.errors import UsageError
from registry_api.workspace import operator_token, reader_token
from registry_api.workspace.server_cli import LOOPBACK, url_of

__all__ = ["metrics_served"]


@contextmanager
def metrics_served(service: Orchestrator, address: str) -> Iterator[str]:
    """Serve the metrics on ``HOST:PORT``, loopback only; yields the URL. Raises UsageError."""
    host, _, port = address.rpartition(":")
    if host not in LOOPBACK or not port.isdecimal() or int(port) > 65_535:
        raise UsageError(
            f"--metrics {address[:80]} is not HOST:PORT on loopback",
            next_step="E.g. --metrics 127.0.0.1:9464",
        )
    metrics, place = service.observer, service.settings.workspace
    assert isinstance(metrics, Metrics)
    text_now = metrics.text
    tokens = operator_token(place), reader_token(place)

    class Answer(BaseHTTPRequestHandler):
        """The answer to one request."""

        def do_GET(self) -> None:
            """Answer with the metrics."""
            if self.path != "/metrics":
                self.send_error(404)
            elif not is_permitted(self.headers.get("Authorization", ""), tokens):
                self.send_error(401, "Send the token in .registry/token as a bearer token")
            else:
                text = text_now()
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    server = ThreadingHTTPServer((host, int(port)), Answer)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield url_of(host, server.server_address[1]) + "/metrics"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
