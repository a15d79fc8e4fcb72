"""The feed tells of every change, vouches for no more than it has read, and asks no more often than it has to."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from math import floor, inf, isnan
from typing import Any, NamedTuple

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.watermarks import Watermarks
from sidecar.demo import FakeStripe, Fault, serving
from sidecar.errors import Broken, OverBudget, PermissionMissing, TimedOut, UpstreamError
from sidecar.kit.clock import steady_clock
from sidecar.kit.limiter import Limiter
from sidecar.model import Customer, Snapshot
from sidecar.parts import upstream_session
from sidecar.stripe.events import EVENTS_PATH, NEWS, Listed
from sidecar.stripe.feed import ABSURD, KEPT, MOST_PAGES, OUTCOMES, SOONEST, Ears, Feed, Pace
from sidecar.stripe.key import ApiKey
from tests.fakes import KEY, FakeClock
from tests.kit.virtual import play
from tests.stripe.test_client import Reader

ADA = Customer("cus_ada")
EVERY, LAG = 60.0, 30.0
FAILURES = [kind for kind in UpstreamError.__subclasses__() if kind is not TimedOut]


class Asked(NamedTuple):
    """A page that was asked for."""

    at: float
    params: Mapping[str, str]
    account: str | None


class Wire:
    """A ``read`` that cuts the pages from the built-in Stripe's own list, and fails or dawdles when it is told to."""

    def __init__(self, clock: FakeClock, stripe: FakeStripe) -> None:
        self.asked: list[Asked] = []
        self.failures: dict[int, UpstreamError] = {}
        self.waits = 0.0
        self.takes = 0.0
        self.clock = clock
        self.stripe = stripe

    async def __call__(self, params: Mapping[str, str], account: str | None) -> Listed:
        if self.waits:
            await asyncio.sleep(self.waits)
        asked_at = self.clock()
        self.asked.append(Asked(asked_at, params, account))
        if self.takes:
            await asyncio.sleep(self.takes)
        if len(self.asked) in self.failures:
            raise self.failures.pop(len(self.asked))
        page = self.stripe.accounts[account].events.page(params, self.stripe.now(), self.stripe.visible_after)
        return Listed(page, asked_at, self.clock() - floor(self.stripe.now()))

    def fail(self, error: UpstreamError, *, page: int = 1) -> None:
        """Fail at the so-manyth page from now on."""
        self.failures[len(self.asked) + page] = error

    def since(self) -> float:
        """Return from when on the last page was asked for."""
        return float(self.asked[-1].params["created[gte]"])


@dataclass
class Listener:
    """Who is told: knows events by their ids, as the heart does, and believes watermarks."""

    told: dict[str, Customer] = field(default_factory=dict)
    again: int = 0
    watermarks: Watermarks = field(default_factory=Watermarks)

    def hear(self, event_id: str, customer: Customer) -> bool:
        if event_id in self.told:
            self.again += 1
            return False
        self.told[event_id] = customer
        return True

    def until(self, account: str | None = None) -> float | None:
        return self.watermarks.until(account)

    def vouched(self, taken_at: float, account: str | None = None) -> float:
        """Return up to when a list that was taken at that time is known to be true."""
        return self.watermarks.verified_at(Snapshot(Customer("cus_ada", account), taken_at))


@dataclass
class Story:
    """A feed, what it reads, who is told, and the time."""

    clock: FakeClock
    stripe: FakeStripe
    wire: Wire
    listener: Listener
    feed: Feed
    connected: list[str]
    changes: int = 0

    def grant(self, count: int = 1, *, account: str | None = None) -> list[str]:
        """Let so many changes happen now and return the ids of their events, newest first."""
        return [self._change(account) for _ in range(count)][::-1]

    def _change(self, account: str | None) -> str:
        self.changes += 1
        self.stripe.grant("cus_ada", f"feature-{self.changes}", account=account)
        return list(self.stripe.accounts[account].events.known(self.stripe.now()))[-1]


