"""Files that do not hold a registry are named with their place and unchanged; the rest is read."""

import json
import os

import pytest

from backends.json_files.read_only_store import JsonView
from backends.jsonl.times import Times
from registry_api import Kind
from registry_api.errors import ReadOnly
from tests.legacy import write_task

GOOD = {"task_id": "TASK-bad", "agents": [], "status": "INITIALIZED"}
TEXT = json.dumps(GOOD, indent=2).encode()


def view(workspace):
    return JsonView(workspace, times=Times.named("UTC"))


BAD = {
    "empty": (b"", "empty"),
    "blank": (b" \n ", "empty"),
    "truncated": (TEXT[:-5], "at byte"),
    "two documents": (TEXT + TEXT, f"Extra data at byte {len(TEXT)}"),
    "NUL tail": (TEXT + b"\x00" * 9, f"Extra data at byte {len(TEXT)}"),
    "NUL head": (b"\x00" + TEXT[1:], "at byte 0"),
    "UTF-16": (TEXT.decode().encode("utf-16"), "UTF-16, not UTF-8, at byte 0"),
    "duplicate keys": (
        b'{"task_id": "TASK-bad", "task_id": "x"}',
        "the key 'task_id' appears twice in one object",
    ),
    "NaN": (b'{"task_id": "TASK-bad", "progress": NaN}', "NaN is not a JSON number"),
    "surrogate": (b'{"task_id": "TASK-bad", "x": "\\ud800"}', "lone surrogate"),
    "deep": (b'{"task_id": "TASK-bad", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}", "deeper than"),
    "list": (b"[]", "a JSON list instead of an object"),
    "null": (b"null", "a JSON NoneType instead"),
    "catalogue": (b'{"agents": [{"name": "poet"}]}', "not the registry of a task"),
    "another task": (b'{"task_id": "../up"}', "names task '../up'"),
}


@pytest.mark.parametrize(("data", "what"), BAD.values(), ids=BAD)
def test_a_bad_document_is_named_and_left(tmp_path, data, what):
    """The problem names file and position; the file is unchanged; the other task is read."""
    write_task(tmp_path, "TASK-good", agents=[{"id": "a", "status": "working"}])
    write_task(tmp_path, "TASK-bad")
    path = tmp_path / "TASK-bad" / "AGENT_REGISTRY.json"
    path.write_bytes(data)
    store = view(tmp_path)
    assert [t.task_id for t in store.list_tasks().items] == ["TASK-good"]
    (problem,) = store.problems()
    assert str(path) in problem
    assert what in problem
    assert path.read_bytes() == data


def test_what_is_no_file_is_named(tmp_path):
    """A folder or link in place of the document, a linked folder, a folder without a document."""
    (tmp_path / "elsewhere").mkdir()
    write_task(tmp_path, "elsewhere/TASK-real")
    (tmp_path / "TASK-linked").symlink_to(tmp_path / "elsewhere" / "TASK-real")
    (tmp_path / "TASK-folder" / "AGENT_REGISTRY.json").mkdir(parents=True)
    (tmp_path / "TASK-link").mkdir()
    (tmp_path / "TASK-link" / "AGENT_REGISTRY.json").symlink_to(
        tmp_path / "elsewhere" / "TASK-real" / "AGENT_REGISTRY.json"
    )
    (tmp_path / "TASK-empty").mkdir()
    write_task(tmp_path, "not an id")
    os.mkfifo(tmp_path / "TASK-empty" / "fifo")
    problems = view(tmp_path).problems()
    for name, what in {
        "TASK-linked": "link to a folder",
        "TASK-folder": "not a regular file",
        "TASK-link/": "a symbolic link, not read",
        "TASK-empty": "without a registry",
        "not an id": "not a task id",
    }.items():
        assert any(f"/{name}" in p and what in p for p in problems), (name, problems)
    assert len(problems) == 5
    assert view(tmp_path).list_tasks().items == ()


def test_bad_elements_are_named_and_the_rest_is_read(tmp_path):
    """In a document: invalid ids, repeated agents, and values that are not lists."""
    write_task(
        tmp_path,
        "TASK-1",
        agents=[{"id": "../up"}, {"id": "a"}, {"id": "a"}, 7, {"no": "id"}],
        phases={"a": 1},
        reviews=[{"review_id": ""}],
    )
    store = view(tmp_path)
    assert [a.agent_id for a in store.load("TASK-1").agents] == ["a"]
    assert len(store.problems()) == 6


def test_bad_lines_are_named_and_the_rest_is_read(tmp_path):
    """In a log: invalid JSON, no object, no time, no id, a torn last line, a copy, a link."""
    folder = write_task(tmp_path, "TASK-1", agents=[{"id": "a"}])
    good = b'{"timestamp": "2026-01-04T22:15:30", "agent_id": "a", "progress": "much"}\n'
    log = folder / "progress" / "a_progress.jsonl"
    lines = [
        good,
        b"garbage\n",
        b"[1]\n",
        b'{"agent_id": "a"}\n',
        b'{"timestamp": "2026-01-04T22:15:30", "agent_id": "../a"}\n',
        b"\n",
        good,
        good[:20],
    ]
    log.write_bytes(b"".join(lines))
    (folder / "archive").mkdir()
    (folder / "archive" / "a_progress.jsonl").write_bytes(good)
    (folder / "findings" / "b_findings.jsonl").symlink_to(log)
    store = view(tmp_path)
    entries = store.list_records(Kind.PROGRESS).items
    assert [e.extra for e in entries] == ['{"progress":"much"}'] * 2
    assert len({e.entry_id for e in entries}) == 2
    problems = store.problems()
    start = len(good)
    for position in (start, start + 8, start + 12):
        assert any(f"at byte {position}: " in p for p in problems)
    for what in ("torn last line", "a copy of another log", "cannot be read"):
        assert any(what in p for p in problems)
    assert len(problems) == 7


def test_a_torn_global_file_is_named(tmp_path):
    """Nothing depends on GLOBAL_REGISTRY.json: if it is torn, it is only named."""
    write_task(tmp_path, "TASK-1")
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "GLOBAL_REGISTRY.json").write_text('{"tasks": ')
    store = view(tmp_path)
    assert store.stored_counts() == {}
    assert "GLOBAL_REGISTRY.json: cannot be read" in store.problems()[0]
    assert store.counts().total_tasks == 1


def test_a_task_listed_but_missing_is_named(tmp_path):
    """A task that only the global file lists is not counted, but named."""
    (tmp_path / "registry").mkdir()
    listed = {"total_tasks": 1, "tasks": {"TASK-gone": {}}}
    (tmp_path / "registry" / "GLOBAL_REGISTRY.json").write_text(json.dumps(listed))
    store = view(tmp_path)
    assert store.counts().total_tasks == 0
    assert "TASK-gone" in store.problems()[0]


def test_a_view_writes_nothing(tmp_path):
    """A view refuses commits and creates no file."""
    from contract_tests import build

    write_task(tmp_path, "TASK-1")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ReadOnly):
        build.make(view(tmp_path), "t")
    assert sorted(tmp_path.rglob("*")) == before
