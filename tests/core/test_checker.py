"""The read road."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf, nextafter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.checker import MOST_ACCOUNTS, Policies, Sure
from sidecar.core.wishes import NO_WISHES, Wishes, wishes
from sidecar.errors import NoAnswer, TimedOut, Unreachable
from sidecar.model import Customer, Decision, Finding, Policy, Reason, Source, State
from sidecar.settings import Freshness
from tests.core.fetching import ADA, BOB, FRESHNESS, House, Told, held, settled, unknown
from tests.fakes import FakeClock
from tests.kit.virtual import play

# --- every state × wish × outcome --------------------------------------------------------------------------------
#
# hit    from memory, at once, Stripe is not asked        stale   from memory, at once, marked; one flight takes off
# asked  from Stripe, by one flight                       old     from memory, marked, after a flight came to nothing
# late   the same, after a flight that was waited for no longer than ``dirty_wait``
# deny, allow, error   the policy's answer after a flight came to nothing;  with ¬: without having asked

STATES = {
    "fresh": 10,
    "stale": 1000,
    "expired": 100_000,
    "absent": None,
    "unknown": 10,
    "unknown, expired": 100,
    "dirty": 10,
}

WHEN_STRIPE_ANSWERS = """
                                fresh  stale  expired absent unknown unknown, expired  dirty
-                               hit    stale  asked   asked  hit     asked             asked
max-age=5                       asked  asked  asked   asked  asked   asked             asked
max-age=600                     hit    asked  asked   asked  hit     asked             asked
max-age=2000                    hit    stale  asked   asked  hit     asked             asked
max-age=999999                  hit    stale  asked   asked  hit     asked             asked
no-cache                        asked  asked  asked   asked  asked   asked             asked
no-cache,max-age=600            asked  asked  asked   asked  asked   asked             asked
max-stale                       hit    stale  stale   asked  hit     stale             asked
max-stale=1000                  hit    stale  asked   asked  hit     stale             asked
max-stale=0                     hit    asked  asked   asked  hit     asked             asked
max-age=5,max-stale             hit    stale  stale   asked  hit     stale             asked
max-age=5,max-stale=1000        hit    stale  asked   asked  hit     stale             asked
max-age=5,max-stale=20          hit    asked  asked   asked  hit     asked             asked
stale-if-error                  hit    stale  asked   asked  hit     asked             asked
stale-if-error=1000             hit    stale  asked   asked  hit     asked             asked
max-age=5,stale-if-error        asked  asked  asked   asked  asked   asked             asked
only-if-cached                  hit    stale  ¬error  ¬error hit     ¬error            ¬old
only-if-cached,max-stale        hit    stale  stale   ¬error hit     stale             ¬old
only-if-cached,max-age=5        ¬error ¬error ¬error  ¬error ¬error  ¬error            ¬error
default=allow                   hit    stale  asked   asked  hit     asked             asked
default=deny                    hit    stale  asked   asked  hit     asked             asked
only-if-cached,default=allow    hit    stale  ¬allow  ¬allow hit     ¬allow            ¬old
max-age=5,default=allow         asked  asked  asked   asked  asked   asked             asked
"""

WHEN_STRIPE_DOES_NOT = """
                                fresh  stale  expired absent unknown unknown, expired  dirty
