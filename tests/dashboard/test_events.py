"""The event stream: every change once, from the last one seen, whichever program wrote it."""

import asyncio
import json
import threading
from contextlib import contextmanager

import anyio
import httpx2
import pytest

from contract_tests import build
from dashboard.background import beside
from dashboard.live import event_hub
from registry_api import AsyncStore, load_settings, open_store
from tests import legacy
from tests.dashboard.serving import serving


@pytest.fixture(params=[None, "1", "3"])
def workspace(tmp_path, request):
    if request.param is not None:
        store = open_store(load_settings(tmp_path, env={}, phase=int(request.param)))
        store.close()
    return tmp_path


@contextmanager
def stream(served, last=None):
    """Open the stream; yields a function that returns the next event."""
    headers = {"authorization": f"Bearer {served.operator}"}
    if last:
        headers["last-event-id"] = last
    with httpx2.stream("GET", served.url + "/api/events", headers=headers, timeout=30) as answer:
        lines = answer.iter_lines()

        def following():
            event = {}
            for line in lines:
                name, _, value = line.partition(": ")
                if not line and "event" in event:
                    return event
                event[name] = value
            return event

        assert following()["event"] == "hello"
        yield following


def test_every_change_comes_once(workspace):
    """From now on, then from the id of the last event seen, across a restart."""
    store = open_store(load_settings(workspace, env={}))
    build.make(store, "T", build.agent("T", "a"))
    with serving(workspace) as served, stream(served) as following:
        for n in range(3):
            build.put(store, build.report("T", "a", progress=n), expected=None)
        events = [following() for _ in range(3)]
    assert [json.loads(e["data"])["revision"] for e in events] == [2, 3, 4]
    assert json.loads(events[0]["data"])["agents"] == ["a"]
    build.put(store, build.report("T", "a", progress=9), expected=None)
    with serving(workspace) as served, stream(served, events[1]["id"]) as following:
        again = [following() for _ in range(2)]
        assert [json.loads(e["data"])["revision"] for e in again] == [4, 5]
        assert again[0]["id"] == events[2]["id"]
    store.close()


def test_a_foreign_edit_is_an_event(tmp_path):
    """An edit that a legacy program writes into its file is sent like a commit."""
    path = legacy.write_task(tmp_path, "TASK-1", agents=[{"id": "a", "status": "running"}])
    with serving(tmp_path) as served, stream(served) as following:
        legacy.edit(path / "AGENT_REGISTRY.json", legacy.add_agent("b"))
        event = following()
    assert (event["event"], json.loads(event["data"])["actor"]) == ("change", "foreign")


def test_many_listeners_hear_the_same(tmp_path):
    """Ten listeners at once each get every change in the same order."""
    store = open_store(load_settings(tmp_path, env={}))
    build.make(store, "T", build.agent("T", "a"))
    heard = [[] for _ in range(10)]
    with serving(tmp_path) as served:
        ready = threading.Barrier(11)

        def listen(out):
            with stream(served) as following:
                ready.wait(30)
                out.extend(following()["id"] for _ in range(20))

        threads = [threading.Thread(target=listen, args=(out,)) for out in heard]
        for thread in threads:
            thread.start()
        ready.wait(30)
        for n in range(20):
            build.put(store, build.report("T", "a", progress=n), expected=None)
        for thread in threads:
            thread.join(60)
    store.close()
    assert len(set(heard[0])) == 20
    assert all(out == heard[0] for out in heard)


@pytest.mark.parametrize("forget", [0.0, 60.0])
def test_a_pause_without_listeners(tmp_path, monkeypatch, forget):
    """Changes during the pause come once each, whether or not the server kept its position."""
    monkeypatch.setattr(event_hub, "_FORGET", forget)
    store = open_store(load_settings(tmp_path, env={}))
    build.make(store, "T", build.agent("T", "a"))

    def report(n):
        build.put(store, build.report("T", "a", progress=n), expected=None)

    async def take(hub, after, count):
        ids, listening = [], hub.listen(after, anyio.Event())
        async for text in listening:
            ids += [line[4:] for line in text.decode().splitlines() if line.startswith("id: ")]
            if text.startswith(b"retry") and after is None:
                for n in range(count):
                    await asyncio.to_thread(report, n)
            if len(ids) >= count:
                break
        await listening.aclose()
        return ids

    async def play():
        hub = event_hub.Hub(AsyncStore(store), tmp_path / "phase.json")
        async with beside(hub.follow()):
            first = await take(hub, None, 3)
            await asyncio.sleep(0.5)
            for n in range(3):
                await asyncio.to_thread(report, n)
            return first, await take(hub, event_hub.cursor_of(first[0]), 5)

    first, then = asyncio.run(play())
    numbers = [int(name.rpartition(":")[2]) for name in first[:1] + then]
    assert then[:2] == first[1:]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 6
    store.close()


def test_a_server_that_ends_ends_its_streams(tmp_path, capfd):
    """The answers end properly, and nothing is logged."""
    with serving(tmp_path) as served:
        headers = {"authorization": f"Bearer {served.operator}"}
        with httpx2.stream("GET", served.url + "/api/events", headers=headers) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("retry")
            served.process.terminate()
            assert "event: change" not in list(lines)
        served.process.wait(timeout=10)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("last", ["x", "feed:-1", ":", "feed:99999999999999999999"])
def test_ids_that_are_none(tmp_path, last):
    """An invalid Last-Event-ID is refused with a typed error."""
    with serving(tmp_path) as served:
        answer = served.get("/api/events", headers={"last-event-id": last})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_query")


def test_a_place_that_is_no_longer_kept(tmp_path):
    """The id of another feed: the client is told to fetch everything again."""
    store = open_store(load_settings(tmp_path, env={}))
    build.make(store, "T")
    store.close()
    with serving(tmp_path) as served, stream(served, "another:5") as following:
        assert following()["event"] == "reset"
