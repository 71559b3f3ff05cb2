"""``registry-backend compact``: expired lines of the feed are dropped in whatever store is used."""

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from backends.admin.cli import main
from contract_tests import build
from registry_api import MigrationPhase, Put, load_settings, open_migration, open_store

LONG_AGO = 40  # days


def long_ago():
    return datetime.now(UTC) - timedelta(days=LONG_AGO)


def opened(workspace, **options):
    settings = load_settings(workspace, env={"REGISTRY_RETIRE_SECONDS": "0.1"})
    return closing(open_store(settings, **options))


def compacted(workspace, capsys, *options):
    code = main(["compact", "--workspace", str(workspace), "--json", *options])
    return code, json.loads(capsys.readouterr().out)


def kept(store):
    """Return the revisions of the feed lines of both tasks."""
    return [c.revision for name in ("old", "older") for c in store.changes(task_id=name)]


def report_long_ago(store, name):
    """Write nine reports, as a program did then: none had expired."""
    for _ in range(9):
        store.commit(build.aged(name, [Put(build.report(name))], LONG_AGO))


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("REGISTRY_RETIRE_SECONDS", "0.1")
    with opened(tmp_path, now=long_ago) as store:
        for name in ("old", "older"):
            store.commit(build.aged(name, build.creating(name).ops, LONG_AGO, expected=0))
            report_long_ago(store, name)
    return tmp_path


def test_tasks_that_are_no_longer_written_are_compacted(workspace, capsys):
    """All but the newest line of each is dropped; a dry run drops none."""
    assert compacted(workspace, capsys, "--dry-run")[1]["lines"] == 18
    assert compacted(workspace, capsys)[1]["lines"] == 18
    with opened(workspace) as store:
        assert kept(store) == [10, 10]
        assert store.load("old").revision == 10
    assert compacted(workspace, capsys)[1]["lines"] == 0
    assert main(["compact", "--workspace", str(workspace)]) == 0
    assert "0 expired line(s) of the feed dropped" in capsys.readouterr().out


def test_in_a_move_the_store_in_use_is_compacted(workspace, capsys, tmp_path):
    """In each phase the writer of record is compacted, and both stores stay equal."""
    lmdb = pytest.importorskip("tests.lmdb_plugin")
    pytest.importorskip("lmdb", reason="lmdb is not installed")
    with pytest.MonkeyPatch.context() as patched:
        lmdb.install(tmp_path.with_name("plugin"), patched)
        settings = load_settings(workspace, env={"REGISTRY_RETIRE_SECONDS": "0.1"})
        # What was written in phases 1 and 2 is dropped from the target once that is in use.
        for phase, lines in ((1, 18), (2, 0), (3, 36), (4, 0)):
            with closing(open_migration(settings)) as migration:
                target = "lmdb" if phase == 1 else None
                migration.switch(MigrationPhase(phase), actor="test", target=target)
            assert (phase, compacted(workspace, capsys)[1]["lines"]) == (phase, lines)
            with opened(workspace, now=long_ago) as store:
                for name in ("old", "older"):
                    report_long_ago(store, name)
            assert (phase, compacted(workspace, capsys)[1]["lines"]) == (phase, 18)
            with closing(open_migration(settings)) as migration:
                assert not migration.verify().mismatches
        with opened(workspace) as store:
            assert store.info.name == "dual"
            assert kept(store) == [46, 46]


def test_json_says_that_it_keeps_its_feed(tmp_path, capsys):
    """In a JSON registry the command changes nothing and says what to do."""
    with closing(open_store(load_settings(tmp_path, env={}, backend="json"))) as store:
        build.make(store, "t")
    code, found = compacted(tmp_path, capsys)
    assert code != 0
    assert found["error"]["code"] == "not_supported"
    assert "sqlite" in found["error"]["next"]
