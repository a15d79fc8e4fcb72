"""What was measured: for people as tables, on a terminal or in Markdown; for programs as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tests.bench.load import Round

WIDTH = 150
FULL = 0.9
"""Share of a core from which on whoever runs there is the limit."""
THEIRS = 0.05
"""Share of the cores from which on it matters that somebody else used them."""
KEPT = 0.99
"""Share of the questions of a fixed rate that have to be answered for the rate to count as kept."""


@dataclass(frozen=True, slots=True)
class Section:
    """One table, what stands below it, and the numbers in it."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    numbers: dict[str, Any] = field(default_factory=dict)

    def show(self, console: Console) -> None:
        """Print it."""
        table = Table(box=box.SIMPLE_HEAD, title=self.title, title_justify="left")
        for at, title in enumerate(self.columns):
            table.add_column(title.replace(", ", "\n", 1), justify="right" if at else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        console.print(table)
        for note in self.notes:
            console.print(note, soft_wrap=True)

    def markdown(self) -> str:
        """Return it as Markdown."""
        lines = ["| " + " | ".join(self.columns) + " |", "|---|" + "--:|" * (len(self.columns) - 1)]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join([*lines, *(part for note in self.notes for part in ("", note))])


@dataclass(frozen=True, slots=True)
class Row:
    """One server's rounds, summed up: medians, and how far requests a second were apart."""

    name: str
    rate: float
    slowest: float
    fastest: float
    p50_us: float
    p99_us: float
    p999_us: float
    cpu_us: float
    resident_bytes: int
    server_busy: float
    load_busy: float
    theirs: float
    lag_p99_us: float
    wanted_rate: float | None
    decisions: int

    @classmethod
    def of(cls, name: str, rounds: Sequence[Round], decisions: int = 1) -> "Row":
        """Sum up."""
        rates = [one.rate for one in rounds]
        wanted = rounds[0].wanted
        return cls(
            name,
            rate=median(rates),
            slowest=min(rates),
            fastest=max(rates),
            p50_us=median(one.p50_us for one in rounds),
            p99_us=median(one.p99_us for one in rounds),
            p999_us=median(one.p999_us for one in rounds),
            cpu_us=median(one.cpu_us for one in rounds),
            resident_bytes=rounds[-1].resident_bytes,
            server_busy=median(one.server_busy for one in rounds),
            load_busy=median(one.load_busy for one in rounds),
            theirs=median(one.theirs for one in rounds),
            lag_p99_us=median(one.lag_p99_us for one in rounds),
            wanted_rate=None if wanted is None else wanted / rounds[0].seconds,
            decisions=decisions,
        )

    @property
    def is_outpaced(self) -> bool:
        """Whether the load generator was the limit."""
        return self.load_busy >= FULL

    @property
    def is_crowded(self) -> bool:
        """Whether something else used the cores."""
        return self.theirs > THEIRS

    @property
    def is_kept_up(self) -> bool:
        """Whether all that was to be asked was answered."""
        return self.wanted_rate is None or self.rate >= KEPT * self.wanted_rate


def cells(row: Row, rows: Sequence[Row], against: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the texts of a row by their headings."""
    known = {other.name: other for other in rows}
    ratios = {title: f"{row.rate / known[name].rate:.2f}" if name in known else "–" for title, name in against}
    decisions = {"decisions/s": f"{row.rate * row.decisions:,.0f}"} if row.decisions > 1 else {}
    return {
        "server": row.name,
        "requests/s, median (min–max)": f"{row.rate:,.0f} ({row.slowest:,.0f}–{row.fastest:,.0f})",
        **decisions,
        "p50, ms": f"{row.p50_us / 1e3:.2f}",
        "p99, ms": f"{row.p99_us / 1e3:.2f}",
        "server CPU, µs/request": f"{row.cpu_us:.1f}",
        **ratios,
        "RSS, MiB": f"{row.resident_bytes / 2**20:.0f}",
        "cores busy, server / load": f"{row.server_busy:.0%} / {row.load_busy:.0%}",
    }


def paced_cells(row: Row) -> dict[str, str]:
    """Return the texts of a row with a fixed rate; no latencies where the rate was too much, for they only grow."""
    latencies = {"p50, ms": row.p50_us, "p99, ms": row.p99_us, "p99.9, ms": row.p999_us}
    return {
        "rate: server": row.name,
        "answers/s": f"{row.rate:,.0f}",
        **{title: f"{value / 1e3:.2f}" if row.is_kept_up else "too much" for title, value in latencies.items()},
        "server CPU, µs/request": f"{row.cpu_us:.1f}",
        "server busy": f"{row.server_busy:.0%}",
        "generator late, p99, ms": f"{row.lag_p99_us / 1e3:.2f}" if row.is_kept_up else "–",
    }


def warnings(rows: Sequence[Row], *, is_paced: bool) -> list[str]:
    """Return what to know before believing the table; with fixed rates the load generator never sleeps."""
    outpaced = [row.name for row in rows if row.is_outpaced and not is_paced]
    crowded = [row.name for row in rows if row.is_crowded]
    found = []
    if outpaced:
        found.append(
            f"The load generator was the limit, so these can do more than the table says: {'; '.join(outpaced)}."
        )
    if crowded:
        most = max(row.theirs for row in rows)
        who = "all of these" if len(crowded) == len(rows) else "; ".join(crowded)
        found.append(f"Something else used the cores (up to {most:.0%}), so {who} can do more than the table says.")
    return found
