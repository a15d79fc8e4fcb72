"""Has the contests held: every server stays up, and each line of a table has its turn in each round.

So what else the machine does spoils one round of each rather than all of one.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

from tests.bench.contests import Contest, Entry
from tests.bench.load import Asking, Load, Round
from tests.bench.questions import Question
from tests.bench.servers import Absent, Server, Stage
from tests.bench.table import Row, Section, cells, paced_cells, warnings

WARMING = 120
"""Seconds that a server gets to learn of the crowd."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is asked."""

    rounds: int = 3
    seconds: int = 1
    connections: int = 32
    warm_up: int = 1
    """Seconds under load before the first round."""


@dataclass(slots=True)
class Measuring:
    """Measures one contest after the other on a stage."""

    stage: Stage
    asking: Asking
    effort: Effort
    say: Callable[[str], None]
    warmed: set[tuple[int, str]] = field(default_factory=set)
    """Which process was under load with which question before."""

    def rounds_of(self, contest: Contest) -> tuple[dict[str, list[Round]], list[str]]:
        """Hold a contest; return every line's rounds, and who could not take part and why."""
        present, absent = self._present(contest.entries)
        found: dict[str, list[Round]] = {entry.name: [] for entry, _ in present}
        connections = contest.connections or self.effort.connections
        for entry, server in present:
            self.say(f"{contest.title}: warming {entry.name}")
            self.warm(entry.question, server)
            if self.effort.warm_up and self._is_new(server, entry.question):
                load = replace(entry.load(connections, self.effort.warm_up), rate=None, plainly=True)
                _ = self.asking.ask(server, entry.question, load)
        for turn in range(self.effort.rounds):
            for entry, server in present:
                self.say(f"{contest.title}: round {turn + 1} of {self.effort.rounds}: {entry.name}")
                load = entry.load(connections, self.effort.seconds)
                found[entry.name].append(self.asking.ask(server, entry.question, load))
                _ = server.verify(entry.question, over_unix=entry.over_unix)
        return found, absent

    def _is_new(self, server: Server, question: Question) -> bool:
        """Note the question; tell whether this server never had it."""
        known, name = len(self.warmed), (server.pid, question.paths[-1] + question.body)
        self.warmed.add(name)
        return len(self.warmed) > known

    def _present(self, entries: Sequence[Entry]) -> tuple[list[tuple[Entry, Server]], list[str]]:
        present, absent = [], []
        for entry in entries:
            self.say(f"starting {entry.name}")
            try:
                present.append((entry, entry.server(self.stage)))
            except Absent as why:
                absent.append(f"Not measured: {entry.name}: {why}.")
        return present, absent

    def warm(self, question: Question, server: Server) -> None:
        """Have all that is needed asked once; nothing that is asked later leaves the server."""
        if len(question.to_warm.paths) > 1:
            load = Load(self.effort.connections, WARMING, once=True)
            _ = self.asking.ask(server, question.to_warm, load)
        server.await_right(question)


def section_of(contest: Contest, rounds: dict[str, list[Round]], absent: list[str], *, one_core: bool) -> Section:
    """Return a contest's table."""
    decisions = {entry.name: entry.question.decisions for entry in contest.entries}
    rows = [Row.of(name, found, decisions[name]) for name, found in rounds.items()]
    is_paced = any(row.wanted_rate for row in rows)
    texts = [paced_cells(row) if is_paced else cells(row, rows, contest.against) for row in rows]
    cautions = [] if one_core else warnings(rows, is_paced=is_paced)
    return Section(
        contest.name,
        contest.title,
        list(texts[0]),
        [list(text.values()) for text in texts],
        [*cautions, *absent],
        {row.name: {**asdict(row), "rounds": [asdict(one) for one in rounds[row.name]]} for row in rows},
    )
