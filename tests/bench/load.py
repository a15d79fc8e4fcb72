"""Asks one server for a while and measures: what the generator saw, what the server used."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import Cores, Failed, cpu_seconds, output_of, resident_bytes
from tests.bench.servers import Server

GRACE = 15.0
"""Seconds beyond the measured ones after which a generator counts as stuck."""

ERRORS = {
    "connect": "connections refused",
    "read": "reads failed",
    "write": "writes failed",
    "status": "answers were errors",
    "timeout": "answers took too long",
}

REPORT = """
done = function(summary, latency, requests)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "seconds": %.6f, "p50": %.1f, "p99": %.1f,' ..
    ' "connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    errors.connect, errors.read, errors.write, errors.status, errors.timeout
  ))
end
"""
"""Runs in wrk once the load is over; wrk counts in µs."""


@dataclass(frozen=True, slots=True)
class Round:
    """One server under load, once."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    server_cpu_seconds: float
    load_cpu_seconds: float
    resident_bytes: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    @property
    def cpu_us(self) -> float:
        """Processor time of the server for one request, in µs."""
        return self.server_cpu_seconds / self.requests * 1e6

    @property
    def server_busy(self) -> float:
        """Share of a core that the server used."""
        return self.server_cpu_seconds / self.seconds

    @property
    def load_busy(self) -> float:
        """Share of a core that the load generator used; near 1 it is the limit, not the server."""
        return self.load_cpu_seconds / self.seconds


@dataclass(frozen=True, slots=True)
class Generator:
    """A program that asks, and says in its last line what it saw."""

    name: str
    command: Callable[[Server, int, int], list[str]]

    @classmethod
    def found(cls, folder: Path) -> "Generator":
        """Return wrk if it is on PATH, else the one in ``generator.py``."""
        wrk = shutil.which("wrk")
        if wrk is None:
            return cls("built in", built_in)
        script = folder / "report.lua"
        script.write_text(REPORT)

        def command(server: Server, connections: int, seconds: int) -> list[str]:
            return [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), server.url]

        return cls("wrk", command)


def built_in(server: Server, connections: int, seconds: int) -> list[str]:
    """Return the command of the generator in ``generator.py``."""
    return [
        sys.executable,
        "-m",
        "tests.bench.generator",
        str(server.port),
        server.path,
        str(connections),
        str(seconds),
    ]


def ask(server: Server, generator: Generator, cores: Cores, folder: Path, *, connections: int, seconds: int) -> Round:
    """Put ``server`` under load for ``seconds``.

    :raises Failed: when an answer was an error, or a connection broke, or nothing was answered.
    """
    command, log = generator.command(server, connections, seconds), folder / "load.log"
    server_before, load_before = cpu_seconds(server.pid), reaped_seconds()
    said = output_of(command, core=cores.load, log=log, seconds=seconds + GRACE)
    server_after, load_after = cpu_seconds(server.pid), reaped_seconds()
    try:
        report = json.loads(said.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise Failed(f"{generator.name} gave no report on {server.name}:\n{said[-2000:]}") from None
    wrong = [f"{report[kind]} {meaning}" for kind, meaning in ERRORS.items() if report.get(kind)]
    if wrong or not report["requests"]:
        raise Failed(f"{server.name}: of {report['requests']} requests, {', '.join(wrong) or 'none was answered'}")
    return Round(
        requests=report["requests"],
        seconds=report["seconds"],
        p50_us=report["p50"],
        p99_us=report["p99"],
        server_cpu_seconds=server_after - server_before,
        load_cpu_seconds=load_after - load_before,
        resident_bytes=resident_bytes(server.pid),
    )


def reaped_seconds() -> float:
    """Return the processor time of this process's children that have ended."""
    times = os.times()
    return times.children_user + times.children_system
