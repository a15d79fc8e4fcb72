"""The write road."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.cache import Cache
from sidecar.core.refresher import HISTORY, OUTCOMES, Refresher
from sidecar.core.watermarks import Watermarks
from sidecar.errors import CursorVanished, Defect, Throttled, TimedOut, Unreachable, UpstreamError
from sidecar.kit.limiter import Urgency
from sidecar.kit.tasks import Tasks
from sidecar.model import Customer, Dirty, Flight, Snapshot
from tests.core.fetching import ADA, BOB, FakeUpstream, held, settled, unknown
from tests.fakes import FakeClock


class Airport:
    """A refresher with a Stripe behind it and a budget that is full or empty."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.upstream = FakeUpstream(clock, "pro")
        self.watermarks = Watermarks()
        self.cache = Cache(1 << 20, self.watermarks)
        self.tasks = Tasks(expected=(UpstreamError,))
        self.spare = True
        self.told: list[tuple[Snapshot | None, Snapshot]] = []
        self.refresher = Refresher(
            self.upstream.fetch, self.cache, clock=clock, tasks=self.tasks, take_spare=lambda: self.spare
        )
        self.refresher.sinks.append(lambda old, new: self.told.append((old, new)))

    def fail(self) -> None:
        self.upstream.error = Unreachable("no route")

    async def fly_into(self, error: Exception) -> None:
        """Let one flight end in ``error``."""
        self.upstream.error = error
        (ended,) = await asyncio.gather(self.refresher.renew(ADA), return_exceptions=True)
        assert ended is error or isinstance(ended, Defect)
        self.upstream.error = None

    async def take_off(self) -> float:
        """Let a flight be in the air for a second; return the moment at which it took off."""
        took_off = self.clock.now
        self.upstream.gate.clear()
        self.refresher.nudge(ADA)
        await settled()
        self.clock.advance(1)
        return took_off

    def outcomes(self) -> dict[str, int]:
        return {outcome: count for outcome, count in self.refresher.outcomes.items() if count}


@pytest.fixture
async def airport(clock: FakeClock) -> AsyncIterator[Airport]:
    airport = Airport(clock)
    yield airport
    await airport.tasks.close()


def errors_of_upstream(kind: type[UpstreamError] = UpstreamError) -> Iterator[type[UpstreamError]]:
    """Find every way in which a fetch may fail on purpose; a deadline is its caller's, not its own."""
    for below in kind.__subclasses__():
        if below is not TimedOut:
            yield below
        yield from errors_of_upstream(below)


class TestRenew:
    async def test_what_lands_is_remembered_and_returned(self, airport: Airport) -> None:
        """The one writer of the cache: a flight ends there and with those who wait."""
        snapshot = await airport.refresher.renew(ADA)
        assert airport.cache.get(ADA) == snapshot == held(ADA, airport.clock.now, "pro")

    async def test_a_crowd_shares_one_flight(self, airport: Airport) -> None:
        """Fifty simultaneous misses for a customer cost one fetch."""
        snapshots = await asyncio.gather(*(airport.refresher.renew(ADA) for _ in range(50)))
        assert len(airport.upstream.asked) == 1
        assert set(map(id, snapshots)) == {id(snapshots[0])}

    async def test_customers_do_not_wait_for_each_other(self, airport: Airport) -> None:
        """Each has a flight of its own."""
        airport.upstream.gate.clear()
        async with asyncio.TaskGroup() as group:
            for customer in (ADA, BOB, ADA):
                _ = group.create_task(airport.refresher.renew(customer))
            await settled()
            assert airport.refresher.in_the_air() == 2
            assert airport.refresher.is_flying(BOB)
            airport.upstream.gate.set()
        assert airport.refresher.in_the_air() == 0
        assert not airport.refresher.is_flying(BOB)
        assert airport.upstream.asked == [ADA, BOB]

    async def test_a_flight_never_takes_the_cache_back(self, airport: Airport) -> None:
        """If something younger was remembered meanwhile, that is what the waiters get."""
        airport.upstream.gate.clear()
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(airport.refresher.renew(ADA))
            await settled()
            younger = held(ADA, airport.clock.now + 1, "seats")
            airport.cache.put(younger)
            airport.upstream.gate.set()
        assert asked.result() == younger == airport.cache.get(ADA)

    async def test_what_is_too_large_to_remember_is_still_returned(self, clock: FakeClock) -> None:
        """Those who wait get their answer though the cache has no room for it."""
        airport = Airport(clock)
        airport.cache.max_bytes = 10
        assert (await airport.refresher.renew(ADA)).plan.lookup_keys == {"pro"}
        assert len(airport.cache) == 0

    async def test_a_caller_who_leaves_cancels_nothing(self, airport: Airport) -> None:
        """The flight lands all the same."""
        airport.upstream.gate.clear()
        async with asyncio.TaskGroup() as group:
            caller = group.create_task(airport.refresher.renew(ADA))
            await settled()
            caller.cancel()
        airport.upstream.gate.set()
        await settled()
        assert airport.cache.get(ADA) is not None
        assert airport.outcomes() == {"landed": 1}


