"""The least that Python can do: the same bytes for every request. It serves ``bare.py PORT SOCKET FILE``."""

import asyncio
import sys
from pathlib import Path
from typing import cast

import uvloop


class Bare(asyncio.Protocol):
    """Counts blank lines and answers each one; reads nothing else of a request."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but ancestry

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._answer * data.count(b"\r\n\r\n"))


async def serve(port: int, path: str, answer: bytes) -> None:
    """Answer until killed, on a port of loopback and on a unix socket."""
    loop = asyncio.get_running_loop()
    servers = (
        await loop.create_unix_server(lambda: Bare(answer), path),
        await loop.create_server(lambda: Bare(answer), "127.0.0.1", port),
    )
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]).read_bytes()))
