"""A token house with a bounded queue of three classes."""

import asyncio
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from math import inf

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.errors import OverBudget
from sidecar.kit.limiter import Limiter, Urgency
from tests.fakes import FakeClock
from tests.kit.virtual import play

BACKGROUND, NEWS, CALLER = Urgency


def caller() -> Urgency:
    """Be somebody who waits."""
    return CALLER


@dataclass(frozen=True)
class Ask:
    """Somebody who comes ``after`` seconds, waits ``within`` seconds at most, and leaves after ``patience``.

    The ``urgency`` is a caller's once somebody joins, ``joined`` seconds later.
    """

    after: float = 0.0
    within: float = inf
    patience: float = inf
    urgency: Urgency = CALLER
    joined: float = inf


@dataclass
class House:
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

    def serve(self, asks: Iterable[Ask], *, slow_downs: Iterable[tuple[float, float | None]] = ()) -> None:
        """Let them come, one after the other, and wait until all are served or gone."""
        play(self.clock, self._serve(asks, slow_downs))

    async def _serve(self, asks: Iterable[Ask], slow_downs: Iterable[tuple[float, float | None]]) -> None:
        async with asyncio.TaskGroup() as group:
            _ = group.create_task(self._slow_down(slow_downs))
            for number, ask in enumerate(asks):
                if ask.after:
                    await asyncio.sleep(ask.after)
                _ = group.create_task(self._ask(number, ask))
                await asyncio.sleep(0)

    async def _slow_down(self, slow_downs: Iterable[tuple[float, float | None]]) -> None:
        for after, retry_after in slow_downs:
            await asyncio.sleep(after)
            self.limiter.slow_down(self.clock.now, "too fast", after=retry_after)

    async def _ask(self, number: int, ask: Ask) -> None:
        rises = self.now + ask.joined
        try:
            async with asyncio.timeout(None if ask.patience == inf else ask.patience):
                await self.limiter.take(lambda: CALLER if self.now >= rises else ask.urgency, within=ask.within)
            self.granted[number] = self.now
        except OverBudget:
            self.refused[number] = self.now
        except TimeoutError:
            self.left.add(number)

    def excess(self) -> float:
        """Return how many more tokens than allowed were granted in the worst of all windows."""
        times = sorted(self.granted.values())
        return max(
            (
                last - first + 1 - self.burst - self.rate * (times[last] - times[first])
                for first in range(len(times))
                for last in range(first, len(times))
            ),
            default=0.0,
        )


class Naive:
    """The same, worked out one token after another, without a loop."""

    def __init__(self, rate: float, burst: float, asks: list[Ask]) -> None:
        self.rate, self.burst, self.asks = rate, burst, asks
        self.tokens, self.now = burst, 0.0
        self.came: dict[int, float] = {}
        self.queue: list[int] = []
        self.in_a_row = dict.fromkeys(Urgency, 0)
        self.granted: dict[int, float] = {}
        self.refused: dict[int, float] = {}
        self.left: set[int] = set()

    def run(self) -> None:
        now = 0.0
        for number, ask in enumerate(self.asks):
            now += ask.after
            self.go_on(until=now)
            self.came[number] = now
            if self.foreseen(number) - now > ask.within:
                self.refused[number] = now
            else:
                self.queue.append(number)
                self.go_on(until=now)
        self.go_on(until=inf)

    def foreseen(self, number: int) -> float:
        """Return when this one would be served if nobody else came or left."""
        endless = [replace(ask, within=inf, patience=inf) for ask in self.asks]
        future = deepcopy(self)
        future.asks = endless
        future.queue.append(number)
        future.go_on(until=inf)
        return future.granted[number]

    def go_on(self, *, until: float) -> None:
        """Hand out what there is up to a moment, and let those leave whose time is over by then."""
        while self.queue:
            due = self.now + max(0.0, 1 - self.tokens) / self.rate
            ends = {
                number: self.came[number] + min(self.asks[number].within, self.asks[number].patience)
                for number in self.queue
            }
            first = min(ends, key=lambda number: ends[number])
            if min(due, ends[first]) > until:
                break
            self.pass_until(min(due, ends[first]))
            if due <= ends[first]:
                self.tokens -= 1
                served = self.turn()
                self.queue.remove(served)
                self.granted[served] = self.now
            else:
                self.queue.remove(first)
                if self.asks[first].patience < self.asks[first].within:
                    self.left.add(first)
                else:
                    self.refused[first] = self.now
        if until < inf:
            self.pass_until(until)

    def pass_until(self, moment: float) -> None:
        self.tokens = min(self.burst, self.tokens + (moment - self.now) * self.rate)
        self.now = moment

    def urgency(self, number: int) -> Urgency:
        ask = self.asks[number]
        return CALLER if self.now >= self.came[number] + ask.joined else ask.urgency

    def turn(self) -> int:
        """Return whose turn it is: the most urgent's, but every fifth time that of those below, by the same rule."""
        here = list(self.queue)
        while True:
            top = max(map(self.urgency, here))
            below = [number for number in here if self.urgency(number) < top]
            if not below or self.in_a_row[top] < 4:
                self.in_a_row[top] += bool(below)
                return next(number for number in here if self.urgency(number) is top)
            self.in_a_row[top] = 0
            here = below


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
    house = House(rate, burst)
    house.serve(asks)
    assert len(house.granted) + len(house.refused) == len(asks)
    assert house.excess() <= ROUNDING


