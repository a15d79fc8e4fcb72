"""How memory is handed out and taken back."""

import ctypes
import gc
import platform
from collections.abc import Iterator

import pytest

from sidecar import heap


class Library:
    """A C library that notes what it was told."""

    def __init__(self, answer: int) -> None:
        self.told: list[tuple[int, int]] = []
        self._answer = answer

    def mallopt(self, option: int, value: int) -> int:
        """Take note, and answer as one that can do it or not."""
        self.told.append((option, value))
        return self._answer


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """The collector is the process's: leave it as it was."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_large_blocks_get_maps_of_their_own_and_a_little_is_kept() -> None:
    """The limits are those that are meant, whatever was freed before."""
    library = Library(1)
    assert heap.set_up(library)
    assert library.told == [(-3, 1 << 20), (-1, 4 << 20)]


def test_a_library_that_cannot_do_it_is_left_alone() -> None:
    """It refuses, or has no such function, as musl has none; the sidecar works all the same."""
    assert not heap.set_up(Library(0))
    assert not heap.set_up(object())


def test_it_is_set_where_there_is_glibc() -> None:
    """In this very process; elsewhere there is nothing to set."""
    assert heap.set_up() is hasattr(ctypes.CDLL(None), "mallopt")
    assert heap.set_up() or platform.libc_ver()[0] != "glibc"


def test_only_what_is_young_is_looked_at_during_the_start() -> None:
    """Old objects would be looked at once more with every hundred thousand that a library brings."""
    _ = heap.set_up(Library(1))
    assert gc.isenabled()
    young, older, old = gc.get_threshold()
    assert young * older > 10_000_000
    assert young * old > 10_000_000


def test_what_is_there_at_the_start_is_not_looked_at_again() -> None:
    """What comes later is; a circle that is left behind goes."""
    heap.settle()
    assert gc.get_freeze_count() > 10_000
    assert gc.get_threshold() == (heap.YOUNG, 10, 10)
    circle: list[object] = []
    circle.append(circle)
    del circle
    assert gc.collect() >= 1