-                               hit    stale  deny    deny   hit     deny              late
max-age=5                       error  error  error   error  error   error             error
max-age=600                     hit    error  error   error  hit     error             late
max-age=2000                    hit    stale  error   error  hit     error             late
max-age=999999                  hit    stale  error   error  hit     error             late
no-cache                        error  error  error   error  error   error             error
no-cache,max-age=600            error  error  error   error  error   error             error
max-stale                       hit    stale  stale   deny   hit     stale             late
max-stale=1000                  hit    stale  deny    deny   hit     stale             late
max-stale=0                     hit    deny   deny    deny   hit     deny              late
max-age=5,max-stale             hit    stale  stale   error  hit     stale             late
max-age=5,max-stale=1000        hit    stale  error   error  hit     stale             late
max-age=5,max-stale=20          hit    error  error   error  hit     error             late
stale-if-error                  hit    stale  old     deny   hit     old               late
stale-if-error=1000             hit    stale  deny    deny   hit     old               late
stale-if-error=10               hit    stale  deny    deny   hit     deny              late
max-age=5,stale-if-error        old    old    old     error  old     old               old
max-age=5,stale-if-error=1000   old    old    error   error  old     old               old
no-cache,stale-if-error=0       old    error  error   error  old     error             old
only-if-cached                  hit    stale  ¬error  ¬error hit     ¬error            ¬old
only-if-cached,max-stale        hit    stale  stale   ¬error hit     stale             ¬old
only-if-cached,stale-if-error   hit    stale  ¬error  ¬error hit     ¬error            ¬old
default=allow                   hit    stale  allow   allow  hit     allow             late
default=deny                    hit    stale  deny    deny   hit     deny              late
only-if-cached,default=allow    hit    stale  ¬allow  ¬allow hit     ¬allow            ¬old
max-age=5,default=allow         allow  allow  allow   allow  allow   allow             allow
max-age=5,default=deny          deny   deny   deny    deny   deny    deny              deny
"""


@dataclass(frozen=True)
class Case:
    said: str
    state: str
    stripe: str
    expected: str

    def __str__(self) -> str:
        return f"{self.said} | {self.state} | {self.stripe}"

    @property
    def wishes(self) -> Wishes:
        """What the caller said, ``default`` being a parameter and not a directive."""
        parts = [] if self.said == "-" else self.said.split(",")
        default = next((part.removeprefix("default=") for part in parts if part.startswith("default=")), None)
        return wishes(", ".join(part for part in parts if not part.startswith("default=")), default)


def cases() -> Iterator[Case]:
    """Read the tables."""
    for table, outcomes in ((WHEN_STRIPE_ANSWERS, ["answers"]), (WHEN_STRIPE_DOES_NOT, ["fails", "hangs"])):
        for row in table.strip().splitlines()[1:]:
            said, *cells = row.split()
            for state, cell in zip(STATES, cells, strict=True):
                for stripe in outcomes:
                    yield Case(said, state, stripe, cell)


def prepare(house: House, case: Case) -> None:
    """Bring memory and Stripe into the state of the case."""
    age = STATES[case.state]
    if age is not None and case.state.startswith("unknown"):
        house.cache.put(unknown(ADA, house.clock.now - age))
    elif age is not None:
        house.remember(age, "pro")
    if case.state == "dirty":
        house.cache.mark(ADA, house.clock.now)
    if case.stripe == "fails":
        house.fail()
    elif case.stripe == "hangs":
        house.upstream.gate.clear()


def named(decision: Decision, flights: int) -> str:
    """Return the word of the tables for a decision."""
    if decision.source is Source.POLICY:
        word = {None: "error", True: "allow", False: "deny"}[decision.entitled]
        return word if flights else f"¬{word}"
    assert decision.finding is not None
    if decision.source is Source.UPSTREAM:
        return "asked"
    return {(False, 0): "hit", (True, 0): "¬old", (True, 1): "stale"}[decision.finding.stale, flights]


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_every_state_wish_and_outcome(case: Case) -> None:
    """What is answered, from where, and at the price of how many flights, is what the tables say."""
    clock = FakeClock()
    began = clock.now

    async def story() -> tuple[Decision, House, float]:
        house = House(clock)
        prepare(house, case)
        decision = await house.checker.check(ADA, "pro", case.wishes)
        answered = clock.now
        await settled()
        await house.tasks.close()
        return decision, house, answered

    decision, house, answered = play(clock, story())
    flights, waited = len(house.upstream.asked), answered - began
    expected = "stale" if case.expected in ("old", "late") else case.expected  # from memory, marked, with one flight
    assert named(decision, flights) == expected
    assert flights == (0 if expected == "hit" or expected.startswith("¬") else 1)
    at_once = case.stripe != "hangs" or case.expected in ("hit", "stale") or case.expected.startswith("¬")
    assert waited == pytest.approx(0 if at_once else 0.5 if case.expected == "late" else 2, abs=1e-5)
    assert_it_says_so(decision, case, waited)


def assert_it_says_so(decision: Decision, case: Case, waited: float) -> None:
    """An answer from knowledge has its age and no excuse; a policy's has an excuse and no age."""
    age = STATES[case.state]
    if decision.source is not Source.POLICY:
        assert decision.finding is not None
        assert decision.missing is None
        assert decision.entitled is (decision.reason is Reason.ENTITLED)
        is_unknown = case.state.startswith("unknown") and decision.source is Source.MEMORY
        assert decision.reason is (Reason.UNKNOWN_CUSTOMER if is_unknown else Reason.ENTITLED)
        if decision.source is Source.MEMORY:
            assert decision.finding.age == pytest.approx(age + waited if age is not None else None, abs=1e-5)
        return
    assert (decision.reason, decision.finding) == (Reason.UNAVAILABLE, None)
    assert decision.missing is not None
    cause = {"answers": None, "fails": "unreachable", "hangs": "deadline"}[case.stripe]
    if case.expected.startswith("¬"):
        code, cause = "not_cached", None
    elif case.wishes.max_age is not None and age is not None:
        code = "too_old"
    else:
        code = str(cause)
    assert decision.missing.code == code
    assert (decision.missing.cause.code if decision.missing.cause else None) == cause
    assert decision.missing.age == (None if age is None else pytest.approx(age + waited, abs=1e-5))


# --- a hit ------------------------------------------------------------------------------------------------------


class TestGlance:
    async def test_an_answer_may_be_exactly_as_old_as_allowed(self, house: House) -> None:
        """Fresh means at most ``fresh_for``, stale at most ``stale_for``; the next moment is too late."""
        for age, answered, stale in [
            (300, True, False),
            (300.5, True, True),
            (86400, True, True),
            (86400.5, False, None),
        ]:
            house.remember(age, "pro", customer=(customer := Customer(f"cus_{age}")))
            finding = house.checker.glance(customer)
            assert (finding is not None) is answered
            assert finding is None or finding.stale is stale

    async def test_a_clock_behind_the_snapshot_makes_no_negative_age(self, house: House) -> None:
        """A snapshot that another process took a moment ahead of our clock is of age zero."""
        house.remember(-5, "pro")
        finding = house.checker.glance(ADA)
        assert finding is not None
        assert finding.age == 0

    async def test_asking_in_advance_has_no_effect_beyond_a_nudge(self, house: House) -> None:
        """A stale answer is given before its flight lands; ten of them start one flight."""
        house.remember(1000, "pro")
        assert [house.checker.glance(ADA) is not None for _ in range(10)] == [True] * 10
        assert house.upstream.asked == []
        await settled()
        assert house.upstream.asked == [ADA]

    async def test_answer_is_check_without_waiting(self, house: House) -> None:
        """From memory it gives the same decision; where memory may not answer it gives, and counts, nothing."""
        assert house.checker.answer(ADA, "pro") is None
        assert sum(house.checker.decisions.values()) == 0
        house.remember(10, "pro")
        assert house.checker.answer(ADA, "pro") == await house.check()
        assert house.checker.decisions[Reason.ENTITLED, Source.MEMORY] == 2

    async def test_find_returns_what_check_decides_from(self, house: House) -> None:
        """For lists: the finding from memory, or a flight's, with its age counted."""
        found = await house.checker.find(ADA)
        assert (found.source, found.age, found.stale) == (Source.UPSTREAM, 0, False)
        house.clock.advance(7)
        found = await house.checker.find(ADA)
        assert (found.source, found.age, found.as_of) == (Source.MEMORY, 7, house.clock.now - 7)
        assert house.checker.ages.sum == 7

    async def test_find_has_no_policy(self, house: House) -> None:
        """A list without knowledge is an error: no policy can make one up."""
        house.fail("the cable is cut")
        with pytest.raises(NoAnswer, match="the cable is cut") as missing:
            await house.checker.find(ADA)
        assert (missing.value.code, missing.value.age) == ("unreachable", None)
        assert isinstance(missing.value.cause, Unreachable)