class TestSince:
    """``since`` is the moment before which the caller does not want to be told about."""

    @pytest.fixture
    async def in_the_air(self, airport: Airport) -> float:
        """A flight that took off a second ago; its moment."""
        return await airport.take_off()

    @pytest.mark.parametrize(("after", "flights"), [(-inf, 1), (-60.0, 1), (0.0, 1), (0.5, 2), (1.0, 2)], ids=str)
    async def test_a_flight_in_the_air_serves_whom_it_is_not_too_early_for(
        self, airport: Airport, in_the_air: float, after: float, flights: int
    ) -> None:
        """Who accepts what was known when it took off shares it; for the others there is a second one."""
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(airport.refresher.renew(ADA, since=in_the_air + after))
            await settled()
            airport.upstream.gate.set()
        assert len(airport.upstream.asked) == flights
        assert asked.result().taken_at >= in_the_air + after

    async def test_all_who_came_too_late_share_the_second_flight(self, airport: Airport, in_the_air: float) -> None:
        """Fifty refreshes during one flight cost one more fetch, whatever the order they came in."""
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(airport.refresher.renew(ADA, since=moment))
                for moment in (in_the_air, airport.clock.now) * 25
            ]
            await settled()
            airport.upstream.gate.set()
        assert len(airport.upstream.asked) == 2
        assert {task.result().taken_at for task in asked} == {in_the_air, airport.clock.now}

    async def test_a_flight_of_ones_own_is_never_too_early(self, airport: Airport) -> None:
        """Who starts a flight is served by it, though the moment asked for lies in the future: no endless flights."""
        snapshot = await airport.refresher.renew(ADA, since=airport.clock.now + 60)
        assert snapshot.taken_at == airport.clock.now
        assert len(airport.upstream.asked) == 1

    async def test_who_leaves_during_the_second_flight_takes_nobody_along(
        self, airport: Airport, in_the_air: float
    ) -> None:
        """The second flight is shared as the first one is, and lands though one of its callers hangs up."""
        async with asyncio.TaskGroup() as group:
            leaves, stays = (group.create_task(airport.refresher.renew(ADA, since=airport.clock.now)) for _ in range(2))
            await settled()
            airport.upstream.gate.set()
            while len(airport.upstream.asked) < 2:
                airport.upstream.gate.clear()  # for the second, which comes when the first has landed
                await asyncio.sleep(0)
            leaves.cancel()
            await settled()
            airport.upstream.gate.set()
        assert leaves.cancelled()
        assert stays.result().taken_at == airport.clock.now > in_the_air

    async def test_two_flights_are_the_most(self, airport: Airport, in_the_air: float) -> None:
        """The second flight is final, whatever the moment asked for."""
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(airport.refresher.renew(ADA, since=airport.clock.now + 60))
            await settled()
            airport.upstream.gate.set()
        assert asked.result().taken_at < airport.clock.now + 60
        assert len(airport.upstream.asked) == 2

    @pytest.mark.parametrize(("after", "flights"), [(-inf, 1), (-60.0, 1), (0.0, 1), (0.5, 2)], ids=str)
    async def test_a_failure_in_the_air_is_final_unless_it_took_off_too_early(
        self, airport: Airport, in_the_air: float, after: float, flights: int
    ) -> None:
        """Whom the flight would have served shares its failure; who wants later news gets a flight of their own."""
        airport.fail()
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(outcome(airport, in_the_air + after))
            await settled()
            airport.upstream.gate.set()
        assert isinstance(asked.result(), Unreachable)
        assert len(airport.upstream.asked) == flights

    async def test_ones_own_failure_is_final(self, airport: Airport) -> None:
        """Who starts a flight that fails does not start another."""
        airport.fail()
        assert isinstance(await outcome(airport, since=airport.clock.now), Unreachable)
        assert len(airport.upstream.asked) == 1

    async def test_renewing_soon_takes_off_from_now_on(self, airport: Airport, in_the_air: float) -> None:
        """Nobody waits, the budget is not asked, and a flight in the air does not count."""
        airport.spare = False
        airport.refresher.renew_soon(ADA)
        await settled()
        airport.upstream.gate.set()
        await settled()
        found = airport.cache.get(ADA)
        assert found is not None
        assert found.taken_at == airport.clock.now > in_the_air

    async def test_renewing_soon_many_times_costs_one_flight_more(
        self, airport: Airport, in_the_air: float, caplog: pytest.LogCaptureFixture
    ) -> None:
        """All who come while a flight is in the air share the next one; who comes later gets another."""
        for _ in range(50):
            airport.refresher.renew_soon(ADA)
        await settled()
        airport.upstream.gate.set()
        await settled()
        assert len(airport.upstream.asked) == 2
        airport.clock.advance(1)
        airport.refresher.renew_soon(ADA)
        await settled()
        found = airport.cache.get(ADA)
        assert found is not None
        assert found.taken_at == airport.clock.now > in_the_air
        assert caplog.records == []

    async def test_renewing_soon_may_fail_quietly(self, airport: Airport, caplog: pytest.LogCaptureFixture) -> None:
        """The outcome is counted; an expected failure is nobody's log line."""
        airport.fail()
        airport.refresher.renew_soon(ADA)
        await settled()
        assert airport.outcomes() == {"unreachable": 1}
        assert caplog.records == []