@given(
    EXACT_RATES,
    EXACT_BURSTS,
    st.lists(st.builds(Ask, after=EXACT_SECONDS, within=st.just(inf) | EXACT_SECONDS), max_size=30),
)
@example(rate=1.0, burst=1.0, asks=[Ask(), Ask(within=0.5), Ask(), Ask(after=1.5, within=0.5)])
def test_nobody_waits_longer_than_the_windows_demand(rate: float, burst: float, asks: list[Ask]) -> None:
    """Each is served at the first moment, after all before them, that no window forbids; or refused on arrival."""
    house = House(rate, burst)
    house.serve(asks)
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
    assert house.granted == granted
    assert house.refused == refused
    assert house.limiter.refused == len(refused)


def test_those_who_wait_are_served_first_come_first_served() -> None:
    """The order of granting is the order of asking."""
    house = House(rate=10, burst=1)
    house.serve([Ask()] * 8)
    assert list(house.granted) == list(range(8))


def test_a_latecomer_does_not_pass_the_queue() -> None:
    """Who comes at the moment when a token is due gets the next one."""
    house = House(rate=1, burst=1)
    house.serve([Ask(), Ask(), Ask(after=1)])
    assert house.granted == {0: 0, 1: 1, 2: 2}


def test_who_cannot_wait_long_enough_is_told_at_once() -> None:
    """Three are ahead at one a second: two and a half seconds are not enough, three are."""
    house = House(rate=1, burst=1)
    house.serve([Ask(), Ask(), Ask(), Ask(within=2.5), Ask(within=3)])
    assert house.refused == {3: 0}
    assert house.granted == {0: 0, 1: 1, 2: 2, 4: 3}


async def test_a_refusal_says_what_the_budget_is(clock: FakeClock) -> None:
    """It names rate and time, is counted, and costs nothing."""
    limiter = Limiter(rate=16, burst=1, clock=clock)
    await limiter.take(caller, within=0)
    with pytest.raises(OverBudget, match=r"16 requests/s has none left within 0 s"):
        await limiter.take(caller, within=0)
    assert limiter.refused == 1
    clock.advance(1 / 16)
    await limiter.take(caller, within=0)


async def test_a_full_bucket_stays_at_its_burst(clock: FakeClock) -> None:
    """A night without requests saves nothing up."""
    limiter = Limiter(rate=5, burst=3, clock=clock)
    clock.advance(36_000)
    assert limiter.left == 3


async def test_left_never_shows_a_debt(clock: FakeClock) -> None:
    """While tokens are promised to a queue, none is left."""
    limiter = Limiter(rate=1, burst=1, clock=clock)
    async with asyncio.TaskGroup() as group:
        queue = [group.create_task(limiter.take(caller, within=10)) for _ in range(3)]
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
    house = House(rate=1, burst=2)

    async def story() -> list[bool]:
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                _ = group.create_task(house.limiter.take(caller, within=10))
            seen = []
            for _ in range(5):
                await asyncio.sleep(0.75)
                seen.append(house.limiter.take_spare())
        return seen

    assert play(house.clock, story()) == [False, False, False, True, False]  # 0.75, 1.5, 2.25, 3, 3.75


def test_a_cancelled_waiter_gives_its_token_back() -> None:
    """Who leaves the queue makes it shorter: the next to come waits no longer for their sake."""
    house = House(rate=1, burst=1)
    house.serve([Ask(), Ask(patience=0.5), Ask(after=0.75, within=0.25)])
    assert house.left == {1}
    assert house.granted == {0: 0, 2: 1}


