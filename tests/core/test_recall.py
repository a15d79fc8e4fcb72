"""Memory beyond this process: who is not in the cache may be in the store."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from sidecar.core.wishes import wishes
from sidecar.errors import NoAnswer, Unreachable
from sidecar.model import Customer, Dirty, Reason, Snapshot, Source, Span, Spans, marked
from tests.core.fetching import ADA, BOB, House, held, settled
from tests.fakes import FakeClock


class FakeStore:
    """Keeps lists in a dictionary; reads only while ``gate`` is open."""

    def __init__(self) -> None:
        self.is_open = True
        self.lists: dict[Customer, Snapshot] = {}
        self.spans: dict[str | None, Spans] = {}
        self.told: list[tuple[object, ...]] = []
        self.reads = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, customer: Customer) -> Snapshot | None:
        self.reads += 1
        await self.gate.wait()
        return self.lists.get(customer)

    def write(self, snapshot: Snapshot) -> None:
        self.lists[snapshot.customer] = snapshot

    def mark(self, customer: Customer, heard_at: float, spans: Spans) -> None:
        if customer in self.lists:
            self.lists[customer] = marked(self.lists[customer], heard_at, spans)

    def begin(self, account: str | None, since: float) -> None:
        self.told.append(("begin", account, since))

    def advance(self, account: str | None, until: float) -> None:
        self.told.append(("advance", account, until))

    async def flush(self) -> None:
        self.told.append(("flush",))


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
async def house(clock: FakeClock, store: FakeStore) -> AsyncIterator[House]:
    house = House(clock, store=store)
    yield house
    await house.close()


class TestReadingThrough:
    async def test_who_is_in_the_store_needs_no_flight(self, house: House, store: FakeStore) -> None:
        """The first answer is from the store, with the age of its list; the next ones are from memory."""
        store.write(held(ADA, house.clock.now - 100, "seats"))
        first = await house.checker.check(ADA, "seats")
        assert (first.reason, first.source) == (Reason.ENTITLED, Source.STORE)
        assert first.finding is not None
        assert first.finding.age == 100
        second = await house.checker.check(ADA, "seats")
        assert (second.source, store.reads) == (Source.MEMORY, 1)
        assert house.upstream.asked == []

    async def test_who_is_not_is_asked_of_stripe_and_kept(self, house: House, store: FakeStore) -> None:
        """Every list that lands is told to the store."""
        assert (await house.checker.check(ADA, "pro")).source is Source.UPSTREAM
        assert store.lists == {ADA: held(ADA, house.clock.now, "pro")}

    async def test_a_stale_list_is_answered_and_read_again(self, house: House, store: FakeStore) -> None:
        """As if it had been in memory all the time."""
        store.write(held(ADA, house.clock.now - 1000, "seats"))
        decision = await house.checker.check(ADA, "seats")
        assert decision.finding is not None
        assert (decision.source, decision.finding.stale) == (Source.STORE, True)
        await settled()
        assert house.upstream.asked == [ADA]

    async def test_an_expired_list_is_the_last_resort_of_nobody(self, house: House, store: FakeStore) -> None:
        """Older than ``stale_for``, it does not answer; a caller who accepts any age is told all the same."""
        house.upstream.error = Unreachable("gone")
        store.write(held(ADA, house.clock.now - 100_000, "seats"))
        assert (await house.checker.check(ADA, "seats")).source is Source.POLICY
        anyhow = await house.checker.check(ADA, "seats", wishes("max-stale"))
        assert anyhow.reason is Reason.ENTITLED

    async def test_a_dirty_list_is_read_again_first(self, house: House, store: FakeStore) -> None:
        """News that an earlier process heard is followed up by this one."""
        old = held(ADA, house.clock.now - 100, "seats")
        store.write(marked(old, house.clock.now - 50, ()))
        decision = await house.checker.check(ADA, "pro")
        assert (decision.reason, decision.source) == (Reason.ENTITLED, Source.UPSTREAM)
        assert house.upstream.asked == [ADA]

    async def test_only_if_cached_looks_there_too(self, house: House, store: FakeStore) -> None:
        """A disk is a cache; Stripe is not asked."""
        with pytest.raises(NoAnswer):
            await house.checker.find(BOB, wishes("only-if-cached"))
        store.write(held(ADA, house.clock.now - 100, "seats"))
        assert (await house.checker.find(ADA, wishes("only-if-cached"))).source is Source.STORE
        assert house.upstream.asked == []

    async def test_who_wants_to_know_from_stripe_does_not_wait_for_it(self, house: House, store: FakeStore) -> None:
        """No list of the store could answer them."""
        store.write(held(ADA, house.clock.now, "seats"))
        assert (await house.checker.check(ADA, "pro", wishes("no-cache"))).source is Source.UPSTREAM
        assert store.reads == 0

    async def test_a_slow_store_does_not_keep_anybody_from_stripe(self, house: House, store: FakeStore) -> None:
        """After a moment Stripe is asked; the answer is in time."""
        store.gate.clear()
        assert (await house.checker.check(ADA, "pro")).source is Source.UPSTREAM
        store.gate.set()

    async def test_a_crowd_shares_one_read(self, house: House, store: FakeStore) -> None:
        """Fifty callers at once are one look into the store."""
        store.write(held(ADA, house.clock.now, "seats"))
        answers = await asyncio.gather(*(house.checker.check(ADA, "seats") for _ in range(50)))
        assert {answer.source for answer in answers} == {Source.STORE}
        assert store.reads == 1

    async def test_a_store_that_is_no_use_is_not_waited_for(self, house: House, store: FakeStore) -> None:
        """Not even a turn of the loop."""
        store.is_open = False
        assert (await house.checker.check(ADA, "pro")).source is Source.UPSTREAM
        assert store.reads == 0

    async def test_a_slow_store_costs_the_deadline_at_most(self, house: House, store: FakeStore) -> None:
        """Then the policy answers; what comes later is of use to those who ask later."""
        store.gate.clear()
        house.upstream.gate.clear()
        store.write(held(ADA, house.clock.now, "seats"))
        object.__setattr__(house.checker.freshness, "deadline", 0.05)
        try:
            assert (await house.checker.check(ADA, "seats")).source is Source.POLICY
        finally:
            object.__setattr__(house.checker.freshness, "deadline", 2)
        store.gate.set()
        await settled()
        assert (await house.checker.check(ADA, "seats")).source is Source.MEMORY

    async def test_a_list_that_landed_meanwhile_is_newer(self, house: House, store: FakeStore) -> None:
        """What comes from the store never takes the place of another list."""
        store.gate.clear()
        store.write(held(ADA, house.clock.now - 100, "seats"))
        asking = house.tasks.start(house.checker.check(ADA, "pro"), name="ask")
        await settled()
        newer = house.remember(5, "pro")
        store.gate.set()
        assert (await asking).reason is Reason.ENTITLED
        assert house.cache.get(ADA) == newer


class TestNews:
    async def test_it_is_marked_in_the_store_whoever_is_in_memory(self, house: House, store: FakeStore) -> None:
        """And kept there before it is acknowledged, also when it is told again."""
        store.write(held(ADA, house.clock.now - 100, "seats"))
        assert await house.news.keep("evt_1", ADA, origin="webhook")
        assert store.lists[ADA].dirty == Dirty(house.clock.now, house.clock.now - 100)
        house.remember(10, "seats")
        house.upstream.gate.clear()
        assert await house.news.keep("evt_1", ADA, origin="webhook")
        assert not await house.news.keep("evt_1", ADA, origin="webhook")
        assert store.told == [("flush",)] * 3

    async def test_watermarks_are_told(self, house: House, store: FakeStore) -> None:
        """After the news that they vouch for."""
        house.news.begin(None, 5.0)
        house.news.advance(None, 9.0)
        assert store.told == [("begin", None, 5.0), ("advance", None, 9.0)]

    async def test_watermarks_outlive_the_process(self, clock: FakeClock, store: FakeStore) -> None:
        """What an earlier process heard of vouches for what it kept."""
        store.spans = {None: (Span(0.0, clock.now - 40),)}
        store.write(held(ADA, clock.now - 10_000, "seats"))
        house = House(clock, store=store)
        decision = await house.checker.check(ADA, "seats")
        assert decision.finding is not None
        assert (decision.finding.age, decision.finding.stale) == (40, False)
        assert house.watermarks.accounts() == [None]
        await house.close()

    async def test_without_a_feed_nothing_vouches(self, clock: FakeClock, store: FakeStore) -> None:
        """Ages count from the lists, whatever the feed of an earlier process has heard."""
        store.spans = {None: (Span(0.0, clock.now - 40),)}
        store.write(held(ADA, clock.now - 10_000, "seats"))
        house = House(clock, store=store, is_fed=False)
        decision = await house.checker.check(ADA, "seats")
        assert decision.finding is not None
        assert (decision.finding.age, decision.finding.stale) == (10_000, True)
        await house.close()

    async def test_another_clock_may_go_on_from_a_watermark(self, house: House, store: FakeStore) -> None:
        """What is kept may be earlier than what this process goes by."""
        house.news.begin(None, 5.0)
        house.news.advance(None, 9.0, kept=7.0)
        assert store.told == [("begin", None, 5.0), ("advance", None, 7.0)]
        assert house.watermarks.until(None) == 9.0
