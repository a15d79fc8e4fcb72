"""``make bench-restart``: how long a restart takes to its first answer, with many customers in the store and with none.

All are started in turn, several times. Times are of this machine; what is to be compared is their ratio, and the lists
that were read: one, for one question, however many there are.
"""

import argparse
import sys
from pathlib import Path
from time import perf_counter

from sidecar.kit.clock import steady_clock
from sidecar.model import Customer, Feature, Plan, Snapshot, packed
from sidecar.stores.codec import Checksum, Codec
from sidecar.stores.database import Batch, Database
from tests.bench import start
from tests.bench.running import Running, completed, options_of
from tests.bench.table import Section

PLAN = Plan.of(tuple(Feature(f"feat_test_{number:022}", f"feature-{number}") for number in range(5)))


def fill(path: Path, customers: int) -> float:
    """Write so many customers to a store, each with five entitlements; return seconds."""
    began, now = perf_counter(), steady_clock()()
    database = Database(path, Codec(livemode=False, seal=Checksum()), max_bytes=1 << 40)
    database.open(now)
    for first in range(0, customers, 20_000):
        names = (Customer(f"cus_{number:014}") for number in range(first, min(customers, first + 20_000)))
        lists = {
            one: Snapshot(one, now, PLAN, packed([f"ent_test_{one.id}_{n:08}" for n in range(5)])) for one in names
        }
        database.apply(Batch(lists, {}, {}, frozenset()), now)
    database.close()
    return perf_counter() - began


def measure(options: argparse.Namespace, running: Running) -> list[Section]:
    """Fill a store and measure."""
    full = running.stage.folder / "full.db"
    running.say(f"filling a store with {options.customers:,} customers")
    took, size = fill(full, options.customers), full.stat().st_size
    note = (
        f"The full store has {size / 2**20:.0f} MiB, {size / options.customers:.0f} bytes a customer;"
        f" it was filled in {took:.0f} s."
    )
    stores = {"this sidecar, 0 customers": None, f"this sidecar, {options.customers:,} customers": full}
    starts = start.played(running.stage, stores, options.rounds, running.say)
    return [start.section("restart", "From start to the first answer, with a full store", starts, [note])]


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = options_of("tests.bench.restart", __doc__)
    parser.add_argument("--customers", type=int, default=1_000_000, help="customers in the full store (1000000)")
    parser.add_argument("--rounds", type=int, default=5, help="starts of each (5)")
    return completed(parser.parse_args(), measure)


if __name__ == "__main__":
    sys.exit(main())
