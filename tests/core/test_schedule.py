"""Customers to be read again because of news, whether or not anybody asks."""

import asyncio
from itertools import pairwise

import pytest

from sidecar.core.schedule import AT_ONCE, LONGEST_PAUSE, LOOK_AGAIN
from sidecar.errors import (
    CircuitOpen,
    KeyRejected,
    OverBudget,
    PermissionMissing,
    Throttled,
    Unreachable,
    UpstreamError,
)
from sidecar.kit.limiter import Urgency
from sidecar.model import Customer
from tests.core.fetching import ADA, BOB, House, settled
from tests.fakes import FakeClock
from tests.kit.virtual import play

OTHERS = [Customer(f"cus_{number}") for number in range(20)]


def is_clean(house: House, customer: Customer = ADA) -> bool:
    """Tell whether ``customer`` is held, and nothing was heard since its list was taken."""
    held = house.cache.get(customer)
    return held is not None and held.dirty is None


def pauses(house: House, customer: Customer = ADA) -> list[float]:
    """Return the seconds between the requests for ``customer``."""
    asked_at = [at for who, at in zip(house.upstream.asked, house.upstream.asked_at, strict=True) if who == customer]
    return [round(later - sooner, 3) for sooner, later in pairwise(asked_at)]


class TestReading:
    async def test_what_changed_is_read_again_without_anybody_asking(self, house: House) -> None:
        """The next question finds a list that was taken after the news."""
        house.remember(10, "seats")
        house.hear()
        assert not is_clean(house)
        await settled()
        assert is_clean(house)
        assert (house.upstream.asked, len(house.heart.schedule)) == ([ADA], 0)

    async def test_the_budget_for_what_nobody_waits_for_is_not_asked(self, house: House) -> None:
        """Somebody's next question depends on it."""
        house.spare = False
        house.remember(10, "seats")
        house.hear()
        await settled()
        assert is_clean(house)

    def test_a_thousand_at_once_are_read_a_few_at_a_time(self, clock: FakeClock) -> None:
        """A change of prices: each customer costs one request, and those whom a caller waits for find room."""
        crowd = [Customer(f"cus_{number}") for number in range(1000)]

        async def story() -> House:
            asyncio.get_running_loop().set_debug(False)
            house = House(clock)
            for customer in crowd:
                house.remember(10, "seats", customer=customer)
            house.upstream.takes = 1.0
            for customer in crowd:
                house.hear(customer)
            await asyncio.sleep(len(crowd) / AT_ONCE + 1)
            return house

        house = play(clock, story())
        assert house.upstream.most_at_once == AT_ONCE
        assert sorted(house.upstream.asked) == sorted(crowd)
        assert all(is_clean(house, customer) for customer in crowd)

    async def test_those_heard_of_first_come_first(self, house: House) -> None:
        """More news of one that waits makes it no later."""
        house.upstream.gate.clear()
        for customer in OTHERS:
            house.remember(10, "seats", customer=customer)
            house.hear(customer)
        await settled()
        house.hear(OTHERS[AT_ONCE])
        assert len(house.heart.schedule) == len(OTHERS)
        house.upstream.gate.set()
        await settled()
        assert house.upstream.asked == OTHERS

    async def test_news_during_the_reading_leads_to_another(self, house: House) -> None:
        """The list that was being read may be from before it."""
        house.remember(10, "seats")
        house.upstream.gate.clear()
        house.hear()
        await settled()
        house.clock.advance(1)
        house.hear()
        house.upstream.gate.set()
        await settled()
        assert len(house.upstream.asked) == 2
        assert is_clean(house)

    async def test_much_news_during_one_reading_leads_to_one_other(self, house: House) -> None:
        """Fifty changes of one customer while it is read cost one request more."""
        house.remember(10, "seats")
        house.upstream.gate.clear()
        house.hear()
        await settled()
        for _ in range(50):
            house.clock.advance(0.01)
            house.hear()
            await settled()
        house.upstream.gate.set()
        await settled()
        assert len(house.upstream.asked) == 2
        assert is_clean(house)

    def test_news_after_a_callers_own_flight_counts_though_the_turn_has_not_come(self, clock: FakeClock) -> None:
        """A list has to be younger than the last of the news, not than what put it on the schedule."""

        async def story() -> House:
            house = House(clock)
            house.upstream.takes = 5.0
            for customer in (*OTHERS[:AT_ONCE], ADA):
                house.remember(10, "seats", customer=customer)
                house.hear(customer)
            await asyncio.sleep(1)
            house.upstream.takes = 0.0
            await house.refresher.renew(ADA)
            await asyncio.sleep(1)
            house.hear()
            assert not is_clean(house)
            await asyncio.sleep(5)
            return house

        house = play(clock, story())
        assert is_clean(house)
        assert house.upstream.asked.count(ADA) == 2


