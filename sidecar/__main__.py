"""The way in for ``python -m sidecar`` and for the command ``entitlement-sidecar``."""

import os
import sys

from sidecar import heap, signals


def main() -> None:
    """Run the command line."""
    # Before the imports below, which take most of a second: as PID 1 a process without a handler never sees TERM. A
    # server that is told to end has done its duty; for a question 0 would be an answer.
    signals.end_at_once(0 if {"serve", "demo"} & set(sys.argv[1:2]) else None)
    _ = heap.set_up()
    # pydantic would show a plugin every setting, secrets too; and look for one in all that is installed.
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "1"

    from sidecar.cli import main as command_line  # noqa: PLC0415 -- see above

    command_line(prog_name="entitlement-sidecar")


if __name__ == "__main__":
    main()
