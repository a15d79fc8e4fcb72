"""Can the budget keep young what is remembered?"""

import asyncio

import pytest

from sidecar.core.cache import Cache
from sidecar.core.sizing import EVERY, Needs, Sizing
from sidecar.core.watermarks import Watermarks
from sidecar.model import Customer
from sidecar.settings import Freshness
from tests.core.fetching import held
from tests.fakes import FakeClock
from tests.kit.virtual import play

UNFED = (
    "without events, reading {} customers every {} s (fresh_for) takes {} requests/s, and the budget is {} "
    "(rate / replicas): raise fresh_for or rate, or let the events be read"
)
FED = (
    "reading 1000 customers every 1000 s (audit_every) and the events every 60 s takes 1.02 requests/s, and the budget "
    "is 1 (rate / replicas): raise audit_every or rate"
)


class House:
    """A cache, a feed that works or does not, and a budget of one request a second."""

    def __init__(self, *, poll: float = 60.0, share: float = 1.0, fresh_for: float = 300.0) -> None:
        self.fed = bool(poll)
        self.cache = Cache(1 << 24, Watermarks())
        needs = Needs(Freshness(fresh_for=fresh_for, audit_every=1000.0), poll, share)
        self.sizing = Sizing(needs, self.cache, lambda: self.fed)

    def remember(self, count: int) -> None:
        for number in range(count):
            self.cache.put(held(Customer(f"cus_{number}"), 1.0, "pro"))


def test_few_are_worth_no_line(caplog: pytest.LogCaptureFixture) -> None:
    """With or without events, up to what the budget allows."""
    house = House(share=1.02)
    house.remember(300)
    for house.fed in (True, False):
        house.sizing.look()
    house.fed = True
    house.remember(1000)
    house.sizing.look()
    assert not caplog.messages


def test_each_shortage_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """With what is needed, what there is, and which setting to change."""
    house = House()
    house.remember(301)
    for house.fed in (True, False, False, True, False):
        house.sizing.look()
    assert caplog.messages == [UNFED.format(301, 300, 1, 1)]
    house.remember(1000)
    for house.fed in (False, True, True):
        house.sizing.look()
    assert caplog.messages[1:] == [FED]


def test_no_freshness_at_all_is_a_shortage(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever wants every answer to be new gets requests for it as far as they go."""
    house = House(poll=0, fresh_for=0)
    house.sizing.look()
    assert not caplog.messages
    house.remember(1)
    house.sizing.look()
    assert caplog.messages == [UNFED.format(1, 0, "1e+03", 1)]


def test_polls_alone_may_be_too_many(caplog: pytest.LogCaptureFixture) -> None:
    """The settings tell, before anybody was asked about."""
    house = House(poll=60, share=0.01)
    house.sizing.look()
    (line,) = caplog.messages
    assert line.startswith("reading the events every 60 s takes 0.0167 requests/s, and the budget is 0.01 (rate / ")
    assert line.endswith("raise events_poll or rate")


def test_it_looks_every_minute(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """Customers become more by and by."""

    async def story() -> None:
        house = House(poll=0)
        loop = asyncio.get_running_loop().create_task(house.sizing.run())
        await asyncio.sleep(0)
        house.remember(301)
        await asyncio.sleep(EVERY - 1)
        assert not caplog.messages
        await asyncio.sleep(10 * EVERY)
        assert len(caplog.messages) == 1
        loop.cancel()

    play(clock, story())