def told(every: float = EVERY, lag: float = LAG, skew: float = 0.0, read: Any = None) -> Story:
    """Put a feed together, before a Stripe whose clock goes ``skew`` seconds ahead of ours."""
    clock = FakeClock()
    stripe = FakeStripe(key=KEY, now=lambda: clock() + skew)
    wire, listener, connected = Wire(clock, stripe), Listener(), list[str]()

    def accounts() -> Iterator[str]:
        yield from connected

    ears = Ears(listener.hear, listener.watermarks.begin, listener.watermarks.advance)
    feed = Feed(read or wire, ears, Pace(every, lag), livemode=False, accounts=accounts, clock=clock)
    return Story(clock, stripe, wire, listener, feed, connected)


@pytest.fixture
def story() -> Story:
    return told()


def counted(feed: Feed) -> dict[str, int]:
    """Return the outcomes that there have been."""
    assert tuple(feed.polls) == OUTCOMES
    return {outcome: count for outcome, count in feed.polls.items() if count}


class TestAPoll:
    @pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
    async def test_reads_all_pages(self, story: Story, count: int) -> None:
        """Each event is told, with whom it names, at a request per hundred."""
        happened = story.grant(count)
        assert await story.feed.poll() is True
        assert story.listener.told == dict.fromkeys(happened, ADA)
        assert len(story.wire.asked) == max(1, -(-count // 100))
        assert counted(story.feed) == {"complete": 1}
        assert story.feed.health.state == "ok"

    async def test_asks_for_nothing_but_news(self, story: Story) -> None:
        """Events of other types are left to Stripe."""
        story.stripe.emit("customer.updated", {"object": "customer", "id": "cus_ada"})
        await story.feed.poll()
        assert story.wire.asked[0].params["type"] == NEWS
        assert not story.listener.told

    async def test_that_is_the_first_begins_a_lag_ago(self, story: Story) -> None:
        """A list that was taken since then will be vouched for; one lag further back is read, for clocks that differ."""
        await story.feed.poll()
        assert story.wire.since() == story.clock() - 2 * LAG
        assert story.listener.until() == story.clock() - LAG
        await_next(story)
        await story.feed.poll()
        began = story.clock() - EVERY - LAG
        assert story.listener.vouched(began) == story.clock() - LAG
        assert story.listener.vouched(began - 1) == began - 1

    async def test_reads_from_a_lag_before_the_last_one_on(self, story: Story) -> None:
        """They overlap, so that whatever becomes visible late is seen by the next."""
        await story.feed.poll()
        until = story.listener.until()
        assert until is not None
        await_next(story)
        await story.feed.poll()
        assert story.wire.since() == until - LAG

    async def test_tells_what_two_of_them_saw_once(self, story: Story) -> None:
        """An event in the overlap is heard of again, and known by its id."""
        happened = story.grant(3)
        for _ in range(3):
            await story.feed.poll()
        assert list(story.listener.told) == happened
        assert story.listener.again == 6

    def test_vouches_for_the_time_up_to_a_lag_before_it_began(self, story: Story) -> None:
        """However long it took: what happened since it began may be missing from its pages."""
        story.grant(250)
        began = story.clock()
        story.wire.takes = 7
        assert play(story.clock, story.feed.poll()) is True
        assert story.clock() == began + 21
        assert story.listener.until() == began - LAG

    def test_vouches_for_the_time_that_it_waited_for_the_budget(self, story: Story) -> None:
        """What happened before its first page was asked for is on its pages; a wait for a later page counts for nothing."""
        story.grant(150)
        asked = story.clock() + 20
        story.wire.waits = 20
        taken_at = story.clock()
        assert play(story.clock, story.feed.poll()) is True
        assert story.clock() == asked + 20
        assert story.listener.until() == asked - LAG
        assert story.listener.vouched(taken_at - LAG) == asked - LAG, "all that happened since then was read"

    def test_that_waited_vouches_for_nothing_before_what_nobody_could_read(self, story: Story) -> None:
        """While it waited somebody changed, and it is not known who: lists from before are as old as they are."""
        play(story.clock, story.feed.poll())
        taken_at = story.clock()
        await_next(story)
        (unread,) = story.grant()
        events = story.stripe.accounts[None].events.known(story.stripe.now())
        events[unread]["data"]["object"]["customer"] = None
        story.wire.waits = 2 * LAG
        began = story.clock()
        assert play(story.clock, story.feed.poll()) is True
        assert story.listener.until() == began - LAG
        assert story.listener.vouched(taken_at) == taken_at

    async def test_vouches_for_nothing_before_its_last_page(self, story: Story) -> None:
        """The newest events come first; those that nobody has seen yet are older."""
        await story.feed.poll()
        before = story.listener.until()
        await_next(story)
        story.grant(250)
        seen: list[float | None] = []

        async def read(params: Mapping[str, str], account: str | None) -> Listed:
            seen.append(story.listener.until())
            return await story.wire(params, account)

        story.feed._read = read
        await story.feed.poll()
        assert seen == [before] * 3
        assert story.listener.until() == story.clock() - LAG

    async def test_of_the_wrong_mode_is_broken(self, story: Story) -> None:
        """A live event for a test key vouches for nothing."""
        story.stripe.key = "sk_live_x"
        story.grant()
        assert await story.feed.poll() is False
        assert counted(story.feed) == {"broken": 1}
        assert story.listener.until() is None


class TestAPollThatFails:
    @pytest.mark.parametrize("page", [1, 2, 3])
    @pytest.mark.parametrize("kind", FAILURES)
    async def test_moves_nothing(self, story: Story, kind: type[UpstreamError], page: int) -> None:
        """Whatever it was, on whichever page: the next one goes on from the last complete one, and is whole."""
        await story.feed.poll()
        await_next(story)
        before, happened = story.listener.until(), story.grant(250)
        assert before is not None
        story.wire.fail(kind("so it is"), page=page)
        assert await story.feed.poll() is False
        assert story.listener.until() == before
        assert story.feed.behind() == EVERY + LAG
        assert counted(story.feed) == {"complete": 1, kind.code: 1}
        assert story.feed.health.state == kind.code
        await_next(story)
        assert await story.feed.poll() is True
        assert story.wire.since() == before - LAG
        assert set(story.listener.told) == set(happened)
        assert story.listener.until() == story.clock() - LAG

    async def test_at_the_start_leaves_ages_as_they_are(self, story: Story) -> None:
        """Without one that was complete no list is vouched for, and the first complete one is a first."""
        for _ in range(5):
            story.wire.fail(Broken("no"))
            await story.feed.poll()
            await_next(story)
        assert story.listener.until() is None
        assert story.feed.behind() == inf
        await story.feed.poll()
        assert story.wire.since() == story.clock() - 2 * LAG
        assert counted(story.feed) == {"broken": 5, "complete": 1}

    @pytest.mark.parametrize("page", [0, 1, 2])
    @pytest.mark.parametrize(
        ("fault", "code"),
        [
            (Fault.ERROR, "broken"),
            (Fault.THROTTLED, "throttled"),
            (Fault.LOCK_TIMEOUT, "throttled"),
            (Fault.HTML, "broken"),
            (Fault.NOT_JSON, "broken"),
            (Fault.HALF, "broken"),
            (Fault.RESET, "unreachable"),
            (Fault.ENDLESS, "broken"),
            (Fault.REPEATED, "broken"),
            (Fault.OTHER_MODE, "broken"),
        ],
    )
    async def test_at_stripe_itself(self, connected: "Connected", fault: Fault, code: str, page: int) -> None:
        """Every fault, on every page, over a socket: no watermark, and all is told once it has passed."""
        happened = connected.happen(250)
        connected.stripe.break_with(fault, after=page)
        await connected.feed.poll()
        assert (counted(connected.feed), connected.listener.until()) == ({code: 1}, None)
        assert connected.reader.client.health.state == "untried"
        connected.stripe.break_with(None)
        await connected.feed.poll()
        assert set(connected.listener.told) == set(happened)
        assert connected.listener.until() == connected.clock() - LAG


class TestAGap:
    async def test_of_30_days_is_not_read_up_on(self, story: Story, caplog: pytest.LogCaptureFixture) -> None:
        """Stripe has forgotten what was in it: a list of before gets no younger, one of now does."""
        await story.feed.poll()
        before = story.clock()
        story.clock.advance(KEPT + 1)
        await story.feed.poll()
        again = story.clock()
        assert story.wire.since() == again - 2 * LAG
        assert counted(story.feed) == {"complete": 1, "gap": 1}
        story.clock.advance(EVERY)
        await story.feed.poll()
        assert story.listener.vouched(before - LAG) == before - LAG
        assert story.listener.vouched(before + 1) == before + 1
        assert story.listener.vouched(again) == again + EVERY - LAG
        (said,) = caplog.messages
        assert said.startswith("changes were missed, so ages count from each customer's own list again: ")

    @pytest.mark.parametrize(("seconds", "gaps"), [(KEPT - 2 * LAG, 0), (KEPT - 2 * LAG + 1, 1)])
    async def test_that_stripe_still_lists_is_read_up_on(self, story: Story, seconds: float, gaps: int) -> None:
        """All that would be asked for, the overlap included: then a long absence is a long page, and no gap."""
        await story.feed.poll()
        taken_at, happened = story.clock(), story.grant(3)
        story.clock.advance(seconds)
        await story.feed.poll()
        assert story.feed.polls["gap"] == gaps
        assert set(story.listener.told) == (set() if gaps else set(happened))
        assert story.listener.vouched(taken_at) == (taken_at if gaps else story.clock() - LAG)

    async def test_is_one_however_many_polls_fail_after_it(
        self, story: Story, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is counted and said once."""
        await story.feed.poll()
        story.clock.advance(KEPT)
        for _ in range(5):
            story.wire.fail(Broken("no"))
            await story.feed.poll()
            await_next(story)
        await story.feed.poll()
        assert counted(story.feed) == {"complete": 2, "gap": 1, "broken": 5}
        assert len([message for message in caplog.messages if message.startswith("changes were missed")]) == 1

    async def test_is_also_a_flood(self, caplog: pytest.LogCaptureFixture) -> None:
        """So many changes are not worth the news of each: the feed begins anew, and works on."""
        asked: list[Asked] = []

        async def flood(params: Mapping[str, str], account: str | None) -> Listed:
            asked.append(Asked(story.clock(), params, account))
            at = story.clock()
            return Listed(page(f"evt_{len(asked)}", at=at, has_more=asking == "too much"), at)

        story, asking = told(read=flood), "one"
        await story.feed.poll()
        before = story.clock()
        story.clock.advance(EVERY)
        asking = "too much"
        assert await story.feed.poll() is True
        assert len(asked) == 1 + MOST_PAGES
        assert counted(story.feed) == {"complete": 1, "gap": 1}
        assert story.feed.health.state == "ok"
        story.clock.advance(EVERY)
        asking = "one"
        await story.feed.poll()
        assert float(asked[-1].params["created[gte]"]) == before + EVERY - 2 * LAG
        assert story.listener.vouched(before) == before, "of what was missed nothing is known"
        assert story.listener.vouched(before + EVERY) == story.clock() - LAG
        assert f"more than {MOST_PAGES} pages" in caplog.text


def page(event_id: str, *, at: float, has_more: bool) -> dict[str, Any]:
    """Return a page with one event of ada's."""
    data = {"object": {"object": "entitlements.active_entitlement_summary", "customer": "cus_ada"}}
    event = {"object": "event", "id": event_id, "type": NEWS, "created": int(at), "livemode": False, "data": data}
    return {"object": "list", "url": EVENTS_PATH, "has_more": has_more, "data": [event]}


def await_next(story: Story) -> None:
    """Let the time until the next poll pass."""
    story.clock.advance(EVERY)


STEPS = st.lists(
    st.tuples(st.floats(0, 100, allow_nan=False), st.sampled_from(["change", "change", "poll", "poll", "failed poll"])),
    max_size=40,
)


@given(steps=STEPS, late=st.floats(0, LAG), skew=st.floats(-1000, 1000), page_of_failure=st.integers(1, 2))
async def test_no_list_outlives_a_change(
    steps: list[tuple[float, str]], late: float, skew: float, page_of_failure: int
) -> None:
    """Whenever changes and polls happen, events that become visible up to a lag late and a Stripe whose clock differs
    by up to a lag make no hole; the watermark never goes back."""
    story = told(skew=skew)
    story.stripe.visible_after = late
    happened: list[tuple[float, str]] = []
    for pause, step in steps:
        story.clock.advance(pause)
        before = story.listener.until() or -inf
        if step == "change":
            happened.append((story.clock(), story.grant()[0]))
            continue
        if step == "failed poll":
            story.wire.fail(Broken("no"), page=page_of_failure)
        await story.feed.poll()
        story.wire.failures.clear()
        assert (story.listener.until() or -inf) >= before
        wrong = [at for at, id_ in happened if story.listener.vouched(at) > at and id_ not in story.listener.told]
        assert not wrong, "a list from just before a change that was not told is vouched for"


class TestConnectedAccounts:
    async def test_are_read_with_their_name(self, story: Story) -> None:
        """An event of theirs that names no account is theirs, and their watermark is their own."""
        story.grant(2, account="acct_1")
        newest, *_ = story.stripe.accounts["acct_1"].events.known(story.clock()).values()
        del newest["account"]
        await story.feed.poll("acct_1")
        assert [asked.account for asked in story.wire.asked] == ["acct_1"]
        assert list(story.listener.told.values()) == [Customer("cus_ada", "acct_1")] * 2
        assert story.listener.until("acct_1") == story.clock() - LAG
        assert story.listener.until(None) is None
        assert story.feed.behind() == inf

    async def test_that_fail_say_nothing_of_ours(self, story: Story, caplog: pytest.LogCaptureFixture) -> None:
        """They are counted; health and log are about our own key and account."""
        await story.feed.poll()
        story.wire.fail(PermissionMissing("not your account"))
        await story.feed.poll("acct_1")
        assert counted(story.feed) == {"complete": 1, "permission_missing": 1}
        assert story.feed.health.state == "ok"
        assert not caplog.messages

    async def test_that_work_do_not_mend_ours(self, story: Story) -> None:
        """One account that can be read is no recovery of another."""
        story.wire.fail(Broken("no"))
        await story.feed.poll()
        story.stripe.add_customer("cus_ada", account="acct_1")
        await story.feed.poll("acct_1")
        assert story.feed.health.state == "broken"

    async def test_that_are_left_out_for_a_while_are_read_up_on(self, story: Story) -> None:
        """What happened meanwhile is told when somebody asks about them again."""
        story.stripe.add_customer("cus_ada", account="acct_1")
        await story.feed.poll("acct_1")
        happened = story.grant(3, account="acct_1")
        story.clock.advance(86400)
        await story.feed.poll("acct_1")
        assert list(story.listener.told) == happened


class TestBehind:
    async def test_is_the_time_since_every_change_is_known(self, story: Story) -> None:
        """Unbounded before the first complete poll; then the lag and what has passed since."""
        assert story.feed.behind() == inf
        await story.feed.poll()
        assert story.feed.behind() == LAG
        story.clock.advance(12.5)
        assert story.feed.behind() == LAG + 12.5

    def test_is_no_number_when_nothing_is_read(self) -> None:
        """Neither zero nor infinite: there is nothing to alert on."""
        assert isnan(told(every=0).feed.behind())


def run(story: Story, seconds: float, *hurries: float) -> list[float]:
    """Run the feed for so many seconds of virtual time and return when its polls of our own account began.

    ``hurries`` are the seconds after which it is told to hurry.
    """
    began = story.clock()

    async def play_along() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(story.feed.run())
            passed = 0.0
            for at in hurries:
                await asyncio.sleep(at - passed)
                passed = at
                story.feed.hurry()
            await asyncio.sleep(seconds - passed)
            task.cancel()

    play(story.clock, play_along())
    return [asked.at - began for asked in story.wire.asked if asked.account is None]


def gaps(times: list[float]) -> list[float]:
    """Return the times between two polls, without what a float loses at the size of a Unix time."""
    return [round(later - earlier, 3) for earlier, later in pairwise(times)]


class TestTheLoop:
    @pytest.mark.parametrize("takes", [0.0, 10.0, 50.0])
    def test_polls_at_once_and_then_at_its_pace(self, story: Story, takes: float) -> None:
        """From start to start, a little less than the interval, so that replicas drift apart."""
        story.wire.takes = takes
        polls = run(story, 1000)
        assert polls[0] == 0
        assert len(polls) >= 1000 // EVERY
        assert all(0.95 * EVERY <= gap <= EVERY for gap in gaps(polls))
        assert len(set(gaps(polls))) > 1

    def test_goes_on_at_once_after_a_poll_that_took_longer(self, story: Story) -> None:
        """It is late already; two never run at the same time."""
        story.wire.takes = 90
        assert set(gaps(run(story, 1000))) == {90}

    def test_goes_on_after_a_failure(self, story: Story) -> None:
        """At the same pace: the client has already tried again."""
        for number in range(1, 4):
            story.wire.fail(Broken("no"), page=number)
        polls = run(story, 500)
        assert len(polls) >= 500 // EVERY
        assert counted(story.feed) == {"broken": 3, "complete": len(polls) - 3}

    def test_hurries_when_it_is_told_to(self, story: Story) -> None:
        """In the middle of a pause the next poll begins at once."""
        assert gaps(run(story, 50, 20.0, 40.0)) == [20, 20]

    def test_hurries_no_more_than_it_should(self, story: Story) -> None:
        """Soon after a poll it waits a little, and then one poll is for all who were in a hurry."""
        assert gaps(run(story, 30, 0.5, 1.0, 2.0)) == [SOONEST]
        storm = run(told(), 60, *[number / 10 for number in range(1, 590)])
        assert len(storm) > 10
        assert min(gaps(storm)) >= SOONEST

    def test_hurries_again_when_it_is_told_during_a_poll(self, story: Story) -> None:
        """What happened then may not be in what is just being read."""
        story.wire.takes = 8
        assert gaps(run(story, 30, 7.0)) == [8]

    def test_may_be_quicker_than_a_hurry(self) -> None:
        """A short interval stays what it is."""
        polls = run(told(every=2.0), 20, *map(float, range(1, 20)))
        assert all(1.9 <= gap <= 2 for gap in gaps(polls))

    def test_polls_connected_accounts_after_our_own(self, story: Story) -> None:
        """Those that the function names then, once each."""
        for account in ("acct_1", "acct_2"):
            story.stripe.add_customer("cus_ada", account=account)
        story.connected += ["acct_1", "acct_2"]
        assert len(run(story, 100)) == 2
        assert [asked.account for asked in story.wire.asked] == [None, "acct_1", "acct_2"] * 2

    def test_leaves_connected_accounts_alone_while_our_own_fails(self, story: Story) -> None:
        """They would fare no better, and each attempt is slow."""
        story.stripe.add_customer("cus_ada", account="acct_1")
        story.connected.append("acct_1")
        story.wire.fail(Broken("no"))
        run(story, 100)
        assert [asked.account for asked in story.wire.asked] == [None, None, "acct_1"]

    def test_comes_back_to_our_own_account_in_time(self, story: Story) -> None:
        """Slow connected accounts do not make everybody else's answers old."""
        names = [f"acct_{number}" for number in range(50)]
        for account in names:
            story.stripe.add_customer("cus_ada", account=account)
        story.connected += names
        story.wire.takes = 7
        assert max(gaps(run(story, 1000))) < EVERY + 2 * 7


class TestOff:
    def test_says_that_nobody_will_look(self, caplog: pytest.LogCaptureFixture) -> None:
        """A thin event is of no use then, and who set it up should know."""
        told(every=0).feed.hurry()
        assert "events_poll is off" in caplog.text

    def test_is_no_matter_when_it_is_on(self, story: Story, caplog: pytest.LogCaptureFixture) -> None:
        """To hurry is nothing worth a line."""
        story.feed.hurry()
        assert not caplog.messages


@dataclass
class Connected:
    """A feed that reads from the built-in Stripe over a socket."""

    stripe: FakeStripe
    reader: Reader
    listener: Listener
    feed: Feed
    clock: FakeClock

    def happen(self, count: int) -> list[str]:
        for number in range(count):
            self.stripe.grant("cus_ada", f"feature-{number}")
        return list(self.stripe.accounts[None].events.known(self.clock()))[-count:]


def connect(upstream: str, session: aiohttp.ClientSession, stripe: FakeStripe, clock: FakeClock) -> Connected:
    limiter = Limiter(rate=100_000, burst=100_000, clock=steady_clock())  # which goes on when it was slowed
    reader, listener = Reader(upstream, session, key=ApiKey(stripe.key), limiter=limiter, clock=clock), Listener()
    feed = Feed(
        reader.client.events,
        Ears(listener.hear, listener.watermarks.begin, listener.watermarks.advance),
        Pace(EVERY, LAG),
        livemode=reader.client.livemode,
        accounts=lambda: iter(()),
        clock=clock,
    )
    return Connected(stripe, reader, listener, feed, clock)


@pytest.fixture
async def connected(clock: FakeClock) -> AsyncIterator[Connected]:
    stripe = FakeStripe(key=KEY, now=clock)
    async with serving(stripe) as upstream, upstream_session() as session:
        yield connect(upstream, session, stripe, clock)


@pytest.mark.parametrize("visible_after", [0.0, 12.5, LAG])
async def test_events_that_become_visible_late_are_not_missed(connected: Connected, visible_after: float) -> None:
    """As late as the lag: the poll that cannot see them does not vouch for their time either."""
    connected.stripe.visible_after = visible_after
    await connected.feed.poll()
    connected.clock.advance(EVERY - visible_after / 2)
    happened, happened_at = connected.happen(1), connected.clock()
    connected.clock.advance(visible_after / 2)
    await connected.feed.poll()
    until = connected.listener.until()
    assert until is not None
    assert list(connected.listener.told) == (happened if until >= happened_at or not visible_after else [])
    connected.clock.advance(EVERY)
    await connected.feed.poll()
    assert list(connected.listener.told) == happened


async def test_a_key_that_may_not_read_events(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """It is counted each time and said once, with the permission and the consequence; so is the recovery."""
    caplog.set_level(logging.INFO, "sidecar")
    reading = frozenset({"rak_entitlement_read"})
    stripe = FakeStripe(key="rk_test_51Narrow", permissions=reading, now=clock)
    stripe.grant("cus_ada", "sso")
    async with serving(stripe) as upstream, upstream_session() as session:
        narrow = connect(upstream, session, stripe, clock)
        assert (await narrow.reader.fetch(ADA)).plan.lookup_keys == {"sso"}
        for _ in range(10):
            await narrow.feed.poll()
            clock.advance(EVERY)
        assert stripe.count("events") == 10, "none is tried again at once"
        assert counted(narrow.feed) == {"permission_missing": 10}
        assert narrow.feed.health.state == "permission_missing"
        assert narrow.reader.client.health.state == "ok", "entitlements can be read"
        assert narrow.listener.until() is None
        stripe.permissions |= {"rak_event_read"}
        for _ in range(3):
            await narrow.feed.poll()
    assert counted(narrow.feed) == {"permission_missing": 10, "complete": 3}
    assert narrow.listener.until() == clock() - LAG
    fails, works = [record.getMessage() for record in caplog.records if record.name.startswith("sidecar")]
    assert fails.startswith("reading events from Stripe fails (permission_missing): ")
    assert "'rak_event_read'" in fails
    assert fails.endswith("; until it works, ages count from each customer's own list")
    assert works == "reading events works again, after 600.0 s of permission_missing"


class TestAClockAheadOfStripes:
    """Stripe counts in its own time; a clock that is ahead asks for events that have not happened there yet."""

    async def test_costs_a_second_look_at_first(self, caplog: pytest.LogCaptureFixture) -> None:
        """What ``Date`` shows is made good for, in the same poll and from then on; the log is told once."""
        story = told(skew=-300)
        await story.feed.poll()
        assert len(story.wire.asked) == 2
        for _ in range(3):
            story.clock.advance(EVERY)
            await story.feed.poll()
        assert len(story.wire.asked) == 2 + 3
        assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
            "this host's clock is 300 s ahead of Stripe's; events are read from further back"
        ]

    async def test_hides_nothing(self) -> None:
        """A change is told at the next poll, although it is far in the past by our clock."""
        story = told(skew=-300)
        await story.feed.poll()
        story.clock.advance(EVERY)
        (changed,) = story.grant()
        await story.feed.poll()
        assert changed in story.listener.told

    async def test_that_is_set_right_is_forgotten(self) -> None:
        """The overlap is as small again as it was."""
        story = told(skew=-300)
        await story.feed.poll()
        wide = story.clock() - story.wire.since()
        story.stripe.now = story.clock
        for _ in range(2):
            story.clock.advance(EVERY)
            await story.feed.poll()
        assert story.clock() - story.wire.since() < wide - 200

    @pytest.mark.parametrize("skew", [-ABSURD - 100, -1e9])
    async def test_by_more_than_any_clock_is_not_believed(self, skew: float) -> None:
        """An odd ``Date`` must not make the feed ask for the beginning of time."""
        story = told(skew=skew)
        await story.feed.poll()
        assert len(story.wire.asked) == 1
        assert story.wire.since() == story.clock() - 2 * LAG


class TestAnEventThatCannotBeRead:
    async def test_is_a_gap_that_holds_up_nobody_else(self, story: Story) -> None:
        """Those that can be read are told, also from its page; what is older than the poll is vouched for no longer."""
        await story.feed.poll()
        taken_at = story.clock()
        await_next(story)
        told_of = story.grant(2)
        events = story.stripe.accounts[None].events.known(story.stripe.now())
        events[told_of[0]]["data"]["object"]["customer"] = None
        assert await story.feed.poll() is True
        assert list(story.listener.told) == told_of[1:]
        assert counted(story.feed) == {"complete": 1, "gap": 1}
        assert story.listener.vouched(taken_at - LAG - 1) < story.clock() - LAG


async def test_a_poll_without_room_in_the_budget_is_tried_again_soon() -> None:
    """One request spares many others, so it does not wait for its next turn."""
    clock = FakeClock()
    asked: list[float] = []

    async def read(params: Mapping[str, str], account: str | None) -> Listed:
        asked.append(clock())
        if len(asked) < 3:
            raise OverBudget("none left")
        return Listed({"object": "list", "url": EVENTS_PATH, "data": [], "has_more": False}, clock())

    feed = told(read=read).feed
    feed._clock = clock

    async def story() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(3 * SOONEST):
                await feed.run()

    await asyncio.to_thread(play, clock, story())
    assert [round(at - asked[0]) for at in asked] == [0, SOONEST, 2 * SOONEST]


async def test_a_poll_that_was_slept_through_vouches_for_nothing() -> None:
    """The process was suspended while a page was under way; what it should have told has left Stripe's list meanwhile."""
    story = told()
    await story.feed.poll()
    before = story.listener.until()
    await_next(story)

    async def read(params: Mapping[str, str], account: str | None) -> Listed:
        story.clock.advance(KEPT)
        return await story.wire(params, account)

    story.feed._read = read
    assert await story.feed.poll() is False
    assert story.listener.until() == before