@pytest.mark.parametrize(("age", "answered"), [(400, True), (400.5, False)])
async def test_in_an_outage_an_answer_may_be_exactly_as_old_as_wished(
    house: House, age: float, *, answered: bool
) -> None:
    """``stale-if-error=100`` after ``fresh_for`` 300 is at most 400; the next moment is too late."""
    house.remember(age, "pro")
    house.fail()
    said = wishes("max-age=5, stale-if-error=100")
    decision = await house.tasks.start(house.checker.check(ADA, "pro", said), name="check")
    assert (decision.source is Source.MEMORY) is answered


class TestState:
    @pytest.mark.parametrize(
        ("age", "state"),
        [(0, State.FRESH), (300, State.FRESH), (301, State.STALE), (86400, State.STALE), (86401, State.EXPIRED)],
    )
    async def test_state_follows_age(self, house: House, age: float, state: State) -> None:
        """The state is told with its snapshot, and telling starts no flight."""
        snapshot = house.remember(age, "pro")
        told, finding = house.checker.state(ADA)
        assert finding is not None
        assert (told, finding.snapshot, finding.age) == (state, snapshot, age)
        await settled()
        assert house.upstream.asked == []

    async def test_there_is_no_stale_unknown(self, house: House) -> None:
        """A customer may be made at any moment, so what was unknown a while ago says nothing."""
        for age, state in [(60, State.FRESH), (61, State.EXPIRED)]:
            house.cache.put(snapshot := unknown(Customer(f"cus_{age}"), house.clock.now - age))
            assert house.checker.state(snapshot.customer)[0] is state

    async def test_a_stranger_is_absent(self, house: House) -> None:
        """There is no snapshot to show."""
        assert house.checker.state(ADA) == (State.ABSENT, None)


# --- what an answer says -----------------------------------------------------------------------------------------


async def test_the_three_noes_stay_three(house: House) -> None:
    """No such feature, no such customer, and no knowledge are told apart."""
    house.remember(10, "pro")
    house.cache.put(unknown(BOB, house.clock.now))
    house.fail()
    noes = [await house.check("seats"), await house.check(customer=BOB), await house.check(customer=Customer("cus_c"))]
    assert [no.entitled for no in noes] == [False, False, False]
    assert [no.reason for no in noes] == [Reason.NOT_ENTITLED, Reason.UNKNOWN_CUSTOMER, Reason.UNAVAILABLE]
    assert [no.source for no in noes] == [Source.MEMORY, Source.MEMORY, Source.POLICY]


async def test_an_unknown_customer_may_come_to_be(house: House) -> None:
    """When ``unknown_for`` is over Stripe is asked again, and what it says then counts."""
    house.upstream.known = False
    assert (await house.check()).reason is Reason.UNKNOWN_CUSTOMER
    house.upstream.known = True
    house.clock.advance(60)
    assert (await house.check()).reason is Reason.UNKNOWN_CUSTOMER
    house.clock.advance(1)
    assert (await house.check()).reason is Reason.ENTITLED


async def test_serving_never_renews_the_age(house: House) -> None:
    """While Stripe does not answer, the same snapshot is given with ages that grow as time does."""
    snapshot = house.remember(0, "pro")
    house.fail()
    ages = []
    while (decision := await house.check()).source is Source.MEMORY:
        assert decision.finding is not None
        assert decision.finding.as_of == snapshot.taken_at
        ages.append(decision.finding.age)
        await settled()
        house.clock.advance(3600)
    assert ages == [3600 * hour for hour in range(25)]
    assert len(house.upstream.asked) == 25  # one for each stale answer, and the last


async def test_a_stale_answer_is_followed_by_a_young_one(house: House) -> None:
    """Stale while revalidating: the flight that the old answer started brings the new one."""
    house.remember(1000, "seats")
    assert (await house.check()).entitled is False
    await settled()
    decision = await house.check()
    assert decision.entitled is True
    assert decision.finding is not None
    assert (decision.source, decision.finding.age) == (Source.MEMORY, 0)


