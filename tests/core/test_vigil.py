"""Callers who wait for a grant: the looks at Stripe that they share, and what they are told."""

import asyncio
from itertools import pairwise

import pytest

from sidecar.kit.limiter import Urgency
from sidecar.model import Exchange, Flight, Reason, Source
from tests.core.fetching import ADA, BOB, House, Told, settled
from tests.fakes import FakeClock
from tests.kit.virtual import play


def pauses(house: House) -> list[float]:
    """Return the seconds between one request to Stripe and the next."""
    return [round(later - sooner, 3) for sooner, later in pairwise(house.upstream.asked_at)]


async def look(house: House, times: int = 1) -> None:
    """Look at Ada again and again."""
    for _ in range(times):
        await house.heart.vigil.look(ADA)


class TestSpacing:
    @pytest.mark.parametrize("lookers", [1, 1000])
    def test_requests_for_one_customer_are_a_second_apart(self, clock: FakeClock, lookers: int) -> None:
        """The first look asks at once; however many look, they share each request."""

        async def story() -> House:
            asyncio.get_running_loop().set_debug(False)
            house = House(clock)
            await asyncio.gather(*(look(house, 4) for _ in range(lookers)))
            return house

        assert pauses(play(clock, story())) == [1, 1, 1]

    @pytest.mark.parametrize(("pages", "takes"), [(2, 0.0), (3, 0.5), (10, 3.0)])
    def test_long_lists_are_as_far_apart_as_they_have_requests(
        self, clock: FakeClock, pages: int, takes: float
    ) -> None:
        """A customer of three pages costs a request a second as well, by three every three seconds."""

        async def story() -> House:
            house = House(clock)
            house.upstream.pages, house.upstream.takes = pages, takes
            await look(house, 3)
            return house

        assert pauses(play(clock, story())) == [pages, pages]

    def test_the_longest_lists_too(self, clock: FakeClock) -> None:
        """A hundred pages are read every hundred seconds."""

        async def story() -> House:
            house = House(clock)
            house.upstream.pages = 100
            await look(house, 3)
            return house

        assert pauses(play(clock, story())) == [100, 100]

    def test_attempts_that_failed_count_too(self, clock: FakeClock) -> None:
        """What was tried again within a flight was a request each time, though it brought no page."""

        async def story() -> House:
            house = House(clock)
            house.upstream.pages = 3
            house.fail()
            await look(house, 3)
            return house

        assert pauses(play(clock, story())) == [3, 3]

    def test_it_counts_from_the_request(self, clock: FakeClock) -> None:
        """A flight may have queued for the budget after it took off."""

        async def story() -> float:
            house = House(clock)
            flight = Flight(clock() - 10)
            flight.exchanges.append(Exchange(clock() - 0.25, "200", None))
            house.refresher._history[ADA] = flight
            began = clock()
            await look(house, 1)
            return clock() - began

        assert play(clock, story()) == pytest.approx(0.75)

    def test_it_counts_from_any_flight(self, clock: FakeClock) -> None:
        """Also from one that a check started; and one that was long ago is no reason to wait."""

        async def story() -> House:
            house = House(clock)
            await house.refresher.renew(ADA)
            await asyncio.sleep(0.25)
            await look(house)
            await asyncio.sleep(60)
            await look(house)
            return house

        assert pauses(play(clock, story())) == [1, 60]

    def test_another_customer_is_looked_at_at_once(self, clock: FakeClock) -> None:
        """Each has a second of its own."""

        async def story() -> House:
            house = House(clock)
            await asyncio.gather(house.heart.vigil.look(ADA), house.heart.vigil.look(BOB))
            return house

        assert pauses(play(clock, story())) == [0]


async def test_a_look_is_for_somebody_who_waits(house: House) -> None:
    """Its first request has to be left over; the further ones are as urgent as a caller's."""
    await look(house)
    flight = house.refresher.last_flight(ADA)
    assert flight is not None
    assert (flight.prepaid, flight.urgency) == (True, Urgency.CALLER)


