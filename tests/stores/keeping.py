"""Lists to keep, and a store on a real file to keep them in."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sidecar.kit.clock import Clock
from sidecar.model import Customer, Dirty, Feature, Plan, Snapshot, Unknown, packed
from sidecar.stores.codec import Checksum, Codec, Seal
from sidecar.stores.database import Database
from sidecar.stores.sqlite import Sqlite

ADA = Customer("cus_ada")
BOB = Customer("cus_bob", "acct_1")
NOW = 1_790_000_000.0
PLAIN = Checksum()

made: list[Database] = []
"""Every database of a test, to be closed after it."""


def listed(customer: Customer = ADA, *keys: str, taken_at: float = NOW, dirty: Dirty | None = None) -> Snapshot:
    """Return a list with an entitlement for each lookup key."""
    plan = Plan.of(tuple(Feature(f"feat_{key}", key) for key in keys))
    return Snapshot(customer, taken_at, plan, packed([f"ent_{key}" for key in keys]), dirty=dirty)


def nobody(customer: Customer = ADA, taken_at: float = NOW) -> Snapshot:
    """Return Stripe's not knowing a customer."""
    return Snapshot(customer, taken_at, unknown=Unknown(404, "No such customer: 'cus_ada'"))


def database(path: Path, *, seal: Seal = PLAIN, livemode: bool = False, max_bytes: int = 1 << 30) -> Database:
    """Return a database that is not open yet."""
    made.append(Database(path, Codec(livemode, seal), max_bytes=max_bytes))
    return made[-1]


@asynccontextmanager
async def store(path: Path, clock: Clock = time.time, *, max_bytes: int = 1 << 30) -> AsyncIterator[Sqlite]:  # noqa: TID251 -- real time
    """Open a store on a file, and close it."""
    found = Sqlite(database(path, max_bytes=max_bytes), clock=clock)
    await found.open()
    try:
        yield found
    finally:
        await found.close()
