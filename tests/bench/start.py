"""How long a start takes to its first answer: bare aiohttp, and the sidecar on stores with none and with many customers."""

import json
import re
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import NamedTuple

from tests.bench.contestants import stripe
from tests.bench.measuring import Effort
from tests.bench.processes import Failed, resident_bytes, started
from tests.bench.questions import check_of
from tests.bench.servers import STARTING, Stage, free_port, get
from tests.bench.table import Section
from tests.bench.upstream import CROWD, KEY, LOOKUP_KEYS

BARE = "bare aiohttp: import, listen, answer"
ASKED = check_of(CROWD[0], LOOKUP_KEYS[2])


class Start(NamedTuple):
    """One start: seconds to the first answer, where it came from, the lists read for it, bytes resident."""

    seconds: float
    source: str
    reads: int | None
    resident: int


def bare(stage: Stage) -> Start:
    """Start bare aiohttp and ask as soon as it listens."""
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.hello", str(port)]
    began, log = perf_counter(), stage.folder / "hello.log"
    with started(command, core=stage.cores.server, log=log) as process:
        _ = first_answer(port, began, log)
        return Start(perf_counter() - began, "–", None, resident_bytes(process.pid))


def sidecar(stage: Stage, store: Path) -> Start:
    """Start a sidecar on ``store`` and ask as soon as it listens; Stripe is there."""
    port, ops, log = free_port(), free_port(), stage.folder / "start.log"
    variables = {
        "SIDECAR_STRIPE_API_KEY": KEY,
        "SIDECAR_STRIPE_API_BASE": stripe(stage).url,
        "SIDECAR_LISTEN": f"127.0.0.1:{port}",
        "SIDECAR_OPS_LISTEN": f"127.0.0.1:{ops}",
        "SIDECAR_STORE": f"sqlite://{store}",
    }
    command = [sys.executable, "-m", "sidecar", "serve"]
    began = perf_counter()
    with started(command, core=stage.cores.server, log=log, variables=variables) as process:
        answer = json.loads(first_answer(port, began, log))
        seconds = perf_counter() - began
        if answer["entitled"] is not True:
            raise Failed(f"the first answer after a start was wrong: {answer}")
        found = re.findall(rb"entitlement_sidecar_store_reads_total{[^}]*} (\S+)", get(ops, "/metrics"))
        return Start(seconds, answer["source"], sum(int(float(count)) for count in found), resident_bytes(process.pid))


def first_answer(port: int, began: float, log: Path) -> bytes:
    """Ask until somebody listens, and return the body of the answer."""
    while perf_counter() - began < STARTING:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            sleep(0.001)
        else:
            return get(port, ASKED)
    raise Failed(f"no answer within {STARTING} s:\n{log.read_text(errors='replace')[-2000:]}")


def measured(stage: Stage, effort: Effort, say: Callable[[str], None]) -> Section:
    """Measure starts of an empty store, and of none at all."""
    stores = {"this sidecar, 0 customers": None}
    return section("start", "From start to the first answer", played(stage, stores, 2 * effort.rounds, say))


def played(
    stage: Stage, stores: Mapping[str, Path | None], rounds: int, say: Callable[[str], None]
) -> dict[str, list[Start]]:
    """Start each in turn, so often; ``None`` is a store that is new every time."""
    found: dict[str, list[Start]] = {title: [] for title in (BARE, *stores)}
    _ = stripe(stage)
    for turn in range(rounds):
        say(f"start {turn + 1} of {rounds}")
        found[BARE].append(bare(stage))
        for title, store in stores.items():
            found[title].append(sidecar(stage, store or stage.folder / f"new-{turn}.db"))
    return found


def section(name: str, title: str, starts: dict[str, list[Start]], notes: Iterable[str] = ()) -> Section:
    """Return the table of these starts."""
    medians = {name: median(start.seconds for start in done) for name, done in starts.items()}
    rows = [
        [
            name,
            f"{medians[name]:.3f} ({min(done).seconds:.3f}–{max(done).seconds:.3f})",
            f"{medians[name] / medians[BARE]:.2f}",
            done[-1].source,
            "–" if done[-1].reads is None else str(done[-1].reads),
            f"{median(start.resident for start in done) / 2**20:.0f}",
        ]
        for name, done in starts.items()
    ]
    numbers = {
        name: {
            "seconds": medians[name],
            "ratio": medians[name] / medians[BARE],
            "reads": max(start.reads or 0 for start in done),
            "resident_bytes": median(start.resident for start in done),
            "all_seconds": [start.seconds for start in done],
        }
        for name, done in starts.items()
    }
    columns = ["started", "first answer after, s, median (min–max)", "× bare", "answer from", "lists read", "RSS, MiB"]
    return Section(name, title, columns, rows, list(notes), numbers)
