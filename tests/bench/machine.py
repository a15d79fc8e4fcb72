"""Where and when this was measured."""

import os
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Machine:
    """What the numbers depend on."""

    date: str
    cores: int
    cpu: str
    kernel: str
    python: str
    aiohttp: str
    uvloop: str
    nginx: str
    wrk: str
    load_average: float

    @classmethod
    def this(cls) -> "Machine":
        """Look around."""
        return cls(
            date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            cores=len(os.sched_getaffinity(0)),
            cpu=cpu_model(),
            kernel=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            aiohttp=version("aiohttp"),
            uvloop=version("uvloop"),
            nginx=version_said("nginx").removeprefix("nginx version: nginx/"),
            wrk=version_said("wrk").removeprefix("wrk ").partition(" [")[0],
            load_average=round(os.getloadavg()[0], 2),
        )

    def __str__(self) -> str:
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in asdict(self).items())


def cpu_model() -> str:
    """Return the processor's name; where the kernel does not give one, its architecture."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def version_said(program: str) -> str:
    """Return the first line that a program says about its version."""
    found = shutil.which(program)
    if found is None:
        return "not found"
    done = subprocess.run([found, "-v"], capture_output=True, text=True, timeout=5, check=False)  # noqa: S603 -- a fixed name
    return (done.stdout + done.stderr).strip().partition("\n")[0]
