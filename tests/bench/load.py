"""Asks one server for a while and measures: what the generator saw, what the server used."""

import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from tests.bench.generator import Job
from tests.bench.processes import Cores, Failed, busy_seconds, cpu_seconds, output_of, resident_bytes
from tests.bench.questions import Question
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

SCRIPT = """
function init(arguments)
  local body = io.open(arguments[2])
  wrk.method, wrk.path = arguments[3], arguments[4]
  if body then wrk.body = body:read("*a") end
  for at = 5, #arguments, 2 do wrk.headers[arguments[at]] = arguments[at + 1] end
  if prepare then prepare(arguments[1]) end
end

function done(summary, latency, requests)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "seconds": %.6f, "p50": %.1f, "p99": %.1f, "p999": %.1f,' ..
    ' "connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    errors.connect, errors.read, errors.write, errors.status, errors.timeout
  ))
end
"""
"""What wrk does: it asks one question, and at the end says what it saw; wrk counts in µs."""

IN_TURN = """
local paths, turn = {}, 0

function prepare(file)
  for path in io.lines(file) do paths[#paths + 1] = wrk.format(nil, path) end
end

function request()
  turn = turn % #paths + 1
  return paths[turn]
end
"""
"""The same with many paths; with one it is faster without."""


@dataclass(frozen=True, slots=True)
class Round:
    """One server under load, once."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    p999_us: float
    server_cpu_seconds: float
    load_cpu_seconds: float
    resident_bytes: int
    theirs: float
    """Share of both cores that neither used: somebody else's."""
    wanted: float | None = None
    """How many were to be asked, where there was a rate."""
    lag_p99_us: float = 0.0
    """How late the generator itself was, where there was a rate."""

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
class Load:
    """Who asks, and how."""

    connections: int = 32
    seconds: int = 1
    rate: float | None = None
    once: bool = False
    over_unix: bool = False
    plainly: bool = False
    """By the generator of our own, whether wrk could or not."""

    @property
    def by_wrk(self) -> bool:
        """Whether wrk asks: where it can and is there."""
        beyond_it = self.rate or self.once or self.over_unix or self.plainly
        return not beyond_it and shutil.which("wrk") is not None


@dataclass(frozen=True, slots=True)
class Asking:
    """Puts servers under load, from the core that is not theirs."""

    cores: Cores
    folder: Path

    def ask(self, server: Server, question: Question, load: Load) -> Round:
        """Put ``server`` under load.

        :raises Failed: when an answer was an error, or a connection broke, or nothing was answered.
        """
        command = self.command(server, question, load)
        cores = {self.cores.server, self.cores.load}
        server_before, load_before = cpu_seconds(server.pid), reaped_seconds()
        busy, began = sum(map(busy_seconds, cores)), perf_counter()
        said = output_of(command, core=self.cores.load, log=self.folder / "load.log", seconds=load.seconds + GRACE)
        busy, took = sum(map(busy_seconds, cores)) - busy, perf_counter() - began
        server_cpu, load_cpu = cpu_seconds(server.pid) - server_before, reaped_seconds() - load_before
        report = report_in(said, server.name)
        return Round(
            requests=report["requests"],
            seconds=report["seconds"],
            p50_us=report["p50"],
            p99_us=report["p99"],
            p999_us=report["p999"],
            server_cpu_seconds=server_cpu,
            load_cpu_seconds=load_cpu,
            resident_bytes=resident_bytes(server.pid),
            theirs=max(0.0, busy - server_cpu - load_cpu) / took / len(cores),
            wanted=report["wanted"] if load.rate else None,
            lag_p99_us=report.get("lag_p99", 0.0),
        )

    def command(self, server: Server, question: Question, load: Load) -> list[str]:
        """Return the command of the generator for this load; it reads files that this writes."""
        return self._wrk(server, question, load) if load.by_wrk else self._own(server, question, load)

    def _wrk(self, server: Server, question: Question, load: Load) -> list[str]:
        script, paths, body = (self.folder / name for name in ("wrk.lua", "paths", "body"))
        script.write_text(SCRIPT + (IN_TURN if len(question.paths) > 1 else ""))
        paths.write_text("\n".join(question.paths))
        body.unlink(missing_ok=True)
        if question.body:
            body.write_text(question.body)
        headers = [part for header in question.headers.items() for part in header]
        options = ["-t1", f"-c{load.connections}", f"-d{load.seconds}s", "-s", str(script), server.url]
        said = [str(paths), str(body), question.method, question.paths[0], *headers]
        return [shutil.which("wrk") or "wrk", *options, "--", *said]

    def _own(self, server: Server, question: Question, load: Load) -> list[str]:
        job = Job(
            address=server.socket if load.over_unix else server.port,
            requests=[question.raw(path).decode("latin-1") for path in question.paths],
            connections=load.connections,
            seconds=load.seconds,
            rate=load.rate,
            once=load.once,
        )
        written = self.folder / "job.json"
        written.write_text(json.dumps(asdict(job)))
        return [sys.executable, "-m", "tests.bench.generator", str(written)]


def report_in(said: str, name: str) -> dict[str, Any]:
    """Return what a generator reported in its last line.

    :raises Failed: when it reported nothing, or anything that went wrong.
    """
    try:
        report = json.loads(said.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise Failed(f"the load generator gave no report on {name}:\n{said[-2000:]}") from None
    wrong = [f"{report[kind]} {meaning}" for kind, meaning in ERRORS.items() if report.get(kind)]
    if wrong or not report["requests"]:
        raise Failed(f"{name}: of {report['requests']} requests, {', '.join(wrong) or 'none was answered'}")
    return dict(report)


def reaped_seconds() -> float:
    """Return the processor time of this process's children that have ended."""
    times = os.times()
    return times.children_user + times.children_system
