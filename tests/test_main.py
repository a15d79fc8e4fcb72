"""The way in installs its handler first and runs the command line."""

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
    """Arguments and handlers are the process's: leave them as they were."""
    arguments, handlers = (
        sys.argv[:],
        [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)],
    )
    yield
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
