"""What was measured: for people as a table, for programs as JSON."""

from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tests.bench.load import Round
from tests.bench.servers import BARE, NGINX

WIDTH = 126
FULL = 0.9
"""Share of a core from which on whoever runs there is the limit."""

COLUMNS = (
    "requests/s\nmedian (min–max)",
    "p50\nms",
    "p99\nms",
    "server CPU\nµs/request",
    "RSS\nMiB",
    "× nginx",
    "× bare",
    "cores busy, %\nserver / load",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One server's rounds, summed up: medians, and how far requests a second were apart."""

    name: str
    rate: float
    slowest: float
    fastest: float
    p50_us: float
    p99_us: float
    cpu_us: float
    resident_bytes: int
    server_busy: float
    load_busy: float

    @classmethod
    def of(cls, name: str, rounds: list[Round]) -> "Row":
        """Sum up."""
        rates = [one.rate for one in rounds]
        return cls(
            name,
            rate=median(rates),
            slowest=min(rates),
            fastest=max(rates),
            p50_us=median(one.p50_us for one in rounds),
            p99_us=median(one.p99_us for one in rounds),
            cpu_us=median(one.cpu_us for one in rounds),
            resident_bytes=rounds[-1].resident_bytes,
            server_busy=median(one.server_busy for one in rounds),
            load_busy=median(one.load_busy for one in rounds),
        )


def ratio(row: Row, to: str, rows: list[Row]) -> float | None:
    """Return requests a second as a multiple of those of the server called ``to``, if it was measured."""
    return next((row.rate / other.rate for other in rows if other.name == to), None)


def cells(row: Row, rows: list[Row]) -> list[str]:
    """Return a row's texts."""
    nginx, bare = (ratio(row, to, rows) for to in (NGINX, BARE))
    return [
        row.name,
        f"{row.rate:,.0f} ({row.slowest:,.0f}–{row.fastest:,.0f})",
        f"{row.p50_us / 1e3:.2f}",
        f"{row.p99_us / 1e3:.2f}",
        f"{row.cpu_us:.1f}",
        f"{row.resident_bytes / 2**20:.0f}",
        "–" if nginx is None else f"{nginx:.2f}",
        "–" if bare is None else f"{bare:.2f}",
        f"{row.server_busy:.0%} / {row.load_busy:.0%}".replace("%", ""),
    ]


def show(console: Console, rows: list[Row]) -> None:
    """Print the table."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("server", no_wrap=True)
    for title in COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*cells(row, rows))
    console.print(table)


def warnings(rows: list[Row]) -> list[str]:
    """Return what to know before believing the table."""
    outpaced = [row.name for row in rows if row.load_busy >= FULL]
    crowded = [row.name for row in rows if max(row.server_busy, row.load_busy) < FULL]
    found = []
    if outpaced:
        found.append(
            f"The load generator was the limit, so these can do more than the table says: {', '.join(outpaced)}."
        )
    if crowded:
        found.append(f"Something else used the cores, so these can do more than the table says: {', '.join(crowded)}.")
    return found


def as_json(rows: list[Row], rounds: dict[str, list[Round]]) -> list[dict[str, Any]]:
    """Return every number."""
    return [
        {
            **asdict(row),
            "ratio_to_nginx": ratio(row, NGINX, rows),
            "ratio_to_bare": ratio(row, BARE, rows),
            "rounds": [asdict(one) for one in rounds[row.name]],
        }
        for row in rows
    ]
