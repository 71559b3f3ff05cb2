"""Eight writers in the background, and a check that every acknowledged write is there."""

import threading
from contextlib import contextmanager

from contract_tests import build
from registry_api import Kind, RecordQuery, all_records

WRITERS = 8


@contextmanager
def writing(store, *, pause):
    """Write reports until the context ends; then assert that all acknowledged ones are there."""
    build.make(store, "W", build.agent("W", "w"))
    stop, done = threading.Event(), [0] * WRITERS

    def write(n):
        while not stop.wait(pause):
            build.put(store, build.report("W", "w", message=f"{n}:{done[n]}"), expected=None)
            done[n] += 1

    threads = [threading.Thread(target=write, args=(n,)) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    kept = {e.message for e in all_records(store, Kind.PROGRESS, RecordQuery(task_id="W"))}
    assert kept == {f"{n}:{m}" for n in range(WRITERS) for m in range(done[n])}
    assert min(done) > 0