class Watched(House):
    """A house whose every finding is written down, with the moments of the news that had been heard by then."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.found: list[tuple[Finding, list[float]]] = []
        self.heard_at: list[float] = []

    async def ask(self, way: Callable[[Customer], Coroutine[Any, Any, Finding]]) -> None:
        with suppress(NoAnswer):
            finding = await way(ADA)
            self.found.append((finding, list(self.heard_at)))

    def steps(self) -> dict[str, Callable[[], object]]:
        """Return what may happen, by name."""
        return {
            "find": lambda: self.tasks.start(self.ask(self.checker.find), name="find"),
            "refresh": lambda: self.tasks.start(self.ask(self.checker.refresh), name="refresh"),
            "tick": lambda: None,
            "news": self.bring_news,
            "feed": self.vouch,
            "gap": lambda: self.news.begin(None, self.clock.now),
            "hang": self.upstream.gate.clear,
            "go on": self.upstream.gate.set,
            "make or delete": self.make_or_delete,
            "break or mend": self.break_or_mend,
        }

    def bring_news(self) -> None:
        self.hear()
        self.heard_at.append(self.clock.now)

    def make_or_delete(self) -> None:
        self.upstream.known = not self.upstream.known

    def break_or_mend(self) -> None:
        self.upstream.error = None if self.upstream.error else Unreachable("no route")


STEPS = list(Watched(FakeClock()).steps())


@given(st.lists(st.sampled_from(STEPS), max_size=40))
def test_what_an_answer_is_as_of(steps: list[str]) -> None:
    """Never an earlier moment than one given before, nor the future, nor one after news that its list is older than."""
    clock = FakeClock()

    async def story() -> Watched:
        house = Watched(clock)
        for what in steps:
            house.steps()[what]()
            await asyncio.sleep(0.7 if what == "tick" else 0.001)
        await house.close()
        return house

    found = play(clock, story()).found
    as_of = [finding.as_of for finding, _ in found]
    assert as_of == sorted(as_of)
    assert all(moment <= clock.now for moment in as_of)
    for finding, heard_at in found:
        assert all(finding.as_of < moment or finding.snapshot.taken_at >= moment for moment in heard_at)


# --- flights ------------------------------------------------------------------------------------------------------


async def test_a_crowd_shares_one_flight(house: House) -> None:
    """Five hundred simultaneous first questions cost one fetch."""
    decisions = await asyncio.gather(*(house.check() for _ in range(500)))
    assert {decision.entitled for decision in decisions} == {True}
    assert house.upstream.asked == [ADA]


async def test_a_crowd_of_the_disappointed_costs_one_flight(house: House) -> None:
    """When the shared flight comes to nothing, all of them share that too."""
    house.fail()
    decisions = await asyncio.gather(*(house.check() for _ in range(500)))
    assert {decision.reason for decision in decisions} == {Reason.UNAVAILABLE}
    assert len(house.upstream.asked) == 1


async def test_who_hangs_up_takes_nobody_along(house: House) -> None:
    """Cancelling one caller neither cancels the flight nor disturbs the other, and what lands is remembered."""
    house.upstream.gate.clear()
    async with asyncio.TaskGroup() as group:
        leaves, stays = group.create_task(house.check()), group.create_task(house.check())
        await settled()
        leaves.cancel()
        await settled()
        house.upstream.gate.set()
    assert leaves.cancelled()
    assert stays.result().entitled is True
    assert house.upstream.asked == [ADA]


async def test_a_flight_lands_though_all_have_left(house: House) -> None:
    """The only caller hangs up; the next finds the answer in memory."""
    house.upstream.gate.clear()
    async with asyncio.TaskGroup() as group:
        only = group.create_task(house.check())
        await settled()
        only.cancel()
    house.upstream.gate.set()
    await settled()
    assert (await house.check()).source is Source.MEMORY
    assert house.upstream.asked == [ADA]


def test_a_flight_outlives_the_deadline(clock: FakeClock) -> None:
    """The caller gets the policy's answer after ``deadline``; the flight goes on and lands for the next one."""

    async def story() -> list[Decision]:
        house = House(clock)
        house.upstream.gate.clear()
        late = await house.check()
        house.upstream.gate.set()
        await settled()
        return [late, await house.check()]

    late, then = play(clock, story())
    assert (late.reason, then.reason, then.source) == (Reason.UNAVAILABLE, Reason.ENTITLED, Source.MEMORY)
    assert late.missing is not None
    assert isinstance(late.missing.cause, TimedOut)
    assert "2 s" in str(late.missing)
    assert then.finding is not None
    assert then.finding.age == pytest.approx(2, abs=1e-5)  # it is as of the moment when Stripe was asked


class TestRefresh:
    async def test_it_asks_though_memory_is_fresh(self, house: House) -> None:
        """Whoever says refresh knows better than an age."""
        house.remember(0.5, "seats")
        finding = await house.checker.refresh(ADA)
        assert finding.source is Source.UPSTREAM
        assert finding.snapshot.plan.lookup_keys == {"pro"}

    @pytest.mark.parametrize("said", [None, "no-cache"])
    async def test_a_flight_in_the_air_is_too_early_for_it(self, house: House, said: str | None) -> None:
        """The answer is from a flight that took off after the call; no-cache is the same wish."""
        house.upstream.gate.clear()
        house.refresher.nudge(ADA)
        await settled()
        house.upstream.keys = ("new",)
        house.clock.advance(0.1)
        called = house.clock.now
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(
                house.checker.refresh(ADA) if said is None else house.checker.find(ADA, wishes(said))
            )
            await settled()
            house.upstream.gate.set()
        assert len(house.upstream.asked) == 2
        assert asked.result().as_of >= called
        assert asked.result().snapshot.plan.lookup_keys == {"new"}

    async def test_a_flight_in_the_air_that_fails_does_not_fail_it(self, house: House) -> None:
        """The failure is of a question that was asked before; its own flight counts."""
        house.upstream.gate.clear()
        house.fail()
        house.refresher.nudge(ADA)
        await settled()
        house.clock.advance(0.1)
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(house.checker.refresh(ADA))
            await settled()
            house.upstream.gate.set()
            await asyncio.sleep(0)
            house.upstream.error = None
        assert asked.result().snapshot.plan.lookup_keys == {"pro"}

    async def test_without_an_answer_it_says_so_though_memory_is_fresh(self, house: House) -> None:
        """Nothing old is given to one who asked for news."""
        house.remember(10, "pro")
        house.fail()
        with pytest.raises(NoAnswer) as missing:
            await house.checker.refresh(ADA)
        assert (missing.value.code, missing.value.age) == ("unreachable", 10)


