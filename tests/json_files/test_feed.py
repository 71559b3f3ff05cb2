"""The feed of the JSON store, over the journals of all tasks."""

from contextlib import closing

from backends.json_files.store import JsonFilesStore
from contract_tests import build
from registry_api import load_settings, open_store
from tests import legacy


def test_a_task_created_while_the_feed_is_read(tmp_path, monkeypatch):
    """A task that another process creates between the first look at the tasks and the bound of
    what is served is not skipped, although an older task has a higher number by then."""
    legacy.write_task(tmp_path, "TASK-1", agents=[{"id": "a1", "type": "x", "status": "running"}])
    settings = load_settings(tmp_path, env={})
    with closing(open_store(settings)) as reader, closing(open_store(settings)) as writer:
        before = reader.changes()
        bound = JsonFilesStore._settled_feed

        def later(self):
            monkeypatch.setattr(JsonFilesStore, "_settled_feed", bound)
            build.make(writer, "TASK-2")
            build.put(writer, build.report("TASK-1"), expected=None)
            return bound(self)

        monkeypatch.setattr(JsonFilesStore, "_settled_feed", later)
        found = reader.changes(before[-1].cursor)
        assert [c.changeset.task_id for c in found] == ["TASK-2", "TASK-1"]
        assert reader.changes(found[-1].cursor) == ()
