"""Tables are upgraded while programs of both versions use them."""

import json
import threading
import time
from contextlib import closing

import psycopg
import pytest

from backends.admin.cli import main
from backends.sql.postgresql import tables
from backends.sql.postgresql.engine import PostgresEngine
from contract_tests import build
from registry_api import open_store
from registry_api.errors import Busy, NotPermitted, SchemaTooOld
from registry_api.leases import leases_of
from registry_api.records import next_chain
from tests.dual_write.test_chain import settings, switch
from tests.postgresql.test_engine import opened, shape
from tests.postgresql.test_move import place, workspace

__all__ = ["place", "workspace"]

# What programs of version 0001 send; the names of columns are all that they know of a table.
OLD_FEED_LINE = """
INSERT INTO feed (number, task_id, lineage, revision, changeset_id, digest, at, changeset)
SELECT nextval('feed_number'), task_id, lineage, revision + 1, gen_random_uuid()::text, digest, at,
  changeset FROM feed WHERE task_id = 't' ORDER BY number DESC LIMIT 1
"""
OLD_ADVANCE = "UPDATE tasks SET revision = revision + 1 WHERE task_id = 't'"


def as_before_chains(url):
    """Make tables as version 0001 of the schema had them."""
    with psycopg.connect(url) as connection:
        for table in ("tasks", "feed"):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN chain")
        connection.execute("DROP TABLE leases")
        connection.execute("DROP FUNCTION registry_report_2")
        connection.execute("CREATE FUNCTION registry_report(a int) RETURNS int RETURN a")
        connection.execute("UPDATE alembic_version SET version_num = '0001'")


@pytest.fixture
def older(tmp_path, database):
    """The URL of a database of version 0001, with one task."""
    with closing(opened(tmp_path, database)) as store:
        build.make(store, "t", build.agent("t", status="working"))
    as_before_chains(database)
    return database


def functions(url):
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT proname FROM pg_proc WHERE proname LIKE 'registry_%'")
        return [name for (name,) in rows]


def test_opening_upgrades(tmp_path, server, older):
    """The upgraded tables are those of a new database; earlier changes have no chain, later ones
    have."""
    server.create_database("fresh")
    try:
        opened(tmp_path, server.url("fresh")).close()
        with closing(opened(tmp_path, older)) as store:
            there = {row[:-1] for row in shape(older)}  # a column that was dropped had a number
            assert there == {row[:-1] for row in shape(server.url("fresh"))}
            assert functions(older) == functions(server.url("fresh")) == ["registry_report_2"]
            assert store.head("t").chain == store.changes()[0].chain == ""
            chain = ""
            for revision in (2, 3, 4):
                commit = build.put(store, build.report("t", status="working"), expected=None)
                chain = next_chain(chain, revision, store.changes()[-1].digest)
                assert commit.chain == store.head("t").chain == chain
    finally:
        server.drop_database("fresh")


def test_an_older_program_goes_on(tmp_path, older):
    """What it commits after the upgrade is in the feed, without a chain; then a new chain
    begins."""
    with closing(opened(tmp_path, older)) as store:
        build.put(store, build.report("t", status="working"), expected=None)
        with psycopg.connect(older) as connection:
            connection.execute(OLD_FEED_LINE)
            connection.execute(OLD_ADVANCE)
        assert (store.head("t").revision, store.head("t").chain) == (3, "")
        commit = build.put(store, build.report("t", status="working"), expected=None)
        digest = store.changes()[-1].digest
        assert commit.chain == next_chain("", 4, digest)
        assert [bool(c.chain) for c in store.changes()] == [False, True, False, True]


