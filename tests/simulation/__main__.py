"""``python -m tests.simulation``: many made-up histories, each of which has to keep every promise of DESIGN §5.6.

A seed that breaks one is replayed with ``--seed``, which prints its history; ``--mutate`` switches rules of the product
off, to see that this is noticed.
"""

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from tests.simulation import situations
from tests.simulation.mutations import MUTATIONS
from tests.simulation.runner import Sum, history_of, run_in_processes, run_mutations
from tests.simulation.world import listen_for_errors

MOST_FAILURES = 5
COMMAND = "python -m tests.simulation"


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=2000, help="how many seeds (2000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--jobs", type=int, default=2, help="in how many processes (2)")
    parser.add_argument("--seed", type=int, help="this one alone, with its history")
    parser.add_argument(
        "--mutate", choices=["all", *MUTATIONS], help="with this rule switched off, until a seed notices"
    )
    return parser.parse_args(words)


def replay(seed: int, console: Console) -> int:
    """Run one seed and print what happened."""
    listen_for_errors()
    history = history_of(seed, written=True)
    for line in history.lines:
        console.print(line)
    console.print(history.broken or "every promise was kept")
    return int(history.broken is not None)


def simulate(seeds: range, jobs: int, console: Console) -> int:
    """Run ``seeds``; print what they were like, and the history of the first that broke a promise."""
    found = Sum()
    for part in run_in_processes(seeds, jobs):
        before = found.seeds * 10 // len(seeds)
        found.add(part)
        if found.seeds * 10 // len(seeds) > before:
            console.print(f"{found.seeds} of {len(seeds)} seeds, {found.counts['answers']} answers judged")
        if len(found.failures) >= MOST_FAILURES:
            break
    for situation in sorted(found.counts):
        console.print(f"{found.counts[situation]:>12}  {situation}")
    if found.failures:
        listen_for_errors()
        _ = replay(found.failures[0].seed, console)
        for failure in found.failures:
            console.print(f"\nBROKEN by {COMMAND} --seed {failure.seed}\n{failure.why}")
        return 1
    never = situations.missing(found.counts)
    if never and len(seeds) >= situations.ENOUGH:
        console.print("These never happened:", ", ".join(never))
        return 1
    console.print(f"{found.seeds} histories kept every promise.")
    return 0


def mutate(titles: list[str], seeds: range, jobs: int, console: Console) -> int:
    """Run each mutation until a seed notices; say which one, or that none did."""
    missed = 0
    for title, found in run_mutations(titles, seeds, jobs):
        if found.failures:
            console.print(f"noticed {title} by seed {found.failures[0].seed}: {found.failures[0].why[:100]}")
        else:
            console.print(f"MISSED {title} in {found.seeds} seeds")
            missed = 1
    return missed


def main() -> int:
    """Do what the command line says; 1 if a promise was broken, or a mistake went unnoticed."""
    asked = arguments()
    console = Console(soft_wrap=True, markup=False, highlight=False, emoji=False)
    seeds = range(asked.first, asked.first + asked.seeds)
    if asked.seed is not None:
        return replay(asked.seed, console)
    if asked.mutate is not None:
        titles = list(MUTATIONS) if asked.mutate == "all" else [asked.mutate]
        return mutate(titles, seeds, asked.jobs, console)
    return simulate(seeds, asked.jobs, console)


if __name__ == "__main__":
    sys.exit(main())
