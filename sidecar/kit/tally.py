"""Counts and histograms of plain integers, cheap enough for the hottest path; a scrape makes the metric of it."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from math import inf


class Count:
    """A number that is counted up, and may be held by several who do: ``n``."""

    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n = 0


class Tally:
    """Counts of observations per bucket. Bounds are inclusive upper limits; a last bucket takes what is above all.

    >>> ages = Tally([1, 10])
    >>> for age in (0.5, 1, 3, 99): ages.add(age)
    >>> ages.cumulative()
    [(1, 2), (10, 3), (inf, 4)]
    """

    def __init__(self, bounds: Iterable[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count ``value``."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add_all(self, values: Iterable[float]) -> None:
        """Count many at once: the bounds are looked for among them."""
        values, begin = sorted(values), 0
        for index, bound in enumerate((*self.bounds, inf)):
            end = bisect_right(values, bound, begin)
            self.counts[index] += end - begin
            begin = end
        self.sum += sum(values)

    def bucket(self, value: float) -> tuple[int, float]:
        """Return where ``value`` is counted, and the largest value that is counted there too."""
        index = bisect_left(self.bounds, value)
        return index, self.bounds[index] if index < len(self.bounds) else inf

    def cumulative(self) -> list[tuple[float, int]]:
        """Return (bound, observations at or below it) pairs, the last bound being infinity."""
        total, pairs = 0, []
        for bound, count in zip((*self.bounds, inf), self.counts, strict=True):
            total += count
            pairs.append((bound, total))
        return pairs
