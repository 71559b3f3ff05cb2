"""backends.sql on SQLite: schema, plans, refusals, forks, foreign programs."""

import gc
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backends.sql import compiled, schema, upgrade
from backends.sql.sqlite import engine as sqlite
from backends.sql.sqlite.retirement import SqliteRetirement
from backends.sql.store import SqlStore
from contract_tests import build
from contract_tests.test_pages import CASES
from registry_api import (
    Kind,
    Put,
    RecordQuery,
    TaskQuery,
    TaskStatus,
    find_capability,
    load_settings,
    new_changeset,
    open_store,
)
from registry_api.errors import (
    Busy,
    CorruptDocument,
    OutcomeUnknown,
    ReadOnly,
    SchemaTooNew,
    SchemaTooOld,
    Unavailable,
)
from registry_api.records import make_cursor, next_chain


def opened(workspace, **options):
    settings = load_settings(workspace, env={}, backend="sqlite", logs="off", **options)
    return open_store(settings)


@pytest.fixture
def store(tmp_path):
    store = opened(tmp_path)
    yield store
    store.close()


def file_of(workspace):
    return workspace / ".registry" / "registry.sqlite3"


@pytest.mark.parametrize("name", compiled.FLAVOURS)
def test_the_generated_sql_is_current(name):
    """The files equal the output of `python -m backends.sql.compiled`."""
    path = Path(compiled.__file__).with_name(name)
    assert path.read_text() == compiled.render(compiled.FLAVOURS[name]())


def shape(path):
    """Return every table and index with its SQL, without white space."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master").fetchall()
    connection.close()
    return {name: re.sub(r"\s", "", sql or "") for name, sql in rows}


def test_a_new_file_has_the_schema_of_all_migrations(tmp_path, store):
    """A new file has the same tables as one that Alembic upgrades step by step."""
    upgrade.upgrade(tmp_path / "other")
    assert shape(file_of(tmp_path)) == shape(tmp_path / "other")


def test_the_engine_opens_the_version_of_the_schema():
    """The engine states it once more, so that opening a store imports no SQLAlchemy."""
    assert sqlite.VERSION == schema.VERSION


def a_next_version(monkeypatch, tmp_path, *lines):
    """Pretend that this version has one more migration."""
    scripts = tmp_path / "migrations"
    shutil.copytree(Path(upgrade.__file__).with_name("migrations"), scripts)
    (scripts / "versions" / "v0003_more.py").write_text(
        "from alembic import op\nimport sqlalchemy as sa\n"
        "revision, down_revision = '0003', '0002'\n"
        "def upgrade():\n"
        "    with op.batch_alter_table('tasks') as batch:\n"
        "        batch.add_column(sa.Column('mood', sa.Text))\n" + "".join(lines)
    )
    monkeypatch.setattr(upgrade, "__file__", str(tmp_path / "upgrade.py"))
    monkeypatch.setattr(sqlite, "VERSION", "0003")


def test_an_older_file_is_upgraded_on_opening(tmp_path, monkeypatch):
    """Opening a file runs the migrations that it lacks and keeps its data."""
    store = opened(tmp_path)
    build.make(store, "t", description="kept")
    store.close()
    a_next_version(monkeypatch, tmp_path)
    again = opened(tmp_path)
    assert again.load("t").task.description == "kept"
    build.put(again, build.finding("t"), expected=None)
    again.close()
    assert "mood" in shape(file_of(tmp_path))["tasks"]


def as_before_chains(path):
    """Make a file as version 0001 of the schema had it."""
    with closing(sqlite3.connect(path)) as connection:
        for table in ("tasks", "feed"):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN chain")
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
        connection.commit()


def test_a_file_without_chains_is_upgraded(tmp_path):
    """What was committed before has no chain, what is committed after the upgrade has one."""
    with closing(opened(tmp_path)) as store:
        build.make(store, "t", build.agent("t"))
    before = shape(file_of(tmp_path))
    as_before_chains(file_of(tmp_path))
    with pytest.raises(SchemaTooOld, match="has schema 0001, this version needs 0002") as refused:
        open_store(load_settings(tmp_path, env={}), read_only=True)
    assert refused.value.next_step == "registry-backend schema upgrade"
    with closing(opened(tmp_path)) as store:
        assert store.head("t").chain == store.changes()[0].chain == ""
        commit = build.put(store, build.report("t"), expected=None)
        assert commit.chain == next_chain("", 2, store.changes()[-1].digest)
    assert shape(file_of(tmp_path)) == before


def test_an_older_archive_is_upgraded_when_it_comes_back(tmp_path):
    """A move that began with an earlier version left an archive of its schema."""
    with closing(opened(tmp_path)) as store:
        build.make(store, "t", build.agent("t"))
    as_before_chains(file_of(tmp_path))
    options = {"timeout": 5, "durable": True, "read_only": False, "create": False}
    now = lambda: datetime.now(UTC)  # noqa: E731  (short)
    older = sqlite.SqliteEngine(file_of(tmp_path), **options)
    archive = SqliteRetirement(older, tmp_path / "archive", now).archive()
    older.close()
    again = sqlite.SqliteEngine(tmp_path / "again.sqlite3", **options)
    SqliteRetirement(again, tmp_path / "archive", now).reinstate(archive)
    again.close()
    assert shape(tmp_path / "again.sqlite3")["tasks"] == shape_of_new(tmp_path)["tasks"]


def shape_of_new(tmp_path):
    """Return the tables of a new file."""
    (tmp_path / "new").mkdir()
    opened(tmp_path / "new").close()
    return shape(file_of(tmp_path / "new"))


def test_the_chain_that_an_older_program_has_left_behind_does_not_count(tmp_path):
    """A program that was opened before the upgrade commits without a chain: it is unknown then."""
    with closing(opened(tmp_path)) as store:
        build.make(store, "t", build.agent("t"))
        with closing(sqlite3.connect(file_of(tmp_path))) as connection:
            connection.execute("UPDATE tasks SET revision = 2")
            connection.commit()
        assert store.head("t").chain == store.load("t").chain == ""
        assert build.put(store, build.report("t"), expected=None).chain.startswith("3.")


def is_open(path):
    """Return whether this process has a descriptor of the file."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor that lists the others
            found.add(link.readlink())
    return path in found


