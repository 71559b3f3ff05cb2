"""A program that reads a file without a lock in a tight loop, as legacy programs do."""

import json
import subprocess
import sys
import time
from contextlib import contextmanager

_READER = """
import json, select, sys
path, key, bad, reads = sys.argv[1], sys.argv[2], [], 0
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        text = open(path, "rb").read()
    except FileNotFoundError:
        continue
    reads += 1
    try:
        assert json.loads(text)[key], "EMPTY"
    except (ValueError, AssertionError) as error:
        bad.append((len(text), text.count(0), str(error)[:80]))
print(json.dumps([reads, bad]))
"""


class Found:
    """``reads``; ``bad``: (bytes, NULs among them, problem) of each read that gave no value."""

    reads = 0
    bad = ()

    def worst(self):
        """Return the reads that must never happen: an empty file, NUL, or no entries."""
        return [b for b in self.bad if b[0] == 0 or b[1] or b[2] == "EMPTY"]


@contextmanager
def reading(path, key):
    """Read ``path``, and the value of ``key`` in it, until the end of the block."""
    found, started = Found(), time.monotonic()
    command = [sys.executable, "-c", _READER, str(path), key]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        reader.stdout.readline()
        try:
            yield found
        finally:
            said, _ = reader.communicate(b"\n")
    found.reads, found.bad = json.loads(said)
    assert found.reads > time.monotonic() - started  # it was reading meanwhile
