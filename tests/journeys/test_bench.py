"""The benchmarks run; what they measure is not judged here, but how they judge is."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

import pytest

from tests.bench import page, ratios
from tests.bench.__main__ import NAMES
from tests.bench.check import FELL, NOISY, NOTHING, RECORDED, said_of, status_of, tried
from tests.bench.generator import Job, Run
from tests.bench.ratios import Ratio, Ratios, judged, ratios_in

ROOT = Path(__file__).parent.parent.parent


def outcome_of(module: str, *options: str) -> str:
    """Run a benchmark and return what it printed, in one line."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-m", module, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)  # noqa: S603 -- ours
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join(done.stdout.split())


def sections_in(report: Path) -> dict[str, Any]:
    """Return what `--json` wrote."""
    return dict(json.loads(report.read_text())["sections"])


@pytest.mark.timeout(150)
def test_the_benchmark_measures_every_server(tmp_path: Path) -> None:
    """One short round: all comparators that can run here answer without an error and stand in their tables."""
    report = tmp_path / "report.json"
    tables = ("check", "batch", "sockets", "news", "start")
    options = ["--rounds", "1", "--warm-up", "0", "--markdown", "--only", *tables, "--json", str(report)]
    said = outcome_of("tests.bench", *options)
    sections = sections_in(report)
    assert set(sections) == set(tables)
    expected = {"this sidecar", "aiohttp + TTLCache", "bare asyncio protocol"}
    if shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"):
        expected |= {"nginx proxy_cache", "nginx return 200"}
    assert set(sections["check"]["numbers"]) >= expected
    for section in sections.values():
        assert all(f"| {row[0]} |" in said for row in section["rows"])
        assert len({len(row) for row in (section["columns"], *section["rows"])}) == 1


@pytest.mark.timeout(90)
def test_the_benchmark_of_restarts_counts_what_is_read(tmp_path: Path) -> None:
    """Whether nobody is in the store or thousands: one list is read for the first answer."""
    report = tmp_path / "report.json"
    _ = outcome_of("tests.bench.restart", "--customers", "5000", "--rounds", "1", "--json", str(report))
    numbers = sections_in(report)["restart"]["numbers"]
    assert [numbers[f"this sidecar, {customers} customers"]["reads"] for customers in ("0", "5,000")] == [1, 1]


@pytest.mark.timeout(120)
def test_a_run_of_many_checks_looks_at_the_process_on_the_way(tmp_path: Path) -> None:
    """As many as wanted are answered, and nothing has grown at the end."""
    report = tmp_path / "report.json"
    _ = outcome_of("tests.bench.flat", "--checks", "20000", "--customers", "100", "--json", str(report))
    numbers = sections_in(report)["flat"]["numbers"]
    assert numbers["checks"] >= 20_000
    assert numbers["first third"]["descriptors"] > numbers["idle after"]["descriptors"]


def test_the_page_is_what_the_numbers_say() -> None:
    """Its tables come from the numbers beside it; ``python -m tests.bench.page`` writes them again."""
    assert page.rendered(page.PAGE.read_text(), page.kept()) == page.PAGE.read_text()


def test_the_page_has_a_place_for_every_table() -> None:
    """Each table is on the page once, and nothing is that no command measures."""
    assert sorted(match[2] for match in page.MARKED.finditer(page.PAGE.read_text())) == sorted(
        {"targets", *NAMES, *page.COMMANDS}
    )


def line(rate: float, cpu_us: float, theirs: float = 0.0) -> dict[str, float]:
    """Return what is known of a line of a contest."""
    return {"rate": rate, "cpu_us": cpu_us, "theirs": theirs}


def test_a_ratio_is_larger_where_we_are_better() -> None:
    """By requests a second ours are divided by theirs, by processor time theirs by ours; who was absent has none."""
    found = ratios_in({"check": {"this sidecar": line(300, 5), "nginx proxy_cache": line(100, 20)}})
    pair = "check: this sidecar / nginx proxy_cache"
    assert found == {
        f"{pair}, requests/s": Ratio(3, is_noisy=False),
        f"{pair}, by processor time": Ratio(4, is_noisy=False),
    }