# --- news ---------------------------------------------------------------------------------------------------------


class TickingClock(FakeClock):
    """A clock that each look at it advances by a ``tick``."""

    tick = 0.0

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


class TestDirty:
    """An answer from a list that may have changed is put off for a moment."""

    @pytest.mark.parametrize("takes", [0.0, 0.3])
    def test_the_new_list_answers_if_it_lands_in_time(self, clock: FakeClock, takes: float) -> None:
        """The flight that news started is the one that is waited for."""

        async def story() -> tuple[House, Told]:
            house = House(clock)
            house.remember(10, "seats")
            house.upstream.takes = takes
            house.hear()
            return house, await house.told()

        house, answer = play(clock, story())
        assert answer.in_short == (True, Source.UPSTREAM, False, takes)
        assert house.upstream.asked == [ADA]

    def test_the_old_list_answers_if_it_does_not(self, clock: FakeClock) -> None:
        """After ``dirty_wait``, marked, and as of when it was last known to be true; the flight goes on."""

        async def story() -> tuple[House, Told, Told]:
            house = House(clock)
            house.remember(10, "seats")
            house.vouch(lag=3)
            house.upstream.takes = 0.75
            house.hear()
            first = await house.told()
            await asyncio.sleep(0.5)
            return house, first, await house.told()

        house, first, then = play(clock, story())
        assert first.in_short == (False, Source.MEMORY, True, 0.5)
        assert first.finding.age == pytest.approx(3.5, abs=1e-5)
        assert then.in_short == (True, Source.MEMORY, False, 0)
        assert house.upstream.asked == [ADA]

    def test_a_flight_that_took_off_before_the_news_is_not_what_is_waited_for(self, clock: FakeClock) -> None:
        """Its list may be from before; what answers took off after."""

        async def story() -> tuple[House, Told]:
            house = House(clock)
            house.remember(10, "seats")
            house.upstream.keys, house.upstream.takes = ("seats",), 0.2
            house.refresher.nudge(ADA)
            await asyncio.sleep(0.1)
            house.upstream.keys = ("pro",)
            house.hear()
            return house, await house.told()

        house, answer = play(clock, story())
        assert answer.in_short == (True, Source.UPSTREAM, False, 0.3)
        assert house.upstream.asked == [ADA, ADA]

    def test_when_reading_is_known_to_fail_nothing_is_waited_for(self, clock: FakeClock) -> None:
        """In an outage the wait would be in vain for every check; the next flight under way changes nothing of that."""

        async def story() -> tuple[House, list[Told]]:
            house = House(clock)
            house.remember(10, "pro")
            house.fail()
            house.hear()
            await settled()
            house.upstream.gate.clear()
            answers = [await house.told()]
            await asyncio.sleep(1.5)
            assert house.refresher.is_flying(ADA)
            return house, [*answers, await house.told()]

        house, answers = play(clock, story())
        assert [answer.in_short for answer in answers] == [(True, Source.MEMORY, True, 0)] * 2
        assert len(house.upstream.asked) == 2

    def test_when_reading_is_known_to_fail_it_is_tried_by_those_who_ask(self, clock: FakeClock) -> None:
        """Without waiting for it: so the end of the outage shows soon after."""

        async def story() -> list[Told]:
            house = House(clock)
            house.remember(10, "seats")
            await asyncio.sleep(1)
            house.fail()
            assert house.cache.mark(ADA, clock.now)
            answers = [await house.told()]
            house.upstream.error = None
            await asyncio.sleep(1)
            answers.append(await house.told())
            await settled()
            return [*answers, await house.told()]

        assert [answer.in_short for answer in play(clock, story())] == [
            (False, Source.MEMORY, True, 0),
            (False, Source.MEMORY, True, 0),
            (True, Source.MEMORY, False, 0),
        ]

    async def test_only_if_cached_is_answered_at_once(self, house: House) -> None:
        """Marked, and without a flight of its own."""
        house.remember(10, "pro")
        house.cache.mark(ADA, house.clock.now)
        answer = await house.told("only-if-cached")
        assert answer.in_short == (True, Source.MEMORY, True, 0)
        await settled()
        assert house.upstream.asked == []

    @pytest.mark.parametrize(
        ("said", "fails_after", "code", "after"),
        [
            ("max-age=60", None, None, 0.5),
            ("max-age=10", None, "too_old", 0.5),
            ("max-age=60", 0.25, None, 0.25),
            ("max-age=10", 0.25, "too_old", 0.25),
            ("max-age=9", None, "too_old", 2),
        ],
    )
    def test_a_bound_on_the_age_holds_after_the_wait(
        self, clock: FakeClock, said: str, fails_after: float | None, code: str | None, after: float
    ) -> None:
        """What became too old while it was waited for is as good as too old from the start."""

        async def story() -> Told:
            house = House(clock)
            house.remember(10, "pro")
            house.upstream.takes = fails_after or 60.0
            house.fail()
            house.hear()
            return await house.told(said)

        answer = play(clock, story())
        assert answer.after == after
        assert (answer.decision.missing.code if answer.decision.missing else None) == code

    @pytest.mark.parametrize(
        ("takes", "expected", "flights"),
        [
            (0.3, (True, Source.UPSTREAM, False, 0.6), 2),
            (0.7, (False, Source.UPSTREAM, True, 1.2), 2),
            (1.8, (False, Source.MEMORY, True, 2.0), 2),
        ],
    )
    def test_a_flight_of_ones_own_that_news_overtakes_is_dirty_too(
        self, clock: FakeClock, takes: float, expected: tuple[bool, Source, bool, float], flights: int
    ) -> None:
        """The next one is waited for: no longer than ``dirty_wait``, nor beyond the deadline."""

        async def story() -> tuple[House, Told]:
            house = House(clock)
            house.upstream.keys, house.upstream.takes = ("seats",), takes
            asked = house.tasks.start(house.told(), name="asked")
            await asyncio.sleep(0.1)
            house.upstream.keys = ("pro",)
            house.hear()
            return house, await asked

        began = clock.now
        house, answer = play(clock, story())
        assert answer.in_short == expected
        assert len(house.upstream.asked) == flights
        if not answer.decision.entitled:
            assert answer.finding.as_of == began

    async def test_a_bound_on_the_age_holds_to_the_last_moment(self) -> None:
        """Time passes also where nothing is waited for, and what has become too old by then is not told."""
        answered = []
        for most in range(1, 40):
            clock = TickingClock()
            house = House(clock)
            house.remember(5, "pro")
            house.fail()
            house.hear()
            await settled()
            clock.tick = 1.0
            finding = (await house.told(f"max-age={most}")).decision.finding
            answered.append(finding is not None)
            assert finding is None or finding.age <= most
            await house.close()
        assert answered == sorted(answered)
        assert {*answered} == {False, True}

    def test_an_age_counts_from_what_the_feed_had_vouched_for(self, clock: FakeClock) -> None:
        """A list that was taken long ago, and then known until just now, satisfies a bound on the age."""

        async def story() -> Told:
            house = House(clock)
            house.remember(80_000, "pro")
            house.vouch(lag=30)
            house.upstream.gate.clear()
            house.hear()
            return await house.told("max-age=60")

        answer = play(clock, story())
        assert answer.in_short == (True, Source.MEMORY, True, 0.5)
        assert answer.finding.age == pytest.approx(30.5, abs=1e-5)

    def test_news_just_after_ones_own_flight_has_landed_is_heard_of(self, clock: FakeClock) -> None:
        """Between the landing and the answer there is a moment, too."""

        async def story() -> tuple[House, Told]:
            house = House(clock)
            house.upstream.keys, house.upstream.takes = ("seats",), 0.2
            house.refresher.landing(ADA).add_done_callback(lambda _: change(house))
            return house, await house.told()

        def change(house: House) -> None:
            house.upstream.keys = ("pro",)
            house.hear()

        house, answer = play(clock, story())
        assert answer.in_short == (True, Source.UPSTREAM, False, 0.4)
        assert house.upstream.asked == [ADA, ADA]

    @pytest.mark.parametrize("said", [None, "no-cache"])
    def test_what_ones_own_flight_has_read_counts_though_the_next_one_fails(
        self, clock: FakeClock, said: str | None
    ) -> None:
        """It was asked of Stripe after the question, and is marked."""

        async def story() -> Told:
            house = House(clock)
            house.upstream.takes = 0.3
            asked = house.tasks.start(house.told(said), name="asked")
            await asyncio.sleep(0.1)
            house.hear()
            await asyncio.sleep(0.25)
            house.fail()
            return await asked

        assert play(clock, story()).in_short == (True, Source.UPSTREAM, True, 0.6)

    async def test_a_refresh_brings_a_list_from_after_the_news(self, house: House) -> None:
        """Whoever asks for a new list gets a clean one."""
        house.remember(10, "seats")
        house.hear()
        finding = await house.checker.refresh(ADA)
        assert (finding.snapshot.dirty, finding.stale, finding.age) == (None, False, 0)

    async def test_the_state_says_so(self, house: House) -> None:
        """With the list as it was, and since when it is in doubt."""
        house.remember(10, "pro")
        house.cache.mark(ADA, house.clock.now)
        state, finding = house.checker.state(ADA)
        assert finding is not None
        assert (state, finding.stale, finding.age) == (State.DIRTY, True, 10)


