"""TERM and Ctrl-C: the first lets the process end well, the second ends it at once; none is lost.

The handlers are Python's own, not the event loop's: they also run while the loop is stuck in Python code. And they leave
with ``os._exit``: as PID 1 a process is not ended by a signal's default action, and an exception that is raised between
any two instructions may be raised where it is swallowed, as in the callback of a weak reference during an import.

Until the first handler is there PID 1 ignores them. So the image starts Python with both blocked: one that comes while the
interpreter wakes up waits, and is let in here.
"""

import os
import signal
from collections.abc import Callable
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT)

Leave = Callable[[int], object]
"""What ends the process at once with a status; in a test, what notes it."""


def end_at_once(status: int | None, *, leave: Leave = os._exit) -> None:
    """Let TERM and Ctrl-C end the process with ``status``; None stands for 128 and the signal's number."""

    def handler(number: int, _: FrameType | None) -> None:
        leave(128 + number if status is None else status)

    install(handler)


def end_well(stop: Callable[[], object], *, leave: Leave = os._exit) -> None:
    """Let the first TERM or Ctrl-C call ``stop``, and any other end the process with 128 and the signal's number."""
    told = False

    def handler(number: int, _: FrameType | None) -> None:
        nonlocal told
        if told:
            leave(128 + number)
        else:
            told = True
            stop()

    install(handler)


def install(handler: Callable[[int, FrameType | None], None]) -> None:
    """Handle the signals with ``handler`` instead of what handled them before: none falls in between; let in those that wait."""
    for number in ENDING:
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
