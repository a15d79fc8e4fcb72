"""``python -m tests.bench.memory``: what the process takes for nobody, and for each customer whom it remembers.

A process of its own starts the sidecar without Stripe behind it, reads so many lists from Stripe's own JSON, keeps them
in its cache, and compares what the system says it holds with what the cache says it uses.
"""

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial

import orjson

from sidecar import app, cli, heap
from sidecar.core.cache import Cache
from sidecar.model import Customer, Snapshot, Unknown
from sidecar.sources import load
from sidecar.stripe.pages import Reading, read_page
from tests.bench.processes import ROOT, Failed, environment, resident_bytes
from tests.bench.running import Running, completed, options_of
from tests.bench.table import Section

MIB = 1 << 20
NEWEST, PLANS = 1.79e9, 10
PATIENCE = 600.0
"""Seconds that a million may take."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What is remembered of each customer; ``cache_bytes`` is the bound under which it is."""

    entitlements: int = 5
    dirty: bool = False
    known: bool = True
    connected: bool = False
    plans: int = PLANS
    cache_bytes: int = 1 << 40


ORDINARY = Kind()


@dataclass(frozen=True, slots=True)
class Row:
    """What the process holds, and what of it came with the customers, beside what the cache counts; in bytes."""

    customers: int
    resident_bytes: int
    grown: int
    cache_bytes: int

    @property
    def counted(self) -> float:
        """What the cache counts, as a part of what the process grew by; nothing of nothing is all of it."""
        return self.cache_bytes / self.grown if self.grown else 1.0

    @property
    def each(self) -> float:
        """Bytes that the process grew by for each customer who is remembered."""
        return self.grown / self.customers if self.customers else 0.0


def page_of(number: int, kind: Kind) -> bytes:
    """Return a list as Stripe sends it, with ids as long as Stripe's."""
    plan = number % kind.plans
    held = [
        {
            "id": f"ent_61{number:015}{place:03}".ljust(41, "x"),
            "object": "entitlements.active_entitlement",
            "feature": f"feat_61{plan:07}{place:03}".ljust(41, "x"),
            "livemode": True,
            "lookup_key": f"feature-{plan}-{place}",
        }
        for place in range(kind.entitlements)
    ]
    url = "/v1/entitlements/active_entitlements"
    return orjson.dumps({"object": "list", "data": held, "has_more": False, "url": url})


def read(number: int, kind: Kind) -> Snapshot:
    """Read a customer's list, at a moment of its own."""
    customer = Customer(f"cus_{number:014}", f"acct_{number:016}" if kind.connected else None)
    asked_at = NEWEST + number
    if not kind.known:
        return Snapshot(customer, asked_at, unknown=Unknown(400 + number % 5, f"No such customer: '{customer.id}'"))
    snapshot = Reading(customer, max_pages=100).take(
        read_page(orjson.loads(page_of(number, kind)), livemode=True, asked_at=asked_at)
    )
    if snapshot is None:
        raise Failed("one page was not the whole list")
    return snapshot


def fill(cache: Cache, numbers: Iterable[int], kind: Kind) -> None:
    """Have customers remembered."""
    for number in numbers:
        snapshot = read(number, kind)
        cache.put(snapshot)
        if kind.dirty:
            cache.mark(snapshot.customer, snapshot.taken_at + 1)


def grown(cache: Cache, customers: int, kind: Kind) -> Row:
    """Fill ``cache`` and compare. A few come before that, with all that is made but once."""
    own, first = os.getpid(), min(customers, 100)
    fill(cache, range(first), kind)
    _ = gc.collect()
    resident, counted = resident_bytes(own), cache.bytes
    fill(cache, range(first, customers), kind)
    _ = gc.collect()
    now = resident_bytes(own)
    return Row(len(cache), now, now - resident, cache.bytes - counted)


def child(customers: int, kind: Kind) -> None:
    """Start the sidecar in this process, fill its cache, and print the row."""
    settings = load(
        {
            "stripe_api_key": "sk_live_bench",
            "stripe_api_base": "http://127.0.0.1:9",
            "events_poll": "0",
            "listen": "127.0.0.1:0",
            "ops_listen": "127.0.0.1:0",
            "cache_bytes": str(kind.cache_bytes),
        },
        None,
    )

    def started(stop: asyncio.Event, sidecar: app.Sidecar) -> None:
        print(json.dumps(asdict(grown(sidecar.heart.cache, customers, kind))))
        stop.set()

    _ = heap.set_up()  # as the command does
    cli.run(lambda stop: app.serve(settings, stop, started=partial(started, stop)))


def measured(customers: int, kind: Kind = ORDINARY) -> Row:
    """Return what a process of its own takes that remembers so many customers.

    :raises Failed: when it does not end well.
    """
    command = [sys.executable, "-m", "tests.bench.memory", "--child", json.dumps(asdict(kind)), str(customers)]
    try:
        done = subprocess.run(  # noqa: S603 -- our own module
            command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise Failed(str(late)) from None
    if done.returncode != 0:
        raise Failed(f"it ended with status {done.returncode}: {done.stderr[-2000:]}")
    return Row(**json.loads(done.stdout))


def measure(options: argparse.Namespace, running: Running) -> list[Section]:
    """Measure each number of customers in a process of its own."""
    found = []
    for customers in options.customers or (0, 100_000, 1_000_000):
        running.say(f"{customers:,} customers")
        found.append(measured(customers, Kind(options.entitlements)))
    columns = ("customers", "RSS, MiB", "`cache_bytes`, MiB", "bytes a customer", "counted, %")
    rows = [
        (
            f"{row.customers:,}",
            f"{row.resident_bytes / MIB:.1f}",
            f"{row.cache_bytes / MIB:.1f}",
            f"{row.each:.0f}" if row.customers else "–",
            f"{100 * row.counted:.1f}" if row.customers else "–",
        )
        for row in found
    ]
    numbers = {
        f"{row.customers:,}": {**asdict(row), "bytes_a_customer": row.each, "counted": row.counted} for row in found
    }
    return [Section("memory", f"Memory, {options.entitlements} entitlements each", columns, rows, numbers=numbers)]


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = options_of("tests.bench.memory", __doc__)
    parser.add_argument("customers", type=int, nargs="*", help="how many (0 100000 1000000)")
    parser.add_argument("--entitlements", type=int, default=ORDINARY.entitlements, help="of each (5)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        child(options.customers[0], Kind(**json.loads(options.child)))
        return 0
    return completed(options, measure)


if __name__ == "__main__":
    sys.exit(main())
