"""The harness of ``remotekv``: a server of its own for each test, reached through the proxy.

The store's name may name faults of client and server, e.g. ``remotekv.unavailable``.
"""

import subprocess
import sys
from pathlib import Path

from contract_tests.harness import Harness
from tests.remote_kv import client, server

ROOT = Path(__file__).parents[2]


class RemoteKeyValue(Harness):
    """Starts ``tests.remote_kv.server``."""

    def set_up(self):
        self.folder = self.workspace.with_name(f"{self.workspace.name}.server")
        self.folder.mkdir()
        self.port, self.process = 0, None
        self.start()

    @property
    def faults(self):
        """The faults that the name holds."""
        return self.name.split(".")[1:]

    def start(self):
        """Start the server, at the same port as before."""
        faults = [f for f in self.faults if f in server.FAULTS]
        command = [sys.executable, "-m", "tests.remote_kv.server", self.folder, str(self.port)]
        self.process = subprocess.Popen(
            [*command, *faults],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.port = int(self.process.stdout.readline())

    def tear_down(self):
        if self.process is not None:
            self.process.kill()
            self.process.communicate()

    def crash_server(self):
        self.process.kill()
        self.process.communicate()
        self.start()

    def stored(self):
        return (self.folder / "log").read_bytes()

    def environment(self):
        host, port = self.through("127.0.0.1", self.port)
        fault = [f for f in self.faults if f in client.FAULTS]
        query = f"?fault={fault[0]}" if fault else ""
        return {"REGISTRY_BACKEND": f"remotekv://{host}:{port}/{self.key}{query}"}
