"""The server's function that commits a report: it does what any other commit does, or nothing."""

import random
import time
import uuid
from contextlib import closing
from dataclasses import replace

import psycopg
import pytest

from backends.sql.postgresql.report_function import CALL, CREATE
from backends.sql.rows import codec
from contract_tests import build
from registry_api import (
    Kind,
    MoveTarget,
    Put,
    RecordQuery,
    find_capability,
    load_settings,
    new_changeset,
    open_store,
)
from registry_api.errors import (
    BackendMismatch,
    Busy,
    IdempotencyMismatch,
    InvalidChangeset,
    OutcomeUnknown,
    RecordExists,
    TaskNotFound,
)
from registry_api.roles import ROLE, Role, RoleStamp
from tests.postgresql.test_engine import engine_of, holding, opened, store

__all__ = ["store"]


@pytest.fixture
def done(store, monkeypatch):
    """What the function answered, for each call of it; None where it did nothing."""
    answers, engine = [], engine_of(store)
    report = engine.report

    def noted(task_id, values):
        answers.append(report(task_id, values))
        return answers[-1]

    monkeypatch.setattr(engine, "report", noted)
    build.make(store, "t", build.agent("t"))
    return answers


def reporting(*, task_id="t", **fields):
    """Return a changeset with one report of an agent."""
    fields = {"status": "running", **fields}  # as its agent has it
    return new_changeset(task_id, [Put(build.report(task_id, **fields))], expected=None)


def test_a_report_takes_one_statement(store, done):
    """The commit says what the feed says; record, agent, counts and revision follow."""
    entry = build.report("t", status="running", progress=42, message="half")
    told = build.put(store, entry, expected=None)
    assert done == [(told.lineage, 2, told.cursor.number, told.cursor.feed_id, told.chain)]
    (change,) = store.changes(task_id="t", limit=1, after=store.changes(task_id="t")[0].cursor)
    assert (change.cursor, change.revision, change.lineage) == (told.cursor, 2, told.lineage)
    assert change.chain == store.head("t").chain == told.chain
    snapshot = store.load("t")
    assert (snapshot.revision, snapshot.latest) == (2, (entry,))
    (agent,) = snapshot.agents
    assert (agent.progress, agent.last_update) == (42, entry.timestamp)
    assert store.list_records(Kind.PROGRESS, RecordQuery(task_id="t")).items == (entry,)
    assert store.counts().records[Kind.PROGRESS] == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"agent_id": "unknown"},
        {"status": "blocked"},
        {"status": "completed", "progress": 100},
        {"foreign": True},
    ],
)
def test_what_it_does_not_do_is_done_as_ever(store, done, fields):
    """A report of an unknown agent, one that changes its agent's status, and one of another program
    are committed by the rules, not by the function.
    """
    entry = build.report("t", **fields)
    assert build.put(store, entry, expected=None).revision == 2
    assert set(done) <= {None}
    assert store.list_records(Kind.PROGRESS, RecordQuery(task_id="t")).items == (entry,)


def test_the_same_report_again(store, done):
    """A changeset is applied once, and refused with other content; an entry's id is used once."""
    changeset = reporting(entry_id="e1")
    first = store.commit(changeset)
    again = store.commit(changeset)
    assert again == replace(first, replayed=True)
    other = replace(changeset, ops=(Put(build.report("t", entry_id="e2")),))
    with pytest.raises(IdempotencyMismatch):
        store.commit(other)
    with pytest.raises(RecordExists):
        store.commit(reporting(entry_id="e1"))
    assert done == [done[0], None, None, None]
    assert store.head("t").revision == 2
    assert len(store.changes()) == 2


def test_a_task_that_is_not_there(store, done):
    """It is refused as by any other commit."""
    with pytest.raises(TaskNotFound):
        store.commit(reporting(task_id="u"))
    assert store.counts().total_tasks == 1


def test_a_role_that_has_changed(store, done):
    """A store that was fenced since the last commit refuses the report; the writer accepts it."""
    sql = find_capability(store, type(store.inner)) or store
    stamp = RoleStamp(role=Role.FENCED, registry="r", workspace="/w", writer="other", epoch=3)
    sql.write_stamp(ROLE, stamp.dump())
    with pytest.raises(BackendMismatch, match="other"):
        store.commit(reporting())
    sql.write_stamp(ROLE, replace(stamp, role=Role.WRITER, writer="").dump())
    assert store.commit(reporting()).revision == 2
    assert store.commit(reporting()).revision == 3
    assert [bool(answer) for answer in done] == [False, False, True]


