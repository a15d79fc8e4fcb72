"""When nothing comes back, asking stops for a while."""

import logging
from contextlib import AbstractContextManager, suppress
from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sidecar.errors import Broken, CircuitOpen, Unreachable
from sidecar.kit.breaker import FAILURES, JITTER, LONGEST_REST, REST, TABLE, Breaker, Event, Passage, State, diagram
from tests.fakes import FakeClock

CAUSE = Unreachable("no route")


class House:
    """A breaker whose rests are as long as they can be."""

    def __init__(self, clock: FakeClock, jitter: float = 0.0) -> None:
        self.clock = clock
        self.breaker = Breaker("lists", clock=clock, jitter=lambda: jitter)

    def fail(self, times: int = 1, cause: Broken | Unreachable = CAUSE) -> None:
        for _ in range(times):
            with self.breaker.entered() as passage:
                passage.fail(cause)

    def succeed(self) -> None:
        with self.breaker.entered() as passage:
            passage.succeed()

    def rest(self) -> float:
        """Let time pass until requests are let through; return the seconds that it took, to a sixteenth."""
        began = self.clock.now
        while not self.breaker.lets_through:
            self.clock.advance(1 / 16)
        return self.clock.now - began


@pytest.fixture
def house(clock: FakeClock) -> House:
    return House(clock)


class TestClosed:
    def test_failures_in_a_row_open_it(self, house: House) -> None:
        """One less does not; then nothing is let through, and whoever looks is told since when and why."""
        house.fail(FAILURES - 1)
        assert (house.breaker.state, house.breaker.opened) == (State.CLOSED, 0)
        house.fail(cause=Broken("about cus_secret", status=502))
        assert (house.breaker.state, house.breaker.opened, house.breaker.since) == (State.OPEN, 1, house.clock.now)
        with pytest.raises(CircuitOpen, match=r"since 2026-09-21T14:13:20Z; .* broken \(status 502\)") as caught:
            house.breaker.look()
        assert "cus_secret" not in str(caught.value)
        assert str(caught.value.last) == "about cus_secret"
        with pytest.raises(CircuitOpen):
            house.fail()

    def test_a_success_between_them_keeps_it_closed(self, house: House) -> None:
        """Only a row of failures says that nothing comes back; what says neither does not break the row."""
        for _ in range(3):
            house.fail(FAILURES - 1)
            house.succeed()
            assert house.breaker.cause is None
        house.fail(FAILURES - 1)
        with house.breaker.entered():
            pass
        house.fail()
        assert house.breaker.state is State.OPEN

    def test_what_comes_late_does_not_count(self, house: House) -> None:
        """Fifty at once fail: the first few open it, the others say nothing new; nor does a success of before."""
        crowd = [house.breaker.entered() for _ in range(50)]
        passages = [entered.__enter__() for entered in crowd]
        for passage in passages[:-1]:
            passage.fail(CAUSE)
        passages[-1].succeed()
        for entered in crowd:
            entered.__exit__(None, None, None)
        assert (house.breaker.state, house.breaker.opened) == (State.OPEN, 1)
        assert house.rest() == REST


class TestOpen:
    def test_rests_double_up_to_the_longest(self, house: House) -> None:
        """Each failed probe makes the next rest longer; it has not opened anew, and the cause is the last one."""
        house.fail(FAILURES)
        since = house.clock.now
        assert house.rest() == REST
        rests = []
        for number in range(20):
            house.fail(cause=Broken(f"{number}"))
            rests.append(house.rest())
        assert rests[:5] == [2, 4, 8, 16, LONGEST_REST]
        assert set(rests[5:]) == {LONGEST_REST}
        assert (house.breaker.opened, house.breaker.since, str(house.breaker.cause)) == (1, since, "19")

    def test_a_success_makes_the_next_rest_short_again(self, house: House) -> None:
        """The next trouble is another one."""
        house.fail(FAILURES)
        house.rest()
        house.fail()
        house.rest()
        house.succeed()
        assert (house.breaker.state, house.breaker.since) == (State.CLOSED, house.clock.now)
        house.fail(FAILURES)
        assert (house.rest(), house.breaker.opened) == (REST, 2)

    @pytest.mark.parametrize("jitter", [0.0, 0.25, 0.5])
    def test_rests_are_cut_by_chance(self, clock: FakeClock, jitter: float) -> None:
        """By what was passed in, so that replicas do not probe together."""
        house = House(clock, jitter)
        house.fail(FAILURES)
        clock.advance(REST * (1 - JITTER * jitter) - 0.01)
        states = [house.breaker.state]
        clock.advance(0.02)
        assert [*states, house.breaker.state] == [State.OPEN, State.HALF_OPEN]


