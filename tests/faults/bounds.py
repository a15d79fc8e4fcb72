"""What is counted: requests in every window of time, and how late the one who counts is."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

TICK = 0.01
TRANSIT = 0.25
"""Seconds that a request may be on its way although nobody here is late: between two processes on a busy machine."""


def excess(moments: Sequence[float], rate: float) -> float:
    """Return by how many requests the worst of all windows, of whatever length w, exceeds ``rate × w``."""
    worst = level = 0.0
    before = moments[0] if moments else 0.0
    for moment in moments:
        level = max(0.0, level - (moment - before) * rate) + 1
        worst, before = max(worst, level), moment
    return worst


@dataclass
class Lateness:
    """The longest that anything sent here may have waited to be noticed, in seconds."""

    most: float = TRANSIT


@asynccontextmanager
async def lateness() -> AsyncIterator[Lateness]:
    """Watch how late this event loop runs: who sent in time may be seen that much later, and so together."""
    late, loop = Lateness(), asyncio.get_running_loop()

    async def watch() -> None:
        while True:
            before = loop.time()
            await asyncio.sleep(TICK)
            late.most = max(late.most, TRANSIT + loop.time() - before - TICK)

    task = loop.create_task(watch())
    try:
        yield late
    finally:
        task.cancel()
        await asyncio.wait([task])
