"""The phases of the process."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sidecar.kit.lifecycle import Lifecycle, Phase
from tests.fakes import FakeClock


def test_it_begins_with_starting(clock: FakeClock) -> None:
    """A process starts when it is made."""
    lifecycle = Lifecycle(clock)
    assert (lifecycle.phase, lifecycle.since, lifecycle.started_at) == (Phase.STARTING, clock.now, clock.now)


def test_a_phase_has_a_beginning(clock: FakeClock) -> None:
    """``since`` is when the present phase was entered; when the process started stays what it was."""
    lifecycle = Lifecycle(clock)
    born = clock.now
    clock.advance(5)
    lifecycle.enter(Phase.SERVING)
    assert (lifecycle.phase, lifecycle.since, lifecycle.started_at) == (Phase.SERVING, born + 5, born)


def test_entering_the_same_phase_again_changes_nothing(clock: FakeClock) -> None:
    """Two signals to stop are one."""
    lifecycle = Lifecycle(clock)
    lifecycle.enter(Phase.DRAINING)
    since = lifecycle.since
    clock.advance(5)
    lifecycle.enter(Phase.DRAINING)
    assert lifecycle.since == since


@given(st.lists(st.sampled_from(Phase)))
def test_it_never_goes_back(phases: list[Phase]) -> None:
    """Whatever is entered in whatever order, the phase is the furthest of them."""
    lifecycle = Lifecycle(FakeClock())
    seen = [lifecycle.phase]
    for phase in phases:
        lifecycle.enter(phase)
        seen.append(lifecycle.phase)
    assert all(before <= after for before, after in pairwise(seen))
    assert lifecycle.phase == max(phases, default=Phase.STARTING)
