"""One connected client, as the worker sees it: what it is sent, and when it is given up."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from typing import Any

from softprompt.worker.protocol import encode

MOST_WAITING = 1 << 20  # bytes that a client may leave unread
STALLED = 10.0  # seconds without reading anything, after which a client is dropped; it can come back


class Client:
    """A connection. Sending never waits: what is not read is kept up to a bound, then the client is dropped."""

    def __init__(self, number: int, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self._transport = writer.transport
        self._unread, self._since = 0, 0.0

    @property
    def unread(self) -> int:
        return self._transport.get_write_buffer_size()

    def send(self, message: dict[str, Any]) -> None:
        if self._transport.is_closing():
            return
        if self.unread > MOST_WAITING:
            self.drop()
        else:
            self._transport.write(encode(message))

    def send_if_read(self, message: dict[str, Any]) -> None:
        """For what the next message of its kind replaces: a slow client is spared it."""
        if not self.unread:
            self.send(message)

    def is_stalled(self) -> bool:
        """Whether it has read nothing of what waits for it for too long; to be asked now and then."""
        unread, now = self.unread, time.monotonic()
        if not unread or unread < self._unread or not self._since:
            self._since = now
        self._unread = unread
        return now - self._since > STALLED

    def drop(self) -> None:
        self._transport.abort()

    def close(self) -> None:
        self._transport.close()


def is_ours(connection: socket.socket) -> bool:
    """Whether a process of this very user is at the other end; true where the system cannot tell, the folder being private."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", credentials)[1] == os.geteuid())