async def outcome(airport: Airport, since: float) -> Snapshot | BaseException:
    """Return what renewing came to, an error being an outcome like any other."""
    return (await asyncio.gather(airport.refresher.renew(ADA, since=since), return_exceptions=True))[0]


class TestNudge:
    async def test_it_starts_a_flight(self, airport: Airport) -> None:
        """Nobody waits for it, and it lands."""
        airport.refresher.nudge(ADA)
        await settled()
        assert airport.cache.get(ADA) is not None

    async def test_one_in_the_air_is_enough(self, airport: Airport) -> None:
        """A nudge during a flight changes nothing, and the budget is not even asked."""
        airport.refresher.nudge(ADA)
        airport.spare = False
        airport.refresher.nudge(ADA)
        await settled()
        assert len(airport.upstream.asked) == 1
        assert airport.refresher.deferred == 0

    async def test_without_a_token_to_spare_it_is_deferred(self, airport: Airport) -> None:
        """A refresh that nobody waits for takes nobody's token; that it did not fly is counted."""
        airport.spare = False
        airport.refresher.nudge(ADA)
        await settled()
        assert (airport.upstream.asked, airport.refresher.deferred) == ([], 1)
        assert airport.refresher.last_flight(ADA) is None

    async def test_after_a_failure_a_customer_is_left_alone(self, airport: Airport) -> None:
        """For ``hold_off`` seconds; then it is tried again."""
        await airport.fly_into(Unreachable("no route"))
        for pause, flights in [(0.0, 1), (0.9, 1), (0.1, 2)]:
            airport.clock.advance(pause)
            airport.refresher.nudge(ADA)
            await settled()
            assert len(airport.upstream.asked) == flights
        assert airport.refresher.deferred == 0

    async def test_one_customers_failure_is_not_anothers(self, airport: Airport) -> None:
        """Only the customer whose flight failed is left alone."""
        await airport.fly_into(Unreachable("no route"))
        airport.refresher.nudge(BOB)
        await settled()
        assert airport.upstream.asked == [ADA, BOB]

    async def test_those_who_wait_are_not_held_off(self, airport: Airport) -> None:
        """A caller's own question is asked, however lately the last one failed."""
        await airport.fly_into(Unreachable("no route"))
        assert (await airport.refresher.renew(ADA)).plan.lookup_keys == {"pro"}

    async def test_a_success_holds_nothing_off(self, airport: Airport) -> None:
        """After a flight that landed a nudge flies at once; whether one is due is for others to know."""
        await airport.refresher.renew(ADA)
        airport.refresher.nudge(ADA)
        await settled()
        assert len(airport.upstream.asked) == 2


