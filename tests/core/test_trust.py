"""How far what is in memory may be trusted, and when it is due to be read again."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.trust import Trust
from sidecar.core.watermarks import Watermarks
from sidecar.model import Customer, Dirty, Snapshot, State
from sidecar.settings import Freshness
from tests.core.fetching import ADA, held, unknown

NOW = 1_000_000.0
FRESHNESS = Freshness(fresh_for=100, stale_for=1000, unknown_for=60, audit_every=10_000)
CROWD = [Customer(f"cus_{number}") for number in range(500)]

ids = st.text(st.characters(min_codepoint=48, max_codepoint=122), min_size=1).map(Customer)
seeds = st.integers(0, 2**32 - 1)


def trust(watermarks: Watermarks | None = None, *, freshness: Freshness = FRESHNESS, seed: int = 1) -> Trust:
    """Return a judge of snapshots."""
    return Trust(freshness, watermarks or Watermarks(), seed=seed)


def dirty(snapshot: Snapshot) -> Snapshot:
    """Return ``snapshot``, with news that came when it was taken."""
    return replace(snapshot, dirty=Dirty(NOW, snapshot.taken_at))


def due_at(customer: Customer, *, seed: int) -> set[int]:
    """Return the ages from 1 to 100 at which ``customer`` is due."""
    judge = trust(seed=seed)
    return {age for age in range(1, 101) if judge.is_due(held(customer, NOW - age), NOW, float(age))}


class TestStates:
    @pytest.mark.parametrize(
        ("age", "state"),
        [
            (0, State.FRESH),
            (100, State.FRESH),
            (100.5, State.STALE),
            (1000, State.STALE),
            (1000.5, State.EXPIRED),
        ],
    )
    def test_a_list_is_in_a_state_by_its_age(self, age: float, state: State) -> None:
        """Fresh up to ``fresh_for``, stale up to ``stale_for``, both inclusive; all but a fresh one is marked."""
        snapshot = held(ADA, NOW - age, "pro")
        assert trust().state(snapshot, NOW) is state
        assert trust().is_stale(snapshot, NOW) is (state is not State.FRESH)

    @pytest.mark.parametrize(
        ("age", "state"), [(0, State.DIRTY), (500, State.DIRTY), (1000, State.DIRTY), (1000.5, State.EXPIRED)]
    )
    def test_a_dirty_list_is_dirty_until_it_expires(self, age: float, state: State) -> None:
        """However young it is, its answers are marked."""
        snapshot = dirty(held(ADA, NOW - age, "pro"))
        assert trust().state(snapshot, NOW) is state
        assert trust().is_stale(snapshot, NOW)

    @pytest.mark.parametrize(("age", "state"), [(0, State.FRESH), (60, State.FRESH), (60.5, State.EXPIRED)])
    def test_there_is_no_stale_unknown(self, age: float, state: State) -> None:
        """A customer may be made at any moment, so what was unknown a while ago says nothing."""
        assert trust().state(unknown(ADA, NOW - age), NOW) is state
        assert trust().bounds(unknown(ADA, NOW - age)) == (60, 60)

    def test_a_dirty_unknown_is_dirty(self) -> None:
        """There was news, so it has been made."""
        assert trust().state(dirty(unknown(ADA, NOW - 10)), NOW) is State.DIRTY

    def test_a_stranger_is_absent(self) -> None:
        """Nothing is known, and if it were it would have a list's bounds."""
        assert trust().state(None, NOW) is State.ABSENT
        assert trust().bounds(None) == trust().bounds(held(ADA, NOW)) == (100, 1000)

    def test_depend_on_what_is_asked_about(self) -> None:
        """A check goes by its key's glob, the first that matches; a list by the smallest, for it answers for all."""
        freshness = replace(FRESHNESS, stale_by_glob=(("seats-*", 5000.0), ("seats-1", 1.0), ("sso", 500.0)))
        judge = Trust(freshness, Watermarks(), seed=1)
        list_ = held(ADA, NOW)
        bounds = {key: judge.bounds(list_, key)[1] for key in ("seats-1", "seats-", "sso", "sso-2", None)}
        assert bounds == {"seats-1": 5000.0, "seats-": 5000.0, "sso": 500.0, "sso-2": 1000.0, None: 1.0}
        assert judge.bounds(unknown(ADA, NOW), "seats-1") == (60, 60), "nobody knows them, whatever is asked"
        states = [judge.state(list_, NOW + 600, key) for key in ("sso", "seats-1", None)]
        assert states == [State.EXPIRED, State.STALE, State.EXPIRED]

    def test_an_age_counts_from_what_the_feed_vouches_for(self) -> None:
        """A list that was taken long ago is fresh while the feed goes on without news of it."""
        watermarks = Watermarks()
        watermarks.begin(None, 0.0)
        old = held(ADA, NOW - 500_000, "pro")
        for age, state in [(1000.5, State.EXPIRED), (1000, State.STALE), (100, State.FRESH)]:
            watermarks.advance(None, NOW - age)
            assert trust(watermarks).verified_at(old) == NOW - age
            assert trust(watermarks).state(old, NOW) is state


