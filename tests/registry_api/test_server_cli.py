"""registry_api.workspace.server_cli: the sockets on which the programs listen."""

import socket

from registry_api.workspace.server_cli import listening


def test_a_small_answer_is_sent_at_once():
    """TCP_NODELAY is set: otherwise each answer waits 40 ms for the client's delayed ACK."""
    with listening("127.0.0.1", 0) as (taken, url):
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)), taken.accept()[0] as connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
