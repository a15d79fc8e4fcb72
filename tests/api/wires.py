"""A connection without a network: what one side says is heard at once, if the other wants to hear it."""

import asyncio
from typing import Any

HIGH = 64 << 10
"""Bytes from which on a transport asks its protocol to wait, by default."""


class Wire(asyncio.Transport):
    """The transport of ``protocol``, and what its other side does: ``hear`` is what that says, ``sent`` what it got.

    While it ``is_deaf`` it takes nothing, and what was written stays here.
    """

    def __init__(self, protocol: asyncio.Protocol, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.sent = bytearray()
        self.unsent = bytearray()
        self.unheard: list[bytes] = []
        self.is_deaf = False
        self.is_paused = False
        self.is_aborted = False
        self._is_closing = False
        self._has_to_wait = False
        self._protocol = protocol
        self._loop = loop

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_closing:
            return
        if not self.is_deaf:
            self.sent += data
            return
        self.unsent += data
        if len(self.unsent) > HIGH and not self._has_to_wait:
            self._has_to_wait = True
            self._protocol.pause_writing()

    def take(self) -> None:
        """Let the other side take what is there, and all that comes."""
        self.is_deaf = False
        self.sent += self.unsent
        self.unsent.clear()
        if self._has_to_wait:
            self._has_to_wait = False
            self._protocol.resume_writing()
        if self._is_closing:
            self._end()

    def close(self) -> None:
        """End the connection once all is sent."""
        if not self._is_closing:
            self._is_closing = True
            if not self.unsent:
                self._end()

    def abort(self) -> None:
        """End the connection at once."""
        if not self.is_aborted:
            self._is_closing = self.is_aborted = True
            self.unsent.clear()
            self._end()

    def is_closing(self) -> bool:
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        return len(self.unsent)

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False
        while self.unheard and not (self.is_paused or self._is_closing):
            self._protocol.data_received(self.unheard.pop(0))

    def hear(self, data: bytes) -> None:
        """Let the protocol hear ``data``, once it wants to."""
        if self.is_paused:
            self.unheard.append(data)
        elif not self._is_closing:
            self._protocol.data_received(data)

    def _end(self) -> None:
        self._loop.call_soon(self._protocol.connection_lost, None)
