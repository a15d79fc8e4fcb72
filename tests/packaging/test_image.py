"""The image is built without a container engine and run as a kubelet would: without root, on files that it cannot write."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from sidecar import __version__
from sidecar.demo import FakeStripe
from tests.faults.processes import LOCAL, PATIENCE, Sidecar
from tests.faults.truth import Truth
from tests.packaging.conftest import SECRET
from tests.packaging.containers import Container
from tests.packaging.image import Image, Store, pip_configuration

ROOT = Path(__file__).parents[2]
ENDED = 5.0
"""Seconds after which an image that was told to end must have; a kubelet gives thirty."""

SMALL = 64 * 1024
"""Kilobytes of memory that suffice with an empty cache: what a pod asks for."""

MOMENTS, TOGETHER = 24, 4
UNCHECKED = 1
"""The flags of bytecode that goes by the hash of its source and is not compared with it."""

# The image is built in the first of them.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    asyncio.get_running_loop().set_debug(False)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as found:
        yield found


@pytest.fixture
async def contained(
    image: Image, stripe: FakeStripe, upstream: str, session: aiohttp.ClientSession, tmp_path: Path
) -> AsyncIterator[Callable[[str], tuple[Container, Sidecar]]]:
    """Name a sidecar that was not started yet, in a container of its own; in the end none runs."""
    truth = Truth(stripe)
    truth.change("cus_ada", "sso", held=True)
    variables = LOCAL | {"SIDECAR_STRIPE_API_BASE": upstream}
    sidecars: list[Sidecar] = []

    def contain(name: str) -> tuple[Container, Sidecar]:
        container = Container(image, tmp_path / name, variables)
        log = tmp_path / f"{name}.log"
        sidecars.append(Sidecar(lambda _, log: container.start(log), session, variables, log, truth))
        return container, sidecars[-1]

    yield contain
    for sidecar in sidecars:
        await sidecar.let_go()


def test_the_same_is_built_again(store: Store, runtime: Image) -> None:
    """Without anything that was kept of the first time: byte by byte, for an image's id is a hash of all of it."""
    assert store.build("runtime", "--no-cache") == runtime.told["FromImageID"]


