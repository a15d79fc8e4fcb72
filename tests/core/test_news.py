"""What is heard of changes, whoever brings it."""

import asyncio

import pytest

from sidecar.core.news import EFFECTS, ORIGINS, REMEMBERED
from sidecar.model import Customer, Dirty
from tests.core.fetching import ADA, BOB, House, held, settled


def counted(house: House) -> dict[tuple[str, str], int]:
    """Return what was counted, without the zeros."""
    return {labels: count for labels, count in house.news.counts.items() if count}


class TestHearing:
    async def test_it_marks_before_it_returns(self, house: House) -> None:
        """From then on no answer is given as if nothing had been heard."""
        old = house.remember(10, "seats")
        assert house.news.hear("evt_1", ADA, origin="webhook")
        snapshot = house.cache.get(ADA)
        assert snapshot is not None
        assert snapshot.dirty == Dirty(heard_at=house.clock.now, verified_at=old.taken_at)
        assert house.checker.glance(ADA) is None
        assert house.upstream.asked == [], "nothing was waited for"

    async def test_it_is_about_one_customer(self, house: House) -> None:
        """The same id in another account is another's."""
        house.remember(10, "seats")
        house.remember(10, "seats", customer=BOB)
        house.hear(Customer(ADA.id, "acct_1"))
        house.hear(BOB)
        assert house.checker.glance(ADA) is not None
        assert house.checker.glance(BOB) is None

    async def test_the_list_is_read_again(self, house: House) -> None:
        """News names a customer; what is true of it is in its list."""
        house.remember(10, "seats")
        house.hear()
        await settled()
        finding = house.checker.glance(ADA)
        assert finding is not None
        assert finding.snapshot == held(ADA, house.clock.now, "pro")

    async def test_later_news_counts_from_when_it_was_heard(self, house: House) -> None:
        """The list has to be taken after the last of it; how long it was true is from before the first."""
        old = house.remember(10, "seats")
        house.upstream.gate.clear()
        house.hear()
        house.clock.advance(1)
        house.vouch()
        house.hear()
        snapshot = house.cache.get(ADA)
        assert snapshot is not None
        assert snapshot.dirty == Dirty(heard_at=house.clock.now, verified_at=old.taken_at)

    async def test_who_is_not_held_costs_nothing(self, house: House) -> None:
        """It is counted; whoever asks first will have the list read."""
        house.hear()
        await settled()
        assert house.upstream.asked == []
        assert (len(house.cache), len(house.heart.schedule)) == (0, 0)
        assert counted(house) == {("feed", "not_held"): 1}

    async def test_a_first_flight_that_is_overtaken_lands_dirty_and_is_flown_again(self, house: House) -> None:
        """Who is not held yet, but being read, may have been read too early."""
        house.upstream.gate.clear()
        async with asyncio.TaskGroup() as group:
            first = group.create_task(house.refresher.renew(ADA))
            await settled()
            house.clock.advance(1)
            house.upstream.keys = ("new",)
            house.hear()
            house.upstream.gate.set()
        heard_at = house.clock.now
        assert first.result().dirty == Dirty(heard_at, first.result().taken_at)
        await settled()
        assert house.cache.get(ADA) == held(ADA, heard_at, "new")
        assert house.upstream.asked == [ADA, ADA]
        assert counted(house) == {("feed", "marked"): 1}