class TestAhead:
    """A fresh list that is asked about is read again before it becomes stale."""

    @given(ids, seeds, st.floats(0.0, 0.75))
    def test_it_is_not_due_in_its_first_three_quarters(self, customer: Customer, seed: int, part: float) -> None:
        """Whoever it is, and whichever process."""
        age = part * 100
        assert not trust(seed=seed).is_due(held(customer, NOW - age), NOW, age)

    @given(ids, seeds, st.floats(0.95, 1.0))
    def test_it_is_due_when_little_is_left(self, customer: Customer, seed: int, part: float) -> None:
        """From 95 % of ``fresh_for`` on."""
        age = part * 100
        assert trust(seed=seed).is_due(held(customer, NOW - age), NOW, age)

    @given(ids, seeds)
    def test_once_due_it_stays_due(self, customer: Customer, seed: int) -> None:
        """Between the two there is one moment for each."""
        due = due_at(customer, seed=seed)
        assert due == set(range(min(due), 101))

    def test_customers_are_spread(self) -> None:
        """Those who were read together are not due together: every twentieth part of the time has its share."""
        first = [min(due_at(customer, seed=1)) for customer in CROWD]
        assert (min(first), max(first)) == (76, 95)
        assert all(first.count(age) >= len(CROWD) // 60 for age in range(76, 96))

    def test_processes_are_spread(self) -> None:
        """Replicas that read a customer together do not read it together again."""
        first = [min(due_at(ADA, seed=seed * 0x9E3779B1 % 2**32)) for seed in range(500)]
        assert (min(first), max(first)) == (76, 95)
        assert all(first.count(age) >= len(first) // 60 for age in range(76, 96))

    def test_the_time_is_a_customers_own(self) -> None:
        """Asking twice gives the same answer: nothing is thrown again for every question."""
        assert [due_at(customer, seed=7) for customer in CROWD] == [due_at(customer, seed=7) for customer in CROWD]

    @pytest.mark.parametrize(("age", "due"), [(0.0, False), (0.1, True)])
    def test_with_nothing_fresh_everything_older_than_now_is_due(self, age: float, *, due: bool) -> None:
        """``fresh_for`` 0 divides nothing by zero."""
        freshness = Freshness(fresh_for=0, stale_for=1000, audit_every=0)
        assert trust(freshness=freshness).is_due(held(ADA, NOW - age), NOW, age) is due


class TestAudit:
    """A list that the feed vouches for is read again now and then, to see whether the feed can be trusted."""

    @given(ids, seeds, st.floats(0.0, 0.9))
    def test_it_is_not_due_in_its_first_nine_tenths(self, customer: Customer, seed: int, part: float) -> None:
        """Whoever it is, and whichever process."""
        assert not trust(seed=seed).is_due(held(customer, NOW - part * 10_000), NOW, 0.0)

    @given(ids, seeds, st.floats(1.0, 50.0))
    def test_it_is_due_when_the_time_is_over(self, customer: Customer, seed: int, part: float) -> None:
        """From ``audit_every`` on, however young the feed keeps it."""
        assert trust(seed=seed).is_due(held(customer, NOW - part * 10_000), NOW, 0.0)

    def test_customers_are_spread(self) -> None:
        """Between the two there is a moment for each."""
        at_once = [trust().is_due(held(customer, NOW - 9_500), NOW, 0.0) for customer in CROWD]
        assert len(CROWD) * 0.4 < sum(at_once) < len(CROWD) * 0.6

    @pytest.mark.parametrize("unread", [1.0, 10_000.0, NOW])
    def test_without_an_interval_there_is_none(self, unread: float) -> None:
        """``audit_every`` 0 is never."""
        freshness = Freshness(fresh_for=100, stale_for=1000, audit_every=0)
        assert not trust(freshness=freshness).is_due(held(ADA, NOW - unread), NOW, 0.0)


@pytest.mark.parametrize("age", [0.0, 59.0, 95.0, 100.0, 50_000.0])
def test_an_unknown_customer_is_never_due(age: float) -> None:
    """It is asked about again when ``unknown_for`` is over, and not before."""
    assert not trust().is_due(unknown(ADA, NOW - age), NOW, age)
