"""Runs seeds, one after another or in several processes, and adds up what happened in them."""

from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from multiprocessing import get_context
from typing import NamedTuple

from tests.simulation import mistakes_in_memory, mistakes_in_reading, mistakes_in_store  # noqa: F401 -- mutations list themselves
from tests.simulation.history import History
from tests.simulation.mutations import MUTATIONS, switched_off
from tests.simulation.world import World, listen_for_errors

TOGETHER = 25
"""Seeds that a process is given at a time."""


class Failure(NamedTuple):
    """A seed whose run broke a promise."""

    seed: int
    why: str


@dataclass
class Sum:
    """What happened in many runs."""

    seeds: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def note(self, seed: int, history: History) -> None:
        """Add what happened in the run of ``seed``."""
        self.seeds += 1
        self.counts.update(history.counts)
        if history.broken is not None:
            self.failures.append(Failure(seed, history.broken))

    def add(self, other: "Sum") -> None:
        """Add what happened in other runs."""
        self.seeds += other.seeds
        self.counts.update(other.counts)
        self.failures += other.failures


def history_of(seed: int, *, written: bool, promise: str | None = None) -> History:
    """Run one seed, minding one ``promise`` or all."""
    world = World(seed, written=written, promise=promise)
    world.run()
    return world.history


def run(seeds: range) -> Sum:
    """Run ``seeds`` one after another."""
    found = Sum()
    for seed in seeds:
        found.note(seed, history_of(seed, written=False))
    return found


def run_mutated(seeds: range, title: str) -> Sum:
    """Run ``seeds`` with one rule switched off, until one of them breaks the promise that needs it."""
    found, change = Sum(), MUTATIONS[title][0]
    with switched_off(title):
        for seed in seeds:
            found.note(seed + change.skipped, history_of(seed + change.skipped, written=False, promise=change.breaks))
            if found.failures:
                break
    return found


def processes(jobs: int) -> ProcessPoolExecutor:
    """Return processes that are ready to run seeds."""
    return ProcessPoolExecutor(jobs, get_context("spawn"), listen_for_errors)


def run_in_processes(seeds: range, jobs: int) -> Iterator[Sum]:
    """Run ``seeds`` in ``jobs`` processes; yield the sums of some of them at a time, in order."""
    parts = (seeds[start : start + TOGETHER] for start in range(0, len(seeds), TOGETHER))
    with processes(jobs) as pool:
        under_way = deque(pool.submit(run, part) for part in islice(parts, 4 * jobs))
        while under_way:
            yield under_way.popleft().result()
            under_way.extend(pool.submit(run, part) for part in islice(parts, 1))


def run_mutations(titles: list[str], seeds: range, jobs: int) -> Iterator[tuple[str, Sum]]:
    """Run every mutation until a seed notices."""
    with processes(jobs) as pool:
        yield from zip(titles, pool.map(partial(run_mutated, seeds), titles), strict=True)
