"""What the Dockerfile says, read without building it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar import __version__

ROOT = Path(__file__).parents[2]
TEXT = re.sub(r"\\\n", "", re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE))
STAGES = {
    stage.splitlines()[0].rpartition(" AS ")[2]: [line for line in stage.splitlines()[1:] if line]
    for stage in re.split(r"^FROM ", TEXT, flags=re.MULTILINE)[1:]
}


def said(stage: str, instruction: str) -> list[str]:
    """Return what a stage says with an instruction."""
    lines = (line.partition(" ") for line in STAGES[stage])
    return [rest for name, _, rest in lines if name == instruction]


def test_hadolint_has_nothing_to_say() -> None:
    """Not even as advice."""
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("there is no hadolint")
    command = [hadolint, "--no-color", "Dockerfile"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 -- ours
    assert (checked.returncode, checked.stdout) == (0, "")


@pytest.mark.parametrize("stage", ["minimal", "runtime"])
def test_what_is_said_of_an_image(stage: str) -> None:
    """A user by number, as `runAsNonRoot` demands; no shell between it and the signals; the version is the package's."""
    assert said(stage, "USER") == ["65532:65532"]
    assert said(stage, "STOPSIGNAL") == ["SIGTERM"]
    assert json.loads(said(stage, "ENTRYPOINT")[0])[-1] == "entitlement-sidecar"
    assert json.loads(said(stage, "CMD")[0]) == ["serve"]
    assert f"VERSION={__version__}" in said(stage, "ARG")
    assert said(stage, "RUN") == [], "what is run may leave something behind"


def test_both_images_say_the_same() -> None:
    """But for where programs are, and which files there are."""
    minimal, runtime = (
        [re.sub(r"PATH=\S+", "PATH=…", line) for line in STAGES[name] if not line.startswith("COPY ")]
        for name in ("minimal", "runtime")
    )
    assert minimal == runtime


def test_nothing_is_installed_that_is_not_locked() -> None:
    """Each wheel by its hash, or without any index; nothing is built but our own."""
    installs = re.findall(r"-m pip [^&\n]*", TEXT)
    assert len(installs) == 4
    for install in installs:
        assert "--no-index" in install or ("--require-hashes" in install and "--only-binary :all:" in install), install
    assert "ADD " not in TEXT


def test_only_what_is_copied_is_let_in() -> None:
    """`.dockerignore` starts from nothing."""
    first, *rest = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert first == "**"
    let_in = {line.removeprefix("!").rstrip("/") for line in rest if line.startswith("!")}
    copied = [word for line in said("build", "COPY") for word in line.split()[:-1]]
    assert sorted(let_in) == sorted(copied)
    assert all((ROOT / name).exists() for name in let_in)
