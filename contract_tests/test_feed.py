"""Semantics 6: the feed holds every commit, in order, and resumes from any cursor."""

from __future__ import annotations

import threading

import pytest

from contract_tests import build
from contract_tests.harness import Harness
from registry_api import Change, FeedCursor, Put, errors, follow, new_changeset


def test_every_commit_is_in_the_feed(harness: Harness) -> None:
    """Semantics 6: the feed has one line per commit, with the changeset as it was applied."""
    store = harness.open()
    sent = [build.creating("t1", build.agent("t1")), build.creating("t2")]
    sent += [new_changeset("t1", [Put(build.report("t1"))], expected=None) for _ in range(3)]
    commits = [store.commit(c) for c in sent]
    feed = store.changes()
    assert [c.changeset for c in feed] == sent
    assert [(c.cursor, c.revision, c.lineage) for c in feed] == [
        (c.cursor, c.revision, c.lineage) for c in commits
    ]
    assert [c.revision for c in store.changes(task_id="t1")] == [1, 2, 3, 4]
    assert [c.revision for c in store.changes(task_id="t2")] == [1]
    assert store.changes(task_id="none") == ()


def test_a_head_names_the_newest_line(harness: Harness) -> None:
    """Semantics 6: `head` gives the number of the task's newest line in the feed, also when other
    tasks have written since.
    """
    store = harness.open()
    for task in ("t", "u"):
        build.make(store, task, build.agent(task))
    for n in range(6):
        commit = build.put(store, build.report("tu"[n % 2]), expected=None)
        assert store.head("tu"[n % 2]).number == commit.cursor.number
        for task in ("t", "u"):
            newest = store.changes(task_id=task)[-1]
            head = store.head(task)
            assert (head.revision, head.number) == (newest.revision, newest.cursor.number)
            assert head.lineage == newest.lineage


def test_the_feed_resumes_from_any_cursor(harness: Harness) -> None:
    """Semantics 6: after any cursor exactly the later changes follow, whatever the page size."""
    store = harness.open()
    build.make(store, "t1")
    build.make(store, "t2")
    for n in range(6):
        task = f"t{n % 2 + 1}"
        build.put(store, build.finding(task), expected=None)
    feed = harness.open().changes()
    numbers = [c.cursor.number for c in feed]
    assert numbers == sorted(set(numbers))
    for n, change in enumerate(feed):
        assert store.changes(change.cursor) == feed[n + 1 :]
        assert store.changes(change.cursor, limit=2) == feed[n + 1 : n + 3]
        rest = tuple(c for c in feed[n + 1 :] if c.changeset.task_id == "t2")
        assert store.changes(change.cursor, task_id="t2") == rest
    assert store.changes(FeedCursor(feed_id=feed[0].cursor.feed_id, number=0)) == feed


def test_a_foreign_cursor_is_refused(harness: Harness) -> None:
    """Semantics 6: the cursor of another feed raises CursorExpired, not an empty answer."""
    store = harness.open()
    build.make(store, "t")
    with pytest.raises(errors.CursorExpired):
        store.changes(FeedCursor(feed_id="another", number=1))


def test_a_trimmed_cursor_is_refused(harness: Harness) -> None:
    """Semantics 6: a cursor raises CursorExpired if lines after it were trimmed."""
    store = harness.open()
    store.commit(build.aged("t", build.creating("t").ops, 40, expected=0))
    first = store.changes()[0].cursor
    for days in (39, 38, 0):
        store.commit(build.aged("t", [Put(build.report("t"))], days))
    before = FeedCursor(feed_id=first.feed_id, number=first.number - 1)
    with pytest.raises(errors.CursorExpired):
        store.changes(before)
    assert [c.revision for c in store.changes()][-1] == 4


def test_a_new_subscriber_gets_through_after_trimming(harness: Harness) -> None:
    """Semantics 6: a read of the feed from its beginning can resume after each page, also if idle
    tasks keep lines that are older than the trimmed lines of other tasks.
    """
    store = harness.open()
    for n in range(4):
        store.commit(build.aged(f"rest{n}", build.creating(f"rest{n}").ops, 41, expected=0))
    store.commit(build.aged("t", build.creating("t").ops, 40, expected=0))
    for days in (39, 38, 0, 0):
        store.commit(build.aged("t", [Put(build.report("t"))], days))
    seen, after = list[int](), None
    while page := store.changes(after, limit=1):
        seen += [c.revision for c in page if c.changeset.task_id == "t"]
        after = page[-1].cursor
    assert seen[-1] == 5
    assert [c.revision for c in store.changes(task_id="rest1")] == [1]


def test_follow_misses_nothing_and_repeats_nothing(harness: Harness) -> None:
    """Semantics 6: while others write, `follow` returns each task's revisions 1, 2, 3 … once."""
    store = harness.open()
    stop, seen = threading.Event(), list[Change]()

    def watch() -> None:
        for change in follow(store, stop=stop, poll=0.005):
            seen.append(change)
            if len(seen) == 62:
                return

    def write(task: str) -> None:
        for _ in range(30):
            build.put(store, build.report(task), expected=None)

    build.make(store, "t1")
    build.make(store, "t2")
    threads = [threading.Thread(target=write, args=(t,)) for t in ("t1", "t2")]
    watcher = threading.Thread(target=watch)
    for thread in (watcher, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    watcher.join(30)
    stop.set()
    watcher.join()
    for task in ("t1", "t2"):
        revisions = [c.revision for c in seen if c.changeset.task_id == task]
        assert revisions == list(range(1, 32))


def test_a_reader_of_the_feed_sees_every_new_task(harness: Harness) -> None:
    """Semantics 6: while others create tasks, a reader that goes on from its last cursor sees each
    creation.
    """
    store, seen, done = harness.open(), list[Change](), threading.Event()

    def create(name: str) -> None:
        for n in range(20):
            build.make(store, f"{name}{n}")

    def read() -> None:
        after: FeedCursor | None = None
        while True:
            ended = done.is_set()
            while page := store.changes(after):
                seen.extend(page)
                after = page[-1].cursor
            if ended:
                return

    reader = threading.Thread(target=read)
    threads = [threading.Thread(target=create, args=(f"{w}-",)) for w in "abc"]
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    reader.join()
    assert [c.cursor for c in seen] == [c.cursor for c in store.changes(limit=1000)]
    assert len(seen) == 60
