"""What its caller calls a request."""

import asyncio

from sidecar.kit.request_id import request_id


async def test_it_is_known_to_the_work_that_a_request_begins_and_to_nobody_else() -> None:
    """Each task has a context of its own, which begins as that of the task that made it."""

    async def handle(name: str) -> tuple[str | None, str | None]:
        request_id.set(name)
        async with asyncio.TaskGroup() as group:
            begun = group.create_task(asked())
        return request_id.get(), begun.result()

    async def asked() -> str | None:
        return request_id.get()

    async with asyncio.TaskGroup() as group:
        handled = [group.create_task(handle(name)) for name in ("a", "b")]
    assert [task.result() for task in handled] == [("a", "a"), ("b", "b")]
    assert request_id.get() is None
