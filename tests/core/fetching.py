"""The way to Stripe, as the core knows it: one function. This one answers what and when it is told."""

import asyncio

from sidecar.model import Customer, Feature, Flight, Plan, Snapshot, Unknown
from tests.fakes import FakeClock

ADA = Customer("cus_ada")
BOB = Customer("cus_bob", "acct_1")


def held(customer: Customer, taken_at: float, *lookup_keys: str) -> Snapshot:
    """Return a snapshot with an entitlement for each lookup key."""
    plan = Plan.of(tuple(Feature(f"feat_{key}", key) for key in lookup_keys))
    return Snapshot(customer, taken_at, plan, tuple(f"ent_{customer.id}_{key}" for key in lookup_keys))


def unknown(customer: Customer, taken_at: float, message: str = "No such customer") -> Snapshot:
    """Return what is remembered of a customer that Stripe does not know."""
    return Snapshot(customer, taken_at, unknown=Unknown(404, message))


class FakeUpstream:
    """A fetch that answers with ``keys``, unless ``error`` makes one; only while ``gate`` is open."""

    def __init__(self, clock: FakeClock, *keys: str) -> None:
        self.keys = keys
        self.error: Exception | None = None
        self.known = True
        self.refusal = "No such customer"
        self.pages = 1
        self.asked: list[Customer] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._clock = clock

    async def fetch(self, customer: Customer, flight: Flight) -> Snapshot:
        """Read the list as it is now, and hand it out when the gate is open."""
        self.asked.append(customer)
        taken_at, keys = self._clock(), self.keys
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        flight.pages = self.pages
        return held(customer, taken_at, *keys) if self.known else unknown(customer, taken_at, self.refusal)


async def settled() -> None:
    """Let everything happen that can happen without time passing."""
    for _ in range(20):
        await asyncio.sleep(0)
