"""The way to Stripe, as the core knows it: one function. This one answers what and when it is told."""

import asyncio
from dataclasses import dataclass
from urllib.parse import quote

from sidecar.core.checker import Policies
from sidecar.core.heart import Heart, Ports, Rules
from sidecar.core.recall import Store
from sidecar.core.wishes import wishes
from sidecar.errors import Unreachable, UpstreamError
from sidecar.kit.tasks import Tasks
from sidecar.model import (
    Customer,
    Decision,
    Exchange,
    Feature,
    Finding,
    Flight,
    Plan,
    Policy,
    Snapshot,
    Unknown,
    packed,
)
from sidecar.settings import Freshness
from sidecar.stores.memory import Memory
from tests.fakes import FakeClock

ADA = Customer("cus_ada")
BOB = Customer("cus_bob", "acct_1")

FRESHNESS = Freshness(fresh_for=300, stale_for=86400, unknown_for=60, dirty_wait=0.5, deadline=2)


def held(customer: Customer, taken_at: float, *lookup_keys: str) -> Snapshot:
    """Return a snapshot with an entitlement for each lookup key."""
    plan = Plan.of(tuple(Feature(f"feat_{key}", key) for key in lookup_keys))
    return Snapshot(customer, taken_at, plan, packed([f"ent_{customer.id}_{quote(key)}" for key in lookup_keys]))


def unknown(customer: Customer, taken_at: float, message: str = "No such customer") -> Snapshot:
    """Return what is remembered of a customer that Stripe does not know."""
    return Snapshot(customer, taken_at, unknown=Unknown(404, message))


class FakeUpstream:
    """A fetch that answers with ``keys``, unless ``error`` makes one; only while ``gate`` is open.

    ``errors`` are those of single customers. ``pages`` requests are made at once, and take ``takes`` seconds together.
    """

    def __init__(self, clock: FakeClock, *keys: str) -> None:
        self.keys = keys
        self.error: Exception | None = None
        self.errors: dict[Customer, Exception] = {}
        self.known = True
        self.refusal = "No such customer"
        self.pages = 1
        self.takes = 0.0
        self.asked: list[Customer] = []
        self.asked_at: list[float] = []
        self.at_once = 0
        self.most_at_once = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self._clock = clock

    async def fetch(self, customer: Customer, flight: Flight) -> Snapshot:
        """Read the list as it is now, and hand it out when the gate is open."""
        taken_at, keys, known = self._clock(), self.keys, self.known
        self.asked.append(customer)
        self.asked_at.append(taken_at)
        flight.exchanges.extend(Exchange(taken_at, "200", None) for _ in range(self.pages))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.takes)
            await self.gate.wait()
        finally:
            self.at_once -= 1
        error = self.errors.get(customer, self.error)
        if error is not None:
            if isinstance(error, UpstreamError):
                flight.trouble = (type(error), str(error))
            raise error
        flight.pages, flight.trouble = self.pages, None
        return held(customer, taken_at, *keys) if known else unknown(customer, taken_at, self.refusal)


@dataclass(frozen=True)
class Told:
    """What a caller was told, and after how many seconds."""

    decision: Decision
    after: float

    @property
    def finding(self) -> Finding:
        """What was answered from."""
        assert self.decision.finding is not None
        return self.decision.finding

    @property
    def in_short(self) -> tuple[object, ...]:
        """The answer, where it came from, whether it is marked, and how long it took."""
        return self.decision.entitled, self.decision.source, self.finding.stale, self.after


class House:
    """A heart, a Stripe behind it that answers ``pro``, and a budget with or without something to spare."""

    def __init__(
        self,
        clock: FakeClock,
        policies: dict[str, Policy] | None = None,
        freshness: Freshness = FRESHNESS,
        store: Store | None = None,
        *,
        is_fed: bool = True,
    ) -> None:
        self.clock = clock
        self.upstream = FakeUpstream(clock, "pro")
        self.spare = True
        self.tasks = Tasks(expected=(UpstreamError,))
        rules = Rules(freshness, Policies(policies or {}), cache_bytes=1 << 20, seed=1, is_fed=is_fed)
        self.heart = Heart.of(
            Ports(self.upstream.fetch, lambda: self.spare, store or Memory()), rules, tasks=self.tasks, clock=clock
        )
        self.cache, self.refresher, self.checker = self.heart.cache, self.heart.refresher, self.heart.checker
        self.news, self.watermarks = self.heart.news, self.heart.watermarks
        self._events = 0

    def remember(self, age: float, *keys: str, customer: Customer = ADA) -> Snapshot:
        """Put what Stripe said ``age`` seconds ago into memory."""
        snapshot = held(customer, self.clock.now - age, *keys)
        self.cache.put(snapshot)
        return snapshot

    def hear(self, customer: Customer = ADA) -> None:
        """Bring news of ``customer``, which nobody has brought before."""
        self._events += 1
        assert self.news.hear(f"evt_{self._events}", customer, origin="feed")

    def vouch(self, *, lag: float = 0.0, account: str | None = None) -> None:
        """Let the account's feed tell of everything that was, up to ``lag`` seconds ago."""
        if self.watermarks.until(account) is None:
            self.news.begin(account, 0.0)
        self.news.advance(account, self.clock.now - lag)

    async def check(self, key: str = "pro", customer: Customer = ADA, default: str | None = None) -> Decision:
        """Ask in a task of its own, as every request does."""
        return await self.tasks.start(self.checker.check(customer, key, wishes(None, default)), name="check")

    async def told(self, said: str | None = None, default: str | None = None, *, wait: float = 0.0) -> Told:
        """Ask whether Ada has ``pro``, with what a request may say."""
        began = self.clock.now
        check = self.checker.check(ADA, "pro", wishes(said, default), wait=wait)
        decision = await self.tasks.start(check, name="check")
        return Told(decision, round(self.clock.now - began, 2))

    def fail(self, message: str = "no route") -> None:
        """Let Stripe be out of reach from now on."""
        self.upstream.error = Unreachable(message)

    async def close(self) -> None:
        """End what still goes on, as the end of the process does."""
        await self.tasks.close()


async def settled() -> None:
    """Let everything happen that can happen without time passing."""
    for _ in range(20):
        await asyncio.sleep(0)