async def test_it_answers_and_ends(contained: Callable[[str], tuple[Container, Sidecar]]) -> None:
    """A check, a probe as a kubelet executes it, the metrics; with little memory, and 0 soon after TERM."""
    container, sidecar = contained("one")
    await sidecar.start()
    assert (await sidecar.check("cus_ada", "sso"))["reason"] == "entitled"
    assert (await sidecar.metrics())['checks_total{reason="entitled",source="upstream"}'] == 1
    assert (await container.execute("entitlement-sidecar", "health", "--url", sidecar.ops_url))[0] == 0
    assert await container.execute("entitlement-sidecar", "version") == (0, f"{__version__}\n")
    status, wrote = await container.execute("python", "-c", "open('/opt/app/x', 'w')")
    assert status == 1
    assert "Read-only file system" in wrote
    assert sidecar.started is not None
    process = Path(f"/proc/{sidecar.started.pid}/status").read_text()  # noqa: ASYNC240 -- memory, not a disk
    told = dict(line.split(":\t", 1) for line in process.splitlines() if ":\t" in line)
    assert told["Uid"].split() == told["Gid"].split() == ["65532"] * 4
    assert {told[name].strip("0") for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {""}
    assert int(told["VmRSS"].split()[0]) < SMALL
    told_at = time.perf_counter()
    assert await sidecar.terminate() == 0
    assert time.perf_counter() - told_at < ENDED
    assert sidecar.complaints() == []


async def test_term_at_any_moment_of_the_start(contained: Callable[[str], tuple[Container, Sidecar]]) -> None:
    """From the first on at which Python runs, and cannot handle anything yet: none is lost, and each is 0."""
    begun = time.perf_counter()
    _, sidecar = contained("whole")
    await sidecar.start()
    whole = time.perf_counter() - begun
    assert await sidecar.terminate() == 0

    async def end_after(seconds: float, number: int) -> None:
        _, sidecar = contained(f"moment-{number}")
        await sidecar.begin()
        await asyncio.sleep(seconds)
        sidecar.signal(signal.SIGTERM)
        told_at = time.perf_counter()
        assert await sidecar.ended() == 0, f"after {seconds}: {sidecar.lines()}"
        assert time.perf_counter() - told_at < ENDED, seconds
        assert sidecar.complaints() == []

    # Python itself wakes up in the first of them; half of all are there.
    moments = [whole * (number / MOMENTS) ** 2 for number in range(MOMENTS)]
    for first in range(0, MOMENTS, TOGETHER):
        async with asyncio.TaskGroup() as group:
            for number in range(first, min(first + TOGETHER, MOMENTS)):
                _ = group.create_task(end_after(moments[number], number))


def test_what_it_says_of_itself(image: Image) -> None:
    """The version is the package's, the user a number, and it begins with what makes signals wait."""
    says = image.configuration
    assert says["Labels"]["org.opencontainers.image.title"] == "entitlement-sidecar"
    assert says["Labels"]["org.opencontainers.image.version"] == __version__
    assert says["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert says["User"] == "65532:65532"
    assert says["StopSignal"] == "SIGTERM"
    assert (says["Entrypoint"], says["Cmd"]) == (["env", "--block-signal=TERM,INT", "entitlement-sidecar"], ["serve"])


def test_what_is_in_it(image: Image) -> None:
    """Of ours the package alone, as it stands here; all of it root's, none of it writable; bytecode for every module."""
    packages = next((image.files / "opt/app/lib").glob("python3.*/site-packages"))
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "sidecar").rglob("*") if path.suffix in (".py", ".typed")}
    there = {str(path.relative_to(packages)) for path in (packages / "sidecar").rglob("*") if path.is_file()}
    assert {name for name in there if "__pycache__" not in name} == ours
    others = {path.name for path in packages.iterdir()}
    assert not others & {"tests", "pip", "pytest", "hatchling", "setuptools"}
    for path in (image.files / "opt").rglob("*"):
        status = path.lstat()
        assert (status.st_uid, status.st_gid) == (0, 0), path
        assert path.is_symlink() or not status.st_mode & 0o6022, path
    for source in packages.rglob("*.py"):
        compiled = list((source.parent / "__pycache__").glob(f"{source.stem}.cpython-*.pyc"))
        assert [path.read_bytes()[4] for path in compiled] == [UNCHECKED], source


def test_no_layer_keeps_how_pip_was_configured(image: Image) -> None:
    """Neither the planted secret nor the place of an index is in a file, in the history or in a label."""
    configured = [value for name, value in pip_configuration().items() if name.endswith(("index-url", "find-links"))]
    hidden = [SECRET, "pip.conf", *configured]
    told = json.dumps(image.told)
    history = [part for part in hidden if part in told]
    assert history == []
    assert not (image.files / "etc/pip.conf").exists()
    for path in image.files.rglob("*"):
        if path.is_file() and not path.is_symlink() and b"site-packages/pip" not in bytes(path):
            content = path.read_bytes()
            assert not any(part.encode() in content for part in (SECRET, *configured)), path


def test_the_small_one_has_no_shell(minimal: Image, runtime: Image) -> None:
    """Nothing to run but Python and what starts it; a scanner finds the versions of Debian's libraries."""
    programs = {
        path.name for folder in ("bin", "sbin", "usr/bin", "usr/sbin") for path in (minimal.files / folder).glob("*")
    }
    assert programs == {"env"}
    assert not any(path.lstat().st_mode & 0o6000 for path in minimal.files.rglob("*"))
    assert "Package: libssl3" in (minimal.files / "var/lib/dpkg/status").read_text()
    assert minimal.size < runtime.size
