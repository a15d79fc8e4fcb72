"""``make bench``: this sidecar and what could stand in its place, asked in turn on one core, in tables.

Servers run on one core and the load generator on another, where there are two.
"""

import argparse
import sys

from tests.bench import news, start
from tests.bench.contestants import stripe
from tests.bench.contests import CONTESTS
from tests.bench.load import Asking
from tests.bench.measuring import Effort, Measuring, section_of
from tests.bench.running import Running, at_least_one, completed, options_of
from tests.bench.servers import count_of_lists
from tests.bench.table import Section

OTHERS = {"news": news.measured, "start": start.measured}
"""What is measured in other ways than by load."""
NAMES = (*(contest.name for contest in CONTESTS), *OTHERS)


def measure(options: argparse.Namespace, running: Running) -> list[Section]:
    """Measure what is wanted."""
    stage = running.stage
    effort = Effort(options.rounds, options.seconds, options.connections, options.warm_up)
    wanted = options.only or NAMES
    running.console.print(
        f"{effort.rounds} × {effort.seconds} s for each line, {effort.connections} connections (batch: 4)."
    )
    measuring = Measuring(stage, Asking(stage.cores, stage.folder), effort, running.say)
    sections = []
    for contest in CONTESTS:
        if contest.name in wanted:
            rounds, absent = measuring.rounds_of(contest)
            sections.append(section_of(contest, rounds, absent, one_core=stage.cores.is_one))
    lists = count_of_lists(stripe(stage).port)
    sections += [play(stage, effort, running.say) for name, play in OTHERS.items() if name in wanted]
    running.console.print(
        f"No answer was an error, no connection broke; the built-in Stripe was asked {lists:,} times."
    )
    return sections


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = options_of("tests.bench", __doc__)
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="TABLE", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=at_least_one, default=3, help="how often each line has its turn (3)")
    parser.add_argument("--seconds", type=at_least_one, default=1, help="how long a turn takes (1)")
    parser.add_argument("--connections", type=at_least_one, default=32, help="keep-alive connections (32)")
    parser.add_argument("--warm-up", type=int, default=1, help="seconds under load before a line's first turn (1)")
    return completed(parser.parse_args(), measure)


if __name__ == "__main__":
    sys.exit(main())
