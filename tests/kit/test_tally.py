"""A histogram of plain integers."""

import doctest
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.kit import tally
from sidecar.kit.tally import Tally

NUMBERS = st.floats(-1e6, 1e6)


def test_the_example_in_its_docstring_is_true() -> None:
    """What the class shows is what it does."""
    assert doctest.testmod(tally) == (0, 3)


def test_a_new_tally_has_counted_nothing() -> None:
    """Every bound is listed from the start, infinity last."""
    fresh = Tally([1, 2])
    assert (fresh.cumulative(), fresh.sum) == ([(1, 0), (2, 0), (inf, 0)], 0.0)


def test_a_bound_is_inclusive() -> None:
    """What equals a bound is below it."""
    ages = Tally([1, 2])
    ages.add(1)
    assert ages.cumulative() == [(1, 1), (2, 1), (inf, 1)]


@given(st.lists(NUMBERS, unique=True, max_size=6).map(sorted), st.lists(NUMBERS), st.lists(NUMBERS))
def test_it_counts_as_a_list_would(bounds: list[float], alone: list[float], together: list[float]) -> None:
    """The number at or below each bound, and the sum, are those of the list of all observations."""
    counted, values = Tally(bounds), alone + together
    for value in alone:
        counted.add(value)
    counted.add_all(together)
    assert counted.cumulative() == [(bound, sum(value <= bound for value in values)) for bound in (*bounds, inf)]
    assert counted.sum == pytest.approx(sum(values), abs=1e-3)
