"""A token bucket with a bounded queue."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.errors import OverBudget
from sidecar.kit.limiter import Limiter
from tests.fakes import FakeClock
from tests.kit.virtual import play


@dataclass(frozen=True)
class Ask:
    """Somebody who comes ``after`` seconds, waits ``within`` seconds at most, and leaves after ``patience``."""

    after: float = 0.0
    within: float = inf
    patience: float = inf


@dataclass
class Bucket:
    """A limiter, and who was granted a token when, in seconds since the start."""

    rate: float
    burst: float

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.limiter = Limiter(rate=self.rate, burst=self.burst, clock=self.clock)
        self.start = self.clock.now
        self.granted: dict[int, float] = {}
        self.refused: dict[int, float] = {}
        self.left: set[int] = set()

    @property
    def now(self) -> float:
        return self.clock.now - self.start

    def serve(self, asks: Iterable[Ask]) -> None:
        """Let them come, one after the other, and wait until all are served or gone."""
        play(self.clock, self._serve(asks))

    async def _serve(self, asks: Iterable[Ask]) -> None:
        async with asyncio.TaskGroup() as group:
            for number, ask in enumerate(asks):
                if ask.after:
                    await asyncio.sleep(ask.after)
                _ = group.create_task(self._ask(number, ask))
                await asyncio.sleep(0)

    async def _ask(self, number: int, ask: Ask) -> None:
        try:
            async with asyncio.timeout(None if ask.patience == inf else ask.patience):
                await self.limiter.take(within=ask.within)
            self.granted[number] = self.now
        except OverBudget:
            self.refused[number] = self.now
        except TimeoutError:
            self.left.add(number)

    def excess(self) -> float:
        """Return how many more tokens than allowed were granted in the worst of all windows."""
        times = sorted(self.granted.values())
        return max(
            (last - first + 1 - self.burst - self.rate * (times[last] - times[first]))
            for first in range(len(times))
            for last in range(first, len(times))
        )


ROUNDING = 1e-3
"""A clock of 1.8e9 seconds has a resolution of 2.4e-7, which at 1000 tokens a second is 2.4e-4 tokens."""

SECONDS = st.one_of(st.just(0.0), st.floats(0, 3))
RATES = st.floats(0.1, 1000)
BURSTS = st.floats(1, 20)

# Sums and quotients of these are exact, so that a naive model can be compared to the last bit.
EXACT_SECONDS = st.integers(0, 48).map(lambda sixteenths: sixteenths / 16)
EXACT_RATES = st.sampled_from([0.5, 1.0, 2.0, 4.0, 8.0])
EXACT_BURSTS = st.integers(2, 12).map(lambda halves: halves / 2)


@given(RATES, BURSTS, st.lists(st.builds(Ask, after=SECONDS, within=st.just(inf) | SECONDS), min_size=1, max_size=30))
def test_no_window_grants_more_than_the_rate_and_the_burst(rate: float, burst: float, asks: list[Ask]) -> None:
    """In every window of w seconds at most rate × w + burst tokens are handed out, whoever comes when."""
    bucket = Bucket(rate, burst)
    bucket.serve(asks)
    assert len(bucket.granted) + len(bucket.refused) == len(asks)
    assert bucket.excess() <= ROUNDING


@given(
    EXACT_RATES,
    EXACT_BURSTS,
    st.lists(st.builds(Ask, after=EXACT_SECONDS, within=st.just(inf) | EXACT_SECONDS), max_size=30),
)
@example(rate=1.0, burst=1.0, asks=[Ask(), Ask(within=0.5), Ask(), Ask(after=1.5, within=0.5)])
def test_nobody_waits_longer_than_the_windows_demand(rate: float, burst: float, asks: list[Ask]) -> None:
    """Each is served at the first moment, after all before them, that no window forbids; or refused on arrival."""
    bucket = Bucket(rate, burst)
    bucket.serve(asks)
    granted: dict[int, float] = {}
    refused: dict[int, float] = {}
    now = 0.0
    for number, ask in enumerate(asks):
        now += ask.after
        earlier = list(granted.values())
        soonest = max([now, *(time + (len(earlier) - k + 1 - burst) / rate for k, time in enumerate(earlier))])
        if soonest - now <= ask.within:
            granted[number] = soonest
        else:
            refused[number] = now
    assert bucket.granted == granted
    assert bucket.refused == refused
    assert bucket.limiter.refused == len(refused)


def test_those_who_wait_are_served_first_come_first_served() -> None:
    """The order of granting is the order of asking."""
    bucket = Bucket(rate=10, burst=1)
    bucket.serve([Ask()] * 8)
    assert list(bucket.granted) == list(range(8))


def test_a_latecomer_does_not_pass_the_queue() -> None:
    """Who comes at the moment when a token is due gets the next one."""
    bucket = Bucket(rate=1, burst=1)
    bucket.serve([Ask(), Ask(), Ask(after=1)])
    assert bucket.granted == {0: 0, 1: 1, 2: 2}


def test_who_cannot_wait_long_enough_is_told_at_once() -> None:
    """Three are ahead at one a second: two and a half seconds are not enough, three are."""
    bucket = Bucket(rate=1, burst=1)
    bucket.serve([Ask(), Ask(), Ask(), Ask(within=2.5), Ask(within=3)])
    assert bucket.refused == {3: 0}
    assert bucket.granted == {0: 0, 1: 1, 2: 2, 4: 3}


async def test_a_refusal_says_what_the_budget_is(clock: FakeClock) -> None:
    """It names rate and time, is counted, and costs nothing."""
    limiter = Limiter(rate=16, burst=1, clock=clock)
    await limiter.take(within=0)
    with pytest.raises(OverBudget, match=r"16 requests/s has none left within 0 s"):
        await limiter.take(within=0)
    assert limiter.refused == 1
    clock.advance(1 / 16)
    await limiter.take(within=0)


async def test_a_full_bucket_stays_at_its_burst(clock: FakeClock) -> None:
    """A night without requests saves nothing up."""
    limiter = Limiter(rate=5, burst=3, clock=clock)
    clock.advance(36_000)
    assert limiter.left == 3


async def test_left_never_shows_a_debt(clock: FakeClock) -> None:
    """While tokens are promised to a queue, none is left."""
    limiter = Limiter(rate=1, burst=1, clock=clock)
    async with asyncio.TaskGroup() as group:
        queue = [group.create_task(limiter.take(within=10)) for _ in range(3)]
        await asyncio.sleep(0)
        assert (limiter.left, limiter.waiting) == (0, 2)
        for waiter in queue:
            waiter.cancel()
    assert limiter.waiting == 0


def test_a_token_is_spare_only_when_it_is_whole(clock: FakeClock) -> None:
    """Each is taken once, and most of a token is none."""
    limiter = Limiter(rate=1, burst=2, clock=clock)
    assert [limiter.take_spare() for _ in range(3)] == [True, True, False]
    clock.advance(0.75)
    assert not limiter.take_spare()
    clock.advance(0.25)
    assert limiter.take_spare()
    assert limiter.left == 0


def test_nothing_is_spare_while_somebody_waits() -> None:
    """What comes in next is promised to the queue, up to the moment when the last of it is served."""
    bucket = Bucket(rate=1, burst=2)

    async def story() -> list[bool]:
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                _ = group.create_task(bucket.limiter.take(within=10))
            seen = []
            for _ in range(5):
                await asyncio.sleep(0.75)
                seen.append(bucket.limiter.take_spare())
        return seen

    assert play(bucket.clock, story()) == [False, False, False, True, False]  # 0.75, 1.5, 2.25, 3, 3.75


def test_a_cancelled_waiter_gives_its_token_back() -> None:
    """Who leaves the queue makes it shorter: the next to come waits no longer for their sake."""
    bucket = Bucket(rate=1, burst=1)
    bucket.serve([Ask(), Ask(patience=0.5), Ask(after=0.75, within=0.25)])
    assert bucket.left == {1}
    assert bucket.granted == {0: 0, 2: 1}


@given(RATES, BURSTS, st.lists(st.builds(Ask, after=SECONDS, patience=st.just(inf) | SECONDS), min_size=1, max_size=30))
@example(rate=1.0, burst=1.0, asks=[Ask(), Ask(patience=0.5), Ask(), Ask(after=0.75)])
def test_those_who_leave_widen_no_window(rate: float, burst: float, asks: list[Ask]) -> None:
    """In every window of w seconds at most rate × w + burst tokens are handed out, whoever leaves the queue when."""
    bucket = Bucket(rate, burst)
    bucket.serve(asks)
    assert len(bucket.granted) + len(bucket.left) == len(asks)
    assert not bucket.granted or bucket.excess() <= ROUNDING


def test_a_timer_that_fires_early_grants_nothing_early() -> None:
    """The waiter asks the clock again, and sleeps on while the token's time has not come."""
    bucket = Bucket(rate=1, burst=1)

    async def story() -> float:
        await bucket.limiter.take(within=0)
        async with asyncio.TaskGroup() as group:
            _ = group.create_task(bucket.limiter.take(within=2))
            await asyncio.sleep(0)
            bucket.clock.advance(-0.25)  # as if the loop's clock ran ahead of ours
        return bucket.now

    assert play(bucket.clock, story()) == 1
