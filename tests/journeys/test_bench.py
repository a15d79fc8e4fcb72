"""The benchmark runs; what it measures is not judged here."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.timeout(90)
def test_the_benchmark_measures_every_server(tmp_path: Path) -> None:
    """One short round: all comparators that can run here answer without an error and stand in the table."""
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "tests.bench", "--seconds", "1", "--rounds", "1"]
    command += ["--only", "check", "news", "start", "--json", str(report)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)  # noqa: S603 -- ours
    assert done.returncode == 0, done.stdout + done.stderr
    expected = {"this sidecar", "aiohttp + TTLCache", "bare asyncio protocol"}
    if shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"):
        expected.add("nginx proxy_cache")
    names = set(json.loads(report.read_text())["sections"]["check"]["numbers"])
    assert names >= expected
    assert all(name in done.stdout for name in expected)


@pytest.mark.timeout(90)
def test_the_benchmark_of_restarts_counts_what_is_read() -> None:
    """Whether one customer is in the store or thousands: one list is read for the first answer."""
    command = [sys.executable, "-m", "tests.bench.restart", "--customers", "5000", "--rounds", "1"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)  # noqa: S603 -- ours
    assert done.returncode == 0, done.stdout + done.stderr
    said = " ".join(done.stdout.split())
    assert said.count("from store") == 2
    assert said.count(" 1 lists read") == 2
