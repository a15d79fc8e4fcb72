"""What TERM and Ctrl-C do."""

import signal
from collections.abc import Iterator

import pytest

from sidecar.signals import ENDING, end_at_once, end_well


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Handlers are the process's: leave them as they were."""
    handlers = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("status", "left"), [(0, [0, 0]), (None, [143, 130])])
def test_before_there_is_anything_to_end_the_process_just_leaves(status: int | None, left: list[int]) -> None:
    """With the status that was chosen, or the one that tells which signal it was."""
    statuses: list[int] = []
    end_at_once(status, leave=statuses.append)
    for number in ENDING:
        signal.raise_signal(number)
    assert statuses == left


@pytest.mark.parametrize("number", ENDING)
def test_one_that_came_before_python_was_awake_is_let_in(number: signal.Signals) -> None:
    """The image starts the process with both blocked, so that they wait instead of being lost."""
    statuses: list[int] = []
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        signal.raise_signal(number)
        end_at_once(0, leave=statuses.append)
        assert statuses == [0]
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(ENDING)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


@pytest.mark.parametrize("first", ENDING)
@pytest.mark.parametrize("second", ENDING)
def test_the_first_is_asked_for_the_second_is_not(first: signal.Signals, second: signal.Signals) -> None:
    """Whichever of the two they are."""
    events: list[int] = []
    end_well(lambda: events.append(0), leave=events.append)
    signal.raise_signal(first)
    assert events == [0]
    signal.raise_signal(second)
    assert events == [0, 128 + second]
