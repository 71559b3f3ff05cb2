"""What PostgreSQL adds: transactions that run at the same time, lost connections, refusals."""

import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from urllib.parse import urlsplit

import psycopg
import pytest

from backends.sql import schema
from backends.sql.postgresql import archive, tables
from backends.sql.postgresql import connection as connections
from backends.sql.postgresql.engine import PostgresEngine
from backends.sql.store import SqlStore
from contract_tests import build
from registry_api import find_capability, load_settings, open_store
from registry_api.errors import (
    BackendMismatch,
    Busy,
    NotPermitted,
    NotSupported,
    OutcomeUnknown,
    SchemaTooNew,
    SettingsError,
    Unavailable,
)
from registry_api.roles import ROLE, Role, RoleStamp
from tests.postgresql.server import standby


def opened(workspace, url, **options):
    settings = load_settings(workspace, env={}, backend=url, logs="off", **options)
    return open_store(settings, gated=False)


def engine_of(store):
    return find_capability(store, SqlStore)._engine


@pytest.fixture
def store(tmp_path, database):
    with closing(opened(tmp_path, database)) as store:
        yield store


@contextmanager
def holding(store, task_id):
    """Hold a write transaction on a task, with a number of the feed; gives its connection."""
    sql = find_capability(store, SqlStore)
    with sql._engine.writing(task_id) as connection:
        connection.execute("SELECT nextval('feed_number')").fetchone()
        yield connection


def numbers(store, after=None):
    return [c.cursor.number for c in store.changes(after)]


def in_background(call):
    """Start a call; return its thread and the list that gets its answer."""
    answers = []

    def run():
        try:
            answers.append(call())
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, answers


def test_the_engine_opens_the_version_of_the_schema():
    """The engine states it once more, so that opening a store imports no SQLAlchemy."""
    assert tables.VERSION == schema.VERSION


SHAPE = """
SELECT table_name, column_name, data_type, collation_name, is_nullable, ordinal_position::text
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT tablename, indexname, replace(indexdef, 'public.', ''), '', '', ''
FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT sequencename, data_type::text, '', '', '', ''
FROM pg_sequences WHERE schemaname = 'public'
ORDER BY 1, 2, 3
"""


def shape(url):
    with psycopg.connect(url) as connection:
        return connection.execute(SHAPE).fetchall()


def test_a_new_database_has_the_schema_of_all_migrations(tmp_path, server, database, store):
    """A new database has the same tables as one that Alembic upgrades step by step."""
    server.create_database("by_migrations")
    url = server.url("by_migrations")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)")
        connection.execute("INSERT INTO alembic_version VALUES ('0000')")
        connection.execute("CREATE TABLE meta ()")
    try:
        with psycopg.connect(url) as connection:
            connection.execute("DROP TABLE meta, alembic_version")
        options = {"timeout": 5, "durable": True, "read_only": False, "create": False}
        engine = PostgresEngine(url, **options)
        with closing(engine), engine._pool.lent() as connection, connection.transaction():
            tables.upgrade(connection)
        found = [row for row in shape(url) if row[0] != "alembic_version"]
        assert found == [row for row in shape(database) if row[0] != "alembic_version"]
        assert len(found) > 150
        with closing(opened(tmp_path, url)) as other:
            build.make(other, "t", build.agent("t"))
    finally:
        server.drop_database("by_migrations")


def test_the_feed_never_skips_a_transaction_that_commits_late(tmp_path, database, store):
    """A reader that meets the gap of an open transaction returns what is before it, and what is
    behind it only after the transaction has ended: with its line if it was committed.
    """
    build.make(store, "first")
    cursor = store.changes()[-1].cursor
    paused, go_on = threading.Event(), threading.Event()
    slow = opened(tmp_path, database)
    writing = engine_of(slow).writing

    @contextmanager
    def late(*task_ids, **options):
        with writing(*task_ids, **options) as connection:
            yield connection
            connection.await_answers()  # all is written but COMMIT
            paused.set()
            assert go_on.wait(60)

    engine_of(slow).writing = late
    thread, _ = in_background(lambda: build.make(slow, "late"))
    assert paused.wait(30)
    build.make(store, "quick")
    reader, seen = in_background(lambda: store.changes(cursor))
    time.sleep(0.3)
    assert seen == []  # it waits
    go_on.set()
    for t in (thread, reader):
        t.join(60)
    assert [c.changeset.task_id for c in seen[0]] == ["late", "quick"]
    assert [c.cursor.number for c in seen[0]] == sorted(c.cursor.number for c in seen[0])
    slow.close()


def test_a_reader_waits_for_a_gap_within_bounds(store, monkeypatch):
    """While a transaction stays open, a read of the feed ends in time, before the gap; after it was
    rolled back the gap is passed. The feed of one task does not wait.
    """
    monkeypatch.setattr("backends.sql.store._PATIENCE", 0.2)
    build.make(store, "first")
    cursor = store.changes()[-1].cursor
    with suppress(ArithmeticError), holding(store, "open"):
        build.make(store, "quick")
        assert [c.changeset.task_id for c in store.changes()] == ["first"]
        assert store.changes(cursor) == ()
        assert len(store.changes(task_id="quick")) == 1
        raise ArithmeticError  # rolls it back
    assert [c.changeset.task_id for c in store.changes(cursor)] == ["quick"]