class TestOncePerEvent:
    @pytest.mark.parametrize("second", ORIGINS)
    async def test_the_same_event_counts_once_whoever_brings_it(self, house: House, second: str) -> None:
        """Stripe delivers more than once, and the feed tells what a webhook told before."""
        house.remember(10, "seats")
        assert house.news.hear("evt_1", ADA, origin="webhook")
        await settled()
        house.clock.advance(1)
        assert not house.news.hear("evt_1", ADA, origin=second)
        assert house.checker.glance(ADA) is not None
        await settled()
        assert len(house.upstream.asked) == 1
        assert counted(house) == {("webhook", "marked"): 1, (second, "duplicate"): 1}

    async def test_another_event_of_the_same_customer_is_news(self, house: House) -> None:
        """Each change is heard of."""
        house.remember(10, "seats")
        for event_id in ("evt_1", "evt_2"):
            assert house.news.hear(event_id, ADA, origin="feed")
            await settled()
            house.clock.advance(1)
        assert len(house.upstream.asked) == 2

    async def test_an_event_of_one_who_was_not_held_is_news_when_it_is_told_again(self, house: House) -> None:
        """The list that was read meanwhile may not have shown the change yet."""
        assert house.news.hear("evt_1", ADA, origin="webhook")
        house.remember(10, "seats")
        assert house.news.hear("evt_1", ADA, origin="feed")
        assert house.checker.glance(ADA) is None
        assert not house.news.hear("evt_1", ADA, origin="feed")

    async def test_an_event_about_somebody_else_is_another(self, house: House) -> None:
        """Whom it is about depends on who tells: the wrong one must not hide the right one."""
        house.remember(10, "seats")
        house.remember(10, "seats", customer=BOB)
        assert house.news.hear("evt_1", BOB, origin="webhook")
        assert house.news.hear("evt_1", ADA, origin="feed")

    async def test_the_memory_of_ids_is_bounded(self, house: House) -> None:
        """The oldest is forgotten for the newest: a duplicate of it is taken for news."""
        house.remember(10, "seats")
        for number in range(REMEMBERED):
            assert house.news.hear(f"evt_{number}", ADA, origin="feed")
        assert not house.news.hear("evt_0", ADA, origin="feed")
        assert house.news.hear("evt_new", ADA, origin="feed")
        assert not house.news.hear("evt_1", ADA, origin="feed")
        assert house.news.hear("evt_0", ADA, origin="feed")
        assert len(house.news._heard) == REMEMBERED

    async def test_every_count_is_there_from_the_start(self, house: House) -> None:
        """A metric shows zero before the first of a kind."""
        assert house.news.counts == {(origin, effect): 0 for origin in ORIGINS for effect in EFFECTS}


class TestTheFeedsWatermark:
    async def test_it_keeps_lists_young(self, house: House) -> None:
        """Beginning and advancing reach the watermarks, each for its own account."""
        old = house.remember(200, "seats")
        house.news.begin(None, old.taken_at)
        house.news.advance(None, house.clock.now - 30)
        assert house.watermarks.until(None) == house.clock.now - 30
        assert house.watermarks.until("acct_1") is None
        assert house.watermarks.verified_at(old) == house.clock.now - 30

    async def test_each_account_has_its_own(self, house: House) -> None:
        """A connected account's events are read on their own."""
        house.remember(200, "seats", customer=BOB)
        house.news.begin("acct_1", 0.0)
        house.news.advance("acct_1", house.clock.now - 30)
        assert (house.watermarks.until("acct_1"), house.watermarks.until(None)) == (house.clock.now - 30, None)

    async def test_it_settles_the_audit(self, house: House) -> None:
        """A difference that news should have explained by now is held against the feed."""
        house.remember(200, "seats")
        house.vouch(lag=30)
        await house.refresher.renew(ADA)
        house.vouch(lag=1)
        assert house.heart.audit.differences == 0
        house.vouch()
        assert house.heart.audit.differences == 1

    async def test_a_gap_is_no_difference(self, house: House) -> None:
        """When the feed begins anew it admits to having missed something, and nothing is held against it twice."""
        house.remember(200, "seats")
        house.vouch(lag=30)
        await house.refresher.renew(ADA)
        house.news.begin(None, house.clock.now)
        house.vouch()
        assert (house.heart.audit.checked, house.heart.audit.differences) == (1, 0)

    async def test_news_explains_a_difference(self, house: House) -> None:
        """The event became visible later than the change."""
        house.remember(200, "seats")
        house.vouch(lag=30)
        await house.refresher.renew(ADA)
        house.hear()
        house.vouch()
        assert house.heart.audit.differences == 0