def test_numbers_of_another_store_are_not_drawn_again(store, done, database):
    """After a move has written numbers above the sequence, a report gets a higher one."""
    with psycopg.connect(database) as connection:
        connection.execute(
            "INSERT INTO meta VALUES ('last_number', '1000') ON CONFLICT (name) "
            "DO UPDATE SET value = '1000'"
        )
    assert store.commit(reporting()).cursor.number == 1001
    assert store.commit(reporting()).cursor.number == 1002
    assert [bool(answer) for answer in done] == [False, True]


def test_a_locked_task_makes_it_busy(tmp_path, database, done):
    """While another transaction holds the task, the report is Busy and nothing has happened."""
    with closing(opened(tmp_path, database, lock_timeout=0.3)) as quick:
        quick.commit(reporting())
        with holding(quick, "t"), pytest.raises(Busy):
            quick.commit(reporting())
        assert quick.head("t").revision == 2
        assert quick.commit(reporting()).revision == 3


def test_an_answer_that_is_lost(store, done, database, monkeypatch):
    """The caller learns that the outcome is unknown; the same changeset again finds the commit."""
    engine, changeset = engine_of(store), reporting()
    lent = engine._pool.lent

    class Lost:
        """A connection that is lost after the statement has been done."""

        def __init__(self, inner):
            self._inner = inner

        def __getattr__(self, name):
            return getattr(self._inner, name)

        def execute(self, *args):
            self._inner.execute(*args)
            raise psycopg.OperationalError("consuming input failed: server closed the connection")

    class Lending:
        def __enter__(self):
            self._context = lent()
            return Lost(self._context.__enter__())

        def __exit__(self, *error):
            return self._context.__exit__(*error)

    with monkeypatch.context() as patch:
        patch.setattr(engine._pool, "lent", Lending)
        with pytest.raises(OutcomeUnknown):
            store.commit(changeset)
    assert store.commit(changeset).replayed
    assert store.head("t").revision == 2


def test_an_id_of_the_future_is_refused(store, done):
    """The time in a changeset's id counts as for any other commit."""
    in_three_days = int(1000 * (time.time() + 3 * 86400))
    ahead = uuid.UUID(int=in_three_days << 80 | 7 << 76 | 2 << 62)
    with pytest.raises(InvalidChangeset):
        store.commit(replace(reporting(), id=ahead))
    assert done == []
    assert store.head("t").revision == 1


def test_the_first_number_of_a_moved_registry(tmp_path, store, database):
    """A registry of one change is moved here: its number 1 is not drawn again."""
    with closing(open_store(load_settings(tmp_path, env={}, backend="memory"))) as source:
        build.make(source, "t", build.agent("t"))
        find_capability(store, MoveTarget).apply_all(source.changes())
    assert [store.commit(reporting()).cursor.number for _ in range(2)] == [2, 3]


def test_tables_without_the_function(store, done, database):
    """Where the function is missing, reports are committed as any other changeset."""
    with psycopg.connect(database) as connection:
        connection.execute("DROP FUNCTION registry_report_2")
    for revision in (2, 3):
        assert store.commit(reporting()).revision == revision
    assert done == [None]  # it is not asked for again


def test_both_ways_give_the_same_registry(store, done, tmp_path, server, database):
    """The same random reports, with and without the function: the same records, counts, agents and
    feed, but for the ids that are made anew.
    """
    other_url = server.url(name := "other_way")
    server.create_database(name)
    try:
        with closing(opened(tmp_path, other_url)) as other:
            engine_of(other).report = lambda *_: None
            build.make(other, "t", build.agent("t"))
            rng = random.Random(7)
            for _ in range(200):
                status = rng.choice(["running"] * 6 + ["blocked", "working"])
                agent = rng.choice(["a1", "a1", "a1", "a9"])
                changeset = reporting(
                    agent_id=agent, status=status, progress=rng.randrange(101), message=status
                )
                assert store.commit(changeset).revision == other.commit(changeset).revision
            one, two = store.load("t"), other.load("t")
            assert replace(one, lineage="", updated_at=two.updated_at) == replace(two, lineage="")
            assert store.counts() == other.counts()
            assert [c.changeset for c in store.changes(limit=1000)][1:] == [
                c.changeset for c in other.changes(limit=1000)
            ][1:]
    finally:
        server.drop_database(name)
    assert 50 < len([answer for answer in done if answer]) < 200


def test_it_takes_every_column_of_a_report():
    """A column that is added to the records is added to the function, or it would be left empty."""
    columns = set(codec(Kind.PROGRESS).columns) - {"foreign"}  # such a report goes the other way
    for column in columns:
        assert f"p_{column} => %({column})s" in CALL
        assert CREATE.count(f"p_{column}") >= 3  # as a parameter, and in both tables