def test_an_upgrade_that_fails_changes_nothing(tmp_path, monkeypatch, store):
    """The file is unchanged and not kept open, even while the exception is still referenced."""
    store.close()
    before = shape(file_of(tmp_path))
    with monkeypatch.context() as patch:
        a_next_version(patch, tmp_path, "    raise ArithmeticError\n")
        with pytest.raises(ArithmeticError) as failed:
            opened(tmp_path)
    assert not is_open(file_of(tmp_path)), failed
    assert shape(file_of(tmp_path)) == before
    opened(tmp_path).close()


def test_a_newer_file_is_refused(tmp_path, store):
    """A file with a newer schema is left unchanged and not kept open."""
    store.close()
    connection = sqlite3.connect(file_of(tmp_path))
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(SchemaTooNew, match="9999") as refused:
        opened(tmp_path)
    assert not is_open(file_of(tmp_path)), refused


def test_what_is_no_database_is_named_and_left(tmp_path):
    """For a file that is not a database the error names it; the file is unchanged and not kept
    open, even while the exception is still referenced.
    """
    path = file_of(tmp_path)
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(CorruptDocument, match=r"registry\.sqlite3") as refused:
        opened(tmp_path)
    assert not is_open(path), refused
    assert path.read_bytes() == b"not a database" * 100


def test_reading_only_makes_nothing(tmp_path):
    """With read_only, opening creates no file, and a commit is refused."""
    settings = load_settings(tmp_path, env={}, backend="sqlite")
    with pytest.raises(Unavailable):
        open_store(settings, read_only=True)
    assert list(tmp_path.iterdir()) == []
    opened(tmp_path).close()
    with pytest.raises(ReadOnly):
        build.make(open_store(settings, read_only=True), "t")


def test_files_are_private(tmp_path, store):
    """The folder is 0700, the database 0600."""
    build.make(store, "t")
    assert file_of(tmp_path).stat().st_mode & 0o777 == 0o600
    assert file_of(tmp_path).parent.stat().st_mode & 0o777 == 0o700


