"""What holds for which lookup keys: values by glob, of which the first that matches wins."""

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TypeVar

V = TypeVar("V")

MOST_KEYS = 4096
"""Lookup keys whose value is remembered, at worst some 4 MB: keys come from callers, of up to 200 characters each."""


def by_glob(values: Mapping[str, V], otherwise: V) -> Callable[[str], V]:
    """Return what finds the value for a lookup key; ``otherwise`` for one that no glob matches.

    Where one value holds for every key, no key is compared with anything; else a match is remembered for a while.
    """
    if next(iter(values), "*") == "*":
        everywhere = values.get("*", otherwise)
        return lambda _: everywhere
    return lru_cache(MOST_KEYS)(lambda lookup_key: first(lookup_key, values.items(), otherwise))


def first(lookup_key: str, values: Iterable[tuple[str, V]], otherwise: V) -> V:
    """Return the value of the first glob that matches, byte for byte but for ``*``, ``?`` and ``[…]``."""
    return next((value for glob, value in values if fnmatchcase(lookup_key, glob)), otherwise)
