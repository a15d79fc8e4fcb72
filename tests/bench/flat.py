"""``make bench-flat``: ten million checks by one process; memory, descriptors, threads and tasks stay as they are.

They are asked at full speed over keep-alive connections, of 10,000 customers in random order. What the process has is
looked at sixty times on the way, as the soak does.
"""

import argparse
import signal
import subprocess
import sys
from pathlib import Path
from time import perf_counter, sleep

from tests.bench.contestants import ours
from tests.bench.load import Asking, Load, report_in
from tests.bench.measuring import Effort, Measuring
from tests.bench.processes import Failed, started
from tests.bench.questions import crowd_checks
from tests.bench.running import Running, at_least_one, completed, options_of
from tests.bench.servers import get
from tests.bench.table import Section
from tests.bench.upstream import CROWD
from tests.faults.soak import SAMPLES, Report, Sample, outside_view

NAMES = ("idle before", "first third", "second third", "last third", "idle after")
STUCK = 30.0
"""Seconds without any answer after which the process counts as stuck."""
ANSWERED = "entitlement_sidecar_http_requests_total{"
LONG = 86_400
EVERY = 0.05


def sample(pid: int, ops: int) -> tuple[Sample, int]:
    """Return what the process has, and how many checks it has answered."""
    lines = get(ops, "/metrics").decode().splitlines()
    values = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}
    answered = sum(value for name, value in values.items() if name.startswith(ANSWERED) and "entitlements/" in name)
    return Sample(*outside_view(Path(f"/proc/{pid}")), values["entitlement_sidecar_tasks"]), int(answered)


def watched(pid: int, ops: int, checks: int, child: subprocess.Popen[bytes], report: Report) -> None:
    """Take samples until so many checks are answered.

    :raises Failed: when the load ends before, or answers stop coming.
    """
    _, before = sample(pid, ops)
    answered, progress = before, perf_counter()
    while answered - before < checks:
        sleep(EVERY)
        if child.poll() is not None:
            raise Failed(f"the load ended after {answered - before:,} of {checks:,} checks")
        now, count = sample(pid, ops)
        if count > answered:
            answered, progress = count, perf_counter()
        elif perf_counter() - progress > STUCK:
            raise Failed(f"no answer for {STUCK:.0f} s, after {answered - before:,} checks")
        if answered - before >= len(report.samples) * checks // SAMPLES:
            report.samples.append(now)


def play(running: Running, options: argparse.Namespace) -> tuple[Report, float, int]:
    """Return what was seen, how long the load took in seconds, and how many checks the load counted."""
    stage, checks = running.stage, options.checks
    question = crowd_checks(CROWD[: options.customers])
    asking, server = Asking(stage.cores, stage.folder), ours(stage)
    Measuring(stage, asking, Effort(), running.say).warm(question, server)
    report = Report(sample(server.pid, server.ops)[0])
    running.say(f"{checks:,} checks")
    command = asking.command(server, question, Load(options.connections, LONG))
    log, began = stage.folder / "flat.log", perf_counter()
    with started(command, core=stage.cores.load, log=log) as child:
        watched(server.pid, server.ops, checks, child, report)
        child.send_signal(signal.SIGINT)
        child.wait(STUCK)
    took = perf_counter() - began
    requests = report_in(log.read_text(), server.name)["requests"]
    report.after = settled(server.pid, server.ops, report.idle)
    return report, took, requests


def settled(pid: int, ops: int, idle: Sample) -> Sample:
    """Wait until the connections are gone; return what is left.

    :raises Failed: when they stay.
    """
    until = perf_counter() + STUCK
    while (found := sample(pid, ops)[0]).descriptors > idle.descriptors or found.tasks:
        if perf_counter() > until:
            raise Failed(f"what the load opened is not closed: {idle} became {found}")
        sleep(EVERY)
    return found


def measure(options: argparse.Namespace, running: Running) -> list[Section]:
    """Measure.

    :raises Failed: when something grew.
    """
    report, took, requests = play(running, options)
    seen = [one for one in (report.idle, *report.thirds(), report.after) if one is not None]
    note = (
        f"{requests:,} checks in {took:,.0f} s over {options.connections} connections; none broke, none was answered with"
        " an error. Before, connections to Stripe were still open; those of the load come on top."
    )
    section = Section(
        "flat",
        f"{options.checks:,} checks by one process",
        ["", "memory, MiB", "descriptors", "threads", "tasks"],
        [
            [name, f"{one.memory:.1f}", *(f"{value:.0f}" for value in one[1:])]
            for name, one in zip(NAMES, seen, strict=True)
        ],
        [note],
        {name: one._asdict() for name, one in zip(NAMES, seen, strict=True)} | {"checks": requests, "seconds": took},
    )
    if complaints := report.complaints():
        section.show(running.console)
        raise Failed("; ".join(complaints))
    return [section]


def main() -> int:
    """Measure, print, and return the exit status: 1 when something grew."""
    parser = options_of("tests.bench.flat", __doc__)
    parser.add_argument("--checks", type=at_least_one, default=10_000_000, help="how many (10000000)")
    parser.add_argument("--connections", type=at_least_one, default=32, help="keep-alive connections (32)")
    parser.add_argument("--customers", type=at_least_one, default=len(CROWD), help=f"of how many ({len(CROWD)})")
    return completed(parser.parse_args(), measure)


if __name__ == "__main__":
    sys.exit(main())
