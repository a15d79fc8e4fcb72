"""One-off tasks that neither get lost nor die in silence.

The event loop keeps only weak references to tasks: one that nobody holds may vanish half-way. These are held until
they end; an error that nobody expected is logged with its traceback.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)


class Tasks:
    """Start tasks and hold them until they end; ``expected`` errors are their awaiters' business and not logged."""

    def __init__(self, *, expected: tuple[type[BaseException], ...] = ()) -> None:
        self._expected = expected
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Run ``work`` now; the returned task may be awaited or forgotten."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()  # marks it as retrieved: a flight without waiters may fail
        if error is not None and not isinstance(error, self._expected):
            log.error("task %s failed", task.get_name(), exc_info=error)

    async def close(self) -> None:
        """Cancel what still runs and wait until it has ended."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
