"""The servers that are compared, each in a process of its own, on loopback and, where it can, on a unix socket."""

import json
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from time import perf_counter, sleep
from typing import TypeVar, cast

from tests.bench.processes import Cores, Failed, started
from tests.bench.questions import Answer, Question

STARTING = 20.0
"""Seconds that a server gets until it listens, and answers as it should."""

Address = int | str
"""A port of loopback, or the path of a unix socket."""

Found = TypeVar("Found")


class Absent(Exception):
    """A server cannot be had here, and why."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    name: str
    pid: int
    port: int
    socket: str = ""
    """The path of its unix socket."""
    ops: int = 0
    """The port of its metrics."""

    @property
    def url(self) -> str:
        """Where it is on loopback."""
        return f"http://127.0.0.1:{self.port}"

    def verify(self, question: Question, *, over_unix: bool = False) -> Answer:
        """Ask once, the last of the paths, and return the answer.

        :raises Failed: when it is not the one that this server has to give.
        """
        path = question.paths[-1]
        answer = fetch(self.socket if over_unix else self.port, question.raw(path))
        if not question.is_right(path, answer):
            raise Failed(f"{self.name} answered {path} wrongly:\n{answer.raw[:2000].decode(errors='replace')}")
        return answer

    def await_right(self, question: Question) -> None:
        """Ask until the answer is right.

        :raises Failed: when that takes too long.
        """
        until = perf_counter() + STARTING
        while True:
            try:
                _ = self.verify(question)
            except Failed:
                if perf_counter() > until:
                    raise
                sleep(0.05)
            else:
                return


class Stage:
    """Starts servers when they are first asked for; all stop when the stack closes."""

    def __init__(self, stack: ExitStack, folder: Path, cores: Cores, tools: list[Path]) -> None:
        self.folder = folder
        self.cores = cores
        self.tools = tools
        """Folders of npm packages."""
        self._stack = stack
        self._had: dict[str, object] = {}

    def once(self, name: str, make: Callable[[], Found]) -> Found:
        """Return what was made under this name, or make it."""
        if name not in self._had:
            try:
                self._had[name] = make()
            except Absent as absent:
                self._had[name] = absent
        found = self._had[name]
        if isinstance(found, Absent):
            raise found
        return cast("Found", found)  # one name, one type

    def start(
        self,
        name: str,
        command: list[str],
        port: int,
        *,
        beside_load: bool = False,
        variables: dict[str, str] | None = None,
    ) -> int:
        """Start a process and wait until it listens on ``port``; return its id.

        :raises Failed: when it does not.
        """
        log = self.folder / f"{name}.log"
        core = self.cores.load if beside_load else self.cores.server
        child = self._stack.enter_context(started(command, core=core, log=log, variables=variables))
        await_listening(name, child, port, log)
        return child.pid

    def package(self, path: str) -> Path:
        """Return a file of an npm package.

        :raises Absent: when it is in none of the folders.
        """
        for folder in self.tools:
            if (found := folder / path).is_file():
                return found
        raise Absent(f"{path} is in no folder that --node-modules or NODE_PATH names")


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_listening(name: str, child: Popen[bytes], port: int, log: Path) -> None:
    """Wait until ``child`` listens.

    :raises Failed: with its last words, when it ends or takes too long.
    """
    until = perf_counter() + STARTING
    while child.poll() is None and perf_counter() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            sleep(0.02)
        else:
            return
    raise Failed(f"{name} does not listen:\n{log.read_text(errors='replace')[-2000:]}")


def fetch(address: Address, request: bytes) -> Answer:
    """Return the answer to a request, byte for byte as a load generator would get it.

    :raises Failed: when there is none that says how long it is.
    """
    try:
        with socket.socket(socket.AF_INET if isinstance(address, int) else socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(("127.0.0.1", address) if isinstance(address, int) else address)
            connection.sendall(request)
            with connection.makefile("rb") as stream:
                lines = []
                while (line := stream.readline()).strip():
                    lines.append(line)
                lengths = [int(line[15:]) for line in lines if line.lower().startswith(b"content-length:")]
                return Answer(b"".join([*lines, line]), stream.read(lengths[0]))
    except (OSError, ValueError, IndexError) as error:
        raise Failed(f"{address} gives no answer to {request[:200]!r}: {error!r}") from None


def get(port: int, path: str) -> bytes:
    """Return the body of the answer to a GET."""
    return fetch(port, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()).body


def count_of_lists(stripe: int) -> int:
    """Return how often the built-in Stripe was asked for a list."""
    return int(json.loads(get(stripe, "/demo"))["requests"].get("list", 0))
