"""transact, commit_with_retry and AsyncStore: the helpers that callers use."""

import asyncio
import threading
import time

import pytest

from contract_tests import build
from registry_api import (
    AsyncStore,
    Put,
    StoreWrapper,
    commit_with_retry,
    load_settings,
    new_changeset,
    open_store,
    transact,
)
from registry_api.errors import Conflict, OutcomeUnknown, StoreClosed, Unavailable


@pytest.fixture
def store(tmp_path):
    store = open_store(load_settings(tmp_path, env={}, backend="memory"))
    build.make(store, "t", build.agent("t"))
    return store


class Interrupting(StoreWrapper):
    """A store whose commits fail: before they happen, or after, as if the answer were lost."""

    def __init__(self, inner, faults):
        super().__init__(inner)
        self.faults = faults

    def commit(self, changeset):
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Unavailable):
            raise fault
        commit = super().commit(changeset)
        if fault is not None:
            raise fault
        return commit


def bump(snapshot):
    return [Put(build.agent("t", progress=snapshot.agents[0].progress + 1))]


def test_a_lost_answer_is_not_a_second_application(store):
    """An unknown outcome and an outage are retried with the same id: one commit happens."""
    faulty = Interrupting(store, [Unavailable("down"), OutcomeUnknown("lost"), Unavailable("down")])
    commit = transact(faulty, "t", bump, sleep=lambda _: None)
    assert commit.replayed
    assert store.load("t").agents[0].progress == 1


def test_conflicts_are_decided_anew(store):
    """After a conflict the function is called again with the newer state."""
    others = iter([1, 2, 3])

    def decide(snapshot):
        for _ in others:
            build.put(store, build.agent("t", progress=10), expected=snapshot.revision)
            break
        return bump(snapshot)

    transact(store, "t", decide, sleep=lambda _: None)
    assert store.load("t").agents[0].progress == 11


def test_giving_up_is_an_error(store):
    """After the last attempt the conflict is raised; without ops nothing is committed."""

    def always_late(snapshot):
        build.put(store, build.finding("t"), expected=None)
        return bump(snapshot)

    with pytest.raises(Conflict):
        transact(store, "t", always_late, attempts=3, sleep=lambda _: None)
    assert transact(store, "t", lambda _: []) is None


def test_retries_end_at_the_deadline(store):
    """An outage that lasts until the deadline is raised."""
    down = Interrupting(store, [Unavailable("down") for _ in range(1000)])
    changeset = new_changeset("t", [Put(build.finding("t"))], expected=None)
    with pytest.raises(Unavailable):
        commit_with_retry(down, changeset, deadline=time.monotonic() + 0.05)


def test_async_calls_run_side_by_side_and_are_never_abandoned(store):
    """Calls do not block the loop; a cancelled one runs to its end, so its outcome is known."""
    entered, release = threading.Event(), threading.Event()

    class Slow(StoreWrapper):
        def commit(self, changeset):
            entered.set()
            release.wait(10)
            return super().commit(changeset)

    async def main():
        slow = AsyncStore(Slow(store))
        changeset = new_changeset("t", [Put(build.finding("t"))], expected=None)
        task = asyncio.create_task(slow.commit(changeset))
        assert await asyncio.to_thread(entered.wait, 10)
        assert (await slow.load("t")).revision == 1
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await slow.head("t")).revision == 2
        assert (await slow.transact("t", bump)).revision == 3
        assert (await slow.counts()).total_tasks == 1
        assert len((await slow.list_tasks()).items) == 1
        assert len(await slow.changes()) == 3
        await slow.close()
        await slow.close()
        with pytest.raises(StoreClosed):
            await slow.head("t")

    asyncio.run(main())
