"""Processes that the benchmark starts: each on its core, stopped at the end; and what /proc says they used."""

import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
STOPPING = 5.0
"""Seconds that a process gets to end before it is killed."""


class Failed(Exception):
    """The benchmark has no result, and why."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the measured server runs, and where everything else does."""

    server: int
    load: int

    @classmethod
    def of_this_machine(cls) -> "Cores":
        """Return two cores of those that this process may use, not two threads of one core if that can be had."""
        first, *others = sorted(os.sched_getaffinity(0))
        if not others:
            return cls(first, first)
        together = siblings(first)
        return cls(first, next((core for core in others if core not in together), others[0]))

    @property
    def is_one(self) -> bool:
        """Whether server and load generator share a core."""
        return self.server == self.load


def siblings(core: int) -> set[int]:
    """Return the hardware threads that share a core with ``core``."""
    try:
        text = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list").read_text()
    except OSError:
        return {core}
    ranges = [part.split("-") for part in text.strip().split(",")]
    return {number for part in ranges for number in range(int(part[0]), int(part[-1]) + 1)}


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Run on ``core`` for a while; a process started meanwhile stays there from its first instruction on."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def started(
    command: Sequence[str], *, core: int, log: Path, variables: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process on ``core``; leaving stops it. What it says goes to ``log``."""
    with log.open("wb") as output, pinned(core):
        child = subprocess.Popen(  # noqa: S603 -- commands are built here, from fixed words
            command,
            cwd=ROOT,
            env=environment() | (variables or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield child
    finally:
        stop(child)


def environment() -> dict[str, str]:
    """Return the environment without what would change a setting of the sidecar or how Python runs."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("SIDECAR_", "STRIPE_", "PYTHON"))}


def stop(child: subprocess.Popen[bytes]) -> None:
    """End a process, by force if it takes too long."""
    child.terminate()
    try:
        child.wait(STOPPING)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def output_of(command: Sequence[str], *, core: int, log: Path, seconds: float) -> str:
    """Return what a process that ends by itself said.

    :raises Failed: when it ends badly, or not within ``seconds``.
    """
    with started(command, core=core, log=log) as child:
        try:
            status = child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{Path(command[0]).name} did not end within {seconds:.0f} s") from None
    said = log.read_text(errors="replace")
    if status != 0:
        raise Failed(f"{Path(command[0]).name} ended with status {status}:\n{said[-2000:]}")
    return said


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that are used here (proc(5))."""

    parent: int
    ticks: int
    pages: int

    @classmethod
    def read(cls, path: Path) -> "Stat | None":
        """Return the fields, or nothing when the process has ended."""
        try:
            fields = path.read_text().rpartition(")")[2].split()  # the name before it may hold blanks
        except (FileNotFoundError, ProcessLookupError):
            return None
        return cls(parent=int(fields[1]), ticks=int(fields[11]) + int(fields[12]), pages=int(fields[21]))


def family(pid: int) -> Iterable[Stat]:
    """Return ``pid`` and all that descend from it."""
    known = {int(path.parent.name): stat for path in Path("/proc").glob("[0-9]*/stat") if (stat := Stat.read(path))}
    found = [pid] if pid in known else []
    for member in found:  # grows while it is walked
        found.extend(child for child, stat in known.items() if stat.parent == member)
    return [known[member] for member in found]


def cpu_seconds(pid: int) -> float:
    """Return the processor time, user and system, that a process and its children have used."""
    return sum(stat.ticks for stat in family(pid)) / TICKS


def resident_bytes(pid: int) -> int:
    """Return the memory that a process and its children hold; pages that they share count once for each."""
    return sum(stat.pages for stat in family(pid)) * PAGE


def busy_seconds(core: int) -> float:
    """Return how long a core has worked for any process, or was taken by the host (proc(5)); not for interrupts."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _, _, _, _, steal = map(int, ticks[:8])
            return (user + nice + system + steal) / TICKS
    raise Failed(f"/proc/stat does not know core {core}")