class TestUrgency:
    """A flight is as urgent as the most urgent who wait for it."""

    async def fly(self, airport: Airport, *urgencies: Urgency | None) -> Urgency:
        """Ask for one flight, with so many urgencies (None nudges); return how urgent it is in the air."""
        airport.upstream.gate.clear()
        async with asyncio.TaskGroup() as group:
            for urgency in urgencies:
                if urgency is None:
                    airport.refresher.nudge(ADA)
                else:
                    _ = group.create_task(airport.refresher.renew(ADA, urgency=urgency))
                await settled()
            flight = airport.refresher.last_flight(ADA)
            assert flight is not None
            found = flight.urgency
            airport.upstream.gate.set()
        await settled()
        assert len(airport.upstream.asked) == 1
        return found

    @pytest.mark.parametrize(
        ("urgencies", "urgency"),
        [
            ([None], Urgency.BACKGROUND),
            ([Urgency.NEWS], Urgency.NEWS),
            ([None, Urgency.NEWS], Urgency.NEWS),
            ([Urgency.CALLER], Urgency.CALLER),
            ([None, Urgency.CALLER], Urgency.CALLER),
            ([Urgency.CALLER, Urgency.NEWS, None], Urgency.CALLER),
        ],
        ids=str,
    )
    async def test_it_rises_and_never_falls(
        self, airport: Airport, urgencies: list[Urgency | None], urgency: Urgency
    ) -> None:
        """A caller who joins a flight that began in the background makes it a caller's."""
        assert await self.fly(airport, *urgencies) is urgency

    async def test_it_may_rise_before_the_flight_has_taken_off(self, airport: Airport) -> None:
        """Its task has not begun yet; what is paid for stays so."""
        airport.refresher.nudge(ADA)
        airport.refresher.nudge(ADA, Urgency.NEWS)
        _ = await airport.refresher.renew(ADA)
        flight = airport.refresher.last_flight(ADA)
        assert flight is not None
        assert (flight.urgency, flight.prepaid) == (Urgency.CALLER, True)

    async def test_the_next_flight_begins_anew(self, airport: Airport) -> None:
        """What one was asked for is not the next one's business."""
        _ = await airport.refresher.renew(ADA)
        airport.upstream.asked.clear()
        assert await self.fly(airport, None) is Urgency.BACKGROUND

    async def test_a_flight_that_comes_after_the_one_in_the_air_is_as_urgent_as_who_waits_for_it(
        self, airport: Airport
    ) -> None:
        """Who came too late for the first makes the second."""
        await airport.take_off()
        async with asyncio.TaskGroup() as group:
            _ = group.create_task(airport.refresher.renew(ADA, since=airport.clock.now, urgency=Urgency.NEWS))
            await settled()
            airport.upstream.gate.set()
        flight = airport.refresher.last_flight(ADA)
        assert flight is not None
        assert (len(airport.upstream.asked), flight.urgency) == (2, Urgency.NEWS)

    async def test_renewing_soon_is_as_urgent_as_news(self, airport: Airport) -> None:
        """Nobody waits, but whoever wants it has a reason."""
        airport.refresher.renew_soon(ADA)
        await settled()
        flight = airport.refresher.last_flight(ADA)
        assert flight is not None
        assert flight.urgency is Urgency.NEWS