class TestHalfOpen:
    def test_one_finds_out_and_the_others_are_told_at_once(self, house: House) -> None:
        """Then all may go on."""
        house.fail(FAILURES)
        house.rest()
        with house.breaker.entered() as probe:
            assert (house.breaker.state, house.breaker.lets_through) == (State.HALF_OPEN, False)
            with pytest.raises(CircuitOpen):
                house.fail()
            probe.succeed()
        assert (house.breaker.state, house.breaker.lets_through) == (State.CLOSED, True)

    def test_who_is_cancelled_gives_the_place_back(self, house: House) -> None:
        """Nothing was found out, so the next one is to."""
        house.fail(FAILURES)
        house.rest()
        with suppress(KeyboardInterrupt), house.breaker.entered():
            raise KeyboardInterrupt
        assert (house.breaker.state, house.breaker.lets_through) == (State.HALF_OPEN, True)
        house.succeed()
        assert house.breaker.state is State.CLOSED

    def test_only_the_probe_has_a_say(self, house: House) -> None:
        """A request of before that comes back now was let through by another time."""
        with house.breaker.entered() as old:
            house.fail(FAILURES)
            house.rest()
            with house.breaker.entered():
                old.succeed()
        assert house.breaker.state is State.HALF_OPEN


def test_the_log_is_told_when_it_opens_and_when_it_closes(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """With the cause, and after how long; nothing of probes and of those who were not let through."""
    caplog.set_level(logging.INFO)
    house.fail(FAILURES)
    for _ in range(3):
        house.rest()
        house.fail()
    with pytest.raises(CircuitOpen):
        house.breaker.look()
    house.rest()
    house.succeed()
    assert caplog.messages == [
        "lists: 5 failures in a row, so nothing is asked for a while: no route",
        "lists: requests come to something again, after 15.0 s",
    ]


def test_what_is_not_in_the_table_is_illegal(house: House) -> None:
    """Nothing but time leads out of being open."""
    assert set(TABLE[State.OPEN]) == {Event.RESTED}
    house.fail(FAILURES)
    with pytest.raises(KeyError):
        house.breaker._turn(Event.SUCCESS)


def test_the_diagram_has_every_arrow() -> None:
    """Mermaid draws what the table says."""
    arrows = diagram().splitlines()[2:]
    assert len(arrows) == sum(map(len, TABLE.values()))
    assert "    half_open --> open: failure" in arrows


class Story(RuleBasedStateMachine):
    """Requests come, succeed, fail, are cancelled and come late; a naive model knows what is let through."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.random = Random(1)  # noqa: S311 -- no secret
        self.same = Random(1)  # noqa: S311 -- no secret
        self.breaker = Breaker("lists", clock=self.clock, jitter=self.random.random)
        self.under_way: list[tuple[AbstractContextManager[Passage], Passage, int]] = []
        self.era = 0
        self.row = 0
        self.opened_until: float | None = None
        self.rest = 1.0
        self.probing = False

    def is_open(self) -> bool:
        return self.opened_until is not None and self.clock.now < self.opened_until

    def is_half_open(self) -> bool:
        return self.opened_until is not None and self.clock.now >= self.opened_until

    @rule()
    def enter(self) -> None:
        entered = self.breaker.entered()
        if self.is_open() or (self.is_half_open() and self.probing):
            with pytest.raises(CircuitOpen):
                entered.__enter__()
            return
        self.probing = self.is_half_open()
        self.under_way.append((entered, entered.__enter__(), self.era))

    @rule(which=st.integers(0, 100), what=st.sampled_from(["succeed", "fail", "fail", "fail", "leave"]))
    def end(self, which: int, what: str) -> None:
        if not self.under_way:
            return
        entered, passage, era = self.under_way.pop(which % len(self.under_way))
        if what == "succeed":
            passage.succeed()
        elif what == "fail":
            passage.fail(CAUSE)
        entered.__exit__(None, None, None)
        if era != self.era or self.is_open():
            return
        self.probing = False
        if what == "succeed":
            self.close()
        elif what == "fail":
            self.row += 1
            if self.is_half_open() or self.row == 5:
                self.open()

    @rule(count=st.integers(1, 6), what=st.sampled_from(["succeed", "fail"]))
    def several(self, count: int, what: str) -> None:
        for _ in range(count):
            before = len(self.under_way)
            self.enter()
            if len(self.under_way) > before:
                self.end(before, what)

    def close(self) -> None:
        self.row = 0
        if self.opened_until is not None:
            self.opened_until, self.rest = None, 1.0
            self.era += 1

    def open(self) -> None:
        self.opened_until = self.clock.now + self.rest * (1 - 0.2 * self.same.random())
        self.rest = min(30.0, self.rest * 2)
        self.era += 1

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 5.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        if self.is_open():
            assert self.breaker.state is State.OPEN
        elif self.is_half_open():
            assert self.breaker.state is State.HALF_OPEN
        else:
            assert self.breaker.state is State.CLOSED
        assert self.breaker.lets_through is not (self.is_open() or (self.is_half_open() and self.probing))


TestStory = Story.TestCase