class TestWhatIsNotOwed:
    async def test_the_forgotten_cost_nothing(self, house: House) -> None:
        """Who is not held when the turn comes will be read when somebody asks."""
        house.heart.schedule.add(ADA, house.clock.now)
        await settled()
        assert (house.upstream.asked, len(house.heart.schedule)) == ([], 0)

    async def test_what_was_read_since_costs_nothing(self, house: House) -> None:
        """A caller's own flight after the news is as good."""
        house.upstream.gate.clear()
        for customer in (*OTHERS[:AT_ONCE], ADA):
            house.remember(10, "seats", customer=customer)
            house.hear(customer)
        await settled()
        assert ADA not in house.upstream.asked, "it waits for its turn"
        async with asyncio.TaskGroup() as group:
            _ = group.create_task(house.checker.find(ADA))
            await settled()
            house.upstream.gate.set()
        await settled()
        assert house.upstream.asked.count(ADA) == 1
        assert is_clean(house)

    async def test_a_flight_that_took_off_before_the_news_is_not_enough(self, house: House) -> None:
        """It is waited for, and then flown again: also for who is held only once it has landed."""
        house.upstream.gate.clear()
        house.refresher.nudge(ADA)
        await settled()
        house.clock.advance(1)
        house.hear()
        await settled()
        house.upstream.gate.set()
        await settled()
        assert house.upstream.asked == [ADA, ADA]
        assert is_clean(house)


class TestSecondLooks:
    """A list that news has left as it was may be from before the change all the same."""

    def test_what_does_not_show_yet_is_looked_for_again(self, clock: FakeClock) -> None:
        """A little later, without anybody asking; a third time is not the charm."""

        async def story() -> House:
            house = House(clock)
            house.remember(10, "pro")
            house.hear()
            await asyncio.sleep(1)
            house.upstream.keys = ("pro", "seats")
            await asyncio.sleep(60)
            return house

        house = play(clock, story())
        assert pauses(house) == [LOOK_AGAIN]
        assert house.heart.schedule.second_looks == 1
        found = house.cache.get(ADA)
        assert found is not None
        assert found.plan.lookup_keys == {"pro", "seats"}

    def test_what_still_does_not_show_is_let_be(self, clock: FakeClock) -> None:
        """Not every change of a customer is one of its list."""

        async def story() -> House:
            house = House(clock)
            house.remember(10, "pro")
            house.hear()
            await asyncio.sleep(600)
            return house

        assert pauses(play(clock, story())) == [LOOK_AGAIN]

    def test_what_shows_is_not_looked_at_twice(self, clock: FakeClock) -> None:
        """Nor is a list that was read without news, whether there was one before or not."""

        async def story() -> House:
            house = House(clock)
            house.remember(10, "seats")
            house.hear()
            await asyncio.sleep(1)
            for customer in (ADA, BOB):
                await house.refresher.renew(customer)
            await asyncio.sleep(600)
            return house

        house = play(clock, story())
        assert house.upstream.asked == [ADA, ADA, BOB]
        assert house.heart.schedule.second_looks == 0

    def test_what_lands_dirty_is_flown_again_anyway(self, clock: FakeClock) -> None:
        """The second look counts from the list that was taken after the last news."""

        async def story() -> House:
            house = House(clock)
            house.remember(10, "pro")
            house.upstream.takes = 1.0
            house.hear()
            await asyncio.sleep(0.5)
            house.hear()
            await asyncio.sleep(600)
            return house

        assert pauses(play(clock, story())) == [1, 1 + LOOK_AGAIN]

    def test_the_forgotten_are_not_looked_at(self, clock: FakeClock) -> None:
        """Who has made room for others meanwhile will be read when somebody asks."""

        async def story() -> House:
            house = House(clock)
            house.remember(10, "pro")
            house.hear()
            await settled()
            house.cache.max_bytes = 0
            house.cache.mark(ADA, clock.now)
            await asyncio.sleep(600)
            return house

        assert play(clock, story()).upstream.asked == [ADA]

    def test_each_gets_its_own_in_turn(self, clock: FakeClock) -> None:
        """However many wait, at most a few are read at a time."""

        async def story() -> House:
            asyncio.get_running_loop().set_debug(False)
            house = House(clock)
            house.upstream.takes = 1.0
            for customer in OTHERS:
                house.remember(10, "pro", customer=customer)
                house.hear(customer)
            await asyncio.sleep(600)
            return house

        house = play(clock, story())
        assert sorted(house.upstream.asked) == sorted(OTHERS * 2)
        assert all(pauses(house, customer) == [1 + LOOK_AGAIN] for customer in OTHERS)
        assert house.upstream.most_at_once == AT_ONCE


