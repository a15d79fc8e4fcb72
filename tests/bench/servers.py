"""The servers that are compared, each in a process of its own on loopback, warmed and looked at before it is measured."""

import json
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from time import perf_counter, sleep

from tests.bench.nginx import LIST, configuration
from tests.bench.processes import Cores, Failed, started
from tests.bench.upstream import CUSTOMER, KEY, LOOKUP_KEYS

LOOKUP_KEY = LOOKUP_KEYS[3]
CHECK = f"/v1/customers/{CUSTOMER}/entitlements/{LOOKUP_KEY}"
MEMBERS = {"customer", "lookup_key", "entitled", "reason", "source", "age", "stale", "as_of"}
STARTING = 15.0
"""Seconds that a server gets until it listens."""

OURS, PLAIN, NGINX, BARE = "this sidecar", "aiohttp + TTLCache", "nginx proxy_cache", "bare asyncio protocol"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, also as it came over the wire."""

    head: bytes
    body: bytes

    @property
    def is_ok(self) -> bool:
        """Whether the status is 200."""
        return self.head.startswith(b"HTTP/1.1 200 ")

    @property
    def raw(self) -> bytes:
        """Every byte of it."""
        return self.head + self.body


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    name: str
    pid: int
    port: int
    path: str
    is_right: Callable[[Answer], bool]

    @property
    def url(self) -> str:
        """What is asked."""
        return f"http://127.0.0.1:{self.port}{self.path}"

    def verify(self) -> Answer:
        """Ask once and return the answer.

        :raises Failed: when it is not the one that this server has to give.
        """
        answer = fetch(self.port, self.path)
        if not self.is_right(answer):
            raise Failed(f"{self.name} answered wrongly:\n{answer.raw.decode(errors='replace')}")
        return answer


def is_decision(answer: Answer) -> bool:
    """Whether this is a check's decision, out of memory."""
    said = json.loads(answer.body) if answer.is_ok else {}
    return said.keys() >= MEMBERS and said["entitled"] is True and said["source"] == "memory"


def is_cached_list(answer: Answer) -> bool:
    """Whether this is Stripe's list, out of nginx's cache."""
    said = json.loads(answer.body) if answer.is_ok else {"data": []}
    keys = {entitlement["lookup_key"] for entitlement in said["data"]}
    return b"\r\nX-Cache-Status: HIT\r\n" in answer.head and keys == set(LOOKUP_KEYS)


class Stage:
    """Starts the servers, one by one; all stop when the stack closes."""

    def __init__(self, stack: ExitStack, folder: Path, cores: Cores) -> None:
        self._stack = stack
        self._folder = folder
        self._cores = cores
        self._stripe = free_port()

    def start_stripe(self) -> None:
        """Start the built-in Stripe, beside the load generator: it has nothing to do while others are measured."""
        command = [sys.executable, "-m", "tests.bench.upstream", str(self._stripe)]
        self._start("stripe", command, self._stripe, core=self._cores.load)

    def stripe_requests(self) -> int:
        """Return how often the built-in Stripe was asked for a list."""
        return int(json.loads(fetch(self._stripe, "/demo").body)["requests"].get("list", 0))

    def sidecar(self) -> Server:
        """Start this project's sidecar, with its settings as they come."""
        port = free_port()
        variables = {
            "SIDECAR_STRIPE_API_KEY": KEY,
            "SIDECAR_STRIPE_API_BASE": f"http://127.0.0.1:{self._stripe}",
            "SIDECAR_LISTEN": f"127.0.0.1:{port}",
            "SIDECAR_OPS_LISTEN": "127.0.0.1:0",
        }
        pid = self._start("sidecar", [sys.executable, "-m", "sidecar", "serve"], port, variables=variables)
        return warmed(Server(OURS, pid, port, CHECK, is_decision))

    def plain(self) -> Server:
        """Start the plain handler."""
        port = free_port()
        stripe = f"http://127.0.0.1:{self._stripe}"
        pid = self._start("plain", [sys.executable, "-m", "tests.bench.plain", str(port), stripe], port)
        return warmed(Server(PLAIN, pid, port, CHECK, is_decision))

    def nginx(self, program: str) -> Server:
        """Start nginx."""
        port, home = free_port(), self._folder / "nginx"
        home.mkdir()
        written = home / "nginx.conf"
        written.write_text(configuration(port, self._stripe))
        pid = self._start("nginx", [program, "-p", f"{home}/", "-e", "stderr", "-c", str(written)], port)
        return warmed(Server(NGINX, pid, port, f"{LIST}?customer={CUSTOMER}", is_cached_list))

    def bare(self, answer: Answer) -> Server:
        """Start the bare protocol; it says ``answer`` to everything."""
        port, said = free_port(), self._folder / "answer"
        said.write_bytes(answer.raw)
        pid = self._start("bare", [sys.executable, "-m", "tests.bench.bare", str(port), str(said)], port)
        return warmed(Server(BARE, pid, port, CHECK, lambda given: given.raw == answer.raw))

    def _start(
        self,
        name: str,
        command: list[str],
        port: int,
        *,
        core: int | None = None,
        variables: dict[str, str] | None = None,
    ) -> int:
        log = self._folder / f"{name}.log"
        core = self._cores.server if core is None else core
        child = self._stack.enter_context(started(command, core=core, log=log, variables=variables))
        await_listening(name, child, port, log)
        return child.pid


@contextmanager
def running(folder: Path, cores: Cores) -> Iterator[tuple[Stage, list[Server]]]:
    """Start every server that can be had here; leaving stops them."""
    with ExitStack() as stack:
        stage = Stage(stack, folder, cores)
        stage.start_stripe()
        ours = stage.sidecar()
        servers = [ours, stage.plain()]
        program = shutil.which("nginx")
        if program is not None:
            servers.append(stage.nginx(program))
        servers.append(stage.bare(ours.verify()))
        yield stage, servers


def warmed(server: Server) -> Server:
    """Return ``server`` once it has asked Stripe for the one customer and answers out of its cache."""
    fetch(server.port, server.path)
    server.verify()
    return server


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


def fetch(port: int, path: str) -> Answer:
    """Return the answer to a GET, byte for byte as wrk would get it.

    :raises Failed: when there is none that says how long it is.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as connection,
            connection.makefile("rb") as stream,
        ):
            connection.sendall(request.encode())
            lines = []
            while (line := stream.readline()).strip():
                lines.append(line)
            lengths = [int(line[15:]) for line in lines if line.lower().startswith(b"content-length:")]
            return Answer(b"".join([*lines, line]), stream.read(lengths[0]))
    except (OSError, ValueError, IndexError) as error:
        raise Failed(f"http://127.0.0.1:{port}{path} gives no answer: {error!r}") from None
