"""The load generator where there is no wrk: ``generator.py PORT PATH CONNECTIONS SECONDS`` prints one line of JSON.

Each connection asks, waits for the whole answer, and asks again. It is Python like the servers, so it is a limit
itself and its numbers cannot be compared with wrk's.
"""

import asyncio
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast

import uvloop


@dataclass
class Tally:
    """What all connections saw."""

    request: bytes
    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    over: bool = False


class Asker(asyncio.Protocol):
    """One connection, one question at a time."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._sent = 0.0
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but ancestry
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, blank, body = self._buffer.partition(b"\r\n\r\n")
        if not blank or len(body) < length_in(head):
            return
        if self._tally.over:
            return
        self._tally.latencies.append(perf_counter() - self._sent)
        if not head.startswith(b"HTTP/1.1 2"):
            self._tally.errors["status"] += 1
        self._buffer = b""
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._tally.over:
            self._tally.errors["read"] += 1

    def _ask(self) -> None:
        self._sent = perf_counter()
        self._transport.write(self._tally.request)


def length_in(head: bytes) -> int:
    """Return the length that a head announces.

    :raises ValueError: when it announces none, so that the run fails.
    """
    _, _, after = head.lower().partition(b"\r\ncontent-length:")
    return int(after.partition(b"\r\n")[0])


async def ask(port: int, path: str, connections: int, seconds: float) -> dict[str, float]:
    """Return what ``connections`` saw in ``seconds``; latencies in µs."""
    tally = Tally(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    loop, transports = asyncio.get_running_loop(), []
    begun = perf_counter()
    async with asyncio.timeout(5):
        for _ in range(connections):
            transport, _ = await loop.create_connection(lambda: Asker(tally), "127.0.0.1", port)
            transports.append(transport)
    await asyncio.sleep(seconds)
    tally.over, took = True, perf_counter() - begun
    for transport in transports:
        transport.abort()
    ordered = sorted(tally.latencies) or [0.0]
    p50, p99 = (ordered[int(len(ordered) * share)] * 1e6 for share in (0.5, 0.99))
    return {"requests": len(tally.latencies), "seconds": took, "p50": p50, "p99": p99, **tally.errors}


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(ask(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))))
