"""``python -m tests.fuzz``: many made-up requests, each answered with shortcuts and by aiohttp alone, and no difference.

A seed is 500 connections, one after the other; one that shows a difference is played again with ``--seed``.
"""

import argparse
import sys
from collections.abc import Sequence
from time import perf_counter

from rich.console import Console

from tests.fuzz.judge import PER_SEED, judge_seed

COMMAND = "python -m tests.fuzz"


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=100_000, help="how many connections (100000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--seed", type=int, help=f"this one alone: {PER_SEED} connections")
    return parser.parse_args(words)


def fuzz(seeds: range, console: Console) -> int:
    """Judge ``seeds``, up to the first that shows a difference, and say how many requests that were."""
    began, answers, shortcuts = perf_counter(), 0, 0
    for done, seed in enumerate(seeds):
        judge, found = judge_seed(seed)
        answers, shortcuts = answers + judge.answers, shortcuts + judge.shortcuts
        if found is not None:
            said, different = found
            console.print(f"DIFFERENT in seed {seed}: {COMMAND} --seed {seed}", markup=False)
            console.print(f"{said}\n{different}", markup=False, highlight=False)
            return 1
        if (done + 1) * 20 // len(seeds) > done * 20 // len(seeds):
            console.print(f"{(done + 1) * PER_SEED} connections, {answers} answers, {perf_counter() - began:.0f} s")
    console.print(f"No difference in {answers} answers; {shortcuts} times a shortcut was taken.")
    return 0


if __name__ == "__main__":
    given = arguments()
    first = range(given.first, given.first + max(1, given.cases // PER_SEED))
    sys.exit(fuzz(first if given.seed is None else range(given.seed, given.seed + 1), Console()))