class TestTheFeed:
    """Answers are as young as what the feed vouches for."""

    async def test_an_age_counts_from_the_watermark(self, house: House) -> None:
        """A list that was taken long ago, of which nothing was heard, is fresh."""
        house.remember(80_000, "pro")
        house.vouch(lag=30)
        answer = await house.told()
        assert answer.in_short == (True, Source.MEMORY, False, 0)
        assert (answer.finding.age, answer.finding.as_of) == (30, house.clock.now - 30)
        assert house.checker.state(ADA)[0] is State.FRESH
        await settled()
        assert house.upstream.asked == []

    async def test_a_bound_on_the_age_is_on_that_age(self, house: House) -> None:
        """``max-age`` is satisfied by what the feed vouches for."""
        house.remember(80_000, "pro")
        house.vouch(lag=30)
        assert (await house.told("max-age=30")).decision.source is Source.MEMORY
        assert (await house.told("max-age=29")).decision.source is Source.UPSTREAM

    async def test_without_the_feed_the_age_grows_on(self, house: House) -> None:
        """A watermark that stands still is passed by time like any other moment."""
        house.remember(1000, "pro")
        house.vouch()
        house.clock.advance(301)
        answer = await house.told()
        assert (answer.finding.age, answer.finding.stale) == (301, True)

    async def test_what_waits_for_others_ages_meanwhile(self, house: House) -> None:
        """In a batch that waited, an answer states its age as of the end, and is marked if it has become stale."""
        house.remember(200, "pro")
        decision = await house.check()
        assert house.checker.aged(decision) == decision
        house.clock.advance(101)
        finding = house.checker.aged(decision).finding
        assert finding is not None
        assert (finding.age, finding.stale) == (301, True)
        house.fail()
        by_policy = await house.check(customer=BOB)
        assert house.checker.aged(by_policy) is by_policy

    @pytest.mark.parametrize(("age", "flights"), [(225, 0), (285, 1), (300, 1)])
    async def test_who_is_asked_about_is_read_ahead(self, house: House, age: float, flights: int) -> None:
        """Near the end of freshness an answer from memory starts a flight, and is not marked."""
        house.remember(age, "pro")
        assert (await house.told()).in_short == (True, Source.MEMORY, False, 0)
        await settled()
        assert len(house.upstream.asked) == flights

    async def test_reading_ahead_takes_what_the_budget_has_left_over(self, house: House) -> None:
        """With nothing to spare it is put off, and the answer is the same."""
        house.spare = False
        house.remember(290, "pro")
        assert (await house.told()).in_short == (True, Source.MEMORY, False, 0)
        await settled()
        assert (house.upstream.asked, house.refresher.deferred) == ([], 1)

    @pytest.mark.parametrize(("unread", "flights"), [(0.9, 0), (1.0, 1)])
    async def test_what_the_feed_keeps_young_is_read_again_all_the_same(
        self, house: House, unread: float, flights: int
    ) -> None:
        """Every ``audit_every``, if anybody asks about it."""
        house.remember(unread * FRESHNESS.audit_every, "pro")
        house.vouch()
        assert (await house.told()).in_short == (True, Source.MEMORY, False, 0)
        await settled()
        assert len(house.upstream.asked) == flights


