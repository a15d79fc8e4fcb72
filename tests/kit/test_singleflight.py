"""Many askers, one piece of work."""

import asyncio
from collections import Counter

import pytest

from sidecar.kit.singleflight import SingleFlight
from sidecar.kit.tasks import Tasks


class Work:
    """Work that takes until it is told to end, and counts how often it was begun."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.end = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, key: str) -> str:
        self.begun[key] += 1
        number = self.begun[key]
        await self.end.wait()
        if self.error is not None:
            raise self.error
        return f"{key}{number}"


@pytest.fixture
async def work() -> Work:
    return Work()


@pytest.fixture
async def flights(work: Work) -> SingleFlight[str, str]:
    return SingleFlight(work, Tasks(expected=(LookupError,)))


async def test_a_crowd_shares_one_flight(work: Work, flights: SingleFlight[str, str]) -> None:
    """Fifty askers get the same task, and the work is done once."""
    joined = [flights.join("a") for _ in range(50)]
    work.end.set()
    assert await asyncio.gather(*joined) == ["a1"] * 50
    assert work.begun == {"a": 1}


async def test_keys_do_not_wait_for_each_other(work: Work, flights: SingleFlight[str, str]) -> None:
    """Two keys are two flights."""
    one, other = flights.join("a"), flights.join("b")
    assert len(flights) == 2
    work.end.set()
    assert (await one, await other) == ("a1", "b1")


async def test_a_flight_is_in_the_air_until_it_lands(work: Work, flights: SingleFlight[str, str]) -> None:
    """It counts from the moment it is started, before it has run at all, and is forgotten when it has landed."""
    assert "a" not in flights
    flights.start("a")
    assert "a" in flights
    assert work.begun == {}
    work.end.set()
    await flights.join("a")
    await asyncio.sleep(0)
    assert "a" not in flights
    assert len(flights) == 0


async def test_starting_twice_is_starting_once(work: Work, flights: SingleFlight[str, str]) -> None:
    """Those who do not wait share as well."""
    flights.start("a")
    flights.start("a")
    work.end.set()
    assert await flights.join("a") == "a1"


async def test_the_next_asker_starts_the_next_flight(work: Work, flights: SingleFlight[str, str]) -> None:
    """What has landed is not given out again: this is no cache."""
    work.end.set()
    assert await flights.join("a") == "a1"
    assert await flights.join("a") == "a2"


async def test_a_failure_reaches_all_and_stays_with_none(work: Work, flights: SingleFlight[str, str]) -> None:
    """Everybody who joined gets the error; who comes later gets a new try."""
    joined = [flights.join("a") for _ in range(3)]
    work.error = LookupError("no")
    work.end.set()
    assert {str(error) for error in await asyncio.gather(*joined, return_exceptions=True)} == {"no"}
    work.error = None
    assert await flights.join("a") == "a2"


async def test_an_asker_may_leave_alone(work: Work, flights: SingleFlight[str, str]) -> None:
    """Cancelling one who waits behind a shield leaves the others their answer."""

    async def ask() -> str:
        return await asyncio.shield(flights.join("a"))

    async with asyncio.TaskGroup() as group:
        leaves, stays = group.create_task(ask()), group.create_task(ask())
        await asyncio.sleep(0)
        leaves.cancel()
        await asyncio.sleep(0)
        work.end.set()
    assert leaves.cancelled()
    assert stays.result() == "a1"
    assert work.begun == {"a": 1}


async def test_a_flight_that_has_landed_but_is_not_cleared_is_not_joined() -> None:
    """Between a task's end and its callback the key is free: an asker then would get a stale result, for ever if it
    asked until the result is young enough."""
    seen: list[tuple[bool, bool, int]] = []
    begun = 0

    async def quick(key: str) -> int:
        nonlocal begun
        begun += 1
        if begun == 1:
            asyncio.get_running_loop().call_soon(look)  # runs after this returns and before its callbacks
        return begun

    def look() -> None:
        landed = first.done()
        contained, known = "a" in flights, len(flights)
        joined = flights.join("a")
        seen.append((landed, contained, known))
        second.append(joined)

    flights: SingleFlight[str, int] = SingleFlight(quick, Tasks())
    second: list[asyncio.Task[int]] = []
    first = flights.join("a")
    assert await first == 1
    assert seen == [(True, False, 1)]
    assert second[0] is not first
    assert flights.join("a") is second[0]  # the first one's callback has not cleared the second
    assert await second[0] == 2
