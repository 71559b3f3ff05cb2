"""registry_api.workspace.processes: the counts of live processes; dead processes are left out."""

import os
import signal
import subprocess
import sys
import time

import pytest

from registry_api.workspace import Process, living, quantile


def test_what_a_process_counts_is_read_by_others(tmp_path):
    """A live process shows counts, durations and target phase; after close the entry is gone."""
    mine = Process(tmp_path, target_phase=2, every=0)
    mine.count("healed", 3)
    for _ in range(99):
        mine.time("write", 0.001)
    mine.time("write", 0.1)
    (seen,) = living(tmp_path)
    assert (seen.pid, seen.target_phase, seen.counts["healed"]) == (os.getpid(), 2, 3)
    assert quantile(seen.times["write"], 0.5) == pytest.approx(0.001, rel=0.25)
    assert quantile(seen.times["write"], 0.999) == pytest.approx(0.1, rel=0.25)
    assert quantile(seen.times["read"], 0.5) is None
    mine.close()
    assert living(tmp_path) == []
    assert not list((tmp_path / "procs").iterdir())


@pytest.mark.parametrize("seconds", [0, 1e-7, 1e-6, 0.002, 17.0, 1e6])
def test_any_duration_has_its_place(tmp_path, seconds):
    """From zero to beyond the last bucket, every duration is counted in one bucket."""
    mine = Process(tmp_path, every=0)
    mine.time("gate", seconds)
    assert sum(living(tmp_path)[0].times["gate"]) == 1
    mine.close()


def test_the_dead_are_not_living_and_are_buried_by_the_next(tmp_path):
    """After kill -9 the entry stays but is not counted; the next process removes it."""
    code = (
        "import sys; from pathlib import Path; from registry_api.workspace import Process;"
        "p = Process(Path(sys.argv[1])); print('up', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    other.stdout.readline()
    assert [p.pid for p in living(tmp_path)] == [other.pid]
    other.send_signal(signal.SIGKILL)
    other.communicate()
    assert living(tmp_path) == []
    assert len(list((tmp_path / "procs").iterdir())) == 1
    mine = Process(tmp_path, every=0)
    assert len(list((tmp_path / "procs").iterdir())) == 1
    mine.close()


def test_a_fork_child_counts_for_itself(tmp_path):
    """The child gets its own entry, and does not change the parent's."""
    mine = Process(tmp_path, every=0)
    mine.count("healed")
    there, here = os.pipe()
    pid = os.fork()
    if pid == 0:
        mine.count("healed", 10)
        os.write(here, b"x")
        signal.pause()
    os.read(there, 1)
    try:
        assert {p.pid: p.counts["healed"] for p in living(tmp_path)} == {os.getpid(): 1, pid: 10}
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(there)
        os.close(here)
    mine.close()


def test_where_nothing_can_be_written_nothing_is_counted(tmp_path):
    """If a file is in place of the folder, the process continues without counting."""
    (tmp_path / "procs").write_text("in the way")
    mine = Process(tmp_path, every=0)
    mine.count("healed")
    mine.time("read", 1.0)
    assert living(tmp_path) == []
    mine.close()


def test_a_file_that_another_program_truncates_does_not_kill_the_process(tmp_path):
    """Restoring a backup over a live workspace truncates it: then the counts are dropped."""
    code = (
        "import os, sys; from pathlib import Path; from registry_api.workspace import Process;"
        "p = Process(Path(sys.argv[1])); (f,) = Path(sys.argv[1], 'procs').iterdir();"
        "os.truncate(f, 0); p.count('healed'); p.time('write', 0.1); p.close(); p.count('healed')"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0


def test_counts_are_written_now_and_then(tmp_path, monkeypatch):
    """Not at each count: the first count after the interval writes all of them."""
    mine = Process(tmp_path, every=60.0)
    for _ in range(5):
        mine.count("healed")
    assert living(tmp_path)[0].counts["healed"] == 1
    later = time.monotonic() + 61
    monkeypatch.setattr("registry_api.workspace.processes.time.monotonic", lambda: later)
    mine.count("lagging")
    (seen,) = living(tmp_path)
    assert (seen.counts["healed"], seen.counts["lagging"]) == (5, 1)
    mine.close()
