"""A thread of its own for what blocks: one job after another, in order.

The process does not wait for it when it ends (the executors of ``concurrent.futures`` would be joined): a disk that
never answers must not hold up an exit.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    """Runs functions in its thread, which begins with the first of them."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name=name, daemon=True)

    async def run(self, job: Callable[[], T]) -> T:
        """Return what ``job`` returns, or raise what it raises. Who leaves before its turn calls it off."""
        if not self._thread.is_alive():
            self._thread.start()
        done: Future[T] = Future()
        self._jobs.put((done, job))
        return await asyncio.wrap_future(done)

    def stop(self) -> None:
        """Let the thread end after the jobs that it has."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (next_one := self._jobs.get()) is not None:
            done, job = next_one
            if not done.set_running_or_notify_cancel():
                continue
            try:
                done.set_result(job())
            except BaseException as error:  # noqa: BLE001 -- whoever waits for the job is told
                done.set_exception(error)