class TestHeard:
    """News that comes while a list is read: what is read may be from before it."""

    @pytest.fixture
    async def in_the_air(self, airport: Airport) -> float:
        """A flight that took off a second ago; its moment."""
        return await airport.take_off()

    async def land(self, airport: Airport) -> Snapshot:
        """Let what is in the air land; return what is remembered then."""
        airport.upstream.gate.set()
        await settled()
        found = airport.cache.get(ADA)
        assert found is not None
        return found

    async def test_of_a_stranger_it_means_nothing(self, airport: Airport) -> None:
        """Nothing is remembered of it, and nothing on its way."""
        assert not airport.refresher.heard(ADA, airport.clock.now)

    async def test_what_is_remembered_is_marked(self, airport: Airport) -> None:
        """At once."""
        await airport.refresher.renew(ADA)
        airport.clock.advance(1)
        assert airport.refresher.heard(ADA, airport.clock.now)
        found = airport.cache.get(ADA)
        assert found is not None
        assert found.dirty == Dirty(airport.clock.now, airport.clock.now - 1)
        assert airport.refresher.overtaken == 0

    async def test_a_first_flight_that_is_overtaken_lands_dirty(self, airport: Airport, in_the_air: float) -> None:
        """Also where nothing was remembered that could have been marked; it is counted."""
        assert airport.refresher.heard(ADA, airport.clock.now)
        dirty = Dirty(heard_at=airport.clock.now, verified_at=in_the_air)
        assert await self.land(airport) == replace(held(ADA, in_the_air, "pro"), dirty=dirty)
        assert airport.refresher.overtaken == 1

    @pytest.mark.parametrize("known", [True, False])
    async def test_what_the_feed_vouches_for_till_then_is_known_of_it(self, airport: Airport, *, known: bool) -> None:
        """Up to the first news nothing had changed since the list was taken; an unknown customer may have been made."""
        airport.upstream.known = known
        took_off = await airport.take_off()
        airport.watermarks.begin(None, took_off - 100)
        for _ in range(2):
            airport.watermarks.advance(None, airport.clock.now - 0.5)
            airport.refresher.heard(ADA, airport.clock.now)
            airport.clock.advance(1)
        found = await self.land(airport)
        assert found.dirty == Dirty(airport.clock.now - 1, took_off + (0.5 if known else 0.0))

    async def test_so_does_any_flight(self, clock: FakeClock) -> None:
        """The mark that was made when the news came stays; those who wait for the flight get it marked."""
        airport = Airport(clock)
        await airport.refresher.renew(ADA)
        airport.clock.advance(1)
        airport.upstream.gate.clear()
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(airport.refresher.renew(ADA))
            await settled()
            airport.clock.advance(1)
            airport.refresher.heard(ADA, airport.clock.now)
            airport.upstream.gate.set()
        dirty = Dirty(heard_at=clock.now, verified_at=clock.now - 1)
        assert asked.result() == airport.cache.get(ADA) == replace(held(ADA, clock.now - 1, "pro"), dirty=dirty)
        await airport.tasks.close()

    async def test_news_of_another_overtakes_nothing(self, airport: Airport, in_the_air: float) -> None:
        """A flight is one customer's."""
        assert not airport.refresher.heard(BOB, airport.clock.now)
        assert await self.land(airport) == held(ADA, in_the_air, "pro")

    async def test_the_next_flight_lands_clean(self, airport: Airport, in_the_air: float) -> None:
        """It took off after the news."""
        airport.refresher.heard(ADA, airport.clock.now)
        await self.land(airport)
        await airport.refresher.renew(ADA)
        assert airport.cache.get(ADA) == held(ADA, airport.clock.now, "pro")
        assert airport.refresher.overtaken == 1

    async def test_a_flight_that_has_not_begun_is_not_overtaken(self, airport: Airport) -> None:
        """It is asked for, but Stripe is not asked yet: it will read what the news was about."""
        airport.refresher.nudge(ADA)
        assert airport.refresher.is_flying(ADA)
        assert not airport.refresher.heard(ADA, airport.clock.now)
        assert (await self.land(airport)).dirty is None

    async def test_a_list_that_was_read_anew_after_the_news_is_clean(self, clock: FakeClock) -> None:
        """A reading that starts again during its flight counts from when it did."""
        cache, tasks, heard = Cache(1 << 20, Watermarks()), Tasks(), asyncio.Event()

        async def fetch(customer: Customer, flight: Flight) -> Snapshot:
            await heard.wait()
            return held(customer, clock(), "pro")

        refresher = Refresher(fetch, cache, clock=clock, tasks=tasks, take_spare=lambda: True)
        refresher.nudge(ADA)
        await settled()
        clock.advance(1)
        assert refresher.heard(ADA, clock.now)
        heard.set()
        await settled()
        assert cache.get(ADA) == held(ADA, clock.now, "pro")
        assert refresher.overtaken == 0


class TestLanding:
    async def test_it_comes_with_the_list(self, airport: Airport) -> None:
        """Whoever waits for it finds what has landed in memory."""
        landing = airport.refresher.landing(ADA)
        assert airport.refresher.landing(ADA) is landing
        found: list[Snapshot | None] = []
        landing.add_done_callback(lambda _: found.append(airport.cache.get(ADA)))
        snapshot = await airport.refresher.renew(ADA)
        await settled()
        assert found == [snapshot]

    async def test_it_comes_with_a_failure_too(self, airport: Airport) -> None:
        """A flight ends, whatever it came to."""
        landing = airport.refresher.landing(ADA)
        await airport.fly_into(Unreachable("no route"))
        assert landing.done()

    async def test_it_comes_once(self, airport: Airport) -> None:
        """The next flight has a landing of its own, whether or not anybody waits for it; so has another customer."""
        first, other = airport.refresher.landing(ADA), airport.refresher.landing(BOB)
        await airport.refresher.renew(ADA)
        await airport.refresher.renew(ADA)
        second = airport.refresher.landing(ADA)
        assert (first.done(), second.done(), other.done()) == (True, False, False)


class TestSinks:
    """They are told of every list that takes a place in the cache."""

    async def test_they_are_told_what_was_there_and_what_came(self, airport: Airport) -> None:
        """The first time there was nothing."""
        first = await airport.refresher.renew(ADA)
        airport.clock.advance(1)
        airport.upstream.keys = ("seats",)
        second = await airport.refresher.renew(ADA)
        assert airport.told == [(None, first), (first, second)]

    async def test_they_are_told_of_the_news(self, airport: Airport) -> None:
        """What was there was marked when it was replaced; what came lands marked when it was overtaken."""
        await airport.refresher.renew(ADA)
        airport.clock.advance(1)
        airport.refresher.heard(ADA, airport.clock.now)
        marked = airport.cache.get(ADA)
        airport.upstream.gate.clear()
        airport.refresher.nudge(ADA)
        await settled()
        airport.clock.advance(1)
        airport.refresher.heard(ADA, airport.clock.now)
        airport.upstream.gate.set()
        await settled()
        old, new = airport.told[-1]
        assert (old, new) == (
            replace(held(ADA, airport.clock.now - 2, "pro"), dirty=Dirty(airport.clock.now, airport.clock.now - 2)),
            replace(held(ADA, airport.clock.now - 1, "pro"), dirty=Dirty(airport.clock.now, airport.clock.now - 1)),
        )
        assert marked is not None

    async def test_they_are_not_told_of_what_came_too_late(self, airport: Airport) -> None:
        """What does not get into the cache has changed nothing."""
        airport.cache.put(held(ADA, airport.clock.now + 1, "seats"))
        await airport.refresher.renew(ADA)
        assert airport.told == []

    async def test_nor_of_failures(self, airport: Airport) -> None:
        """A failed read never means no."""
        await airport.fly_into(Unreachable("no route"))
        assert airport.told == []


