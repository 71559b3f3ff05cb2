"""The server: keys in memory, a synced log on disk, one writer at a time, snapshots for readers.

``python -m tests.remote_kv.server FOLDER [FAULT …]`` prints its port and serves until it is killed.
A request is one line of JSON, as is its answer; keys and values are hexadecimal. A fault makes it
lose what its log promises: see ``FAULTS``.
"""

import json
import os
import socketserver
import sys
import threading
import time
from bisect import bisect_left, insort
from pathlib import Path

CHUNK = 500  # entries of one answer to ``scan``
FAULTS = {
    "no-log": "keeps nothing: after a crash the server is empty",
    "late-log": "acknowledges a batch before it is in the log",
    "no-transaction": "applies a batch entry by entry, each visible and logged by itself",
    "evicts": "drops the oldest entries beyond 2,000",
    "one-chunk": "returns only the first chunk of a scan",
}


class State:
    """The entries; ``snapshot`` is replaced, never changed, by a batch."""

    def __init__(self, folder, faults):
        self.faults = faults
        self.log = Path(folder, "log")
        self.writer = threading.Lock()
        self.snapshot = ({}, [])  # values by key, and the keys in the order of their bytes
        if self.log.exists() and "no-log" not in faults:
            for line in self.log.read_text().splitlines():
                try:
                    batch = json.loads(line)
                except ValueError:  # the server was killed while it wrote the last line
                    break
                self.apply(batch)
        self.file = self.log.open("a")

    def apply(self, batch):
        """Replace the snapshot by one with the batch: pairs of a key and a value or None."""
        values, keys = dict(self.snapshot[0]), list(self.snapshot[1])
        for key, value in batch:
            if value is None:
                if values.pop(key, None) is not None:
                    del keys[bisect_left(keys, key)]
            else:
                if key not in values:
                    insort(keys, key)
                values[key] = value
        while "evicts" in self.faults and len(values) > 2000:
            oldest = next(iter(values))
            del values[oldest], keys[bisect_left(keys, oldest)]
        self.snapshot = values, keys

    def commit(self, batch):
        """Log and apply a batch."""
        if "no-transaction" in self.faults:
            for entry in batch:
                self.write([entry])
                self.apply([entry])
                time.sleep(0.0005)
            return
        if "late-log" in self.faults:
            threading.Timer(0.3, self.write, [batch]).start()
        else:
            self.write(batch)
        self.apply(batch)

    def write(self, batch):
        """Append a batch to the log and sync it."""
        self.file.write(json.dumps(batch) + "\n")
        self.file.flush()
        os.fdatasync(self.file.fileno())


class Connection(socketserver.StreamRequestHandler):
    """One client; its writer's lock is freed when it disconnects."""

    disable_nagle_algorithm = True

    def handle(self):
        """Answer requests until the client disconnects."""
        self.holds, self.view = False, None
        try:
            for line in self.rfile:
                answer = self.answer(*json.loads(line))
                self.wfile.write(json.dumps(answer).encode() + b"\n")
        except OSError:
            pass
        finally:
            self.let_go()

    def answer(self, verb, *arguments):
        """Return the answer to one request."""
        state = self.server.state
        values, keys = self.view or state.snapshot
        match verb, arguments:
            case "read", ():
                self.view = state.snapshot
            case "write", (seconds,):
                if not state.writer.acquire(timeout=seconds):
                    return False
                self.holds, self.view = True, state.snapshot
            case "get", (key,):
                return values.get(key)
            case "scan", (first, last):
                low, high = bisect_left(keys, first), bisect_left(keys, last)
                some = keys[low : min(high, low + CHUNK)]
                more = high > low + CHUNK and "one-chunk" not in state.faults
                return [[(k, values[k]) for k in some], more]
            case "commit", (batch,):
                state.commit(batch)
                self.let_go()
            case "end", ():
                self.let_go()
        return True

    def let_go(self):
        """End the read or write."""
        self.view = None
        if self.holds:
            self.holds = False
            self.server.state.writer.release()


class Server(socketserver.ThreadingTCPServer):
    """Serves one folder."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, folder, port, faults):
        self.state = State(folder, faults)
        super().__init__(("127.0.0.1", port), Connection)


def main(folder, port, *faults):
    """Serve on ``port``, 0 for a free one, and print it; end with the parent's standard input."""
    server = Server(folder, int(port), faults)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
