"""A load generator of our own, for what wrk cannot do: unix sockets, fixed rates, and each question just once.

``generator.py JOB`` reads a job and prints one line of JSON; latencies in µs. It is one loop around epoll. Without a
rate each connection asks, waits for the whole answer, and asks again. With a rate the moment of every question is set
in advance, and its latency counts from that moment, also when it had to wait for a connection that was free; so a
server that pauses is charged for all who would have asked meanwhile. It is Python: faster servers are faster than it.
"""

import gc
import json
import re
import select
import signal
import socket
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from time import perf_counter

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
LARGEST = 1 << 18


@dataclass(frozen=True)
class Job:
    """What to do: how long, how many questions a second (``None``: as many as can be), or every question once."""

    address: int | str
    """A port of loopback, or the path of a unix socket."""
    requests: list[str]
    """Whole requests, byte for byte, in Latin-1."""
    connections: int
    seconds: float
    rate: float | None = None
    once: bool = False

    def connection(self) -> socket.socket:
        """Return a new connection."""
        if isinstance(self.address, int):
            found = socket.create_connection(("127.0.0.1", self.address), timeout=5)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            found = socket.socket(socket.AF_UNIX)
            found.connect(self.address)
        found.settimeout(None)
        return found


@dataclass(slots=True)
class Asker:
    """One connection, one question at a time."""

    socket: socket.socket
    asked_at: float = 0.0
    answer: bytes = b""


@dataclass
class Run:
    """A job under way, and what was seen."""

    job: Job
    latencies: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    over: bool = False

    def __post_init__(self) -> None:
        self._poll = select.epoll()
        self.askers = [Asker(connection) for connection in self._connections()]
        self._by_number = {asker.socket.fileno(): asker for asker in self.askers}
        self._idle = deque(self.askers)
        raw = [request.encode("latin-1") for request in self.job.requests]
        self._questions = iter(raw) if self.job.once else cycle(raw)

    def _connections(self) -> Iterator[socket.socket]:
        for _ in range(self.job.connections):
            connection = self.job.connection()
            self._poll.register(connection.fileno(), select.EPOLLIN)
            yield connection

    def play(self) -> dict[str, float]:
        """Do the job and return what was seen."""
        begun = perf_counter()
        until = begun + self.job.seconds
        ask_all_due = self._on_schedule(begun) if self.job.rate else self._at_once
        patience = 0 if self.job.rate else 0.1  # on a schedule it never sleeps: a timer would be late
        while (now := perf_counter()) < until and not self.over:
            ask_all_due(now)
            for number, _ in self._poll.poll(patience):
                self._hear(self._by_number[number])
        took = perf_counter() - begun
        wanted = self.job.rate * self.job.seconds if self.job.rate else len(self.latencies)
        return {
            "seconds": took,
            "requests": len(self.latencies),
            "wanted": wanted,
            **self._percentiles(),
            **self.errors,
        }

    def close(self) -> None:
        """Close the connections."""
        for asker in self.askers:
            asker.socket.close()
        self._poll.close()

    def _at_once(self, now: float) -> None:
        """Let everybody ask who waits for nothing."""
        while self._idle:
            question = next(self._questions, None)
            if question is None:
                self.over = len(self._idle) == len(self.askers)
                return
            self._ask(question, now)

    def _on_schedule(self, begun: float) -> Callable[[float], None]:
        """Return what asks all that is due, as far as a connection is free."""
        assert self.job.rate is not None
        schedule = (begun + number / self.job.rate for number in count())
        due = next(schedule)

        def ask_all_due(now: float) -> None:
            nonlocal due
            while due <= now and self._idle:
                self.lags.append(now - due)
                self._ask(next(self._questions), due)
                due, now = next(schedule), perf_counter()

        return ask_all_due

    def _ask(self, question: bytes, moment: float) -> None:
        asker = self._idle.popleft()
        asker.asked_at = moment
        asker.socket.sendall(question)

    def _hear(self, asker: Asker) -> None:
        """Take what has come of an answer."""
        try:
            data = asker.socket.recv(LARGEST)
        except ConnectionError:
            data = b""
        if not data:
            self.errors["read"] += 1
            self.over = True  # a broken connection ends the benchmark anyway
            return
        asker.answer += data
        end = asker.answer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = LENGTH.search(asker.answer, 0, end)
        if length is None:
            raise ValueError(f"an answer does not say how long it is: {asker.answer[:end]!r}")
        if len(asker.answer) < end + 4 + int(length[1]):
            return
        self.latencies.append(perf_counter() - asker.asked_at)
        if not asker.answer.startswith(b"HTTP/1.1 2"):
            self.errors["status"] += 1
        asker.answer = b""
        self._idle.append(asker)

    def _percentiles(self) -> dict[str, float]:
        ordered, lags = sorted(self.latencies) or [0.0], sorted(self.lags) or [0.0]
        shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
        found = {name: ordered[int(len(ordered) * share)] * 1e6 for name, share in shares.items()}
        return {**found, "lag_p99": lags[int(len(lags) * 0.99)] * 1e6}


def main() -> None:
    """Do the job and print the report; INT ends it early."""
    run = Run(Job(**json.loads(Path(sys.argv[1]).read_text())))

    def stop(number: int, frame: object) -> None:
        run.over = True

    signal.signal(signal.SIGINT, stop)
    gc.disable()
    print(json.dumps(run.play()))


if __name__ == "__main__":
    main()