class TestTheEndOfALook:
    async def test_a_flight_in_the_air_is_the_look(self, house: House) -> None:
        """Its landing is waited for, and nothing else is started."""
        house.upstream.gate.clear()
        house.refresher.nudge(ADA)
        await settled()
        async with asyncio.TaskGroup() as group:
            looker = group.create_task(look(house))
            await settled()
            assert len(house.heart.vigil) == 1
            house.upstream.gate.set()
        assert looker.done()
        assert house.upstream.asked == [ADA]
        assert len(house.heart.vigil) == 0

    def test_it_is_the_landing_that_news_caused(self, clock: FakeClock) -> None:
        """No second is waited for, and no request made beside the one for the news."""

        async def story() -> House:
            house = House(clock)
            house.remember(10, "seats")
            await house.refresher.renew(ADA)
            house.upstream.takes = 0.25
            async with asyncio.TaskGroup() as group:
                _ = group.create_task(look(house))
                await asyncio.sleep(0.5)
                house.hear()
            return house

        began = clock.now
        house = play(clock, story())
        assert clock.now - began == pytest.approx(0.75, abs=1e-3)
        assert len(house.upstream.asked) == 2

    def test_it_is_also_a_failure(self, clock: FakeClock) -> None:
        """Whoever waits is told, and looks again if they like; not sooner for that."""

        async def story() -> House:
            house = House(clock)
            house.fail()
            await look(house, 3)
            return house

        assert pauses(play(clock, story())) == [1, 1]

    def test_without_a_request_to_spare_it_goes_on(self, clock: FakeClock) -> None:
        """The budget is asked once a second, however many wait; when it has one to spare, that is taken."""

        async def story() -> House:
            asyncio.get_running_loop().set_debug(False)
            house = House(clock)
            house.spare = False
            async with asyncio.TaskGroup() as group:
                for _ in range(100):
                    _ = group.create_task(look(house))
                await asyncio.sleep(4.5)
                assert (house.upstream.asked, house.refresher.deferred) == ([], 5)
                house.spare = True
            return house

        began = clock.now
        assert play(clock, story()).upstream.asked == [ADA]
        assert clock.now - began == pytest.approx(5, abs=1e-3)

    def test_a_hanging_flight_is_waited_for(self, clock: FakeClock) -> None:
        """While one is in the air no other is started, however long it takes."""

        async def story() -> House:
            house = House(clock)
            house.upstream.takes = 20.0
            await look(house)
            return house

        house = play(clock, story())
        assert house.upstream.asked == [ADA]
        assert house.refresher.deferred == 0


async def test_who_leaves_takes_nobody_along(house: House) -> None:
    """The look goes on for the others, and lands for whoever asks next though all have left."""
    house.upstream.gate.clear()
    async with asyncio.TaskGroup() as group:
        leaves, stays = group.create_task(look(house)), group.create_task(look(house))
        await settled()
        leaves.cancel()
        await settled()
        assert not stays.done()
        house.upstream.gate.set()
    assert (leaves.cancelled(), stays.cancelled()) == (True, False)
    assert house.upstream.asked == [ADA]


def test_a_look_that_nobody_waits_for_any_more_ends(clock: FakeClock) -> None:
    """Even where the budget never has a request for it: what callers leave behind is bounded."""

    async def story() -> House:
        house = House(clock)
        house.spare = False
        looking = house.tasks.start(look(house), name="look")
        await asyncio.sleep(1.5)
        looking.cancel()
        await asyncio.sleep(1)
        assert len(house.heart.vigil) == 0
        house.spare = True
        await asyncio.sleep(10)
        return house

    assert play(clock, story()).upstream.asked == []


# --- waiting for a grant ------------------------------------------------------------------------------------------


def nothing_held(clock: FakeClock) -> House:
    """Return a house before a Stripe that knows of no entitlements."""
    house = House(clock)
    house.upstream.keys = ()
    return house