def test_tasks_do_not_wait_for_each_other(tmp_path, database, store):
    """While a transaction on a task is open, other tasks are written and read; that task is read,
    and a second commit to it is Busy after its time limit.
    """
    for task in ("a", "b"):
        build.make(store, task, build.agent(task))
    quick = opened(tmp_path, database, lock_timeout=0.3)
    with closing(quick), holding(store, "a"):
        build.put(quick, build.report("b"), expected=None)
        assert quick.load("a").revision == 1
        with pytest.raises(Busy) as refused:
            build.put(quick, build.report("a"), expected=None)
        assert refused.value.next_step
        assert (quick.counts().total_agents, quick.load("b").revision) == (2, 2)
    build.put(store, build.report("a"), expected=None)


def test_a_fence_waits_for_open_transactions(store):
    """A transaction that read the old role is committed before the fence returns, and its task is
    among those that moved; none commits after it.
    """
    build.make(store, "t")
    sql = find_capability(store, SqlStore)
    with holding(store, "t") as connection:
        thread, moved = in_background(
            lambda: sql.fence(RoleStamp(role=Role.FENCED, writer="elsewhere"), {})
        )
        time.sleep(0.3)
        assert moved == []
        connection.execute("UPDATE tasks SET revision = 2 WHERE task_id = 't'")
    thread.join(30)
    assert moved[0]["t"].revision == 2
    with pytest.raises((BackendMismatch, Unavailable)):
        build.put(store, build.finding("t"), expected=None)
    sql.unfence(RoleStamp(role=Role.WRITER))
    assert RoleStamp.load(sql.read_stamp(ROLE)).role is Role.WRITER
    assert build.put(store, build.finding("t"), expected=None).revision == 3


def test_concurrent_writers_of_many_tasks(tmp_path, database, store):
    """Eight threads write to eight tasks: every commit is in the feed once, in an order that has
    no task's revisions swapped, and the counters are those of the records.
    """
    tasks = [f"t{n}" for n in range(8)]
    for task in tasks:
        build.make(store, task, build.agent(task))

    def work(task):
        for n in range(25):
            build.put(store, build.report(task, progress=n), build.finding(task), expected=None)

    started = [in_background(lambda t=t: work(t)) for t in tasks]
    seen, after = [], None
    while any(t.is_alive() for t, _ in started) or store.changes(after):
        page = store.changes(after)
        seen += page
        after = page[-1].cursor if page else after
    assert [a for _, a in started] == [[None]] * 8
    assert len({c.changeset.id for c in seen}) == len(seen) == 8 * 26
    for task in tasks:
        mine = [c.revision for c in seen if c.changeset.task_id == task]
        assert mine == list(range(1, 27))
    assert store.counts().records == {"task": 8, "agent": 8, "progress": 200, "finding": 200}


def test_a_connection_lost_while_idle_is_replaced(store, database):
    """After the server has ended the store's connections, the next call succeeds."""
    build.make(store, "t")
    store.load("t")
    with psycopg.connect(database, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert store.load("t").revision == 1
    assert build.put(store, build.finding("t"), expected=None).revision == 2


def test_too_many_threads_are_told(store, monkeypatch):
    """A store has a bounded number of connections; who gets none in time is Busy."""
    monkeypatch.setattr(engine_of(store)._pool, "_free", threading.BoundedSemaphore(1))
    monkeypatch.setattr(engine_of(store)._pool, "_timeout", 0.2)
    with engine_of(store).reading(), pytest.raises(Busy, match="connections"):
        store.counts()
    assert store.counts().total_tasks == 0


def test_a_commit_that_no_standby_has_is_unknown(own_server, tmp_path):
    """When the wait for a synchronous standby is cancelled, the commit is only on the primary: its
    caller learns that the outcome is unknown, and the retry finds out.
    """
    server = own_server()
    with closing(opened(tmp_path, server.url("postgres"))) as store:
        build.make(store, "t")
        server.run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        server.run("SELECT pg_reload_conf()")
        changeset = build.creating("u")
        thread, answers = in_background(lambda: store.commit(changeset))
        cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        while thread.is_alive():
            server.run(cancel)
            time.sleep(0.05)
        assert isinstance(answers[0], OutcomeUnknown)
        assert "standby" in answers[0].next_step
        # The retry finds it, and waits for the standby as well.
        thread, answers = in_background(lambda: store.commit(changeset))
        thread.join(0.5)
        assert thread.is_alive()
        while thread.is_alive():
            server.run(cancel)
            time.sleep(0.05)
        assert isinstance(answers[0], OutcomeUnknown)
        server.run("ALTER SYSTEM RESET synchronous_standby_names")
        server.run("SELECT pg_reload_conf()")
        assert store.commit(changeset).replayed


# -- what is refused -----------------------------------------------------------------------------


def changed(url, **parts):
    found = urlsplit(url)
    user, _, place = found.netloc.rpartition("@")
    name, _, password = user.partition(":")
    name, password = parts.get("name", name), parts.get("password", password)
    netloc = f"{name}:{password}@{parts.get('place', place)}"
    return found._replace(netloc=netloc, path=parts.get("path", found.path)).geturl()


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ({"password": "canary-word"}, SettingsError),
        ({"name": "nobody-here"}, SettingsError),
        ({"path": "/no_such_database"}, SettingsError),
        ({"place": "127.0.0.1:1"}, Unavailable),
        ({"place": "no-such-host.invalid:5432"}, Unavailable),
        ({"path": "/x?no_such_option=1"}, SettingsError),
    ],
    ids=["password", "role", "database", "port", "host", "option"],
)
def test_a_url_that_does_not_work_is_told(database, tmp_path, parts, error):
    """Each is a typed error with a next step, and without the password."""
    url = changed(database, **parts)
    with pytest.raises(error) as refused:
        opened(tmp_path, url)
    text = f"{refused.value} {refused.value.next_step}"
    assert refused.value.next_step
    assert "canary-word" not in text
    assert urlsplit(url).password not in text
    assert list(tmp_path.iterdir()) == []