class TestFailures:
    def test_the_pauses_grow(self, clock: FakeClock) -> None:
        """Who cannot be read is tried again for as long as it takes, soon at first, then twice a minute."""

        async def story() -> House:
            house = House(clock)
            house.remember(10, "seats")
            house.fail()
            house.hear()
            await asyncio.sleep(150)
            return house

        assert pauses(play(clock, story())) == [1, 2, 4, 8, 16, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]

    @pytest.mark.parametrize(
        "trouble",
        [
            CircuitOpen("nothing is asked"),
            OverBudget("none left"),
            Throttled("slow down"),
            KeyRejected("no"),
            PermissionMissing("no"),
        ],
        ids=lambda trouble: trouble.code,
    )
    def test_trouble_that_is_everybodys_lets_all_rest(self, clock: FakeClock, trouble: UpstreamError) -> None:
        """An hour of it costs a trickle of attempts, however many wait; and then nobody is lost."""

        async def story() -> tuple[House, int]:
            house = House(clock)
            for customer in OTHERS:
                house.remember(10, "seats", customer=customer)
            house.upstream.error = trouble
            for customer in OTHERS:
                house.hear(customer)
            await asyncio.sleep(3600)
            during = len(house.upstream.asked)
            house.upstream.error = None
            await asyncio.sleep(LONGEST_PAUSE)
            return house, during

        house, during = play(clock, story())
        assert during <= AT_ONCE * (3600 / LONGEST_PAUSE + 6)
        assert all(is_clean(house, customer) for customer in OTHERS)
        assert (len(house.upstream.asked) - during, len(house.heart.schedule)) == (len(OTHERS), 0)

    def test_a_success_resets_the_pause(self, clock: FakeClock) -> None:
        """The next trouble is another one."""

        async def story() -> House:
            house = House(clock)
            house.remember(10, "seats")
            house.fail()
            house.hear()
            await asyncio.sleep(5)
            house.upstream.error = None
            await asyncio.sleep(5)
            house.fail()
            house.hear()
            await asyncio.sleep(2)
            return house

        assert pauses(play(clock, story())) == [1, 2, 4, 3, 1]

    def test_trouble_that_is_long_past_delays_no_news(self, clock: FakeClock) -> None:
        """Those who met it were forgotten, so nothing was read meanwhile; who meets the next rests as for the first time."""

        async def story() -> House:
            house = House(clock)
            house.upstream.error = CircuitOpen("nothing is asked")
            house.remember(10, "seats")
            house.hear()
            await asyncio.sleep(100)
            room, house.cache.max_bytes = house.cache.max_bytes, 0
            house.remember(10, "seats")
            await asyncio.sleep(LONGEST_PAUSE)
            house.cache.max_bytes = room
            house.remember(10, "seats", customer=BOB)
            house.hear(BOB)
            await asyncio.sleep(0.5)
            house.upstream.error = None
            await asyncio.sleep(LONGEST_PAUSE)
            return house

        house = play(clock, story())
        assert is_clean(house, BOB)
        assert pauses(house, BOB)[:1] == [1]

    def test_a_failing_customer_goes_behind_the_others(self, clock: FakeClock) -> None:
        """It may be its own trouble; the others' turn comes first."""

        async def story() -> House:
            house = House(clock)
            house.upstream.takes = 1.0
            house.upstream.errors[ADA] = Unreachable("no route")
            for customer in (ADA, *OTHERS):
                house.remember(10, "seats", customer=customer)
                house.hear(customer)
            await asyncio.sleep(20)
            return house

        asked = play(clock, story()).upstream.asked
        assert asked[0] == ADA
        assert asked.index(ADA, 1) > max(map(asked.index, OTHERS))

    def test_trouble_of_their_own_costs_each_a_trickle(self, clock: FakeClock) -> None:
        """Twice a minute for each, in the long run."""

        async def story() -> House:
            house = House(clock)
            for customer in OTHERS:
                house.remember(10, "seats", customer=customer)
            house.fail()
            for customer in OTHERS:
                house.hear(customer)
            await asyncio.sleep(3600)
            assert len(house.heart.schedule) == len(OTHERS)
            return house

        house = play(clock, story())
        assert len(house.upstream.asked) <= len(OTHERS) * (3600 / LONGEST_PAUSE + 6)

    def test_news_of_one_that_is_put_aside_does_not_bring_it_back(self, clock: FakeClock) -> None:
        """It would fail again; when its time has come, the list has to be younger than the latest news."""

        async def story() -> House:
            house = House(clock)
            house.remember(10, "seats")
            house.fail()
            house.hear()
            for _ in range(100):
                await asyncio.sleep(0.25)
                house.hear()
            house.upstream.error = None
            await asyncio.sleep(LONGEST_PAUSE)
            return house

        house = play(clock, story())
        assert pauses(house) == [1, 2, 4, 8, 16]
        assert is_clean(house)

    def test_an_account_that_may_not_be_read_is_no_trouble_of_the_others(self, clock: FakeClock) -> None:
        """A connected account was deauthorised: its customers wait alone, with a request each now and then."""
        theirs = [Customer(f"cus_{number}", "acct_gone") for number in range(3 * AT_ONCE)]

        async def story() -> House:
            house = House(clock)
            for customer in (*theirs, ADA):
                house.remember(10, "seats", customer=customer)
            for customer in theirs:
                house.upstream.errors[customer] = PermissionMissing("deauthorised")
                house.hear(customer)
            await asyncio.sleep(300)
            house.hear(ADA)
            await settled()
            return house

        assert is_clean(play(clock, story()))

    @pytest.mark.parametrize("failing", [1, AT_ONCE, len(OTHERS)])
    def test_others_get_their_turn_beside_those_with_trouble_of_their_own(self, clock: FakeClock, failing: int) -> None:
        """A customer that can never be read waits alone: news of another is acted on at once."""

        async def story() -> House:
            house = House(clock)
            for customer in (*OTHERS[:failing], BOB):
                house.remember(10, "seats", customer=customer)
            for customer in OTHERS[:failing]:
                house.upstream.errors[customer] = Unreachable("no route")
                house.hear(customer)
            await asyncio.sleep(300)
            house.hear(BOB)
            await settled()
            return house

        assert is_clean(play(clock, story()), BOB)

    def test_news_during_a_flight_that_fails_is_not_forgotten(self, clock: FakeClock) -> None:
        """The list that is owed in the end is one taken after the latest news."""

        async def story() -> House:
            house = House(clock)
            house.remember(10, "seats")
            house.fail()
            house.upstream.takes = 1.0
            house.hear()
            await asyncio.sleep(0.5)
            house.hear()
            await asyncio.sleep(0.6)
            house.upstream.error = None
            await asyncio.sleep(10)
            return house

        house = play(clock, story())
        assert is_clean(house)
        assert len(house.heart.schedule) == 0