class TestAccounts:
    async def test_those_asked_about_are_noted(self, house: House) -> None:
        """The feed reads their events, and always those of the key's own."""
        house.remember(10, "pro")
        house.remember(10, "pro", customer=BOB)
        for customer in (ADA, BOB, BOB):
            await house.check(customer=customer)
        assert house.checker.accounts == {"acct_1"}

    async def test_they_are_bounded(self, house: House) -> None:
        """Each costs a request per poll; those noted are not displaced."""
        crowd = [Customer("cus_1", f"acct_{number}") for number in range(MOST_ACCOUNTS + 1)]
        for customer in crowd:
            house.remember(10, "pro", customer=customer)
            assert house.checker.glance(customer) is not None
        assert house.checker.accounts == {customer.account for customer in crowd[:-1]}


# --- bounds by lookup key ------------------------------------------------------------------------------------------


class TestBoundsByKey:
    FRESHNESS = replace(FRESHNESS, stale_by_glob=(("seats-*", 1000.0), ("sso", 500_000.0)))

    @pytest.mark.parametrize(
        ("age", "answered"),
        [
            (1000, {"seats-5", "pro", "sso", None}),
            (1001, {"pro", "sso"}),
            (86_401, {"sso"}),
            (500_001, set()),
        ],
    )
    async def test_a_check_goes_by_its_keys_and_a_list_by_the_smallest(
        self, clock: FakeClock, age: float, answered: set[str | None]
    ) -> None:
        """From the same list in memory; where it is too old, the question waits for Stripe."""
        house = House(clock, freshness=self.FRESHNESS)
        house.remember(age, "pro")
        keys = ("seats-5", "pro", "sso", None)
        assert {key for key in keys if house.checker.glance(ADA, NO_WISHES, key)} == answered
        house.fail()
        for key in ("seats-5", "pro", "sso"):
            assert ((await house.check(key)).source is Source.MEMORY) is (key in answered)
            assert (house.checker.answer(ADA, key) is not None) is (key in answered)
        if None in answered:
            assert (await house.checker.find(ADA)).stale
        else:
            with pytest.raises(NoAnswer, match="no route"):
                await house.checker.find(ADA)

    async def test_a_callers_bound_is_still_the_stricter(self, clock: FakeClock) -> None:
        """And ``max-stale`` still reaches beyond."""
        house = House(clock, freshness=self.FRESHNESS)
        house.remember(2000, "pro")
        assert house.checker.answer(ADA, "sso", wishes("max-age=1999")) is None
        assert house.checker.answer(ADA, "seats-5", wishes("max-stale=2000")) is not None


# --- policy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policies", "key", "expected"),
    [
        ({}, "pro", Policy.DENY),
        ({"*": Policy.ALLOW}, "pro", Policy.ALLOW),
        ({"seats-*": Policy.ALLOW}, "pro", Policy.DENY),
        ({"seats-*": Policy.ALLOW, "*": Policy.ERROR}, "seats-10", Policy.ALLOW),
        ({"*": Policy.ERROR, "seats-*": Policy.ALLOW}, "seats-10", Policy.ERROR),
        ({"pr?": Policy.ALLOW}, "pro", Policy.ALLOW),
        ({"[a-m]*": Policy.ALLOW}, "pro", Policy.DENY),
        ({"Pro": Policy.ALLOW}, "pro", Policy.DENY),
        ({"pro": Policy.ALLOW}, "prom", Policy.DENY),
    ],
)
def test_the_first_matching_glob_decides(policies: dict[str, Policy], key: str, expected: Policy) -> None:
    """Whole keys, case and all; where no glob matches, the answer is no."""
    assert Policies(policies).matching(key) == expected


