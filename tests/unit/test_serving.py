"""The socket that HTTP is served on."""

from __future__ import annotations

import socket

from storemirror.serving import listening


def test_connections_send_at_once_what_they_are_handed() -> None:
    """An answer's head and body go out one by one: the body waited 40 ms for the head's receipt."""
    with (
        listening("127.0.0.1", 0, backlog=1) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        taken, _ = listener.accept()
        with taken:
            assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
