"""The LMDB engine in difficult cases: closed or forked while in use, and its file replaced."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "registry-backend-lmdb"

START = """
import os, sys, threading, time
from pathlib import Path
from registry_backend_lmdb import LmdbEngine
path = Path(sys.argv[1])
engine = LmdbEngine(path)
with engine.write() as batch:
    batch.put(b"k", b"1")
"""

CLOSED = """
seen = set()
def work():
    try:
        while True:
            with engine.write() as batch:
                batch.put(b"k", batch.get(b"k"))
    except Exception as error:
        seen.add(type(error).__name__)
threads = [threading.Thread(target=work) for _ in range(3)]
for t in threads: t.start()
time.sleep(0.2)
engine.close()
time.sleep(0.2)
again = LmdbEngine(path)
with again.read() as view:
    assert view.get(b"k") == b"1"
os._exit(0)
"""

FORKED = """
inside, done = threading.Event(), threading.Event()
def hold():
    with engine.write() as batch:
        batch.put(b"k", b"2")
        inside.set()
        done.wait()
thread = threading.Thread(target=hold)
thread.start()
inside.wait()
pid = os.fork()
if pid == 0:
    try:
        with engine.read() as view:
            os._exit(1)
    except Exception as error:
        os._exit(0 if type(error).__name__ == "Unavailable" else 2)
assert os.waitpid(pid, 0)[1] == 0
done.set()
thread.join()
pid = os.fork()
if pid == 0:
    with engine.write() as batch:
        assert batch.get(b"k") == b"2"
        batch.put(b"k", b"3")
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
with engine.read() as view:
    assert view.get(b"k") == b"3"
"""

REPLACED = """
path.unlink()
try:
    LmdbEngine(path)
except OSError:
    pass
else:
    raise AssertionError("a file that is gone was served")
path.write_bytes(b"")
try:
    LmdbEngine(path)
except Exception as error:
    assert type(error).__name__ == "Unavailable", error
else:
    raise AssertionError("another file was served")
"""


@pytest.mark.parametrize("code", [CLOSED, FORKED, REPLACED], ids=["closed", "forked", "replaced"])
def test_the_engine_holds(code, tmp_path):
    """There is no crash, no hang, and no state other than what was committed."""
    pytest.importorskip("lmdb", reason="lmdb is not installed")
    done = subprocess.run(
        # Since Python 3.12 a fork of a process with threads warns; one case tests this fork.
        [
            sys.executable,
            "-Wignore::DeprecationWarning",
            "-c",
            START + code,
            tmp_path / "x.lmdb",
        ],
        env={**os.environ, "PYTHONPATH": str(EXAMPLE)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
