"""Sidecars that are processes of their own, and what they say; everything ends with the test."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from sidecar.demo import FakeStripe, serving, sign
from tests.fakes import KEY, SECRET
from tests.faults.truth import Truth, wall

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
"""Seconds after which a process that should have started, or ended, is taken to hang; much longer than it takes."""

LOCAL = {
    "SIDECAR_LISTEN": "127.0.0.1:0",
    "SIDECAR_OPS_LISTEN": "127.0.0.1:0",
    "SIDECAR_WEBHOOK_LISTEN": "127.0.0.1:0",
    "SIDECAR_WEBHOOK_SECRET": SECRET,
    "SIDECAR_STRIPE_API_KEY": KEY,
    "SIDECAR_LOG_FORMAT": "json",
}


def environment() -> dict[str, str]:
    """Return this process's environment without what would change a setting, or measure coverage.

    Coverage makes each start slower, and a process that is killed has none to give.
    """
    ours = ("SIDECAR_", "STRIPE_", "COVERAGE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@dataclass(frozen=True)
class Started:
    """A process, its exit status to come, and how to let go of it whatever it does."""

    pid: int
    status: asyncio.Task[int]
    let_go: Callable[[], Awaitable[None]]


Launch = Callable[[dict[str, str], Path], Awaitable[Started]]
"""Start `serve` with an environment and a log."""


@dataclass(frozen=True)
class Zygote:
    """The small process that forks for each start (``tests.faults.zygote``)."""

    path: Path

    async def fork(self, environment: dict[str, str], log: Path, without: str | None = None) -> Started:
        """Start a process, ``without`` one of its guards."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        order = {"environment": environment, "log": str(log), "without": without}
        writer.write(json.dumps(order).encode() + b"\n")
        pid = int(await reader.readline())

        async def read_status() -> int:
            return int(await reader.readline())

        status = asyncio.get_running_loop().create_task(read_status())

        async def let_go() -> None:
            if not status.done():
                writer.write_eof()  # has it killed
                await status
            writer.close()
            await writer.wait_closed()

        return Started(pid, status, let_go)


@contextmanager
def incubated(directory: Path) -> Iterator[Zygote]:
    """Have a zygote; leaving ends all that it has started."""
    path = directory / "zygote.sock"
    command = [sys.executable, "-m", "tests.faults.zygote", str(path)]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE) as process:  # noqa: S603 -- ours
        assert process.stdin is not None
        while not path.with_suffix(".ready").exists():
            assert process.poll() is None, "the zygote ended"
            try:
                process.wait(0.01)
            except subprocess.TimeoutExpired:
                continue
        yield Zygote(path)
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


