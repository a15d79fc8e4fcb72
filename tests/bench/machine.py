"""Where and when this was measured."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
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
    unleash_proxy: str
    cerbos: str
    load_average: float

    @classmethod
    def this(cls, tools: Iterable[Path] = ()) -> "Machine":
        """Look around, also in these folders of npm packages."""
        tools = list(tools)
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
            unleash_proxy=package_version(tools, "@unleash/proxy"),
            cerbos=package_version(tools, "@cerbos/cerbos-linux-x64"),
            load_average=round(os.getloadavg()[0], 2),
        )

    def __str__(self) -> str:
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in asdict(self).items())


def package_version(tools: Iterable[Path], name: str) -> str:
    """Return the version of an npm package in one of these folders."""
    found = (folder / name / "package.json" for folder in tools)
    return next((str(json.loads(path.read_text())["version"]) for path in found if path.is_file()), "not found")


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
