"""A task folder that is a symbolic link may lead to another user's files: no phase follows it."""

from contextlib import closing

import pytest

from contract_tests import build
from registry_api import load_settings, open_migration, open_store
from registry_api.errors import TaskNotFound, Unavailable
from registry_api.migration import MigrationPhase
from tests import legacy

FORWARD = (1, 2, 3, 4)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("REGISTRY_RETIRE_SECONDS", "0")
    found = tmp_path / "workspace"
    found.mkdir()
    legacy.write_task(found, "TASK-1", agents=[{"id": "a", "type": "x", "status": "running"}])
    return found


@pytest.fixture
def outside(tmp_path):
    """Another user's registry, with the same task id as the link."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    legacy.write_task(place, "TASK-9", agents=[{"id": "b", "type": "x", "status": "running"}])
    return place / "TASK-9" / "AGENT_REGISTRY.json"


def switch(workspace, *phases):
    with closing(open_migration(load_settings(workspace))) as migration:
        for phase in phases:
            migration.switch(MigrationPhase(phase), actor="test")


@pytest.mark.parametrize("phase", [0, 1, 2])
def test_a_create_under_a_link_is_refused(workspace, outside, phase):
    """A task whose folder is a link is refused: its target is not adopted, nothing in it changes,
    and the way to phase 4 leaves it alone."""
    switch(workspace, *FORWARD[:phase])
    (workspace / "TASK-9").symlink_to(outside.parent)
    before, mode = outside.read_bytes(), outside.stat().st_mode
    with closing(open_store(load_settings(workspace))) as store:
        with pytest.raises(Unavailable) as found:
            build.make(store, "TASK-9", build.agent("TASK-9"))
        assert "link" in found.value.message
        with pytest.raises(TaskNotFound):
            store.load("TASK-9")
        assert [t.task_id for t in store.list_tasks().items] == ["TASK-1"]
    switch(workspace, *FORWARD[phase:])
    assert (outside.read_bytes(), outside.stat().st_mode) == (before, mode)
    assert sorted(p.name for p in outside.parent.iterdir()) == sorted(
        p.name for p in (workspace / "TASK-9").iterdir()
    )


@pytest.mark.parametrize("phase", [0, 2])
def test_a_folder_that_becomes_a_link_is_not_followed(workspace, outside, phase):
    """An open store refuses writes to a known task whose folder was replaced by a link; the link's
    target stays as it is."""
    switch(workspace, *FORWARD[:phase])
    theirs = outside.read_bytes().replace(b"TASK-9", b"TASK-1")
    outside.write_bytes(theirs)
    with closing(open_store(load_settings(workspace))) as store:
        store.load("TASK-1")
        (workspace / "TASK-1").rename(workspace / ".moved")
        (workspace / "TASK-1").symlink_to(outside.parent)
        with pytest.raises(Unavailable):
            build.put(store, build.agent("TASK-1", "ours"), expected=1)
        assert outside.read_bytes() == theirs
        (workspace / "TASK-1").unlink()
        (workspace / ".moved").rename(workspace / "TASK-1")
        build.put(store, build.agent("TASK-1", "ours"), expected=1)
    switch(workspace, *FORWARD[phase:])
    assert outside.read_bytes() == theirs
