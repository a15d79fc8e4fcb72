"""What every test of a store must respect."""

from collections.abc import Iterator

import pytest

from tests.stores import keeping


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    """A connection that is only forgotten is a warning, and warnings are errors."""
    yield
    while keeping.made:
        keeping.made.pop().close()
