"""What holds for which lookup keys."""

from collections.abc import Mapping
from typing import Any

import pytest

from sidecar.core.globs import MOST_KEYS, by_glob


@pytest.mark.parametrize(
    ("values", "key", "expected"),
    [
        ({}, "pro", 0),
        ({"*": 1}, "pro", 1),
        ({"*": 1, "pro": 2}, "pro", 1),
        ({"pro": 2, "*": 1}, "pro", 2),
        ({"pro": 2, "*": 1}, "seats", 1),
        ({"pro": 2}, "seats", 0),
        ({"pro-*": 2, "p*": 3}, "pro-1", 2),
        ({"pro-*": 2, "p*": 3}, "pro", 3),
        ({"Pro": 2}, "pro", 0),
        ({"p[a-q]o": 2}, "pro", 0),
        ({"p?o": 2}, "pro", 2),
    ],
)
def test_the_first_that_matches_wins(values: Mapping[str, int], key: str, expected: int) -> None:
    """Whole keys, case and all; and every time it is asked."""
    find = by_glob(values, 0)
    assert [find(key), find(key)] == [expected, expected]


class Seen(dict[str, int]):
    """Values that count how often they are gone through."""

    times = 0

    def items(self) -> Any:
        self.times += 1
        return super().items()


def test_nothing_is_compared_where_one_value_holds_for_all() -> None:
    """The read road pays for globs only where there are some, and then once per key."""
    for values in (Seen(), Seen({"*": 1}), Seen({"*": 1, "a": 2})):
        _ = by_glob(values, 0)("key")
        assert values.times == 0
    values = Seen({"a": 2, "*": 1})
    find = by_glob(values, 0)
    assert [find(key) for key in ("a", "b", "a", "b", "b")] == [2, 1, 2, 1, 1]
    assert values.times == 2


def test_callers_cannot_fill_the_memory() -> None:
    """However many keys they think of, so many are remembered."""
    find = by_glob({"a": 2}, 0)
    for number in range(MOST_KEYS + 1000):
        assert find(f"key-{number}") == 0
    assert find.cache_info().currsize == MOST_KEYS  # type: ignore[attr-defined]