class TestTrouble:
    """Why the last attempt came to nothing: known while the next one is still under way."""

    async def test_there_is_none_at_first(self, airport: Airport) -> None:
        """Nor after a flight that landed."""
        assert airport.refresher.trouble(ADA) is None
        await airport.refresher.renew(ADA)
        assert airport.refresher.trouble(ADA) is None

    async def test_it_is_carried_over_until_a_request_succeeds(self, airport: Airport) -> None:
        """A flight that has not fared better yet has its predecessor's, over any number of them."""
        await airport.fly_into(Throttled("too many"))
        airport.upstream.gate.clear()
        for _ in range(2):
            airport.clock.advance(1)
            airport.refresher.nudge(ADA)
            await settled()
            trouble = airport.refresher.trouble(ADA)
            assert isinstance(trouble, Throttled)
            assert trouble.detail == "too many"
            airport.upstream.error = Throttled("too many")
            airport.upstream.gate.set()
            await settled()
            airport.upstream.gate.clear()
        airport.upstream.error = None
        airport.upstream.gate.set()
        await airport.refresher.renew(ADA)
        assert airport.refresher.trouble(ADA) is None

    async def test_it_ends_with_a_flight_that_landed(self, airport: Airport) -> None:
        """The one after it begins without."""
        await airport.fly_into(Unreachable("no route"))
        await airport.refresher.renew(ADA)
        airport.upstream.gate.clear()
        airport.refresher.nudge(ADA)
        await settled()
        assert airport.refresher.trouble(ADA) is None

    @pytest.mark.parametrize(("passed", "is_known"), [(60.0, True), (60.5, False)])
    async def test_it_is_forgotten_in_time(self, airport: Airport, passed: float, *, is_known: bool) -> None:
        """A failure of long ago says nothing of the next attempt, nor does that one begin with it."""
        await airport.fly_into(Unreachable("no route"))
        airport.clock.advance(passed)
        assert (airport.refresher.trouble(ADA) is not None) is is_known
        airport.upstream.gate.clear()
        airport.refresher.nudge(ADA)
        await settled()
        assert (airport.refresher.trouble(ADA) is not None) is is_known

    async def test_while_a_flight_is_in_the_air_it_stays(self, airport: Airport) -> None:
        """However long that takes: it has not fared better yet."""
        await airport.fly_into(Unreachable("no route"))
        airport.clock.advance(1)
        airport.upstream.gate.clear()
        airport.refresher.nudge(ADA)
        await settled()
        airport.clock.advance(600)
        assert airport.refresher.trouble(ADA) is not None

    async def test_it_is_one_customers(self, airport: Airport) -> None:
        """Another's list may be readable."""
        await airport.fly_into(Unreachable("no route"))
        airport.upstream.gate.clear()
        airport.refresher.nudge(BOB)
        await settled()
        assert airport.refresher.trouble(BOB) is None

    async def test_that_stripe_knows_no_such_customer_ends_it_too(self, clock: FakeClock) -> None:
        """Stripe has answered. The client sets a flight's trouble and clears it only after a 200."""
        cache, tasks = Cache(1 << 20, Watermarks()), Tasks()

        async def fetch(customer: Customer, flight: Flight) -> Snapshot:
            flight.trouble = (Throttled, "too many")  # the first attempt's
            return unknown(customer, clock())

        refresher = Refresher(fetch, cache, clock=clock, tasks=tasks, take_spare=lambda: True)
        await refresher.renew(ADA)
        assert refresher.trouble(ADA) is None


