"""The store ``remotekv://HOST:PORT/NAME``: an engine over a socket, and the hook that registers it.

``?fault=NAME`` gives the client one fault: see ``FAULTS``.
"""

import json
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress

from registry_api import Capability, hookimpl
from registry_api.authoring import KeyValueStore
from registry_api.errors import Busy, Unavailable
from registry_api.workspace import STATE_DIR, patience

CAPABILITIES = frozenset(
    {
        Capability.PERSISTENT,
        Capability.DURABLE,
        Capability.MULTI_PROCESS,
        Capability.MULTI_HOST,
        Capability.MOVE_TARGET,
        Capability.MIGRATION_SOURCE,
    }
)
TIMEOUT = 5.0  # seconds without an answer after which a connection is given up
FAULTS = {
    "unavailable": "says Unavailable, nothing happened, where the answer to a commit was lost",
    "patient": "waits for an answer for ever",
    "keeps-open": "leaves its connections open when it is closed",
    "writes-when-opened": "writes a key whenever it is opened",
    "short-memory": "forgets changeset ids that are older than the last 1,000",
}


class LostConnection(Exception):
    """The server did not answer."""


class Wire:
    """One connection, used by one thread at a time."""

    def __init__(self, address, timeout):
        self.pid = os.getpid()
        try:
            self.socket = socket.create_connection(address, timeout=timeout)
        except OSError as error:
            raise LostConnection(f"cannot connect: {error}") from error
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def ask(self, *request):
        """Send one request and return its answer; raises LostConnection."""
        try:
            self.socket.sendall(json.dumps(request).encode() + b"\n")
            answer = self.file.readline()
        except OSError as error:
            raise LostConnection(str(error)) from error
        if not answer.endswith(b"\n"):
            raise LostConnection("the server closed the connection")
        return json.loads(answer)

    def close(self):
        """Close the connection."""
        with suppress(OSError):
            self.file.close()
            self.socket.close()


class View:
    """One state of the server, below the store's name."""

    def __init__(self, wire, name):
        self.wire, self.prefix = wire, name.encode() + b"/"
        self.changed = {}

    def key(self, key):
        return (self.prefix + key).hex()

    def get(self, key):
        asked = self.key(key)
        found = self.changed[asked] if asked in self.changed else self.wire.ask("get", asked)
        return None if found is None else bytes.fromhex(found)

    def scan(self, first, last):
        start, end = self.key(first), self.key(last)
        mine = {k: v for k, v in self.changed.items() if start <= k < end}
        more = True
        while more:
            page, more = self.wire.ask("scan", start, end)
            stop = page[-1][0] if more else end
            page = {**dict(page), **{k: v for k, v in mine.items() if start <= k <= stop}}
            for key in sorted(page):
                if page[key] is not None:
                    yield bytes.fromhex(key)[len(self.prefix) :], bytes.fromhex(page[key])
            start = stop + "00"

    def put(self, key, value):
        self.changed[self.key(key)] = value.hex()

    def delete(self, key):
        self.changed[self.key(key)] = None


class RemoteEngine:
    """Connections to one server."""

    failures = (LostConnection,)

    def __init__(self, address, name, *, timeout, fault):
        self._address, self._name, self._timeout, self._fault = address, name, timeout, fault
        self._idle, self._lock, self._closed = [], threading.Lock(), False

    def _wire(self):
        with self._lock:
            while self._idle:
                wire = self._idle.pop()
                if wire.pid == os.getpid():  # a fork child must not share its parent's
                    return wire
        return Wire(self._address, None if self._fault == "patient" else TIMEOUT)

    @contextmanager
    def _using(self):
        wire = self._wire()
        try:
            yield wire
        except LostConnection:
            wire.close()
            raise
        except BaseException:
            with suppress(LostConnection):
                wire.ask("end")
                self._give_back(wire)
            raise
        self._give_back(wire)

    def _give_back(self, wire):
        with self._lock:
            if not self._closed or self._fault == "keeps-open":
                self._idle.append(wire)
                return
        wire.close()

    @contextmanager
    def read(self):
        """See Engine.read."""
        with self._using() as wire:
            wire.ask("read")
            yield View(wire, self._name)
            wire.ask("end")

    @contextmanager
    def write(self):
        """See Engine.write."""
        with self._using() as wire:
            deadline = time.monotonic() + patience(self._timeout)
            while not wire.ask("write", min(1.0, max(0.0, deadline - time.monotonic()))):
                if time.monotonic() >= deadline:
                    raise Busy("another client writes", next_step="Try again")
            view = View(wire, self._name)
            yield view
            try:
                wire.ask("commit", list(view.changed.items()))
            except LostConnection as error:
                if self._fault == "unavailable":
                    raise Unavailable(str(error), next_step="Try again") from error
                raise

    def close(self):
        """See Engine.close."""
        with self._lock:
            self._closed = True
            if self._fault != "keeps-open":
                while self._idle:
                    self._idle.pop().close()


class ShortMemory(KeyValueStore):
    """A store that forgets changeset ids."""

    def commit(self, changeset):
        done = super().commit(changeset)
        head = self.head(changeset.task_id)
        if done.replayed and done.revision <= head.revision - 1000:
            raise AssertionError("this id was forgotten")
        return done


def _open(context):
    place, _, query = context.location.partition("?")
    host, _, rest = place.partition(":")
    port, _, name = rest.partition("/")
    fault = query.removeprefix("fault=")
    engine = RemoteEngine(
        (host, int(port)), name, timeout=context.settings.lock_timeout, fault=fault
    )
    if fault == "writes-when-opened":
        with engine.write() as batch:
            batch.put(b"opened", b"yes")
    kind = ShortMemory if fault == "short-memory" else KeyValueStore
    return kind(
        engine,
        name="remotekv",
        location=context.location,
        capabilities=CAPABILITIES,
        now=context.now,
        read_only=context.read_only,
        archives=context.workspace / STATE_DIR / "archive",
    )


@hookimpl
def registry_register_stores(register):
    """Register the store ``remotekv``."""
    register("remotekv", _open)