WAITS = """
SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def until(happened, seconds=10):
    """Wait until something has happened; return whether it has."""
    deadline = time.monotonic() + seconds
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.005)
    return happened()


def test_writers_are_not_held_up(tmp_path, older):
    """While a transaction holds a table, an upgrade that waits for it gives way to those that came
    after it, and tries again: they do not wait until that transaction ends."""
    written, stop = [], threading.Event()

    def write():
        with psycopg.connect(older, autocommit=True) as connection:
            while not stop.is_set():
                connection.execute(OLD_ADVANCE)
                written.append(None)
                time.sleep(0.01)

    writer = threading.Thread(target=write)
    upgrading = threading.Thread(target=lambda: opened(tmp_path, older).close())
    with psycopg.connect(older) as reader, psycopg.connect(older, autocommit=True) as watching:
        reader.execute("SELECT count(*) FROM feed")  # holds the table until it ends
        writer.start()
        upgrading.start()
        try:
            for _ in range(2):
                assert until(lambda: watching.execute(WAITS).fetchone()[0])
                before = len(written)
                assert until(lambda at=before: len(written) > at + 1), "writers wait for the reader"
            assert tables.find_version(watching) == "0001"
        finally:
            reader.rollback()
            upgrading.join(60)
            stop.set()
            writer.join(60)
        assert tables.find_version(watching) == tables.VERSION


def test_an_upgrade_that_cannot_get_a_table_changes_nothing(tmp_path, older, monkeypatch):
    """It is Busy, says what to do, and the tables are as they were."""
    monkeypatch.setattr(tables, "_ATTEMPTS", 2)
    before = shape(older)
    with psycopg.connect(older) as reader:
        reader.execute("SELECT count(*) FROM tasks")
        with pytest.raises(Busy, match="holds a table") as refused:
            opened(tmp_path, older)
    assert refused.value.next_step.startswith("registry-backend schema upgrade")
    assert shape(older) == before


def test_the_command_upgrades(tmp_path, server, older, capsys):
    """A role that may not change tables is told of the command, which their owner runs by URL."""
    (tmp_path / "agents").mkdir()
    role = f"agents_{time.monotonic_ns()}"
    name = older.rpartition("/")[2]
    server.run(f"CREATE ROLE {role} LOGIN PASSWORD 'pw'", name)
    for grant in ("SELECT, INSERT, UPDATE, DELETE ON ALL TABLES", "UPDATE ON ALL SEQUENCES"):
        server.run(f"GRANT {grant} IN SCHEMA public TO {role}", name)
    server.run(f"GRANT SELECT, USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}", name)
    try:
        other = older.replace(older.partition("://")[2].partition("@")[0], f"{role}:pw")
        with pytest.raises(NotPermitted) as refused:
            opened(tmp_path / "agents", other)
        assert refused.value.next_step.startswith("registry-backend schema upgrade")
        assert main(["schema", "upgrade", older, "--json", "--workspace", str(tmp_path)]) == 0
        (said,) = json.loads(capsys.readouterr().out)["stores"]
        assert (said["store"], said["schema"]) == ("postgresql", "0002")
        assert "pw" not in str(said)
        with closing(opened(tmp_path / "agents", other)) as store:
            assert build.put(store, build.finding("t"), expected=None).chain
            with pytest.raises(NotPermitted):  # a new table has no grants
                leases_of(store).acquire_lease("health", "a", seconds=60)
            server.run(f"GRANT SELECT, INSERT, UPDATE ON leases TO {role}", name)
            assert leases_of(store).acquire_lease("health", "a", seconds=60)
    finally:
        server.run(f"DROP OWNED BY {role}", name)
        server.run(f"DROP ROLE {role}")


def test_the_command_upgrades_both_stores_of_a_move(workspace, place, database, capsys):
    """Without a URL it upgrades every store that the workspace uses."""
    switch(workspace, 2, target=place)
    as_before_chains(database)
    assert main(["schema", "upgrade", "--json", "--workspace", str(workspace)]) == 0
    said = json.loads(capsys.readouterr().out)["stores"]
    assert [(one["store"], one["schema"]) for one in said] == [("json", ""), ("postgresql", "0002")]
    with closing(open_store(settings(workspace))) as store:
        assert store.load("TASK-0")
    assert main(["verify", "--workspace", str(workspace)]) == 0


def test_the_command_makes_no_registry(tmp_path, database, capsys):
    """For a file or database without a registry it fails, and nothing is made."""
    file = tmp_path / "typo.sqlite3"
    for url in (f"sqlite://{file}", database):
        assert main(["schema", "upgrade", url, "--workspace", str(tmp_path)]) == 1
        assert "registry" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert shape(database) == []


def test_a_reader_of_older_tables_is_refused(older):
    """It is told what to do, and changes nothing."""
    before = shape(older)
    options = {"timeout": 5, "durable": True, "read_only": True, "create": False}
    with (
        closing(PostgresEngine(older, **options)) as engine,
        pytest.raises(SchemaTooOld) as refused,
    ):
        engine.prepare()
    assert refused.value.next_step == "registry-backend schema upgrade"
    assert shape(older) == before
