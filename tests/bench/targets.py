"""What the benchmark has to show, and what it does show: one line for each target of the design."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tests.bench.contestants import BARE, NGINX, OURS, PLAIN

Kept = dict[str, Any]
FULL = "this sidecar, 1,000,000 customers"
WAIT, TRIP = "a change at Stripe, until a check says so", "a round trip to the built-in Stripe"


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on one number."""

    what: str
    bound: float
    measure: Callable[[Kept], float]
    """Raises ``KeyError`` when that was not measured."""
    unit: str = ""
    at_most: bool = False

    def cells(self, found: Kept) -> list[str]:
        """Return what is wanted, what was measured, and whether that is enough."""
        wanted = f"{'≤' if self.at_most else '≥'} {self.bound:,}{self.unit}"
        with suppress(KeyError):
            value = self.measure(found)
            is_met = value <= self.bound if self.at_most else value >= self.bound
            shown = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
            return [self.what, wanted, f"{shown}{self.unit}", "met" if is_met else "**missed**"]
        return [self.what, wanted, "not measured", "–"]


def ratio(section: str, to: str, number: str) -> Callable[[Kept], float]:
    """Return what gives the sidecar's number as a multiple of another's."""

    def measure(found: Kept) -> float:
        numbers = found[section]["numbers"]
        return float(numbers[OURS][number] / numbers[to][number])

    return measure


def number_at(section: str, row: str, number: str, scale: float = 1.0) -> Callable[[Kept], float]:
    """Return what gives one number, divided by ``scale``."""
    return lambda found: float(found[section]["numbers"][row][number] / scale)


def decisions(shape: str) -> Callable[[Kept], float]:
    """Return what gives the decisions a second of batches of a shape."""

    def measure(found: Kept) -> float:
        row = found["batch"]["numbers"][f"{OURS}, {shape}"]
        return float(row["rate"] * row["decisions"])

    return measure


def beyond_stripe(found: Kept) -> float:
    """Return how long news took at the 99th percentile, less a median round trip to Stripe."""
    numbers = found["news"]["numbers"]
    return float(numbers[WAIT]["p99_ms"] - numbers[TRIP]["p50_ms"])


TARGETS = (
    Target("check hit, requests/s, nginx `proxy_cache` = 1", 1.1, ratio("check", NGINX, "rate")),
    Target("check hit, requests/s, plain aiohttp + TTLCache = 1", 3.0, ratio("check", PLAIN, "rate")),
    Target("check hit, requests/s, bare asyncio protocol = 1", 0.8, ratio("check", BARE, "rate")),
    Target("check hit, p99, nginx `proxy_cache` = 1", 1.5, ratio("check", NGINX, "p99_us"), at_most=True),
    Target("batch of 100 customers × 10 keys, decisions/s", 1_000_000, decisions("100 customers × 10 keys")),
    Target("batch of 1000 customers, decisions/s", 1_000_000, decisions("1000 customers")),
    Target(
        "memory, idle",
        60,
        number_at("start", "this sidecar, 0 customers", "resident_bytes", 1e6),
        " MB",
        at_most=True,
    ),
    Target(
        "memory, a customer with 5 entitlements, at 1,000,000",
        1024,
        number_at("memory", "1,000,000", "bytes_a_customer"),
        " bytes",
        at_most=True,
    ),
    Target(
        "start to first answer, 1,000,000 customers, bare aiohttp = 1",
        2.0,
        number_at("restart", FULL, "ratio"),
        at_most=True,
    ),
    Target("news to new answer, p99, beyond one Stripe round trip", 50, beyond_stripe, " ms", at_most=True),
)


def table(found: Kept) -> str:
    """Return the targets as Markdown."""
    lines = ["| | target | measured | |", "|---|--:|--:|---|"]
    return "\n".join([*lines, *("| " + " | ".join(target.cells(found)) + " |" for target in TARGETS)])