def plans(store, call):
    """Return the query plans of the statements that a call executes."""
    seen = []
    with find_capability(store, SqlStore)._engine.reading() as connection:
        connection.set_trace_callback(seen.append)
    try:
        call()
    finally:
        with find_capability(store, SqlStore)._engine.reading() as connection:
            connection.set_trace_callback(None)
    with find_capability(store, SqlStore)._engine.reading() as connection:
        return [
            (sql, [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")])
            for sql in seen
            if sql.startswith("SELECT")
        ]


COMMON = [
    lambda s: s.load("t1"),
    lambda s: s.head("t1"),
    lambda s: s.changes(task_id="t1"),
    lambda s: s.list_tasks(),
    lambda s: s.list_tasks(TaskQuery(newest_first=True)),
    lambda s: s.list_tasks(TaskQuery(status=TaskStatus.ACTIVE)),
    lambda s: s.list_tasks(TaskQuery(since=build.T0)),
    lambda s: s.list_tasks(after=make_cursor(("2026", "t", ""))),
    lambda s: s.list_records(Kind.AGENT, RecordQuery(active=True)),
    lambda s: s.list_records(Kind.AGENT, RecordQuery(task_id="t1")),
    lambda s: s.list_records(Kind.PROGRESS, RecordQuery(task_id="t1", newest_first=True)),
    lambda s: s.list_records(Kind.PROGRESS, RecordQuery(task_id="t1", agent_id="a1")),
    lambda s: s.list_records(
        Kind.PROGRESS, RecordQuery(task_id="t1"), after=make_cursor(("2026", "t1", "x"))
    ),
    lambda s: s.list_records(Kind.FINDING, RecordQuery(severity="high", newest_first=True)),
    lambda s: s.list_records(Kind.FINDING, RecordQuery(since=build.T0)),
    lambda s: s.list_records(Kind.REVIEW, RecordQuery(task_id="t1")),
]


@pytest.mark.parametrize("call", COMMON, ids=range(len(COMMON)))
def test_no_common_query_scans_a_table(store, call):
    """Every plan searches an index or reads one in order; none sorts or scans a table."""
    build.make(store, "t1", build.agent("t1"), build.report("t1"), build.finding("t1"))
    found = plans(store, lambda: call(store))
    assert found
    for sql, steps in found:
        for step in steps:
            assert not re.fullmatch(r"SCAN \w+", step), (sql, step)
            ordered = "TEMP B-TREE" not in step or "RIGHT PART" in step
            # A task has few reviews: they may be sorted after a search by key.
            assert ordered or "reviews" in sql, (sql, step)


def test_every_filter_is_compiled(store):
    """Each filter in the contract tests' cases runs."""
    for kind, query, _ in CASES:
        store.list_records(kind, query)


def test_a_fork_uses_connections_of_its_own(tmp_path, store):
    """A child may use the store that it inherited, and the parent's store still works."""
    build.make(store, "t", build.agent("t"))
    pid = os.fork()
    if pid == 0:
        try:
            build.put(store, build.report("t", progress=50), expected=None)
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert store.load("t").agents[0].progress == 50
    build.put(store, build.report("t", progress=60), expected=None)
    assert opened(tmp_path).load("t").revision == 3


def test_a_store_that_nobody_closed_closes_before_its_connections_are_finalized(
    tmp_path, monkeypatch
):
    """The order in which the garbage collector finds them does not matter: Python 3.13 warns of a
    connection that is still open.
    """
    left_open = []

    class Watched(sqlite.Connection):
        def __del__(self):
            with suppress(sqlite3.ProgrammingError):  # it is closed
                left_open.append(self.total_changes)

    monkeypatch.setattr(sqlite, "Connection", Watched)
    store = opened(tmp_path)
    store.itself = store
    engine = find_capability(store, SqlStore)._engine
    seen, connection, reached_by = weakref.ref(engine), engine._idle[-1], {"store": store}
    del engine
    del store
    gc.collect()  # keeps stack references in place, moves the others behind them
    del connection, reached_by
    gc.collect()
    assert seen() is None
    assert left_open == []


def test_a_foreign_transaction_is_waited_for_within_bounds(tmp_path, store):
    """If another program holds SQLite's write lock without our writer queue, a commit raises Busy
    after its time limit, and succeeds later.
    """
    build.make(store, "t")
    quick = opened(tmp_path, lock_timeout=0.2)
    other = sqlite3.connect(file_of(tmp_path), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Busy):
        build.put(quick, build.finding("t"), expected=None)
    assert quick.load("t").revision == 1
    other.execute("ROLLBACK")
    other.close()
    build.put(quick, build.finding("t"), expected=None)


def test_a_full_disk_changes_nothing(tmp_path):
    """SQLITE_FULL becomes Unavailable, nothing of the changeset is stored, and a later commit
    works.
    """
    store = opened(tmp_path)
    build.make(store, "t")
    with find_capability(store, SqlStore)._engine.reading() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages + 3}")
    big = build.finding("t", message="x" * 1_000_000)
    before = store.load("t"), store.counts()
    with pytest.raises(Unavailable, match="full"):
        build.put(store, big, expected=None)
    assert (store.load("t"), store.counts()) == before
    build.put(opened(tmp_path), big, expected=None)


def test_opening_imports_no_sqlalchemy(tmp_path):
    """A new process imports sqlite3, but neither SQLAlchemy nor Alembic."""
    code = (
        "import sys; from registry_api import *; from contract_tests import build;"
        f"s = open_store(load_settings({str(tmp_path)!r}, env={{}}, backend='sqlite'));"
        "build.make(s, 't'); s.list_tasks(); s.counts();"
        "print([m for m in ('sqlalchemy', 'alembic') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "[]"


def test_a_durable_commit_is_synced_after_its_turn(tmp_path, monkeypatch):
    """Each commit syncs the WAL once, after it left the writer queue, while others commit; without
    durability nothing is synced.
    """
    synced, go = [], threading.Event()

    def sync(fd):
        synced.append(os.fstat(fd).st_ino)
        if len(synced) == 2:
            go.wait(20)

    monkeypatch.setattr(sqlite, "_datasync", sync)
    store, other = opened(tmp_path), opened(tmp_path)
    build.make(store, "t")
    slow = threading.Thread(
        target=build.put, args=(store, build.finding("t")), kwargs={"expected": None}
    )
    slow.start()
    while len(synced) < 2:
        time.sleep(0.001)
    build.put(other, build.finding("t"), expected=None)
    assert slow.is_alive()
    go.set()
    slow.join()
    assert synced == [file_of(tmp_path).with_name("registry.sqlite3-wal").stat().st_ino] * 3
    build.make(opened(tmp_path, durable=False), "u")
    assert len(synced) == 3


def test_a_failed_sync_is_never_called_durable_later(tmp_path, monkeypatch):
    """A failed sync raises OutcomeUnknown until a checkpoint has written the change to the
    database; then the same changeset is a replay.
    """
    real = sqlite._datasync

    def broken(fd):
        raise OSError(5, "Input/output error")

    store = opened(tmp_path)
    build.make(store, "t")
    change = new_changeset("t", [Put(build.finding("t"))], expected=None)
    monkeypatch.setattr(sqlite, "_datasync", broken)
    with pytest.raises(OutcomeUnknown):
        store.commit(change)
    reader = sqlite3.connect(file_of(tmp_path), isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM findings").fetchone() == (1,)
    monkeypatch.setattr(sqlite, "_datasync", real)
    build.put(opened(tmp_path), build.finding("t"), expected=None)
    with pytest.raises(OutcomeUnknown):  # the reader prevents a complete checkpoint
        store.commit(change)
    reader.close()
    assert store.commit(change).replayed
    alone = tmp_path / "alone.sqlite3"
    shutil.copy(file_of(tmp_path), alone)
    with closing(sqlite3.connect(alone)) as copy:
        assert copy.execute("SELECT count(*) FROM findings").fetchone() == (2,)


def test_a_device_is_no_registry(tmp_path):
    """A path that is not a file is refused, and its mode stays: root would set that of a device."""
    place = tmp_path / "folder"
    place.mkdir(mode=0o755)
    for path in (place, "/dev/null"):
        with pytest.raises(Unavailable, match="is not a file"):
            open_store(load_settings(tmp_path, env={}, backend=f"sqlite://{path}"), gated=False)
    assert place.stat().st_mode & 0o777 == 0o755
