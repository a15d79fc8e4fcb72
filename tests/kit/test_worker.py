"""A thread of its own for what blocks."""

import asyncio
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from sidecar.kit.worker import Worker

ROOT = Path(__file__).parents[2]


async def test_jobs_are_done_one_after_another() -> None:
    """In the order in which they came, in one thread that is none of ours; each has its result."""
    worker, order = Worker("test"), list[int]()
    threads = set[threading.Thread]()

    def job(number: int) -> int:
        order.append(number)
        threads.add(threading.current_thread())
        return -number

    found = await asyncio.gather(*(worker.run(partial(job, number)) for number in range(20)))
    assert found == [-number for number in range(20)]
    assert order == list(range(20))
    (thread,) = threads
    assert thread is not threading.current_thread()
    worker.stop()
    await asyncio.to_thread(thread.join)


async def test_what_a_job_raises_is_raised() -> None:
    """The thread goes on."""
    worker = Worker("test")
    with pytest.raises(ZeroDivisionError):
        _ = await worker.run(lambda: 1 // 0)
    assert await worker.run(lambda: 1) == 1
    worker.stop()


async def test_who_leaves_calls_their_job_off() -> None:
    """Unless it has begun; those behind have their turn."""
    worker, gate, done = Worker("test"), threading.Event(), list[str]()
    first = asyncio.get_running_loop().create_task(worker.run(gate.wait))
    second = asyncio.get_running_loop().create_task(worker.run(lambda: done.append("second")))
    third = asyncio.get_running_loop().create_task(worker.run(lambda: done.append("third")))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    gate.set()
    assert await first
    await third
    assert done == ["third"]
    worker.stop()


def test_a_job_that_never_ends_does_not_hold_up_the_exit() -> None:
    """A disk may hang; the process still ends."""
    program = (
        "import asyncio, threading\n"
        "from sidecar.kit.worker import Worker\n"
        "async def main():\n"
        "    try:\n"
        "        async with asyncio.timeout(0.1):\n"
        "            await Worker('test').run(threading.Event().wait)\n"
        "    except TimeoutError:\n"
        "        print('left')\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=15, check=True)  # noqa: S603 -- ours
    assert done.stdout == "left\n"