class TestHistory:
    async def test_a_flight_is_logged(self, airport: Airport) -> None:
        """When it took off and landed, over how many pages, and that it landed."""
        took_off = airport.clock.now
        airport.upstream.gate.clear()
        airport.refresher.nudge(ADA)
        await settled()
        airport.clock.advance(0.5)
        airport.upstream.pages = 3
        airport.upstream.gate.set()
        await settled()
        flight = airport.refresher.last_flight(ADA)
        assert flight is not None
        assert flight == Flight(
            took_off,
            flight.exchanges,
            pages=3,
            landed=took_off + 0.5,
            outcome="landed",
            urgency=Urgency.BACKGROUND,
            prepaid=True,
        )
        assert airport.refresher.pages.cumulative()[:3] == [(1, 0), (2, 0), (3, 1)]

    async def test_a_flight_under_way_has_not_landed(self, airport: Airport) -> None:
        """Its log can be read while it is being written."""
        airport.upstream.gate.clear()
        airport.refresher.nudge(ADA)
        await settled()
        flight = airport.refresher.last_flight(ADA)
        assert flight is not None
        assert flight.landed is None

    async def test_an_unknown_customer_is_an_outcome_and_no_failure(self, airport: Airport) -> None:
        """It has no detail to complain of, and nothing is held off."""
        airport.upstream.known = False
        await airport.refresher.renew(ADA)
        flight = airport.refresher.last_flight(ADA)
        assert flight is not None
        assert (flight.outcome, flight.detail) == ("unknown_customer", None)
        airport.refresher.nudge(ADA)
        await settled()
        assert len(airport.upstream.asked) == 2

    async def test_a_customer_of_the_other_mode_is_an_outcome_of_its_own(self, airport: Airport) -> None:
        """It tells of a wrong key or a wrong environment, which a customer that was never made does not."""
        airport.upstream.known = False
        airport.upstream.refusal = "No such customer: 'cus_ada'; a similar object exists in live mode"
        await airport.refresher.renew(ADA)
        assert airport.outcomes() == {"wrong_mode": 1}

    @pytest.mark.parametrize(
        "kind", [kind for kind in errors_of_upstream() if kind is not CursorVanished], ids=lambda kind: kind.__name__
    )
    async def test_every_failure_is_an_outcome(self, airport: Airport, kind: type[UpstreamError]) -> None:
        """Its code is among the metric's labels, is counted, and is kept with the reason."""
        assert kind.code in OUTCOMES
        await airport.fly_into(kind("the reason"))
        flight = airport.refresher.last_flight(ADA)
        assert flight is not None
        assert (flight.outcome, flight.detail, flight.landed) == (kind.code, "the reason", airport.clock.now)
        assert airport.outcomes() == {kind.code: 1}
        assert airport.refresher.pages.cumulative()[-1] == (inf, 0)  # it brought no page, so it had no length

    async def test_every_outcome_is_counted_from_the_start(self, airport: Airport) -> None:
        """A metric shows zero before the first of a kind, so that an alert can see it rise."""
        assert airport.refresher.outcomes == dict.fromkeys(OUTCOMES, 0)

    async def test_a_flight_that_is_cancelled_says_why(self, airport: Airport) -> None:
        """Only the end of the process cancels a flight."""
        airport.upstream.gate.clear()
        airport.refresher.nudge(ADA)
        await settled()
        await airport.tasks.close()
        flight = airport.refresher.last_flight(ADA)
        assert flight is not None
        assert (flight.outcome, flight.detail) == ("cancelled", "the process is shutting down")
        assert airport.outcomes() == {"cancelled": 1}

    async def test_history_is_bounded(self, airport: Airport) -> None:
        """The customers whose flights were longest ago are forgotten; a new flight makes a customer recent."""
        crowd = [Customer(f"cus_{number}") for number in range(HISTORY)]
        for customer in crowd:
            airport.refresher.nudge(customer)
        await settled()
        await airport.refresher.renew(crowd[0])
        await airport.refresher.renew(ADA)
        assert airport.refresher.last_flight(crowd[1]) is None
        assert all(airport.refresher.last_flight(customer) for customer in (crowd[0], *crowd[2:], ADA))


class TestTheUnexpected:
    async def test_it_reaches_the_waiters_and_the_log(self, airport: Airport, caplog: pytest.LogCaptureFixture) -> None:
        """A defect of ours is one more way to have no answer: logged with its traceback, and without its text told."""
        airport.upstream.error = ValueError("a defect")
        results = await asyncio.gather(*(airport.refresher.renew(ADA) for _ in range(3)), return_exceptions=True)
        assert [str(result) for result in results] == ["a defect; the log has the traceback"] * 3
        assert all(isinstance(result, Defect) for result in results)
        assert airport.outcomes() == {"internal": 1}
        await settled()
        assert [record.message for record in caplog.records] == ["a flight failed in a way that nobody expected"]
        assert "ValueError: a defect" in caplog.text

    async def test_it_keeps_its_details_out_of_the_history(self, airport: Airport) -> None:
        """What explains an answer to a caller says that the log has more."""
        await airport.fly_into(ValueError("a secret"))
        flight = airport.refresher.last_flight(ADA)
        assert flight is not None
        assert (flight.outcome, flight.detail) == ("internal", "a defect; the log has the traceback")

    async def test_it_breaks_no_later_flight(self, airport: Airport) -> None:
        """The next caller gets an answer."""
        await airport.fly_into(ValueError("a defect"))
        assert (await airport.refresher.renew(ADA)).plan.lookup_keys == {"pro"}
        assert airport.refresher.in_the_air() == 0


