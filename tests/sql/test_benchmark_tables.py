"""The benchmarks fill a registry by SQL, which must keep up with the tables."""

from benchmarks.raw import RawStore
from benchmarks.reads import _grow
from benchmarks.work import create, opened
from registry_api import Kind, RecordQuery, TaskStatus


def test_a_registry_that_the_benchmarks_fill_is_one(tmp_path):
    """The store reads the tasks and counts that were written by SQL; once a new column broke it."""
    with opened(tmp_path) as store:
        create(store, "t", 1)
        _grow(RawStore(tmp_path, full=False), 0, 100)
        assert store.counts().total_tasks == 101
        assert store.counts().tasks[TaskStatus.COMPLETED] == 80
        assert len(store.list_tasks(limit=1000).items) == 101
        found = store.list_records(Kind.AGENT, RecordQuery(active=True), limit=1000).items
        assert len(found) == store.counts().active_agents == 21
        assert store.load("TASK-0000100").status is TaskStatus.COMPLETED
