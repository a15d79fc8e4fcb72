"""The way in installs its handler first and runs the command line."""

import runpy
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar import __version__
from sidecar.__main__ import main

MAIN = Path(__file__).resolve().parents[1] / "sidecar" / "__main__.py"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Arguments and handlers are the process's: leave them as they were."""
    arguments, handler = sys.argv[:], signal.getsignal(signal.SIGTERM)
    yield
    sys.argv[:] = arguments
    signal.signal(signal.SIGTERM, handler)


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


@pytest.mark.parametrize(("command", "status"), [("serve", 0), ("demo", 0), ("version", 143), ("check", 143)])
def test_a_term_before_the_loop_runs(command: str, status: int) -> None:
    """The handler is there before anything that takes time: a server ends well, a question has no answer."""
    sys.argv[:] = ["sidecar", command, "--help"]
    with pytest.raises(SystemExit):
        main()
    with pytest.raises(SystemExit) as caught:
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == status
