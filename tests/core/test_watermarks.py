"""Up to when the feed has seen every change."""

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.watermarks import Watermarks
from sidecar.model import KEPT_SPANS, Customer, Dirty, Span
from tests.core.fetching import ADA, BOB, held, unknown


@pytest.fixture
def watermarks() -> Watermarks:
    """The key's own account was read without a gap from 100 to 200."""
    found = Watermarks()
    found.begin(None, 100.0)
    found.advance(None, 200.0)
    return found


class TestTheWatermark:
    def test_without_a_feed_there_is_none(self) -> None:
        """An account that nobody reads has no watermark; the key's own vouches for nothing then."""
        assert Watermarks().until(None) is None
        assert Watermarks().own == (-inf, -inf)
        assert Watermarks({None: (Span(1.0, 2.0), Span(3.0, 4.0)), "acct_1": (Span(5.0, 6.0),)}).own == (3.0, 4.0)

    def test_it_begins_where_the_reading_did(self) -> None:
        """At its beginning a span is empty."""
        watermarks = Watermarks()
        watermarks.begin(None, 100.0)
        assert watermarks.until(None) == 100.0

    def test_it_only_goes_forward(self, watermarks: Watermarks) -> None:
        """What was known once stays known."""
        assert watermarks.until(None) == 200.0
        watermarks.advance(None, 150.0)
        assert watermarks.until(None) == 200.0
        watermarks.advance(None, 250.0)
        assert (watermarks.until(None), watermarks.own) == (250.0, (100.0, 250.0))

    def test_each_account_has_its_own(self, watermarks: Watermarks) -> None:
        """Reading one account's events tells nothing of another's."""
        assert watermarks.until("acct_1") is None
        watermarks.begin("acct_1", 10.0)
        watermarks.advance("acct_1", 20.0)
        assert (watermarks.until("acct_1"), watermarks.until(None)) == (20.0, 200.0)
        assert watermarks.own == (100.0, 200.0)
        assert watermarks.verified_at(held(BOB, 15.0)) == 20.0
        assert watermarks.verified_at(held(Customer("cus_carl", "acct_2"), 15.0)) == 15.0


class TestVouching:
    @pytest.mark.parametrize(
        ("taken_at", "verified_at"),
        [(99.0, 99.0), (100.0, 200.0), (150.0, 200.0), (200.0, 200.0), (201.0, 201.0)],
    )
    def test_it_is_for_lists_taken_since_the_span_began(
        self, watermarks: Watermarks, taken_at: float, verified_at: float
    ) -> None:
        """An older list may have missed a change; a younger one is as young as it is."""
        assert watermarks.verified_at(held(ADA, taken_at)) == verified_at

    def test_a_second_span_makes_nothing_of_the_first_younger(self, watermarks: Watermarks) -> None:
        """After a gap the old lists stay as young as they were; those from the gap count from when they were taken."""
        watermarks.begin(None, 300.0)
        watermarks.advance(None, 400.0)
        of = {taken_at: watermarks.verified_at(held(ADA, taken_at)) for taken_at in (99.0, 150.0, 250.0, 300.0, 350.0)}
        assert of == {99.0: 99.0, 150.0: 200.0, 250.0: 250.0, 300.0: 400.0, 350.0: 400.0}

    def test_it_is_never_for_dirty_lists(self, watermarks: Watermarks) -> None:
        """A list that changed is no younger for what is read later of others' changes."""
        dirty = replace(held(ADA, 150.0), dirty=Dirty(heard_at=190.0, verified_at=160.0))
        watermarks.advance(None, 1000.0)
        assert watermarks.verified_at(dirty) == 160.0

    def test_it_is_never_for_unknown_customers(self, watermarks: Watermarks) -> None:
        """A customer may be made without an event that the feed reads."""
        assert watermarks.verified_at(unknown(ADA, 150.0)) == 150.0

    def test_spans_are_bounded(self) -> None:
        """A list from before all that are remembered is as old as it is: older than it was, never younger."""
        watermarks = Watermarks()
        for number in range(KEPT_SPANS):
            watermarks.begin(None, number * 10.0)
            watermarks.advance(None, number * 10.0 + 5)
        assert watermarks.verified_at(held(ADA, 1.0)) == 5.0
        watermarks.begin(None, KEPT_SPANS * 10.0)
        assert watermarks.verified_at(held(ADA, 1.0)) == 1.0
        assert watermarks.verified_at(held(ADA, 11.0)) == 15.0


# --- whatever a feed does -----------------------------------------------------------------------------------------

LAG = 30.0

polls = st.lists(
    st.tuples(st.floats(0.5, 500.0), st.sampled_from(["complete", "complete", "complete", "failed", "gap"])),
    max_size=30,
).filter(lambda polls: sum(outcome == "gap" for _, outcome in polls) < KEPT_SPANS)


@given(polls, st.lists(st.floats(0.0, 5000.0), min_size=1, max_size=5))
def test_a_list_only_gets_better_known(polls: list[tuple[float, str]], moments: list[float]) -> None:
    """However polls end, no list's moment moves back; and it moves on only over time that was read without a gap."""
    watermarks, now = Watermarks(), 0.0
    read: list[tuple[float, float]] = []
    until: float | None = None
    lists = [held(ADA, moment) for moment in moments]
    before = moments
    for pause, outcome in polls:
        now += pause
        if outcome == "gap":
            until = None
        if outcome != "failed":
            reach = now - LAG
            if until is None:
                watermarks.begin(None, reach)
            watermarks.advance(None, reach)
            read.append((reach if until is None else until, reach))
            until = reach
        after = [watermarks.verified_at(one) for one in lists]
        assert after == [best_known(moment, read) for moment in moments]
        assert all(map(float.__le__, before, after))
        before = after


def best_known(moment: float, read: list[tuple[float, float]]) -> float:
    """Return where reading without a gap leads from ``moment``, step by step over what each poll has read."""
    for since, until in read:
        if since <= moment <= until:
            moment = until
    return moment
