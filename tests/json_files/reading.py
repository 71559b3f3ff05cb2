"""A program that reads a file without a lock in a tight loop, as legacy programs do."""

import json
import subprocess
import sys
import time
from contextlib import contextmanager

_READER = """
import json, select, sys
path, key, bad, reads, last = sys.argv[1], sys.argv[2], [], 0, None
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        text = open(path, "rb").read()
    except FileNotFoundError:
        continue
    reads += 1
    try:
        assert json.loads(text)[key], "EMPTY"
        last = None
    except (ValueError, AssertionError) as error:
        # A writer that is preempted in the middle of a write shows the same text until it goes on.
        if text != last:
            bad.append((len(text), text.count(0), str(error)[:80]))
        last = text
print(json.dumps([reads, bad]))
"""


class Found:
    """``reads``; ``bad``: (bytes, NULs among them, problem) of each text that gave no value."""

    reads = 0
    bad = ()

    def worst(self):
        """Return the texts that must never be read: an empty file, NUL, or no entries."""
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
