"""A dashboard in its own process, and a client that has its token."""

import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import httpx2

from tests.orchestrator.conducting import environment


@dataclass
class Served:
    """The URL of a running dashboard, its two tokens, its process."""

    url: str
    operator: str
    reader: str
    process: subprocess.Popen

    def get(self, path, *, token=None, **options):
        headers = {"authorization": f"Bearer {token or self.operator}"}
        headers |= options.pop("headers", {})
        return httpx2.get(self.url + path, headers=headers, timeout=30, **options)


@contextmanager
def serving(workspace, *, port="0", **more):
    """Serve a workspace until the context ends."""
    workspace.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "dashboard", "serve", "--port", port],
        env=environment(workspace, **more),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        link = urlsplit(process.stdout.readline().strip())
        reader = (workspace / ".registry" / "token.read").read_text()
        token = parse_qs(link.query)["token"][0]
        yield Served(f"http://{link.netloc}", token, reader, process)
    finally:
        process.terminate()
        process.communicate()
