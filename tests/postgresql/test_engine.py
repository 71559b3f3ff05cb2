"""What PostgreSQL adds: transactions that run at the same time, lost connections, refusals."""

import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from types import SimpleNamespace
from urllib.parse import urlsplit

import psycopg
import pytest

from backends.sql import schema
from backends.sql.postgresql import archive, tables
from backends.sql.postgresql import connection as connections
from backends.sql.postgresql.engine import PostgresEngine
from backends.sql.postgresql.failures import failed_commit
from backends.sql.store import SqlStore
from contract_tests import build
from registry_api import Kind, RecordQuery, find_capability, load_settings, open_store
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
            # Each waits until the session has ended: before that, its connection looks well.
            "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity "
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


def test_what_each_of_several_hosts_says_is_told(database, tmp_path):
    """While one of several hosts cannot be reached, a retry may help, also where another refuses
    the password: it may not know the role yet. It does not help where all refuse it."""
    place = urlsplit(database).netloc.rpartition("@")[2]
    mixed = changed(database, password="wrong", place=f"127.0.0.1:1,{place}")
    with pytest.raises(Unavailable) as refused:
        opened(tmp_path, mixed)
    assert "port 1 failed: Connection refused" in refused.value.message
    assert "password authentication failed" in refused.value.message
    refusing = changed(database, password="wrong", place=f"{place},{place}")
    with pytest.raises(SettingsError, match="password authentication failed"):
        opened(tmp_path, refusing)


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
        assert "owner" in refused.value.next_step
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
        # Without the function, reports are committed as any other changeset.
        server.run("REVOKE EXECUTE ON FUNCTION registry_report_2 FROM PUBLIC", name)
        with closing(opened(tmp_path, url)) as store:
            for revision in (2, 3, 4):
                report = build.report("t", status="running")
                assert build.put(store, report, expected=None).revision == revision
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
    server = own_server(max_connections="12", superuser_reserved_connections="0")
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
    # A lease holds only while its store is in use.
    assert {*archive._NAMES, "leases"} == set(schema.metadata.tables)


# -- what an attack found ------------------------------------------------------------------------


def test_settings_of_the_role_do_not_weaken_the_store(server, database, tmp_path):
    """The isolation, durability and warnings that a commit depends on are set for each connection,
    whatever the database or the role sets: else a commit gets past a fence, or is lost in a crash.
    """
    name = urlsplit(database).path[1:]
    for setting in (
        "default_transaction_isolation = 'serializable'",
        "synchronous_commit = off",
        "client_min_messages = error",
    ):
        server.run(f"ALTER DATABASE {name} SET {setting}")
    wanted = {
        "transaction_isolation": "read committed",
        "synchronous_commit": "on",
        "client_min_messages": "warning",
        "idle_in_transaction_session_timeout": "30s",
    }
    with closing(opened(tmp_path, database)) as store:
        with engine_of(store).writing("t") as connection:
            shown = {n: connection.execute(f"SHOW {n}").fetchone()[0] for n in wanted}
        assert shown == wanted
        build.make(store, "t", build.agent("t"))

        def work():
            for _ in range(20):
                build.put(store, build.report("t"), expected=None)

        started = [in_background(work) for _ in range(4)]
        for thread, _ in started:
            thread.join(60)
        assert [a for _, a in started] == [[None]] * 4
    fast = opened(tmp_path, database, durable=False)
    with closing(fast), engine_of(fast).reading(once=True) as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("off",)


def test_the_server_gives_up_a_lost_network_as_soon_as_the_client(server, database, tmp_path):
    """What neither the server, the database nor the role sets is as in the URL."""
    server.run(f"ALTER DATABASE {urlsplit(database).path[1:]} SET tcp_keepalives_interval = 9")
    names = "tcp_user_timeout tcp_keepalives_idle tcp_keepalives_interval tcp_keepalives_count"
    for query, wanted in (
        ("", ["15000", "10", "9", "3"]),
        ("?tcp_user_timeout=3000&keepalives_count=2", ["3000", "10", "9", "2"]),
        ("?tcp_user_timeout=-1&keepalives=0", ["0", "7200", "9", "9"]),
    ):
        store = opened(tmp_path, database + query)
        with closing(store), engine_of(store).reading(once=True) as connection:
            shown = [connection.execute(f"SHOW {n}").fetchone()[0] for n in names.split()]
        assert shown == wanted


def test_many_programs_open_an_empty_database_at_once(database, tmp_path):
    """All of them succeed; the tables are created once."""
    started = [in_background(lambda: opened(tmp_path, database)) for _ in range(8)]
    for thread, _ in started:
        thread.join(60)
    stores = [answers[0] for _, answers in started]
    assert [s for s in stores if isinstance(s, Exception)] == []
    build.make(stores[0], "t")
    for store in stores:
        assert store.load("t").revision == 1
        store.close()


def test_a_standby_refuses_what_it_cannot_tell(own_server, tmp_path):
    """A reader of the whole feed on a standby is refused at a gap: the open transactions of the
    primary are not known there. The feed of one task is read.
    """
    server = own_server()
    folder = tmp_path / "standby"
    folder.mkdir()
    with closing(opened(tmp_path, server.url("postgres"))) as store:
        build.make(store, "t")
        with closing(standby(server, folder)) as copy:
            with holding(store, "open"):
                build.make(store, "later")
                settings = load_settings(tmp_path, env={}, backend=copy.url("postgres"), logs="off")
                with closing(open_store(settings, read_only=True)) as reader:
                    assert len(reader.changes(task_id="later")) == 1
                    with pytest.raises(NotSupported, match="standby"):
                        reader.changes()
            build.put(store, build.finding("t"), expected=None)