async def test_a_policy_answer_is_never_remembered(clock: FakeClock) -> None:
    """It is counted by policy, and the next question asks Stripe again."""
    house = House(clock, {"seats": Policy.ERROR, "pro": Policy.ALLOW})
    house.fail()
    entitled = [(await house.check(key)).entitled for key in ("pro", "seats", "other", "pro")]
    assert entitled == [True, None, False, True]
    assert house.checker.policy_answers == {Policy.ALLOW: 2, Policy.ERROR: 1, Policy.DENY: 1}
    assert len(house.upstream.asked) == 4
    assert len(house.cache) == 0


async def test_the_callers_default_beats_the_policy(clock: FakeClock) -> None:
    """The operator's glob says no, this question says yes, and it is counted as the caller's."""
    house = House(clock, {"*": Policy.DENY})
    house.fail()
    decision = await house.check(default="allow")
    assert decision.entitled is True
    assert decision.reason is Reason.UNAVAILABLE
    assert house.checker.policy_answers[Policy.ALLOW] == 1


# --- counting -----------------------------------------------------------------------------------------------------


async def test_every_decision_is_counted_by_reason_and_source(house: House) -> None:
    """The label values are all there from the start, and each check adds one."""
    assert set(house.checker.decisions) == {(reason, source) for reason in Reason for source in Source}
    await house.check()
    await house.check()
    await house.check("seats")
    house.fail()
    await house.check(customer=BOB)
    assert {labels: count for labels, count in house.checker.decisions.items() if count} == {
        (Reason.ENTITLED, Source.UPSTREAM): 1,
        (Reason.ENTITLED, Source.MEMORY): 1,
        (Reason.NOT_ENTITLED, Source.MEMORY): 1,
        (Reason.UNAVAILABLE, Source.POLICY): 1,
    }


def test_ages_and_durations_are_counted(clock: FakeClock) -> None:
    """What memory answers at once has no duration; only what is answered from knowledge has an age."""

    async def story() -> House:
        house = House(clock)
        house.remember(10, "pro")
        await house.check()
        house.checker.answer(ADA, "pro")
        house.upstream.gate.clear()
        await house.check(customer=BOB)
        await house.tasks.close()
        return house

    checker = play(clock, story()).checker
    assert (checker.ages.cumulative()[-1], checker.ages.sum) == ((inf, 2), 20)
    assert checker.durations.cumulative()[-1] == (inf, 1)
    assert checker.durations.sum == pytest.approx(2, abs=1e-5)


async def test_no_wishes_are_the_default(house: House) -> None:
    """Asking without wishes is asking with empty ones."""
    house.remember(1000, "pro")
    assert house.checker.glance(ADA) == house.checker.glance(ADA, NO_WISHES) == house.checker.glance(ADA, Wishes())


# --- what is sure ------------------------------------------------------------------------------------------------

AGES = st.sampled_from([0.0, 0.75, 7.5, 75.0, 90.0, 100.0, 225.0, 300.0, 64_800.0, 77_760.0, 86_400.0]) | st.floats(
    0, 100_000
)


@st.composite
def freshnesses(draw: st.DrawFn) -> Freshness:
    """Make settings up, also such as nobody would choose."""
    bounds = st.sampled_from([1.0, 10.0, 100.0, 300.0, 86_400.0]) | st.floats(0.5, 100_000)
    globs = draw(st.lists(st.tuples(st.sampled_from(["pro", "p*", "*x"]), bounds), max_size=2))
    audit_every = draw(st.just(0.0) | bounds)
    return Freshness(draw(bounds), draw(bounds), draw(bounds), 0.5, 2.0, audit_every, tuple(globs))


@given(
    freshness=freshnesses(),
    age=AGES,
    span=st.none() | st.tuples(AGES, AGES),
    more=st.sampled_from(["", "", "", "dirty", "unknown", "ahead of the clock"]),
    later=st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1),
)
async def test_what_is_sure_is_what_glance_finds_and_it_begins_nothing(
    freshness: Freshness, age: float, span: tuple[float, float] | None, more: str, later: float
) -> None:
    """Now and, as long as memory stays as it is, up to the age that is promised; whichever key is asked about."""
    house = House(clock := FakeClock(), freshness=freshness)
    began = clock.now
    snapshot = unknown(ADA, began - age) if more == "unknown" else held(ADA, began - age, "pro")
    house.cache.put(replace(snapshot, taken_at=began + 1.0) if more == "ahead of the clock" else snapshot)
    if span is not None:
        house.watermarks.begin(None, began - max(span))
        house.watermarks.advance(None, began - min(span))
    if more == "dirty":
        house.cache.mark(ADA, began)
    sure = house.checker.sure(ADA.id, clock())
    if sure is None:
        assert more or age or span, "what was read just now is sure"
        await house.close()
        return
    snapshot, as_of, age, oldest = sure
    assert_glance_agrees(house, sure)
    seen, hit = house.checker.look(ADA), house.checker.hit(ADA.id, "pro")
    assert seen == (house.checker.glance(ADA), oldest)
    assert hit == (True, sure)
    clock.now = as_of + max(age, oldest * later)
    while clock.now - as_of > oldest:
        clock.now = nextafter(clock.now, 0.0)
    older = (snapshot, as_of, clock.now - as_of, oldest)
    assert_glance_agrees(house, older)
    assert house.checker.sure(ADA.id, clock()) in (None, older)
    await house.close()


def assert_glance_agrees(house: House, sure: Sure) -> None:
    """It finds the same, and no flight takes off for that, nor would one."""
    snapshot, as_of, age, _ = sure
    expected = Finding(snapshot, Source.MEMORY, as_of, age, stale=False)
    for lookup_key in (None, "pro", "max", "x"):
        assert house.checker.glance(ADA, NO_WISHES, lookup_key) == expected
    assert (house.refresher.in_the_air(), house.refresher.deferred) == (0, 0)
    assert not house.checker.accounts
