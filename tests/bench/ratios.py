"""The ratios that later work must not give away, and the rule by which they are compared with recorded ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.contestants import BARE, NGINX, OURS, PLAIN
from tests.bench.table import THEIRS

TOLERANCE = 0.15
"""How much a ratio may fall below the recorded one."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two lines of a contest that are compared, by requests a second and by processor time of a request."""

    contest: str
    ours: str
    theirs: str

    @property
    def name(self) -> str:
        """What is compared."""
        return f"{self.contest}: {self.ours} / {self.theirs}"


SHAPES = ("100 customers × 10 keys", "1000 customers")
PAIRS = (
    *(Pair("check", OURS, other) for other in (NGINX, PLAIN, BARE)),
    *(Pair("crowd", OURS, other) for other in (NGINX, PLAIN)),
    *(Pair("list", OURS, other) for other in (NGINX, BARE)),
    *(Pair("batch", f"{OURS}, {shape}", f"{PLAIN}, {shape}") for shape in SHAPES),
    *(Pair("batch", f"{OURS}, {shape}", BARE) for shape in SHAPES),
)


@dataclass(frozen=True, slots=True)
class Ratio:
    """How we stand to another: larger is better. ``is_noisy`` when somebody else used the cores meanwhile."""

    value: float
    is_noisy: bool


Ratios = dict[str, Ratio]


def ratios_in(numbers: Mapping[str, Mapping[str, Any]]) -> Ratios:
    """Return the ratios in these numbers, which are by contest and line; those who were absent have none."""
    found = {}
    for pair in PAIRS:
        lines = numbers.get(pair.contest, {})
        if pair.ours in lines and pair.theirs in lines:
            ours, theirs = lines[pair.ours], lines[pair.theirs]
            is_noisy = max(ours["theirs"], theirs["theirs"]) > THEIRS
            found[f"{pair.name}, requests/s"] = Ratio(ours["rate"] / theirs["rate"], is_noisy)
            found[f"{pair.name}, by processor time"] = Ratio(theirs["cpu_us"] / ours["cpu_us"], is_noisy)
    return found


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the recorded ratios: those that fell, that could not be judged for noise, that nobody measured."""

    fallen: Sequence[str] = ()
    unsure: Sequence[str] = ()
    missing: Sequence[str] = ()

    @property
    def is_clear(self) -> bool:
        """Whether another try would change nothing: all that was measured could be judged, and held."""
        return not self.fallen and not self.unsure


def judged(recorded: Mapping[str, float], runs: Sequence[Ratios]) -> Verdict:
    """Compare with the best of the runs in which a ratio could be measured without noise.

    Noise is no reason to pass either: who is fastest loses most by it, so that every ratio to them looks better.
    """
    fallen, unsure, missing = [], [], []
    for name, was in recorded.items():
        found = [run[name] for run in runs if name in run]
        quiet = [ratio.value for ratio in found if not ratio.is_noisy]
        if not found:
            missing.append(name)
        elif not quiet:
            unsure.append(name)
        elif max(quiet) < was * (1 - TOLERANCE):
            fallen.append(f"{name}: {max(quiet):.3f}, recorded {was:.3f} ({max(quiet) / was - 1:+.0%})")
    return Verdict(fallen, unsure, missing)
