"""A port of this machine, for as long as its socket is open."""

from __future__ import annotations

import socket


def listen(port: int) -> socket.socket:
    """A socket that listens on 127.0.0.1, on a free port for 0; OSError if the port is taken.

    It listens at once: two sockets that only are bound can share a port, and the second to listen would fail later."""
    # Named as TCP, or asyncio leaves Nagle's algorithm on and every answer takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def listen_if_free(port: int) -> socket.socket:
    """A socket that listens on this port, or on a free one if it is taken."""
    try:
        return listen(port)
    except OSError:
        return listen(0)
