"""One connected client, as the worker sees it: what it is sent, what it is behind with, and when it is given up."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios
import time
from collections import deque

ROOM = 256 << 10  # bytes that may wait for a client; what it is to be told beyond that is sent when it has read on
IN_KERNEL = 16 << 10  # bytes of the socket's own buffer: it counts in pieces of this size what has been read
MAX_PENDING = 64  # questions of one client that wait for their answers
STALLED = 10.0  # seconds without reading anything of what waits, after which a client is dropped; it can come back


class Connection:
    """A connection. Sending never waits, and what waits is bounded: a slow client is told later, of how things are then.

    `listed` are the runs of the list that it has not been sent yet, `behind` those that changed while it had no room;
    `waits_for_more` until it has been sent the last page of the list.
    """

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader = reader
        self.listed: deque[str] = deque()
        self.behind: dict[str, None] = {}
        self.waits_for_more = False
        self.catching_up: asyncio.Task[None] | None = None
        self.asking: set[asyncio.Task[None]] = set()
        self._writer = writer
        self._transport = writer.transport
        self._transport.set_write_buffer_limits(high=ROOM, low=ROOM // 4)
        self._socket: socket.socket = writer.get_extra_info("socket")
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, IN_KERNEL)
        self._written = self._read = 0
        self._since = time.monotonic()  # when it was last seen to read

    @property
    def unread(self) -> int:
        """Bytes that the socket has not taken."""
        return self._transport.get_write_buffer_size()

    @property
    def has_room(self) -> bool:
        return self.unread <= ROOM

    async def gets_room(self) -> None:
        """Wait until the client has read on. Raises ConnectionError when it is gone."""
        await self._writer.drain()

    def send(self, line: bytes) -> None:
        if not self._transport.is_closing():
            self._written += len(line)
            self._transport.write(line)

    def send_if_read(self, line: bytes) -> None:
        """Send what the next message of its kind replaces: a client that is behind is spared it."""
        if not self.unread:
            self.send(line)

    def is_stalled(self) -> bool:
        """Whether it has read nothing of what waits for too long. It must be asked now and then."""
        waiting, now = self.unread, time.monotonic()
        read = self._written - waiting - self._in_kernel()
        if not waiting or read > self._read:
            self._read, self._since = read, now
        return now - self._since > STALLED

    def _in_kernel(self) -> int:
        """Bytes that the socket has taken and the client has not; it counts some more for itself."""
        try:
            return int(struct.unpack("i", fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4)))[0])
        except (OSError, AttributeError, ValueError):  # a system that does not tell, or a socket that is closed by now
            return 0

    def drop(self) -> None:
        self._stop()
        self._transport.abort()

    def close(self) -> None:
        self._stop()
        self._transport.close()

    def _stop(self) -> None:
        if self.catching_up is not None:
            self.catching_up.cancel()


def is_ours(connection: socket.socket) -> bool:
    """Whether a process of this very user is at the other end; true where the system cannot tell, the folder being private."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", credentials)[1] == os.geteuid())
