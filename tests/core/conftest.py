"""Fixtures for the heart's tests."""

from collections.abc import AsyncIterator

import pytest

from tests.core.fetching import House
from tests.fakes import FakeClock


@pytest.fixture
async def house(clock: FakeClock) -> AsyncIterator[House]:
    house = House(clock)
    yield house
    await house.close()
