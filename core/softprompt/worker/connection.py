"""The worker's connection to one client, with a bounded backlog. A client that stops reading is dropped."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios
import time
from collections import deque

MAX_BACKLOG_BYTES = 256 << 10  # a client with a larger backlog gets no changes until it catches up
KERNEL_BUFFER_BYTES = 16 << 10  # size of the socket's send buffer, which limits the precision of `is_stalled`
MAX_PENDING = 64  # unanswered queries of one client
STALLED_SECONDS = 10.0  # a client that reads nothing for this long is dropped; it may reconnect


class Connection:
    """A connection to a client. Sending never waits, and the backlog is bounded.

    A slow client gets changes later, with each run in its latest state.

    Attributes:
        pending_runs: runs of the list that have not been sent yet.
        changed_runs: runs that changed while the backlog was full.
        expects_more: whether the last page of the list has yet to be sent.
    """

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader = reader
        self.pending_runs: deque[str] = deque()
        self.changed_runs: dict[str, None] = {}
        self.expects_more = False
        self.catching_up: asyncio.Task[None] | None = None
        self.pending_queries: set[asyncio.Task[None]] = set()
        self._writer = writer
        self._transport = writer.transport
        self._transport.set_write_buffer_limits(high=MAX_BACKLOG_BYTES, low=MAX_BACKLOG_BYTES // 4)
        self._socket: socket.socket = writer.get_extra_info("socket")
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER_BYTES)
        self._written = self._read = 0
        self._last_read = time.monotonic()

    @property
    def unsent_bytes(self) -> int:
        """Number of bytes waiting for room in the socket's buffer."""
        return self._transport.get_write_buffer_size()

    @property
    def has_room(self) -> bool:
        return self.unsent_bytes <= MAX_BACKLOG_BYTES

    async def wait_for_room(self) -> None:
        """Wait until the client has read enough of the backlog. Raises ConnectionError if it has disconnected."""
        await self._writer.drain()

    def send(self, line: bytes) -> None:
        if not self._transport.is_closing():
            self._written += len(line)
            self._transport.write(line)

    def send_replaceable(self, line: bytes) -> None:
        """Send a message that the next message of its kind supersedes. Skip it if the client is behind."""
        if not self.unsent_bytes:
            self.send(line)

    def is_stalled(self) -> bool:
        """Return whether the client has read nothing for too long. Call this at regular intervals."""
        waiting, now = self.unsent_bytes, time.monotonic()
        read = self._written - waiting - self._kernel_bytes()
        if not waiting or read > self._read:
            self._read, self._last_read = read, now
        return now - self._last_read > STALLED_SECONDS

    def _kernel_bytes(self) -> int:
        """Return the number of bytes in the socket's send buffer, including some overhead."""
        try:
            return int(struct.unpack("i", fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4)))[0])
        except (OSError, AttributeError, ValueError):  # not supported by the system, or the socket is closed
            return 0

    def drop(self) -> None:
        self._cancel_catching_up()
        self._transport.abort()

    def close(self) -> None:
        self._cancel_catching_up()
        self._transport.close()

    def _cancel_catching_up(self) -> None:
        if self.catching_up is not None:
            self.catching_up.cancel()


def is_same_user(connection: socket.socket) -> bool:
    """Return whether the client belongs to this user.

    Return True if the system cannot tell, because only this user can access the socket's folder anyway.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", credentials)[1] == os.geteuid())
