"""Switches on a host that is always busy: with eight writers of ours and eight loops that use the
processors, no caller is refused."""

import json
import subprocess
import sys
from contextlib import closing, contextmanager
from functools import partial

import pytest

from registry_api import load_settings, open_migration
from registry_api.migration import MigrationPhase
from tests import legacy, processes
from tests.proof import times

ENV = {"REGISTRY_RETIRE_SECONDS": "0.2"}
RATE = "5"  # writes a second of each writer; each write makes later switches longer
TASKS = [f"TASK-{n}" for n in range(5)]
UP_TO_3 = (1, 2, 3, 2, 1, 0)
THROUGH_4 = (1, 2, 3, 4, 3, 4, 3, 2, 1, 0)


@contextmanager
def busy_loops(count=8):
    """Run processes that do nothing but use the processors."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@contextmanager
def writers(workspace, acks, count=8):
    """Run the demo's writers; each exits with 1 when one of its calls is refused."""
    program = [sys.executable, "-m", "backends.admin.demo.writer", str(workspace)]
    started = [
        subprocess.Popen([*program, str(path), path.name, "no", RATE], stdin=subprocess.PIPE)
        for path in acks[:count]
    ]
    try:
        yield
        for writer in started:
            writer.stdin.close()
        assert [writer.wait(120) for writer in started] == [0] * count
    finally:
        for writer in started:
            writer.kill()
            writer.communicate()


@pytest.mark.parametrize(
    ("way", "rounds"),
    [(UP_TO_3, times(1, proof=50)), (THROUGH_4, times(1, proof=2))],
    ids=["0 to 3", "through 4"],
)
def test_no_switch_times_out_and_no_caller_is_refused(tmp_path, way, rounds):
    """Every switch succeeds with its default timeout, every writer runs to its end, and every
    acknowledged write is there."""
    workspace, acks = tmp_path / "workspace", [tmp_path / f"w{n}" for n in range(8)]
    for task in TASKS:
        agents = [{"id": "a1", "type": "x", "status": "running", "progress": 1}]
        legacy.write_task(workspace, task, agents=agents)
    with busy_loops(), writers(workspace, acks):
        processes.wait_until(lambda: all(p.exists() and p.read_text() for p in acks), timeout=120)
        for phase in way * rounds:
            out = tmp_path / "out"
            tokens = ("switch", phase, "--json", "--workspace", workspace)
            moving = processes.start(partial(processes.command, out=out, env=ENV), *tokens)
            moving.join()
            assert moving.exitcode == 0, (phase, json.loads(out.read_text()))
        # How many writes there are by now depends on the time that the switches took.
        processes.wait_until(
            lambda: sum(len(path.read_text().splitlines()) for path in acks) > 100, timeout=120
        )
    count, missing = processes.lost(workspace, acks)
    assert count > 100
    assert missing == []
    with closing(open_migration(load_settings(workspace, env={}))) as migration:
        migration.switch(MigrationPhase(1), actor="test")
        assert migration.verify().mismatches == ()