def test_a_table_that_was_restored_keeps_writers_apart(store, database, tmp_path):
    """Locks name the table that is there now, not the one that a store has seen first."""
    build.make(store, "t")
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE restored (LIKE meta INCLUDING ALL)")
        connection.execute("INSERT INTO restored SELECT * FROM meta")
        connection.execute("DROP TABLE meta")
        connection.execute("ALTER TABLE restored RENAME TO meta")
    quick = opened(tmp_path, database, lock_timeout=0.3)
    with closing(quick), holding(store, "t"), pytest.raises(Busy):
        build.put(quick, build.finding("t"), expected=None)


def test_any_severity_is_kept(store):
    """A text that no index can hold is stored, found by its filter, and loaded."""
    severity = "".join(chr(33 + (7 * n * n) % 93) for n in range(20_000))
    build.make(store, "t", build.agent("t"))
    build.put(store, build.finding("t", severity=severity), expected=None)
    found = store.list_records(Kind.FINDING, RecordQuery(severity=severity)).items
    assert [f.severity for f in found] == [severity]


def test_a_statement_larger_than_the_socket_takes_is_sent_whole(store):
    """The answer is not waited for while a part of the statement is still on this side."""
    with engine_of(store).writing("t") as connection:
        cursor = connection.execute(
            "CREATE TEMPORARY TABLE wide AS SELECT %s AS text", ["x" * 2**26]
        )
        connection.answer_within(10)
        connection.await_answers()
        assert cursor.rowcount == 1


def test_an_archive_takes_as_long_as_it_takes(database, tmp_path):
    """The time limit of statements does not hold for an archive, its removal and its return."""
    with closing(opened(tmp_path, database)) as store:
        build.make(store, "t", build.agent("t"))
        findings = [build.finding("t", message="x" * 2000) for _ in range(5000)]
        build.put(store, *findings, expected=None)
    slow = f"{database}?options=-c%20statement_timeout%3D40"
    source = find_capability(opened(tmp_path, slow), SqlStore)
    archive = source.archive()
    source.retire(archive, wait=0, patience=0, now=lambda _: None)
    again = find_capability(opened(tmp_path, slow), SqlStore)
    again.reinstate(archive)
    again.close()
    with closing(opened(tmp_path, database)) as store:
        assert store.counts().records["finding"] == 5000


def test_a_gap_that_is_known_to_stay_is_not_waited_for(store, monkeypatch):
    """A reader passes a gap that it has waited for once, also while transactions are open."""
    build.make(store, "first")
    with suppress(ArithmeticError), holding(store, "open"):
        raise ArithmeticError
    build.make(store, "second")
    cursor = store.changes(limit=1)[-1].cursor
    assert len(store.changes(cursor)) == 1
    monkeypatch.setattr("backends.sql.store._PATIENCE", 0.0)
    with holding(store, "open"):
        assert [c.changeset.task_id for c in store.changes(cursor)] == ["second"]


def test_what_was_dropped_from_the_feed_is_never_said_to_be_there(store):
    """The number up to which lines were dropped only rises, whoever writes it last."""
    sql = find_capability(store, SqlStore)
    for number in ("7", "4", "11", "9"):
        with sql._writing("t") as execute:
            execute("raise_meta", name="feed_floor", value=number)
    with sql._reading() as execute:
        assert sql._feed(execute).floor == 11


def test_batches_of_many_tasks_do_not_wait_for_each_other_in_a_circle(database, tmp_path):
    """Replicas that apply the changes of many tasks in different orders do not deadlock."""
    with closing(open_store(load_settings(tmp_path, env={}, backend="memory"))) as source:
        tasks = [f"t{n}" for n in range(40)]
        for task in tasks:
            build.make(source, task, build.agent(task))
        feed = source.changes(limit=1000)
    stores = [find_capability(opened(tmp_path, database), SqlStore) for _ in range(4)]
    stores[0].apply(feed[0])
    batches = [feed[1::2], feed[:1:-2], feed[2::2], feed[::-1]]
    started = [
        in_background(lambda s=s, b=b: s.apply_all(b)) for s, b in zip(stores, batches, strict=True)
    ]
    for thread, _ in started:
        thread.join(60)
    assert [a for _, a in started] == [[None]] * 4
    assert stores[0].counts().records == {"task": 40, "agent": 40}
    for store in stores:
        store.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:pa@canary-word@127.0.0.1:1/d",
        "postgresql://u:pa/canary-word@127.0.0.1:1/d",
        "postgresql://u:pa?canary-word=1@127.0.0.1:1/d",
        "postgresql://u@127.0.0.1:1/d?passsword=canary-word",
    ],
)
def test_a_password_that_is_not_encoded_is_not_shown(url, tmp_path):
    """It is refused before libpq reads a part of it as a host or a parameter."""
    with pytest.raises(SettingsError) as refused:
        opened(tmp_path, url)
    assert "canary-word" not in f"{refused.value} {refused.value.next_step}"


@pytest.mark.parametrize(("severity", "kind"), [("ERROR", Unavailable), ("PANIC", OutcomeUnknown)])
def test_a_server_that_ends_in_a_commit_leaves_it_unknown(severity, kind):
    """A full disk that is answered with an error has stopped the commit; with a PANIC, which ends
    the server, the commit may have been written before. (On a full disk of a real server: PANIC.)
    """

    class DiskFull(psycopg.errors.DiskFull):
        diag = SimpleNamespace(severity_nonlocalized=severity)

    told = failed_commit(DiskFull("No space left on device"), "postgresql://here/db")
    assert type(told) is kind
    assert told.next_step
