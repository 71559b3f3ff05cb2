"""A TCP proxy in front of a store's server; a test cuts, holds and counts its connections."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

__all__ = ["CutProxy"]

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset and drops what is unsent
_SIZE = 2**16


class CutProxy:
    """Listens on ``address`` and forwards to a server, chunk by chunk."""

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self.cuts = 0  # connections that were cut so far
        self._lock = threading.Lock()
        self._open = set[_Link]()
        self._left: dict[bool, int | None] = {True: None, False: None}
        self._flowing = threading.Event()
        self._flowing.set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        with self._lock:
            return len(self._open)

    def cut_after(self, chunks: int | None, *, answers: bool) -> None:
        """Forward so many more chunks of answers, or of requests; cut the connection of the next.

        The chunk at which it is cut is lost. None: cut nothing.
        """
        with self._lock:
            self._left[answers] = chunks

    def hold(self) -> None:
        """Forward nothing, as if the server or the network stood still."""
        self._flowing.clear()

    def let_go(self) -> None:
        """Forward again."""
        self._flowing.set()

    def close(self) -> None:
        """Cut every connection and refuse new ones."""
        self.let_go()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # or the thread in accept keeps it open
        self._listener.close()
        with self._lock:
            links = list(self._open)
        for link in links:
            link.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._server, timeout=10)
            except OSError:
                _reset(client)
                continue
            server.settimeout(None)
            link = _Link(client, server)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(link)
            for answers in (False, True):
                threading.Thread(target=self._forward, args=(link, answers), daemon=True).start()

    def _forward(self, link: _Link, answers: bool) -> None:
        taken, given = (link.server, link.client) if answers else (link.client, link.server)
        with suppress(OSError):
            while data := taken.recv(_SIZE):
                self._flowing.wait()
                if self._is_cut(answers):
                    break
                given.sendall(data)
        with self._lock:
            self._open.discard(link)
        link.close()

    def _is_cut(self, answers: bool) -> bool:
        with self._lock:
            left = self._left[answers]
            if left is None:
                return False
            self._left[answers] = left - 1 if left else None
            self.cuts += left == 0
            return left == 0


class _Link:
    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server

    def close(self) -> None:
        for end in (self.client, self.server):
            _reset(end)


def _reset(end: socket.socket) -> None:
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        end.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits in recv
    end.close()