@given(RATES, BURSTS, st.lists(st.builds(Ask, after=SECONDS, patience=st.just(inf) | SECONDS), min_size=1, max_size=30))
@example(rate=1.0, burst=1.0, asks=[Ask(), Ask(patience=0.5), Ask(), Ask(after=0.75)])
def test_those_who_leave_widen_no_window(rate: float, burst: float, asks: list[Ask]) -> None:
    """In every window of w seconds at most rate × w + burst tokens are handed out, whoever leaves the queue when."""
    house = House(rate, burst)
    house.serve(asks)
    assert len(house.granted) + len(house.left) == len(asks)
    assert not house.granted or house.excess() <= ROUNDING


def test_a_timer_that_fires_early_grants_nothing_early() -> None:
    """The waiter asks the clock again, and sleeps on while the token's time has not come."""
    house = House(rate=1, burst=1)

    async def story() -> float:
        await house.limiter.take(caller, within=0)
        async with asyncio.TaskGroup() as group:
            _ = group.create_task(house.limiter.take(caller, within=2))
            await asyncio.sleep(0)
            house.clock.advance(-0.25)  # as if the loop's clock ran ahead of ours
        return house.now

    assert play(house.clock, story()) == 1


# Classes.

APART = 2.0**-12
"""Seconds between those who come together, so that no two things that matter happen at one moment."""

URGENCIES = st.sampled_from(Urgency)
CROWD = st.builds(
    Ask,
    after=st.one_of(st.just(0.0), EXACT_SECONDS).map(lambda seconds: seconds + APART),
    within=st.just(inf) | EXACT_SECONDS,
    patience=st.just(inf) | EXACT_SECONDS.map(lambda seconds: seconds + APART / 2),
    urgency=URGENCIES,
)


def compare(rate: float, burst: float, asks: list[Ask]) -> None:
    """Let a crowd be served, and see that it is as the naive model says."""
    house, model = House(rate, burst), Naive(rate, burst, asks)
    house.serve(asks)
    model.run()
    assert (house.granted, house.refused, house.left) == (model.granted, model.refused, model.left)
    assert house.limiter.waiting == 0
    assert sum(sum(tally.counts) for tally in house.limiter.waited.values()) == len(house.granted)


@given(EXACT_RATES, EXACT_BURSTS, st.lists(CROWD, max_size=30))
def test_the_urgent_go_first_and_nobody_is_forgotten(rate: float, burst: float, asks: list[Ask]) -> None:
    """Who is served when, refused when and gone when is what a naive model says, to the last bit."""
    compare(rate, burst, asks)


@given(
    EXACT_RATES,
    st.lists(
        st.builds(
            Ask,
            after=st.just(APART),
            urgency=URGENCIES,
            joined=st.just(inf) | EXACT_SECONDS.map(lambda s: s + APART / 2),
        ),
        max_size=30,
    ),
)
def test_a_class_may_rise_while_one_waits(rate: float, asks: list[Ask]) -> None:
    """Who is next is judged by how urgent it is then; who came first is first among the callers, too."""
    compare(rate, 1.0, asks)


def test_of_five_tokens_one_is_for_the_less_urgent() -> None:
    """However many callers wait; and of five of those, one is for the least urgent."""
    house = House(rate=1, burst=1)
    house.serve([Ask(urgency=BACKGROUND)] * 3 + [Ask(urgency=NEWS)] * 10 + [Ask()] * 60)
    served = [number for number, _ in sorted(house.granted.items(), key=lambda item: item[1])]
    classes = "".join("b" if number < 3 else "n" if number < 13 else "c" for number in served)
    assert classes == "b" + ("ccccn" * 4 + "ccccb") * 2 + "ccccn" * 2 + "cccc" * 3


def test_who_was_overtaken_is_refused_when_the_time_is_over() -> None:
    """It could not be told on arrival that more urgent ones would come."""
    house = House(rate=1, burst=1)
    house.serve([Ask(), Ask(urgency=NEWS, within=2.5), Ask(after=0.5), Ask(), Ask()])
    assert house.granted == {0: 0, 2: 1, 3: 2, 4: 3}
    assert house.refused == {1: 2.5}
    assert house.limiter.refused == 1


def test_who_would_be_overtaken_is_refused_on_arrival() -> None:
    """Four callers are ahead of news, and then it has its turn."""
    house = House(rate=1, burst=1)
    house.serve([Ask()] * 10 + [Ask(urgency=NEWS, within=4.5), Ask(urgency=NEWS, within=5)])
    assert house.refused == {10: 0}
    assert house.granted[11] == 5