def test_a_ratio_is_noisy_when_somebody_else_used_the_cores() -> None:
    """In either of its two lines."""
    found = ratios_in({"check": {"this sidecar": line(1, 1), "nginx proxy_cache": line(1, 1, theirs=0.2)}})
    assert [ratio.is_noisy for ratio in found.values()] == [True, True]


def run(value: float, *, is_noisy: bool = False) -> Ratios:
    """Return what a run found."""
    return {"a": Ratio(value, is_noisy)}


@pytest.mark.parametrize(
    ("runs", "status"),
    [
        ([run(0.86)], 0),
        ([run(0.84), run(0.9)], 0),
        ([run(0.84), run(0.83)], FELL),
        ([run(0.84), run(2, is_noisy=True)], FELL),
        ([run(1, is_noisy=True), run(1)], 0),
        ([run(1, is_noisy=True), run(1, is_noisy=True)], NOISY),
        ([{}], NOTHING),
    ],
)
def test_a_ratio_is_tried_twice_before_it_has_fallen(runs: list[Ratios], status: int) -> None:
    """More than 15 % below the recorded one, in both tries that could be judged; noise passes nothing and fails nothing."""
    left = list(runs)
    verdict = tried({"a": 1.0}, lambda: left.pop(0))
    assert left == []
    assert status_of(verdict, ["a"]) == status
    assert bool(said_of(verdict)) is bool(status)


def test_what_fell_is_named_with_both_numbers() -> None:
    """So are those that could not be judged, and those that were not measured."""
    found = judged({"a": 1.0, "b": 1.0, "c": 1.0}, [run(0.5) | {"b": Ratio(1, is_noisy=True)}])
    assert said_of(found) == ["FELL a: 0.500, recorded 1.000 (-50%)", "too noisy to judge: b", "not measured here: c"]


def test_what_is_recorded_is_what_is_compared() -> None:
    """Every pair has its two ratios on record."""
    recorded = json.loads(RECORDED.read_text())["ratios"]
    assert {name.rpartition(", ")[0] for name in recorded} == {pair.name for pair in ratios.PAIRS}
    assert len(recorded) == 2 * len(ratios.PAIRS)


@contextmanager
def dozing(pause: float) -> Iterator[int]:
    """Serve one connection on a port; the first answer takes a while, all others none."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            sleep(pause)
            while connection.recv(1000):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
        thread.join()


def test_a_pause_is_charged_to_all_who_would_have_asked_meanwhile() -> None:
    """At a fixed rate latency counts from the moment that was set for a question, not from when it could be sent."""
    with dozing(0.5) as port:
        paced = Run(Job(port, ["GET / HTTP/1.1\r\n\r\n"], connections=1, seconds=1.5, rate=100))
        report = paced.play()
        paced.close()
    assert report["wanted"] == 150
    assert sum(latency > 0.1 for latency in paced.latencies) >= 30


def test_each_question_is_asked_once_where_that_is_wanted() -> None:
    """The job ends with the last answer, however long it might have taken."""
    with dozing(0) as port:
        once = Run(Job(port, ["GET / HTTP/1.1\r\n\r\n"] * 7, connections=1, seconds=60, once=True))
        assert once.play()["requests"] == 7
        once.close()


def test_an_answer_that_is_an_error_is_counted() -> None:
    """So is a connection that breaks; either ends a benchmark."""
    with dozing(0) as port:
        broken = Run(Job(port, ["GET / HTTP/1.1\r\n\r\n"], connections=1, seconds=60))
        for asker in broken.askers:
            asker.socket.shutdown(socket.SHUT_RD)
        assert broken.play()["read"] == 1
        broken.close()