async def execute(environment: dict[str, str], log: Path) -> Started:
    """Start a process as everybody does."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sidecar", "serve"),
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )

    async def let_go() -> None:
        if process.returncode is None:
            process.kill()
        await process.wait()

    return Started(process.pid, asyncio.get_running_loop().create_task(process.wait()), let_go)


@dataclass
class Sidecar:
    """A sidecar that may be started again and again, and a client to ask it with."""

    launch: Launch
    session: aiohttp.ClientSession
    environment: dict[str, str]
    log: Path
    truth: Truth
    starts: int = 0
    started: Started | None = None
    url: str = ""
    ops_url: str = ""
    webhook_url: str = ""
    expected: set[str] = field(default_factory=set)
    """Parts of lines that the log may have although they are errors."""
    _read: int = 0

    # Its life.

    async def start(self) -> None:
        """Start, and wait until it answers."""
        await self.begin()
        assert self.started is not None
        async with asyncio.timeout(PATIENCE):
            while not self._find_addresses():
                assert not self.started.status.done(), self.lines()[self._read :]
                await asyncio.sleep(0.003)

    async def begin(self) -> None:
        """Start, and wait for nothing."""
        assert self.started is None
        self._read = len(self.lines())
        self.starts += 1
        self.started = await self.launch(self.environment, self.log)

    def _find_addresses(self) -> bool:
        """Read where it listens from what it says; tell whether it has said so."""
        for message in self.messages():
            _, found, where = message.partition("answering checks on ")
            if found:
                checks, _, ops = where.partition(", health and metrics on ")
                self.url, self.ops_url = f"http://{checks}", f"http://{ops}"
            _, found, where = message.partition("taking webhooks on ")
            if found:
                self.webhook_url = f"http://{where}/webhooks/stripe"
                return True
        return False

    async def kill(self) -> None:
        """End it without warning."""
        assert await self.end(signal.SIGKILL) == -signal.SIGKILL

    async def terminate(self) -> int:
        """Ask it to end and return the exit status."""
        return await self.end(signal.SIGTERM)

    async def end(self, number: int) -> int:
        """Send a signal, wait for the end and return the exit status."""
        self.signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """Wait for the end and return the exit status."""
        assert self.started is not None
        async with asyncio.timeout(PATIENCE):
            status = await asyncio.shield(self.started.status)
        await self.let_go()
        return status

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self.started is not None
        os.kill(self.started.pid, number)

    async def let_go(self) -> None:
        """See to it that it runs no longer."""
        if self.started is not None:
            started, self.started = self.started, None
            await started.let_go()
            await started.status

    # What it says.

    def lines(self) -> list[str]:
        """Return all that it has said, in every life."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def messages(self) -> list[str]:
        """Return what it has said in this life."""
        return [json.loads(line)["message"] for line in self.lines()[self._read :] if line.endswith("}")]

    def complaints(self) -> list[str]:
        """Return what nobody wants to read in a log: errors, and what is no line of the log at all."""
        return [line for line in self.lines() if is_complaint(line) and not any(part in line for part in self.expected)]

    # What it answers.

    async def ask(self, method: str, url: str, **options: Any) -> tuple[int, Any]:
        """Return the status and the JSON body."""
        async with self.session.request(method, url, **options) as response:
            return response.status, orjson.loads(await response.read())

    async def check(self, customer: str, lookup_key: str, query: str = "", **headers: str) -> dict[str, Any]:
        """Return a decision that was judged; ``Cache_Control`` stands for ``Cache-Control``."""
        asked_at, life = wall(), (self.log, self.starts)
        url = f"{self.url}/v1/customers/{customer}/entitlements/{lookup_key}{query}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        status, answer = await self.ask("GET", url, headers=named)
        assert status == 200, answer
        self.truth.judge(answer, asked_at, life)
        return dict(answer)

    async def checks(self, *questions: tuple[str, str]) -> list[dict[str, Any]]:
        """Return the decisions of a batch, judged."""
        asked_at, life = wall(), (self.log, self.starts)
        body = {"checks": [{"customer": customer, "lookup_key": key} for customer, key in questions]}
        status, answer = await self.ask("POST", f"{self.url}/v1/checks", json=body)
        assert status == 200, answer
        for decision in answer["results"]:
            self.truth.judge(decision, asked_at, life)
        return list(answer["results"])

    async def post(self, event: dict[str, Any]) -> int:
        """Deliver an event as Stripe does and return the status."""
        body = orjson.dumps(event)
        headers = {"Stripe-Signature": sign(body, SECRET, int(wall()))}
        async with self.session.post(self.webhook_url, data=body, headers=headers) as response:
            return response.status

    async def health(self, path: str) -> int:
        """Return the status of a probe."""
        return (await self.ask("GET", self.ops_url + path))[0]

    async def status(self) -> dict[str, Any]:
        """Return what `/status` says."""
        return dict((await self.ask("GET", f"{self.ops_url}/status"))[1])

    async def metrics(self) -> dict[str, float]:
        """Return the samples by name and labels, as they are written, without our prefix."""
        async with self.session.get(f"{self.ops_url}/metrics") as response:
            text = await response.text()
        samples = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name.removeprefix("entitlement_sidecar_"): float(value) for name, _, value in samples}


def is_complaint(line: str) -> bool:
    """Tell whether a line of the log is an error, or none of the log's lines."""
    try:
        return json.loads(line)["level"] in ("ERROR", "CRITICAL")
    except ValueError:
        return True


@dataclass
class Scene:
    """A Stripe that can go away and come back, and sidecars before it."""

    stripe: FakeStripe
    truth: Truth
    zygote: Zygote
    session: aiohttp.ClientSession
    directory: Path
    sidecars: list[Sidecar] = field(default_factory=list)
    port: int = 0
    _up: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def upstream(self) -> str:
        """Where Stripe is when it is up."""
        return f"http://127.0.0.1:{self.port}"

    async def up(self) -> None:
        """Let Stripe answer, where it did before."""
        url = await self._up.enter_async_context(serving(self.stripe, port=self.port))
        self.port = int(url.rpartition(":")[2])

    async def down(self) -> None:
        """Let Stripe refuse connections."""
        await self._up.aclose()

    def sidecar(self, *, without: str | None = None, launch: Launch | None = None, **knobs: object) -> Sidecar:
        """Return a sidecar that was not started yet; ``without`` one of its guards."""

        async def fork(environment: dict[str, str], log: Path) -> Started:
            return await self.zygote.fork(environment, log, without)

        variables = LOCAL | {"SIDECAR_STRIPE_API_BASE": self.upstream}
        variables |= {f"SIDECAR_{name.upper()}": str(value) for name, value in knobs.items()}
        log = self.directory / f"sidecar-{len(self.sidecars)}.log"
        found = Sidecar(launch or fork, self.session, environment() | variables, log, self.truth)
        self.sidecars.append(found)
        return found

    async def started(self, **knobs: Any) -> Sidecar:
        """Return a sidecar that answers."""
        found = self.sidecar(**knobs)
        await found.start()
        return found


@asynccontextmanager
async def staged(zygote: Zygote, directory: Path) -> AsyncIterator[Scene]:
    """Have a Stripe that is up; at the end no process is left, and none has logged an error."""
    asyncio.get_running_loop().set_debug(False)  # it makes each of many tasks slow
    stripe = FakeStripe(key=KEY)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=PATIENCE)) as session:
        scene = Scene(stripe, Truth(stripe), zygote, session, directory)
        try:
            await scene.up()
            yield scene
            assert [line for sidecar in scene.sidecars for line in sidecar.complaints()] == []
        finally:
            stripe.break_with(None)
            for sidecar in scene.sidecars:
                await sidecar.let_go()
            await scene.down()
