"""The harness of ``postgresql``: a database of its own for each test, reached through the proxy.

The server is one for all tests of a process; ``REGISTRY_TEST_PG_URL`` names another one, which no
test kills.
"""

import atexit
import os
import tempfile
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from contract_tests.entry import MUTANT_OF
from contract_tests.harness import Harness
from tests.postgresql.server import Postgres, PostgresServer


@cache
def shared_server():
    """Return the server of this process; it ends with it."""
    if url := os.environ.get("REGISTRY_TEST_PG_URL"):
        return Postgres(url)
    folder = tempfile.TemporaryDirectory(prefix="registry-postgres-")
    server = PostgresServer(Path(folder.name))
    atexit.register(folder.cleanup)
    atexit.register(server.close)
    server.start()
    return server


class PostgreSQL(Harness):
    """One database of the server for each test."""

    def set_up(self):
        self.server = shared_server()
        self.database = f"t{self.key}"
        self.server.drop_database(self.database)
        self.server.create_database(self.database)

    def tear_down(self):
        self.server.drop_database(self.database)

    def crash_server(self):
        self.server.kill()
        self.server.start()

    @property
    def has_server(self):
        return isinstance(self.server, PostgresServer)

    def stored(self):
        tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        names = sorted(name for (name,) in self.server.run(tables, self.database))
        query = 'SELECT to_jsonb(t)::text FROM "{}" t ORDER BY 1'
        return {name: self.server.run(query.format(name), self.database) for name in names}

    def url(self):
        """Return the URL of the database, through the proxy."""
        parts = urlsplit(self.server.url(self.database))
        host, port = self.through(parts.hostname, parts.port)
        user = parts.netloc.rpartition("@")[0]
        return parts._replace(netloc=f"{user}@{host}:{port}").geturl()

    def environment(self):
        return {"REGISTRY_BACKEND": self.url()}


class Mutant(PostgreSQL):
    """A store with one fault, over the database: ``mutant://NAME``."""

    def set_up(self):
        super().set_up()
        os.environ[MUTANT_OF] = self.url()  # also for the processes that a test starts

    def environment(self):
        return Harness.environment(self)


class Pair(PostgreSQL):
    """A move whose source or target is the database: ``dual1:sqlite+postgresql``."""

    def environment(self):
        found = Harness.environment(self)
        return {k: self.url() if v == "postgresql" else v for k, v in found.items()}