def test_a_role_without_the_right_to_create_tables(server, database, tmp_path):
    """It is told, and nothing is created; after another role has created them and granted what is
    documented, it can write.
    """
    name = urlsplit(database).path[1:]
    role = f"agents_{name[-8:]}"
    server.run(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    server.run("REVOKE CREATE ON SCHEMA public FROM PUBLIC", name)
    try:
        url = changed(database, name=role, password="x")
        with pytest.raises(NotPermitted) as refused:
            opened(tmp_path, url)
        assert "create" in refused.value.next_step
        assert shape(database) == []
        opened(tmp_path, database).close()
        for grant in (
            "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES",
            "USAGE, SELECT, UPDATE ON ALL SEQUENCES",
        ):
            server.run(f"GRANT {grant} IN SCHEMA public TO {role}", name)
        with closing(opened(tmp_path, url)) as store:
            build.make(store, "t", build.agent("t"))
            assert store.counts().total_agents == 1
    finally:
        server.run(f"DROP OWNED BY {role}", name)
        server.run(f"DROP ROLE {role}")


def test_a_newer_schema_is_refused(store, database, tmp_path):
    """It is left unchanged."""
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaTooNew, match="9999"):
        opened(tmp_path, database)


def test_a_server_that_is_too_old_is_refused(database, tmp_path, monkeypatch):
    """The error names both versions."""
    monkeypatch.setattr(connections, "_OLDEST", 990000)
    with pytest.raises(NotSupported, match="99"):
        opened(tmp_path, database)


def test_another_encoding_is_refused(server, tmp_path):
    """A database that cannot hold every text is refused before anything is created in it."""
    server.run(
        "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    try:
        with pytest.raises(NotSupported, match="LATIN1"):
            opened(tmp_path, server.url("latin"))
        assert shape(server.url("latin")) == []
    finally:
        server.drop_database("latin")


def test_a_server_without_free_connections_is_told(own_server, tmp_path):
    """At max_connections a call is Unavailable, changes nothing, and works afterwards."""
    server = own_server(
        max_connections="12", superuser_reserved_connections="0", reserved_connections="0"
    )
    url = server.url("postgres")
    with closing(opened(tmp_path, url)) as store:
        build.make(store, "t")
        held = []
        try:
            while len(held) < 20:
                held.append(psycopg.connect(url))
        except psycopg.OperationalError:
            pass
        other = None
        with pytest.raises(Unavailable) as refused:
            other = opened(tmp_path, url)
        assert other is None
        assert "max_connections" in refused.value.next_step
        for connection in held:
            connection.close()
        with closing(opened(tmp_path, url)) as other:
            assert other.load("t").revision == 1


def test_a_standby_is_no_place_to_write(own_server, tmp_path):
    """A URL that names only a standby is refused for writing, and can be read."""
    server = own_server()
    with closing(opened(tmp_path, server.url("postgres"))) as store:
        build.make(store, "t")
    folder = tmp_path / "standby"
    folder.mkdir()
    with closing(standby(server, folder)) as copy:
        with pytest.raises(Unavailable):
            opened(tmp_path, copy.url("postgres"))
        settings = load_settings(tmp_path, env={}, backend=copy.url("postgres"), logs="off")
        with closing(open_store(settings, read_only=True)) as reader:
            assert reader.load("t").revision == 1


def test_opening_imports_no_sqlalchemy(database, tmp_path):
    """A new process that uses the store imports psycopg, but neither SQLAlchemy nor Alembic."""
    code = (
        "import sys; from registry_api import *; from contract_tests import build;"
        f"s = open_store(load_settings({str(tmp_path)!r}, env={{}}, backend={database!r}));"
        "build.make(s, 't'); s.list_tasks(); s.counts(); s.close();"
        "print([m for m in ('sqlalchemy', 'alembic') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "[]"


def test_every_kind_is_archived(store, tmp_path):
    """The archive holds every table of the schema but Alembic's."""
    assert set(archive._NAMES) == set(schema.metadata.tables)
