"""Ports for the servers of tests."""

import random
import socket
from contextlib import suppress

# Below the ports that Linux gives to outgoing connections: one of these may take the port of a
# server that is down, and a client that calls such a port may even be connected to itself.
PORTS = range(20000, 30000)


def reserve() -> tuple[socket.socket, int]:
    """Return a free port, and a socket that keeps other tests from it until it is closed.

    The socket's name is in Linux's abstract namespace: it belongs to one process, whichever user it
    has, and goes with it; and, like a port, to one network namespace.
    """
    while True:
        port = random.choice(PORTS)
        reservation = socket.socket(socket.AF_UNIX)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            reservation.bind(f"\0registry-postgres-{port}")
            return reservation, port
        reservation.close()
