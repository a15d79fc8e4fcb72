"""The way in installs its handler first and runs the command line."""

import gc
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar import __version__
from sidecar.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
MAIN = ROOT / "sidecar" / "__main__.py"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Arguments and handlers, and the like, are the process's: leave them as they were."""
    arguments, environment, thresholds = sys.argv[:], os.environ.copy(), gc.get_threshold()
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    yield
    os.environ.clear()
    os.environ.update(environment)
    gc.set_threshold(*thresholds)
    sys.argv[:] = arguments
    for number, handler in handlers:
        signal.signal(number, handler)


def test_runs_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The installed command is called by its own name, whatever the file is called."""
    sys.argv[:] = ["__main__.py", "--help"]
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("Usage: entitlement-sidecar [OPTIONS] COMMAND")


def test_runs_as_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    """What `python -m sidecar` runs is the same."""
    sys.argv[:] = ["sidecar", "version"]
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(MAIN), run_name="__main__")
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"{__version__}\n"


EARLY = """
import signal, sys
from sidecar.__main__ import main
try:
    main()
except SystemExit:
    signal.raise_signal(getattr(signal, sys.argv.pop()))
"""


@pytest.mark.parametrize(
    ("command", "number", "status"),
    [
        ("serve", "SIGTERM", 0),
        ("serve", "SIGINT", 0),
        ("demo", "SIGTERM", 0),
        ("version", "SIGTERM", 143),
        ("check", "SIGINT", 130),
    ],
)
def test_a_signal_before_the_loop_runs(command: str, number: str, status: int) -> None:
    """The handler is there before anything that takes time: a server ends well, a question has no answer."""
    arguments = [sys.executable, "-c", EARLY, command, "--help", number]
    ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, check=False)  # noqa: S603 -- ours
    assert (ended.returncode, ended.stderr) == (status, b"")


START = """
import gc, json, sys
from sidecar.__main__ import main
try:
    main()
except SystemExit:
    from sidecar.settings import meanings
    collections = [one["collections"] for one in gc.get_stats()]
    print(json.dumps([list(sys.modules), collections, gc.get_freeze_count(), meanings.cache_info().misses]))
"""
UNNEEDED = {
    "cryptography",
    "difflib",
    "dotenv",
    "encodings.idna",
    "opentelemetry",
    "pydantic.networks",
    "pydantic_settings",
    "pytest",
    "rich",
    "sidecar.demo",
    "sidecar.tour",
    "sidecar.tracing",
    "sqlite3",
    "spy",
    "stamina",
    "tomllib",
}
"""What takes time and memory, and serves only some: whoever has a store, a file, traces, a typing error. ``spy`` is ours."""


def test_a_plain_start_does_no_more_than_it_must(tmp_path: Path) -> None:
    """Libraries that nobody asked for stay out, those that would listen in on the settings too; no help is written.

    What was imported is not searched for circles, for it stays. The start gets as far as sockets, where a key is missing.
    """
    spy = tmp_path / "spy-1.dist-info"
    spy.mkdir()
    _ = (spy / "METADATA").write_text("Metadata-Version: 2.1\nName: spy\nVersion: 1\n")
    _ = (spy / "entry_points.txt").write_text("[pydantic]\nspy = spy:plugin\n")
    _ = (tmp_path / "spy.py").write_text("plugin = None\n")
    others = ("COVERAGE_", "PYDANTIC_", "SIDECAR_", "STRIPE_")  # coverage has libraries of its own
    environment = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    ended = subprocess.run(  # noqa: S603 -- ours
        [sys.executable, "-c", START, "serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=True,
    )
    modules, (_, *of_old_objects), frozen, times_explained = json.loads(ended.stdout)
    assert b"set this, SIDECAR_STRIPE_API_KEY or STRIPE_API_KEY" in ended.stderr
    assert "uvloop" in modules
    assert UNNEEDED & set(modules) == set()
    assert sum(of_old_objects) <= 1  # the first that comes later: of little, for the rest is out of sight by then
    assert frozen > 10_000
    assert times_explained == 0
