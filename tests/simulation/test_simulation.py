"""The promises of DESIGN §5.6, held in many made-up histories; and each is noticed when a rule behind it is missing."""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.simulation import runner  # noqa: F401 -- mutations list themselves
from tests.simulation.mutations import MUTATIONS

ROOT = Path(__file__).parents[2]
SEEDS = os.environ.get("SIMULATION_SEEDS", "2000")
SEEDS_PER_MUTATION = ("--first", "20000", "--seeds", "3000")


def simulation(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command, without the coverage that would make it several times slower."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    command = [sys.executable, "-m", "tests.simulation", *words]
    return subprocess.run(  # noqa: S603 -- ours
        command, cwd=ROOT, env={**inherited, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(900)
def test_every_promise_is_kept() -> None:
    """Whatever Stripe, the network, callers and restarts do, no answer says what its age does not cover."""
    done = simulation("--seeds", SEEDS)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr


@pytest.mark.parametrize("seed", ["0", "7"])
def test_a_seed_is_one_history(seed: str) -> None:
    """A seed that fails can be replayed: same seed, same history, whatever the hash seed of the process."""
    first, second = (simulation("--seed", seed, PYTHONHASHSEED=hashes) for hashes in ("1", "2"))
    assert first.returncode == 0, first.stdout[-20_000:] + first.stderr
    assert len(first.stdout.splitlines()) > 100
    assert first.stdout == second.stdout


@cache
def noticed() -> dict[str, str]:
    """Return by which mutation which promise was seen to be broken; all in one go, as each process costs a second."""
    done = simulation("--mutate", "all", *SEEDS_PER_MUTATION)
    assert not done.stderr, done.stderr
    return dict(re.findall(r"^noticed (\S+) by seed \d+: ([^:]+):", done.stdout, re.MULTILINE))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("title", MUTATIONS)
def test_a_missing_rule_is_noticed(title: str) -> None:
    """Without one of the product's rules, some history breaks the promise that rests on it."""
    assert noticed().get(title) == MUTATIONS[title][0].breaks
