"""Containers as a kubelet would have them, by runc: root read only, no capability, what the image says and nothing else."""

import asyncio
import json
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.faults.processes import PATIENCE, Started
from tests.packaging.image import Image

NAMES = count()


@dataclass
class Container:
    """One life of an image with a command."""

    image: Image
    directory: Path
    environment: dict[str, str]
    name: str = field(default_factory=lambda: f"entitlement-sidecar-{id(NAMES)}-{next(NAMES)}")

    def write(self) -> None:
        """Write what runc is to run. It has the machine's network, for that is where the built-in Stripe is."""
        says = self.image.configuration
        user, _, group = says["User"].partition(":")
        spec = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": int(user), "gid": int(group)},
                "args": [*says["Entrypoint"], *says["Cmd"]],
                "env": [*says["Env"], *(f"{name}={value}" for name, value in self.environment.items())],
                "cwd": says["WorkingDir"],
                "capabilities": {},
                "noNewPrivileges": True,
            },
            "root": {"path": str(self.image.files), "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            ],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
        }
        self.directory.mkdir()
        (self.directory / "config.json").write_text(json.dumps(spec))

    async def start(self, log: Path) -> Started:
        """Start it, and wait until Python runs."""
        await asyncio.to_thread(self.write)
        pid_file = self.directory / "pid"
        with log.open("ab") as output:
            process = await self._runc(
                *("run", "--bundle", str(self.directory), "--pid-file", str(pid_file), self.name),
                output=output.fileno(),
            )

        async def let_go() -> None:
            if process.returncode is None:
                await (await self._runc("kill", self.name, "KILL")).wait()
            await process.wait()

        async with asyncio.timeout(PATIENCE):
            while not (pid_file.exists() and pid_file.read_text()):
                assert process.returncode is None, log.read_text()  # noqa: ASYNC240 -- a few lines
                await asyncio.sleep(0.001)
            pid = int(pid_file.read_text())
            while process.returncode is None and not runs(pid):
                await asyncio.sleep(0)
        return Started(pid, asyncio.get_running_loop().create_task(process.wait()), let_go)

    async def execute(self, *command: str) -> tuple[int, str]:
        """Run a command in it as an exec probe does; return its status and what it wrote."""
        process = await self._runc("exec", self.name, *command, output=asyncio.subprocess.PIPE)
        written, _ = await process.communicate()
        return await process.wait(), written.decode()

    async def _runc(self, *arguments: str, output: int = asyncio.subprocess.DEVNULL) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *("runc", "--root", str(self.directory.parent / "runc"), *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
        )


def runs(pid: int) -> bool:
    """Tell whether Python runs by now: before it were runc and, for a thousandth of a second, what blocks the signals."""
    program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    return program not in (b"", b"runc", b"env")