# --- interleavings ------------------------------------------------------------------------------------------------


@dataclass
class Caller:
    """Somebody who renews: what they wanted, and what they got."""

    since: float
    came: int
    was_in_the_air: bool
    task: "asyncio.Task[Snapshot]" = field(repr=False)
    left: bool = False


class Tower:
    """Fetches that end as and when the tower says."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cache = Cache(1 << 20, Watermarks())
        self.tasks = Tasks(expected=(UpstreamError, ValueError))
        self.refresher = Refresher(self.fetch, self.cache, clock=self.clock, tasks=self.tasks, take_spare=lambda: True)
        self.refresher.sinks.append(lambda _, new: self.landed.append((new, self.heard_at)))
        self.heard_at: float = -inf
        self.landed: list[tuple[Snapshot, float]] = []
        self.in_the_air: asyncio.Future[None] | None = None
        self.took_off = 0
        self.callers: list[Caller] = []

    async def fetch(self, customer: Customer, flight: Flight) -> Snapshot:
        assert self.in_the_air is None, "two flights for one customer"
        self.took_off += 1
        taken_at = self.clock()
        self.in_the_air = asyncio.get_running_loop().create_future()
        try:
            await self.in_the_air
        finally:
            self.in_the_air = None
        return held(customer, taken_at, "pro")

    def call(self, since: float) -> None:
        self.callers.append(
            Caller(
                since,
                self.took_off,
                self.refresher.is_flying(ADA),
                self.tasks.start(self.refresher.renew(ADA, since=since), name="caller"),
            )
        )

    def end(self, error: Exception | None = None) -> None:
        if self.in_the_air is not None and not self.in_the_air.done():
            if error is None:
                self.in_the_air.set_result(None)
            else:
                self.in_the_air.set_exception(error)

    def leave(self, number: int) -> None:
        if self.callers:
            caller = self.callers[number % len(self.callers)]
            caller.left = caller.task.cancel() or caller.left

    def go_on(self, *, news: bool) -> None:
        self.clock.advance(1)
        if news:
            self.heard_at = self.clock.now
            self.refresher.heard(ADA, self.heard_at)

    def step(self, what: str, number: int) -> None:
        match what:
            case "call":
                self.call(-inf)
            case "call since":
                self.call(self.clock.now - number)
            case "nudge":
                self.refresher.nudge(ADA)
            case "land":
                self.end()
            case "fail":
                self.end(Throttled("429"))
            case "break":
                self.end(ValueError("a defect"))
            case "leave":
                self.leave(number)
            case _:
                self.go_on(news=what == "news")


STEPS = ["call", "call since", "nudge", "land", "fail", "break", "leave", "tick", "news"]


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 3), st.booleans()), max_size=40))
def test_whatever_the_order_callers_get_what_they_asked_for(steps: list[tuple[str, int, bool]]) -> None:
    """One flight at a time, two at most for a caller, nothing older than they want, and nobody waits for ever.

    A list is dirty when it was taken before the last news, in the cache at any time as when it lands, and only then.
    """

    async def story() -> Tower:
        tower = Tower()
        seen = -inf
        for what, number, pause in steps:
            tower.step(what, number)
            if pause:
                await settled()
            snapshot = tower.cache.get(ADA)
            if snapshot is not None:
                assert seen <= snapshot.taken_at
                assert (snapshot.dirty is None) is (snapshot.taken_at >= tower.heard_at)
                seen = snapshot.taken_at
        for _ in range(3):  # the one in the air, the second of those who came too late, and none
            await settled()
            tower.end()
        await settled()
        return tower

    tower = asyncio.run(story(), debug=True)
    assert tower.in_the_air is None
    assert sum(tower.refresher.outcomes.values()) == tower.took_off
    assert all((new.dirty is None) is (new.taken_at >= heard_at) for new, heard_at in tower.landed)
    assert all(caller.task.done() for caller in tower.callers)
    for caller in tower.callers:
        with suppress(asyncio.CancelledError, Throttled, Defect):
            assert caller.task.result().taken_at >= caller.since
        assert caller.task.cancelled() <= caller.left
