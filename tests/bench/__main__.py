"""``make bench``: one check, out of memory, by this sidecar and by what could stand in its place, in one table.

Every server runs all the time on one core; the load generator asks one after another from the other core, several
rounds of all, so that what else the machine does spoils one round of each rather than all of one.
"""

import argparse
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from rich.console import Console

from tests.bench import load, table
from tests.bench.load import Generator, Round
from tests.bench.machine import Machine
from tests.bench.processes import Cores, Failed
from tests.bench.servers import NGINX, running

WARM_UP = 1
"""Seconds under load before the first round."""


def at_least_one(text: str) -> int:
    """Read a whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=at_least_one, default=2, help="how long a server is asked in a round (2)")
    parser.add_argument("--rounds", type=at_least_one, default=3, help="how often each server is asked (3)")
    parser.add_argument("--connections", type=at_least_one, default=32, help="keep-alive connections (32)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    return parser.parse_args()


def main() -> int:
    """Measure, print, and return the exit status."""
    options = arguments()
    if not hasattr(os, "sched_setaffinity"):
        print("error: the benchmark needs Linux: it pins processes to cores and reads /proc", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    console = Console()
    console = Console(width=max(console.width, table.WIDTH), highlight=False)
    try:
        measure(options, console)
    except Failed as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def leave(number: int, _: object) -> NoReturn:
    """End as the signal asks, after stopping what was started."""
    sys.exit(128 + number)


def measure(options: argparse.Namespace, console: Console) -> None:
    """Run the benchmark."""
    machine, cores = Machine.this(), Cores.of_this_machine()
    with TemporaryDirectory(prefix="bench-") as name, running(folder := Path(name), cores) as (stage, servers):
        generator = Generator.found(folder)
        introduce(console, machine, cores, generator)
        console.print(f"{options.rounds} × {options.seconds} s for each server, {options.connections} connections.")

        rounds: dict[str, list[Round]] = {server.name: [] for server in servers}
        with console.status("warming up") as status:
            for server in servers:
                load.ask(server, generator, cores, folder, connections=options.connections, seconds=WARM_UP)
            for turn in range(options.rounds):
                for server in servers:
                    status.update(f"round {turn + 1} of {options.rounds}: {server.name}")
                    asked = load.ask(
                        server, generator, cores, folder, connections=options.connections, seconds=options.seconds
                    )
                    server.verify()
                    rounds[server.name].append(asked)
        stripe_requests = stage.stripe_requests()

    rows = [table.Row.of(server, asked) for server, asked in rounds.items()]
    table.show(console, rows)
    for warning in table.warnings(rows) if not cores.is_one else []:
        console.print(warning)
    if NGINX not in rounds:
        console.print("nginx is not on PATH, so it was not measured (Debian keeps it in /usr/sbin).")
    console.print(
        f"No answer was an error, no connection broke; the built-in Stripe was asked {stripe_requests} times."
    )
    if options.json is not None:
        document = {
            "machine": asdict(machine),
            "generator": generator.name,
            "server_core": cores.server,
            "load_core": cores.load,
            "connections": options.connections,
            "stripe_requests": stripe_requests,
            "servers": table.as_json(rows, rounds),
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def introduce(console: Console, machine: Machine, cores: Cores, generator: Generator) -> None:
    """Say what is measured where."""
    console.print(str(machine), soft_wrap=True)
    if cores.is_one:
        console.print(f"Only one core: server and load generator share core {cores.server} and slow each other down.")
    else:
        console.print(f"Servers on core {cores.server}, load generator on core {cores.load}.")
    if generator.name == "wrk":
        console.print("Load generator: wrk.")
    else:
        console.print(
            "Load generator: built in, because wrk is not on PATH. It is slower than the faster servers: "
            "compare these numbers with no others."
        )


if __name__ == "__main__":
    sys.exit(main())
