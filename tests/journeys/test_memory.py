"""What a customer costs, and that what the cache says it uses is what the process takes."""

import platform

import pytest

from tests.bench.memory import ORDINARY, Kind, measured

KINDS = {
    "five entitlements": (100_000, ORDINARY, 700),
    "none": (60_000, Kind(entitlements=0), 400),
    "one": (50_000, Kind(entitlements=1), 500),
    "twenty-five": (20_000, Kind(entitlements=25), 1550),
    "dirty": (50_000, Kind(dirty=True), 800),
    "unknown to Stripe": (50_000, Kind(known=False), 610),
    "of connected accounts": (50_000, Kind(connected=True), 790),
    "with plans of their own": (5_000, Kind(plans=5_000), 3900),
    "coming and going": (80_000, Kind(cache_bytes=16 << 20), 800),
}
"""How many there are, of what kind, and the bytes that each may take: a tenth more than was measured."""


@pytest.mark.timeout(120)
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator hands out other sizes")
@pytest.mark.parametrize(("customers", "kind", "most"), KINDS.values(), ids=KINDS)
def test_the_count_is_within_a_tenth_of_what_the_process_grew_by(customers: int, kind: Kind, most: int) -> None:
    """For lists of every length, dirty or not, for customers whom Stripe does not know, and when some make room."""
    row = measured(customers, kind)
    assert 0.9 <= row.counted <= 1.1, row
    assert row.each <= most, row
    assert (row.customers == customers) is (row.cache_bytes < kind.cache_bytes // 2), "somebody had to go, or nobody"
