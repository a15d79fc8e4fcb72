"""What the benchmarks' commands share: a stage for their servers, where results go, and how they end."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from rich.console import Console

from tests.bench import page
from tests.bench.machine import Machine
from tests.bench.processes import Cores, Failed
from tests.bench.servers import Stage
from tests.bench.table import WIDTH, Section


@dataclass(frozen=True, slots=True)
class Running:
    """A benchmark under way."""

    stage: Stage
    machine: Machine
    console: Console
    say: Callable[[str], None]
    """Shows what is going on, for as long as it does."""


Measure = Callable[[argparse.Namespace, Running], list[Section]]


def at_least_one(text: str) -> int:
    """Read a whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def options_of(module: str, doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all have."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=(doc or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--page", action="store_true", help="write the tables into docs/benchmarks.md")
    paths = [Path(part) for part in os.environ.get("NODE_PATH", "").split(os.pathsep) if part]
    parser.add_argument(
        "--node-modules",
        type=Path,
        action="append",
        default=paths,
        metavar="FOLDER",
        help="where @unleash/proxy and cerbos are (the folders in NODE_PATH)",
    )
    return parser


def completed(options: argparse.Namespace, measure: Measure) -> int:
    """Measure on a stage of its own, tell, and return the exit status."""
    if not hasattr(os, "sched_setaffinity"):
        print("error: the benchmark needs Linux: it pins processes to cores and reads /proc", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    console = Console(highlight=False)
    console = Console(width=max(console.width, WIDTH), highlight=False)
    try:
        with (
            TemporaryDirectory(prefix="bench-") as name,
            ExitStack() as stack,
            console.status("starting") as status,
        ):
            tools = [folder.resolve() for folder in options.node_modules]
            machine, cores = Machine.this(tools), Cores.of_this_machine()
            running = Running(Stage(stack, Path(name), cores, tools), machine, console, status.update)
            introduce(console, machine, cores)
            sections = measure(options, running)
    except Failed as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    publish(options, console, machine, sections)
    return 0


def leave(number: int, _: object) -> NoReturn:
    """End as the signal asks, after stopping what was started."""
    sys.exit(128 + number)


def introduce(console: Console, machine: Machine, cores: Cores) -> None:
    """Say what is measured where."""
    console.print(str(machine), soft_wrap=True)
    if cores.is_one:
        console.print(f"Only one core: server and load generator share core {cores.server} and slow each other down.")
    else:
        console.print(f"Servers on core {cores.server}, load generator on core {cores.load}.")


def publish(options: argparse.Namespace, console: Console, machine: Machine, sections: list[Section]) -> None:
    """Write the results where they are wanted."""
    for section in sections:
        if options.markdown:
            print(f"**{section.title}**\n\n{section.markdown()}\n")
        else:
            section.show(console)
    if options.json is not None:
        found = {"machine": asdict(machine), "sections": {section.name: asdict(section) for section in sections}}
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    if options.page:
        page.keep(sections, machine)
