"""A scene per test, and one zygote for all of them."""

import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.faults.processes import Scene, Zygote, incubated, staged


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    if sys.platform != "linux":
        pytest.skip("processes are watched as only Linux lets one (pidfd_open, /proc)")
    with tempfile.TemporaryDirectory() as directory, incubated(Path(directory)) as found:  # a socket's path is short
        yield found


@pytest.fixture
async def scene(zygote: Zygote, tmp_path: Path) -> AsyncIterator[Scene]:
    async with staged(zygote, tmp_path) as found:
        yield found
