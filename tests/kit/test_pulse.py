"""How late the event loop runs."""

import asyncio

import pytest

from sidecar.kit.pulse import Pulse
from tests.fakes import FakeClock
from tests.kit.virtual import play


async def beaten(pulse: Pulse, seconds: float, late: FakeClock | None = None, by: float = 0.0) -> None:
    """Let it beat for so long; if a clock is given, something blocks the loop ``by`` seconds in the last second."""
    async with asyncio.TaskGroup() as group:
        beating = group.create_task(pulse.beat())
        await asyncio.sleep(seconds)
        if late is not None:
            late.advance(by)
            await asyncio.sleep(1)
        beating.cancel()


def test_a_loop_on_time_has_no_lag(clock: FakeClock) -> None:
    """Sleepers woken when they asked to be leave nothing to report."""
    pulse = Pulse(clock, every=1)
    play(clock, beaten(pulse, 10.5))
    assert pulse.lag == pytest.approx(0, abs=1e-5)
    assert pulse.overdue() == pytest.approx(0, abs=1e-5)


def test_lag_is_how_late_a_sleeper_wakes(clock: FakeClock) -> None:
    """A call that blocks for three seconds delays the next beat by three."""
    pulse = Pulse(clock, every=1)
    play(clock, beaten(pulse, 0.5, clock, by=3))
    assert pulse.lag == pytest.approx(3, abs=1e-5)
    assert pulse.overdue() == pytest.approx(3, abs=1e-5)


def test_one_beat_on_time_forgives(clock: FakeClock) -> None:
    """The lag is the last beat's, not the worst's."""
    pulse = Pulse(clock, every=1)

    async def story() -> None:
        await beaten(pulse, 0.5, clock, by=3)
        await beaten(pulse, 1.5)

    play(clock, story())
    assert pulse.lag == pytest.approx(0, abs=1e-5)


def test_a_loop_that_hangs_is_seen_before_it_wakes(clock: FakeClock) -> None:
    """What has not beaten when it should is overdue already; no beat has to come first."""
    pulse = Pulse(clock, every=1)
    assert pulse.overdue() == 0
    clock.advance(6)
    assert pulse.overdue() == 5
    assert pulse.lag == 0
