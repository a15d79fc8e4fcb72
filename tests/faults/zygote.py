"""A process that has imported the sidecar and forks for each start, so that a start takes milliseconds.

Each fork is a process of its own: it has its environment, its log and the command line's ``main``, and can be killed
like any other. An order is a line of JSON on a connection of its own, answered with the process id and, once it ended,
the exit status (negative: the signal). Whoever hangs up has the process killed; when standard input ends, all are.
"""

import gc
import json
import os
import selectors
import signal
import socket
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import uvloop  # noqa: F401 -- what `serve` imports late

from sidecar import app, cli  # noqa: F401 -- what `serve` imports late
from sidecar.__main__ import main
from tests.faults import mistakes  # noqa: F401 -- mutations list themselves
from tests.simulation import runner  # noqa: F401 -- the same
from tests.simulation.mutations import switched_off


class Order(NamedTuple):
    """How a process is to be started."""

    environment: dict[str, str]
    log: str
    without: str | None

    def obey(self) -> None:
        """Be that process."""
        output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        os.environ.clear()
        os.environ.update(self.environment)
        sys.argv[:] = ["entitlement-sidecar", "serve"]
        with nullcontext() if self.without is None else switched_off(self.without):
            main()


class Zygote:
    """Takes orders until standard input ends."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen()
        self._ready = selectors.DefaultSelector()
        self._ready.register(sys.stdin, selectors.EVENT_READ, self._end)
        self._ready.register(self._listener, selectors.EVENT_READ, self._accept)
        self._children: dict[socket.socket, tuple[int, int]] = {}
        self._goes_on = True

    def run(self) -> Order | None:
        """Return an order in each process that is to obey it, and nothing in this one, at the end."""
        while self._goes_on:
            for key, _ in self._ready.select():
                order: Order | None = key.data()
                if order is not None:
                    return order
        return None

    def _accept(self) -> Order | None:
        """Fork; what the child is to do is returned to the child alone."""
        connection, _ = self._listener.accept()
        line = connection.makefile("rb").readline()
        if not line:
            connection.close()
            return None
        pid = os.fork()
        if pid == 0:
            self._let_go()
            connection.close()
            return Order(**json.loads(line))
        watched = os.pidfd_open(pid)
        self._children[connection] = pid, watched
        self._ready.register(watched, selectors.EVENT_READ, lambda: self._ended(connection))
        self._ready.register(connection, selectors.EVENT_READ, lambda: self._hung_up(connection))
        self._say(connection, pid)
        return None

    def _let_go(self) -> None:
        """Close in the child what is the parent's."""
        self._ready.close()
        self._listener.close()
        for connection, (_, watched) in self._children.items():
            connection.close()
            os.close(watched)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)

    def _ended(self, connection: socket.socket) -> None:
        pid, watched = self._children.pop(connection, (0, 0))
        if not pid:
            return
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self._ready.unregister(watched)
        os.close(watched)
        self._ready.unregister(connection)
        self._say(connection, status)
        connection.close()

    def _hung_up(self, connection: socket.socket) -> None:
        if connection in self._children:
            os.kill(self._children[connection][0], signal.SIGKILL)
            self._ended(connection)

    def _say(self, connection: socket.socket, number: int) -> None:
        try:
            connection.sendall(b"%d\n" % number)
        except OSError:  # it hung up, which is noticed as such
            return

    def _end(self) -> None:
        for connection in list(self._children):
            self._hung_up(connection)
        self._goes_on = False


def run(path: str) -> None:
    """Take orders at ``path``."""
    gc.freeze()  # the children share what was imported
    zygote = Zygote(path)
    Path(path).with_suffix(".ready").touch()
    order = zygote.run()
    if order is not None:
        order.obey()


if __name__ == "__main__":
    run(sys.argv[1])
