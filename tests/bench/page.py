"""Writes docs/benchmarks.md: its tables come from docs/benchmarks.json, where each measurement leaves its numbers.

``python -m tests.bench.page`` writes the page again from the numbers that are there; a test compares them.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench import targets
from tests.bench.machine import Machine
from tests.bench.table import Section

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE, NUMBERS = DOCS / "benchmarks.md", DOCS / "benchmarks.json"
MARKED = re.compile(r"(<!-- bench: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
COMMANDS = {"restart": "make bench-restart", "memory": "make bench-memory", "flat": "make bench-flat"}
"""What measures a section, where it is not ``make bench``."""

Kept = dict[str, Any]
"""Sections by name, each with the machine that it was measured on."""


def kept() -> Kept:
    """Return the numbers that the page shows."""
    return dict(json.loads(NUMBERS.read_text())) if NUMBERS.exists() else {}


def keep(sections: Iterable[Section], machine: Machine) -> None:
    """Keep these sections in place of older ones and write the page again."""
    found = kept()
    for section in sections:
        found[section.name] = {**without_rounds(asdict(section)), "machine": str(machine)}
    NUMBERS.write_text(json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    PAGE.write_text(rendered(PAGE.read_text(), found))


def without_rounds(value: Any) -> Any:
    """Leave out what only ``--json`` tells: every single round."""
    if isinstance(value, dict):
        return {name: without_rounds(part) for name, part in value.items() if name not in ("rounds", "all_seconds")}
    return value


def rendered(text: str, found: Kept) -> str:
    """Return ``text`` with what stands between the marks written anew."""
    return MARKED.sub(lambda match: f"{match[1]}{shown(match[2], found)}\n{match[3]}", text)


def shown(name: str, found: Kept) -> str:
    """Return a section as Markdown."""
    if name == "targets":
        return targets.table(found)
    command = COMMANDS.get(name, f"make bench ARGS='--only {name}'")
    if name not in found:
        return f"Not measured yet: `{command}`."
    kept_one = dict(found[name])
    machine = kept_one.pop("machine")
    return f"`{command}`: {machine}\n\n{Section(**kept_one).markdown()}"


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text(), kept()))
