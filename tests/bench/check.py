"""``make bench-check``: fails when a ratio is more than 15 % below the recorded one; ``make bench-record`` records.

Status 1 when a ratio fell, in two tries; 2 when nothing could be compared; 3 when the machine was too busy with other
things to tell. Ratios of one kind of machine say little on another: record where you check.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from tests.bench.contests import CONTESTS
from tests.bench.load import Asking
from tests.bench.measuring import Effort, Measuring, section_of
from tests.bench.processes import Failed
from tests.bench.ratios import PAIRS, Ratios, Verdict, judged, ratios_in
from tests.bench.running import Running, at_least_one, completed, options_of
from tests.bench.table import Section

RECORDED = Path(__file__).with_name("recorded.json")
FELL, NOTHING, NOISY = 1, 2, 3
TRIES = 2


def measured(running: Running, effort: Effort) -> tuple[Ratios, list[Section]]:
    """Hold the contests as far as ratios are taken from them."""
    stage = running.stage
    measuring = Measuring(stage, Asking(stage.cores, stage.folder), effort, running.say)
    names = {(pair.contest, name) for pair in PAIRS for name in (pair.ours, pair.theirs)}
    sections = []
    for contest in CONTESTS:
        entries = [entry for entry in contest.entries if (contest.name, entry.name) in names]
        if entries:
            rounds, absent = measuring.rounds_of(replace(contest, entries=entries))
            sections.append(section_of(contest, rounds, absent, one_core=stage.cores.is_one))
    return ratios_in({section.name: section.numbers for section in sections}), sections


def tried(recorded: dict[str, float], measure: Callable[[], Ratios]) -> Verdict:
    """Measure, and once more when a ratio has fallen or could not be judged."""
    runs: list[Ratios] = []
    verdict = Verdict(missing=list(recorded))
    while len(runs) < TRIES and not (runs and verdict.is_clear):
        runs.append(measure())
        verdict = judged(recorded, runs)
    return verdict


def status_of(verdict: Verdict, recorded: Sequence[str]) -> int:
    """Return the exit status."""
    if verdict.fallen:
        return FELL
    if len(verdict.missing) == len(recorded):
        return NOTHING
    return NOISY if verdict.unsure else 0


def said_of(verdict: Verdict) -> list[str]:
    """Return a verdict in words."""
    return [
        *(f"FELL {name}" for name in verdict.fallen),
        *(f"too noisy to judge: {name}" for name in verdict.unsure),
        *(f"not measured here: {name}" for name in verdict.missing),
    ]


def main() -> int:
    """Check or record, and return the exit status."""
    parser = options_of("tests.bench.check", __doc__)
    parser.add_argument("--rounds", type=at_least_one, default=3, help="how often each line has its turn (3)")
    parser.add_argument("--seconds", type=at_least_one, default=1, help="how long a turn takes (1)")
    parser.add_argument("--record", action="store_true", help="record these ratios")
    parser.add_argument("--though-noisy", action="store_true", help="record them whatever else used the cores")
    options = parser.parse_args()
    status = NOTHING

    def play(_: argparse.Namespace, running: Running) -> list[Section]:
        nonlocal status
        effort, sections = Effort(options.rounds, options.seconds), list[Section]()

        def measure() -> Ratios:
            found, held = measured(running, effort)
            sections[:] = held
            return found

        if options.record:
            record(measure(), running, though_noisy=options.though_noisy)
            status = 0
            return sections
        recorded = dict(json.loads(RECORDED.read_text())["ratios"])
        verdict = tried(recorded, measure)
        status = status_of(verdict, list(recorded))
        for line in said_of(verdict) or [f"All {len(recorded)} ratios are where they were."]:
            running.console.print(line, soft_wrap=True)
        return sections

    ended = completed(options, play)
    return NOTHING if ended == 1 else ended or status


def record(found: Ratios, running: Running, *, though_noisy: bool) -> None:
    """Write the ratios down.

    :raises Failed: when somebody else used the cores, unless that does not matter.
    """
    noisy = [name for name, ratio in found.items() if ratio.is_noisy]
    if noisy and not though_noisy:
        raise Failed(f"something else used the cores, so nothing is recorded: {'; '.join(noisy)}")
    document = {
        "machine": asdict(running.machine),
        "is_noisy": bool(noisy),
        "ratios": {name: round(ratio.value, 4) for name, ratio in found.items()},
    }
    RECORDED.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