class TestWait:
    async def test_the_entitled_do_not_wait(self, house: House) -> None:
        """Nor is anything asked that would not be asked otherwise."""
        assert (await house.told(wait=10)).in_short == (True, Source.UPSTREAM, False, 0)
        assert (await house.told(wait=10)).in_short == (True, Source.MEMORY, False, 0)
        assert house.upstream.asked == [ADA]

    @pytest.mark.parametrize("callers", [1, 1000])
    def test_any_number_of_callers_cost_a_request_a_second(self, clock: FakeClock, callers: int) -> None:
        """All are told at the end what asking without waiting would be told, and each counts as one decision."""

        async def story() -> tuple[House, list[Told]]:
            asyncio.get_running_loop().set_debug(False)
            house = nothing_held(clock)
            answers = await asyncio.gather(*(house.told(wait=9.5) for _ in range(callers)))
            return house, answers

        house, answers = play(clock, story())
        assert pauses(house) == [1] * 9
        assert {answer.in_short for answer in answers} == {(False, Source.UPSTREAM, False, 9.5)}
        assert house.checker.decisions[Reason.NOT_ENTITLED, Source.UPSTREAM] == callers
        assert sum(house.checker.decisions.values()) == callers
        assert house.checker.durations.sum == pytest.approx(9.5 * callers)

    def test_so_do_callers_who_come_one_after_another(self, clock: FakeClock) -> None:
        """The second counts from the last request, whoever it was for."""

        async def story() -> House:
            house = nothing_held(clock)
            for _ in range(30):
                _ = await house.told(wait=0.35)
            return house

        assert pauses(play(clock, story())) == [1] * 10

    def test_long_lists_are_as_far_apart_as_they_have_requests(self, clock: FakeClock) -> None:
        """Three pages take three requests, so there are three seconds between."""

        async def story() -> House:
            house = nothing_held(clock)
            house.upstream.pages = 3
            _ = await house.told(wait=9.5)
            return house

        assert pauses(play(clock, story())) == [3, 3, 3]

    @pytest.mark.parametrize("said", [None, "max-age=5", "max-stale"])
    def test_a_grant_shows_at_the_next_look(self, clock: FakeClock, said: str | None) -> None:
        """Also to those who set bounds on the age: what landed is young."""

        async def story() -> tuple[House, Told]:
            house = nothing_held(clock)
            asked = house.tasks.start(house.told(said, wait=10), name="asked")
            await asyncio.sleep(2.5)
            house.upstream.keys = ("pro",)
            return house, await asked

        house, answer = play(clock, story())
        assert answer.in_short == (True, Source.UPSTREAM, False, 3)
        assert pauses(house) == [1, 1, 1]

    def test_news_ends_the_wait_with_the_flight_that_it_caused(self, clock: FakeClock) -> None:
        """After a checkout Stripe's webhook comes within a second or two; nobody waits for the next look."""

        async def story() -> tuple[House, Told]:
            house = nothing_held(clock)
            house.upstream.takes = 0.25
            asked = house.tasks.start(house.told(wait=10), name="asked")
            await asyncio.sleep(1.5)
            house.upstream.keys = ("pro",)
            house.hear()
            return house, await asked

        house, answer = play(clock, story())
        assert answer.in_short == (True, Source.UPSTREAM, False, 1.75)
        assert pauses(house) == [1, 0.5]

    def test_news_during_a_look_ends_the_wait_too(self, clock: FakeClock) -> None:
        """The look's own flight was overtaken; the next one takes off when it has landed."""

        async def story() -> Told:
            house = nothing_held(clock)
            house.upstream.takes = 0.25
            asked = house.tasks.start(house.told(wait=10), name="asked")
            await asyncio.sleep(1.1)
            house.upstream.keys = ("pro",)
            house.hear()
            return await asked

        assert play(clock, story()).in_short == (True, Source.UPSTREAM, False, 1.5)

    async def test_who_wants_memory_only_has_nothing_to_wait_for(self, house: House) -> None:
        """``only-if-cached`` never asks Stripe, nor waits for others to."""
        house.remember(10, "seats")
        assert (await house.told("only-if-cached", wait=5)).in_short == (False, Source.MEMORY, False, 0)
        assert house.upstream.asked == []

    def test_with_nothing_to_spare_nothing_is_asked(self, clock: FakeClock) -> None:
        """Whoever waits takes no request from those who need one now; other news still ends the wait."""

        async def story() -> tuple[House, Told, Told]:
            house = House(clock)
            house.spare = False
            house.remember(10, "seats")
            in_vain = await house.told(wait=5)
            assert house.upstream.asked == []
            asked = house.tasks.start(house.told(wait=5), name="asked")
            await asyncio.sleep(2.2)
            house.hear()
            return house, in_vain, await asked

        house, in_vain, by_news = play(clock, story())
        assert in_vain.in_short == (False, Source.MEMORY, False, 5)
        assert by_news.in_short == (True, Source.UPSTREAM, False, 2.2)
        assert house.upstream.asked == [ADA]

    @pytest.mark.parametrize(
        ("state", "wait", "after"),
        [("absent", 1, 2), ("absent", 5, 5), ("fresh", 1, 1), ("fresh", 5, 5), ("dirty", 5, 5)],
    )
    def test_it_ends_in_time_though_stripe_hangs(self, clock: FakeClock, state: str, wait: float, after: float) -> None:
        """At the end of the wait, or of the deadline where nothing is known and that is later."""

        async def story() -> Told:
            house = House(clock)
            house.upstream.gate.clear()
            if state != "absent":
                house.remember(10, "seats")
            if state == "dirty":
                house.hear()
            return await house.told(wait=wait)

        answer = play(clock, story())
        assert answer.after == after
        if state == "absent":
            assert answer.decision.reason is Reason.UNAVAILABLE
            assert answer.decision.missing is not None
            assert answer.decision.missing.code == "deadline"
        else:
            assert answer.in_short == (False, Source.MEMORY, state == "dirty", after)

    @pytest.mark.parametrize("takes", [0.0, 0.8])
    def test_it_ends_in_time_though_stripe_fails(self, clock: FakeClock, takes: float) -> None:
        """Flights that end near the end of the wait make it no longer; the reason that is told is Stripe's."""

        async def story() -> Told:
            house = House(clock)
            house.fail()
            house.upstream.takes = takes
            return await house.told(wait=3)

        answer = play(clock, story())
        assert answer.after == 3
        assert answer.decision.missing is not None
        assert answer.decision.missing.code == "unreachable"

    @pytest.mark.parametrize("said", [None, "no-cache", "max-age=1"])
    def test_what_was_read_for_ones_own_question_answers_in_the_end(self, clock: FakeClock, said: str | None) -> None:
        """The wait is the caller's own wish, so it makes nothing too old."""

        async def story() -> Told:
            house = nothing_held(clock)
            house.spare = False
            return await house.told(said, wait=5)

        assert play(clock, story()).in_short == (False, Source.UPSTREAM, False, 5)

    def test_the_end_asks_nothing(self, clock: FakeClock) -> None:
        """With no time left for an answer to come, Stripe is not asked once more."""

        async def story() -> tuple[House, Told]:
            house = House(clock)
            house.spare = False
            house.fail()
            return house, await house.told(wait=5)

        house, answer = play(clock, story())
        assert answer.after == 5
        assert house.upstream.asked == [ADA]

    @pytest.mark.parametrize("said", [None, "stale-if-error"])
    def test_a_failing_stripe_is_asked_once_a_second_too(self, clock: FakeClock, said: str | None) -> None:
        """What is in memory answers in the end."""

        async def story() -> tuple[House, Told]:
            house = House(clock)
            house.remember(10, "seats")
            house.fail()
            return house, await house.told(said, wait=5.5)

        house, answer = play(clock, story())
        assert pauses(house) == [1] * 5
        assert answer.in_short == (False, Source.MEMORY, False, 5.5)

    @pytest.mark.parametrize(("said", "fails"), [(None, True), ("no-cache", False)])
    def test_also_where_memory_may_not_answer(self, clock: FakeClock, said: str | None, *, fails: bool) -> None:
        """Nothing is known and Stripe fails, or only what was asked after the request will do."""

        async def story() -> House:
            house = nothing_held(clock)
            house.upstream.takes = 0.1
            if fails:
                house.fail()
            _ = await house.told(said, wait=9.5)
            return house

        assert min(pauses(play(clock, story()))) >= 1

    def test_a_customer_that_is_made_meanwhile_is_found(self, clock: FakeClock) -> None:
        """``unknown_for`` holds nobody off who waits."""

        async def story() -> Told:
            house = House(clock)
            house.upstream.known = False
            asked = house.tasks.start(house.told(wait=10), name="asked")
            await asyncio.sleep(2.5)
            house.upstream.known = True
            return await asked

        assert play(clock, story()).in_short == (True, Source.UPSTREAM, False, 3)

    def test_a_policys_yes_is_not_the_grant_that_is_waited_for(self, clock: FakeClock) -> None:
        """It is given in the end, if there is nothing better; knowledge ends the wait."""

        async def story() -> list[Told]:
            house = House(clock)
            house.fail()
            in_vain = await house.told(wait=3, default="allow")
            asked = house.tasks.start(house.told(wait=10, default="allow"), name="asked")
            await asyncio.sleep(1.5)
            house.upstream.error = None
            return [in_vain, await asked]

        in_vain, known = play(clock, story())
        assert (in_vain.decision.entitled, in_vain.decision.reason) == (True, Reason.UNAVAILABLE)
        assert in_vain.after == 3
        assert (known.decision.entitled, known.decision.reason) == (True, Reason.ENTITLED)
        assert known.after < 10

    def test_a_shutdown_ends_it(self, clock: FakeClock) -> None:
        """With what is known by then; whoever comes later does not wait at all."""

        async def story() -> list[Told]:
            house = nothing_held(clock)
            waiting = [house.tasks.start(house.told(wait=30), name="asked") for _ in range(2)]
            await asyncio.sleep(2.5)
            house.heart.vigil.close()
            return [*await asyncio.gather(*waiting), await house.told(wait=30)]

        assert [answer.after for answer in play(clock, story())] == [2.5, 2.5, 0]

    def test_who_leaves_takes_nobody_along(self, clock: FakeClock) -> None:
        """The others go on waiting, at the same price."""

        async def story() -> tuple[House, Told]:
            house = nothing_held(clock)
            leaves, stays = (house.tasks.start(house.told(wait=10), name="asked") for _ in range(2))
            await asyncio.sleep(1.5)
            leaves.cancel()
            await asyncio.sleep(1)
            house.upstream.keys = ("pro",)
            return house, await stays

        house, answer = play(clock, story())
        assert answer.in_short == (True, Source.UPSTREAM, False, 3)
        assert pauses(house) == [1, 1, 1]


def test_callers_who_wait_are_bounded(clock: FakeClock) -> None:
    """One too many is answered at once, as without waiting, and counted."""

    async def story() -> tuple[float, list[int], int]:
        house = nothing_held(clock)
        vigil, began = house.heart.vigil, clock()
        vigil._most = 2
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                _ = group.create_task(house.told(wait=5))
            await asyncio.sleep(0.5)
            counts = [vigil.waiting]
            await house.told(wait=5)
            took = clock() - began
        return took, [*counts, vigil.waiting], vigil.refused

    took, waiting, refused = play(clock, story())
    assert took == pytest.approx(0.5)
    assert (waiting, refused) == ([2, 0], 1)
