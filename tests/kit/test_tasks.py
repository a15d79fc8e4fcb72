"""One-off tasks that neither get lost nor die in silence."""

import asyncio
import gc
import weakref
from typing import NoReturn

import pytest

from sidecar.kit.tasks import Tasks


async def nothing() -> None:
    """Be done at once."""


async def failing(error: Exception) -> NoReturn:
    raise error


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_task_that_nobody_holds_is_held() -> None:
    """The garbage collector does not take what still runs, though it waits for what only itself knows."""
    tasks = Tasks()
    found = weakref.ref(tasks.start(for_ever(), name="lonely"))
    await asyncio.sleep(0)
    gc.collect()
    assert found() is not None
    await tasks.close()


async def test_a_task_has_a_name_and_a_result() -> None:
    """What is started may be awaited, and a log line can say which it was."""

    async def answer() -> int:
        return 42

    task = Tasks().start(answer(), name="the question")
    assert task.get_name() == "the question"
    assert await task == 42


async def test_what_has_ended_is_let_go() -> None:
    """Only what runs is counted."""
    tasks = Tasks()
    task = tasks.start(nothing(), name="short")
    assert len(tasks) == 1
    await task
    await asyncio.sleep(0)
    assert len(tasks) == 0


async def test_an_error_that_nobody_expected_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the task's name and the traceback, whether or not somebody awaits the task."""
    tasks = Tasks(expected=(LookupError,))
    with pytest.raises(ZeroDivisionError):
        await tasks.start(failing(ZeroDivisionError("by zero")), name="division")
    await asyncio.sleep(0)
    assert [(record.levelname, record.message) for record in caplog.records] == [("ERROR", "task division failed")]
    assert "ZeroDivisionError: by zero" in caplog.text


async def test_an_expected_error_is_its_awaiters_business(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the log nor the loop's "never retrieved" complaint mentions it, though nobody awaits it."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    tasks = Tasks(expected=(LookupError,))
    _ = tasks.start(failing(KeyError("subclass of it")), name="search")
    while len(tasks):
        await asyncio.sleep(0)
    gc.collect()
    assert caplog.records == []
    assert complaints == []


async def test_a_cancelled_task_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """Who cancels knows."""
    tasks = Tasks()
    task = tasks.start(for_ever(), name="waiting")
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(tasks) == 0
    assert caplog.records == []


async def test_closing_cancels_and_waits() -> None:
    """When ``close`` returns, everything has ended, clean-up included."""
    cleaned = []

    async def tidy() -> None:
        try:
            await for_ever()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    tasks = Tasks()
    _ = tasks.start(tidy(), name="tidy")
    await asyncio.sleep(0)
    await tasks.close()
    assert cleaned == [True]
    assert len(tasks) == 0


async def test_closing_survives_a_task_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """An error while cleaning up is logged and does not stop the closing."""

    async def clumsy() -> None:
        try:
            await for_ever()
        finally:
            raise ZeroDivisionError

    tasks = Tasks()
    _ = tasks.start(clumsy(), name="clumsy")
    await asyncio.sleep(0)
    await tasks.close()
    assert [record.message for record in caplog.records] == ["task clumsy failed"]


async def test_closing_nothing_is_nothing() -> None:
    """An idle process closes at once."""
    await Tasks().close()