def test_who_has_time_is_not_starved_by_those_who_have_none() -> None:
    """Where four callers take longer than anybody waits, news that cannot wait longer never has its turn; else it has."""
    house = House(rate=0.25, burst=1)
    callers = [Ask(within=10)] * 3 + [Ask(after=1, within=10)] * 100
    house.serve([*callers[:3], Ask(urgency=NEWS, within=10), Ask(urgency=NEWS), *callers[3:]])
    assert house.refused[3] == 0
    assert house.granted[4] == 20, "after four callers, however many there are"


def test_the_time_that_was_waited_is_told_by_class() -> None:
    """In seconds, of those who had a token in the end."""
    house = House(rate=1, burst=1)
    house.serve([Ask(), Ask(urgency=NEWS), Ask(urgency=BACKGROUND), Ask(patience=0.5), Ask(within=0)])
    assert {urgency.name: tally.sum for urgency, tally in house.limiter.waited.items()} == {
        "CALLER": 0.0,
        "NEWS": 1.0,
        "BACKGROUND": 2.0,
    }


# What goes wrong.


def test_who_leaves_with_a_token_in_hand_leaves_it_here() -> None:
    """Cancelled when the token is theirs and they have not run since: the next one gets it, at once."""
    house = House(rate=1, burst=1)

    async def story() -> tuple[bool, float]:
        await house.limiter.take(caller, within=0)
        async with asyncio.TaskGroup() as group:
            leaves, stays = (group.create_task(house.limiter.take(caller, within=inf)) for _ in range(2))
            await asyncio.sleep(0.5)
            house.limiter.give_back()  # to the first of them
            assert house.limiter.waiting == 1
            leaves.cancel()
            await stays
            return leaves.cancelled(), house.now

    assert play(house.clock, story()) == (True, 0.5)
    assert sum(house.limiter.waited[CALLER].counts) == 2


def test_who_is_just_leaving_gets_no_token() -> None:
    """Cancelled a moment before their turn: it is the next one's."""
    house = House(rate=1, burst=1)

    async def story() -> float:
        await house.limiter.take(caller, within=0)
        async with asyncio.TaskGroup() as group:
            leaves, stays = (group.create_task(house.limiter.take(caller, within=inf)) for _ in range(2))
            await asyncio.sleep(0.5)
            leaves.cancel()
            house.limiter.give_back()
            await stays
            return house.now

    assert play(house.clock, story()) == 0.5


def test_a_token_that_was_not_used_is_the_next_ones(clock: FakeClock) -> None:
    """Given back, it is handed out at once; to nobody, it is kept."""
    house = House(rate=1, burst=1)

    async def story() -> float:
        await house.limiter.take(caller, within=0)
        async with asyncio.TaskGroup() as group:
            _ = group.create_task(house.limiter.take(caller, within=1))
            await asyncio.sleep(0.25)
            house.limiter.give_back()
        return house.now

    assert play(house.clock, story()) == 0.25
    house.limiter.give_back()
    house.limiter.give_back()
    assert house.limiter.left == 1


SLOW_DOWNS = st.lists(st.tuples(st.floats(0, 20), st.none() | st.floats(0, 100)), max_size=5)


@given(
    RATES,
    BURSTS,
    st.lists(st.builds(Ask, after=SECONDS, urgency=URGENCIES, patience=st.just(inf) | SECONDS), max_size=30),
    SLOW_DOWNS,
)
def test_slowing_down_widens_no_window(
    rate: float, burst: float, asks: list[Ask], slow_downs: list[tuple[float, float | None]]
) -> None:
    """Nor does recovering, and nobody waits for ever: in every window at most rate × w + burst tokens."""
    house = House(rate, burst)
    house.serve(asks, slow_downs=slow_downs)
    assert len(house.granted) + len(house.left) == len(asks)
    assert house.excess() <= ROUNDING
    assert house.limiter.bucket.throttled == len(slow_downs)


def test_those_who_wait_wait_longer_when_the_rate_is_halved() -> None:
    """What was worked out for them before no longer holds: at 4 a second the third token comes after more than one."""
    house = House(rate=8, burst=1)
    house.serve([Ask()] * 3, slow_downs=[(0.125 + APART, None)])
    assert house.granted[1] == 0.125
    assert house.granted[2] == pytest.approx(0.125 + APART + 0.25, rel=1e-2)
