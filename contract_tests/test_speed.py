"""The speed of a store with a task of ordinary size; a slow store gets a warning, no failure."""

from __future__ import annotations

import time
from collections.abc import Callable

from contract_tests import build
from contract_tests.harness import Harness

# The least that an orchestrator of 20 agents needs if each reports every few seconds.
FLOORS = {"reports a second": 50.0, "loads a second": 200.0}
_AGENTS, _SECONDS = 20, 0.4


def test_reports_and_loads(
    harness: Harness, record_property: Callable[[str, object], None]
) -> None:
    """Twenty agents report one after another, then the task is loaded as often as possible: both
    rates are in the report, and every report is in the store.
    """
    store = harness.open()
    build.make(store, "t", *(build.agent("t", f"a{n}") for n in range(_AGENTS)))
    reports = [build.report("t", f"a{n % _AGENTS}", progress=n) for n in range(10_000)]
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < _SECONDS and done < len(reports):
        build.put(store, reports[done], expected=None)
        done += 1
    record_property("reports a second", round(done / (time.perf_counter() - start), 1))
    loads, start = 0, time.perf_counter()
    while time.perf_counter() - start < _SECONDS:
        snapshot = store.load("t")
        loads += 1
    record_property("loads a second", round(loads / (time.perf_counter() - start), 1))
    assert snapshot.revision == done + 1
    assert {a.progress for a in snapshot.agents if a.progress} == {
        r.progress for r in reports[max(done - _AGENTS, 0) : done] if r.progress
    }
