"""``make bench-restart``: how long a restart takes to its first answer, with one customer in the store and with many.

Both are started in turn, several times, without Stripe behind them. Times are of this machine; what is to be compared
is their ratio, and the lists that were read: one, for one question, however many there are.
"""

import argparse
import http.client
import json
import re
import statistics
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep
from typing import NamedTuple

from rich.console import Console

from sidecar.kit.clock import steady_clock
from sidecar.model import Customer, Feature, Plan, Snapshot, packed
from sidecar.stores.codec import Checksum, Codec
from sidecar.stores.database import Batch, Database
from tests.bench.processes import Cores, Failed, started
from tests.bench.servers import free_port

ASKED = Customer("cus_00000000000000")
PLAN = Plan.of(tuple(Feature(f"feat_test_{number:022}", f"feature-{number}") for number in range(5)))
STARTING = 30.0
"""Seconds that a start may take."""


class Start(NamedTuple):
    """One start: seconds to the first answer, where it came from, its age, the lists read, bytes resident."""

    seconds: float
    source: str
    age: float | None
    reads: int
    resident: int


def fill(path: Path, customers: int) -> float:
    """Write so many customers to a store, each with five entitlements; return seconds."""
    began, now = perf_counter(), steady_clock()()
    database = Database(path, Codec(livemode=False, seal=Checksum()), max_bytes=1 << 40)
    database.open(now)
    for start in range(0, customers, 20_000):
        names = (Customer(f"cus_{number:014}") for number in range(start, min(customers, start + 20_000)))
        lists = {
            one: Snapshot(one, now, PLAN, packed([f"ent_test_{one.id}_{n:08}" for n in range(5)])) for one in names
        }
        database.apply(Batch(lists, {}, {}, frozenset()), now)
    database.close()
    return perf_counter() - began


@contextmanager
def serving(store: Path, core: int, folder: Path) -> Iterator[tuple[int, int, int]]:
    """Start a sidecar; yield its two ports and its process."""
    checks, ops = free_port(), free_port()
    variables = {
        "SIDECAR_STRIPE_API_KEY": "sk_test_bench",
        "SIDECAR_STRIPE_API_BASE": "http://127.0.0.1:9",
        "SIDECAR_EVENTS_POLL": "0",
        "SIDECAR_LISTEN": f"127.0.0.1:{checks}",
        "SIDECAR_OPS_LISTEN": f"127.0.0.1:{ops}",
        "SIDECAR_STORE": f"sqlite://{store}",
    }
    command = [sys.executable, "-m", "sidecar", "serve"]
    with started(command, core=core, log=folder / "log", variables=variables) as process:
        yield checks, ops, process.pid


def answer_of(port: int, path: str) -> bytes:
    """Return the body of an answer; nothing when nobody listens yet."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=STARTING)) as connection:
        try:
            connection.request("GET", path)
        except ConnectionRefusedError:
            return b""
        return connection.getresponse().read()


def first_answer(store: Path, core: int, folder: Path) -> Start:
    """Start a sidecar on ``store`` and ask as soon as it listens."""
    began = perf_counter()
    with serving(store, core, folder) as (checks, ops, pid):
        while not (body := answer_of(checks, f"/v1/customers/{ASKED.id}/entitlements/feature-3")):
            if perf_counter() - began > STARTING:
                raise Failed(f"no answer within {STARTING} s: {(folder / 'log').read_text()}")
            sleep(0.005)
        seconds, answer = perf_counter() - began, json.loads(body)
        found = re.findall(rb"entitlement_sidecar_store_reads_total{[^}]*} (\S+)", answer_of(ops, "/metrics"))
        resident = int(re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0]) * 1024
        return Start(seconds, answer["source"], answer["age"], sum(int(float(count)) for count in found), resident)


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.restart", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--customers", type=int, default=1_000_000, help="customers in the full store (1000000)")
    parser.add_argument("--rounds", type=int, default=5, help="starts of each (5)")
    options = parser.parse_args()
    console, cores = Console(highlight=False), Cores.of_this_machine()
    with TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        stores = {"1 customer": folder / "one.db", f"{options.customers:,} customers": folder / "full.db"}
        fill(folder / "one.db", 1)
        took = fill(folder / "full.db", options.customers)
        size = (folder / "full.db").stat().st_size
        console.print(
            f"The full store has {size / 2**20:.0f} MiB, {size / options.customers:.0f} bytes a customer; filled in {took:.0f} s."
        )
        starts: dict[str, list[Start]] = {title: [] for title in stores}
        for _ in range(options.rounds):
            for title, store in stores.items():
                starts[title].append(first_answer(store, cores.server, folder))
    for title, done in starts.items():
        times = sorted(start.seconds for start in done)
        console.print(
            f"{title:>20}: first answer after {statistics.median(times):.3f} s ({times[0]:.3f}-{times[-1]:.3f}),"
            f" from {done[-1].source}, age {done[-1].age} s, {done[-1].reads} lists read,"
            f" {statistics.median(start.resident for start in done) / 2**20:.0f} MiB resident"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