def test_who_is_put_aside_twice_comes_back_once(clock: FakeClock) -> None:
    """Two readings of one customer may be under way, and both fail; the later news counts."""

    async def story() -> House:
        house = House(clock)
        house.remember(10, "seats")
        house.fail()
        schedule = house.heart.schedule
        await asyncio.gather(schedule._read(ADA, clock.now + 0.5), schedule._read(ADA, clock.now))
        assert schedule._aside == {ADA: clock.now + 0.5}
        house.upstream.error = None
        await asyncio.sleep(10)
        return house

    house = play(clock, story())
    assert (pauses(house), len(house.heart.schedule)) == ([1], 0)


async def test_news_is_read_as_news(house: House) -> None:
    """Before what nobody has asked for, after what a caller waits for."""
    house.remember(10, "seats")
    house.hear()
    await settled()
    flight = house.refresher.last_flight(ADA)
    assert flight is not None
    assert flight.urgency is Urgency.NEWS


@pytest.mark.parametrize("trouble", [Unreachable("no route"), CircuitOpen("nothing is asked")], ids=repr)
async def test_of_two_retries_the_later_news_counts(house: House, trouble: UpstreamError) -> None:
    """A list from between them, brought by somebody else, does not settle the later one."""
    house.remember(10, "seats")
    schedule, heard_at = house.heart.schedule, house.clock.now
    schedule._pause = 0.0
    house.upstream.error = trouble
    for listed, in_hand in ((5, 0), (0, 5)):
        schedule._listed[ADA] = heard_at + listed
        await schedule._read(ADA, heard_at + in_hand)
        assert schedule._aside | schedule._listed == {ADA: heard_at + 5}
