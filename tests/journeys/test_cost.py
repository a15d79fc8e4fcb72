"""What freshness costs: requests to Stripe in one day, beside those of a cache that forgets after a minute."""

import asyncio
import random
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pytest

from sidecar.core.checker import Policies
from sidecar.core.heart import Heart, Ports, Rules
from sidecar.errors import UpstreamError
from sidecar.kit.tasks import Tasks
from sidecar.model import Customer, Flight, Snapshot
from sidecar.settings import Freshness
from sidecar.stores.memory import Memory
from sidecar.stripe.events import Listed
from sidecar.stripe.feed import Ears, Feed, Pace
from tests.core.fetching import held
from tests.fakes import FakeClock
from tests.kit.virtual import play

CUSTOMERS = [Customer(f"cus_{number}") for number in range(10_000)]
DAY, MINUTE = 86_400, 60
ASKED_EVERY = 10 * MINUTE
CHANGES = len(CUSTOMERS) // 100
PACE = Pace(every=60.0, lag=30.0)
LATENCY = 0.3


class Shop:
    """Lists and events, each answered after ``LATENCY``; every request is counted."""

    def __init__(self, clock: FakeClock) -> None:
        self.lists = 0
        self.polls = 0
        self.bought: dict[Customer, list[str]] = {}
        self._events: list[dict[str, Any]] = []
        self._clock = clock

    def buy(self, customer: Customer) -> None:
        """Entitle the customer to one thing more, and tell of it in the list of events."""
        self.bought.setdefault(customer, []).append(f"extra-{len(self._events)}")
        self._events.append(
            {
                "object": "event",
                "id": f"evt_{len(self._events)}",
                "type": "entitlements.active_entitlement_summary.updated",
                "created": int(self._clock.now),
                "livemode": False,
                "data": {"object": {"customer": customer.id}},
            }
        )

    async def fetch(self, customer: Customer, flight: Flight) -> Snapshot:
        taken_at = self._clock.now
        self.lists += 1
        await asyncio.sleep(LATENCY)
        flight.pages = 1
        return held(customer, taken_at, "pro", *self.bought.get(customer, ()))

    async def events(self, params: Mapping[str, str], account: str | None) -> Listed:
        assert account is None
        self.polls += 1
        asked_at = self._clock.now
        await asyncio.sleep(LATENCY)
        since = int(params["created[gte]"])
        found = [event for event in reversed(self._events) if event["created"] >= since][: int(params["limit"])]
        return Listed({"object": "list", "url": "/v1/events", "data": found, "has_more": False}, asked_at)


def questions(number: int) -> Iterator[Customer]:
    """The customers who are asked about in a minute of the day: each once in ``ASKED_EVERY``."""
    share = ASKED_EVERY // MINUTE
    return iter(CUSTOMERS[number % share :: share])


async def day(clock: FakeClock, shop: Shop, heart: Heart, feed: Feed) -> tuple[float, int]:
    """Ask and change for a day; return the greatest age of an answer, and the requests of a cache of one minute."""
    asyncio.get_running_loop().set_debug(False)
    for customer in CUSTOMERS:
        assert heart.cache.put(held(customer, clock.now, "pro"))
    buyers = {round(DAY / CHANGES * place) // MINUTE: CUSTOMERS[place * 97] for place in range(CHANGES)}
    oldest, forgetful, asked_at = 0.0, 0, dict.fromkeys(CUSTOMERS, clock.now)
    polling = heart.schedule._tasks.start(feed.run(), name="feed")
    for minute in range(DAY // MINUTE):
        if minute in buyers:
            shop.buy(buyers[minute])
        now = clock.now
        for customer in questions(minute):
            finding = heart.checker.glance(customer)
            if finding is None:  # dirty just now
                finding = await heart.checker.find(customer)
            oldest = max(oldest, finding.age)
            forgetful += now - asked_at[customer] >= MINUTE
            asked_at[customer] = now
        await asyncio.sleep(MINUTE - (clock.now - now))
    polling.cancel()
    await asyncio.sleep(PACE.every)
    for customer, bought in shop.bought.items():
        finding = heart.checker.glance(customer)
        assert finding is not None
        assert finding.snapshot.plan.lookup_keys == {"pro", *bought}
    return oldest, forgetful


@pytest.mark.timeout(120)
def test_a_day_costs_changes_and_polls_not_customers(clock: FakeClock) -> None:
    """Ten thousand customers asked about all day, one in a hundred changing: at most 1 % of a minute's cache."""
    random.seed(1)

    async def story() -> tuple[Shop, Heart, float, int]:
        shop, tasks = Shop(clock), Tasks(expected=(UpstreamError,))
        rules = Rules(Freshness(), Policies({}), cache_bytes=64 << 20, seed=1)
        heart = Heart.of(Ports(shop.fetch, lambda: True, Memory()), rules, tasks=tasks, clock=clock)
        ears = Ears(partial(heart.news.hear, origin="feed"), heart.news.begin, heart.news.advance)
        feed = Feed(shop.events, ears, PACE, livemode=False, accounts=lambda: iter(()), clock=clock)
        oldest, forgetful = await day(clock, shop, heart, feed)
        await tasks.close()
        return shop, heart, oldest, forgetful

    shop, heart, oldest, forgetful = play(clock, story())
    requests = shop.lists + shop.polls
    print(  # noqa: T201 -- the numbers, for `pytest -s`
        f"\n{len(CUSTOMERS)} customers, each asked about every {ASKED_EVERY} s for a day, {CHANGES} changes: "
        f"{shop.polls} polls + {shop.lists} lists ({heart.audit.checked} of them audits) = {requests} requests; "
        f"a cache of {MINUTE} s: {forgetful}; {requests / forgetful:.2%}; oldest answer {oldest:.1f} s"
    )
    assert requests <= forgetful / 100
    assert oldest <= PACE.every + PACE.lag + 2 * LATENCY
    assert heart.audit.differences == 0
    assert shop.lists <= CHANGES + heart.audit.checked
