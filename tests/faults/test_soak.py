"""A short soak; `make soak` is the long one."""

import pytest
from rich.console import Console

from tests.faults.processes import Scene
from tests.faults.soak import Report, Sample, soak

SECONDS = 12


@pytest.mark.timeout(150)
async def test_nothing_grows_under_a_mixed_load(scene: Scene) -> None:
    """Memory, descriptors, threads and tasks stay as they are, and go back to what they were when the load ends."""
    report = await soak(scene, SECONDS)
    assert report.complaints() == []
    assert len(report.samples) == 60


def test_growth_is_noticed() -> None:
    """A descriptor or a task lost with every sample, or a quarter of a MiB, is seen; a table says what there was."""
    idle = Sample(50, 20, 5, 0)
    flat = Report(idle, [idle] * 60)
    assert flat.complaints() == []
    grown = Report(idle, [Sample(50 + n / 2, 20 + n, 5 + n, 2 * n) for n in range(60)], after=idle)
    assert [complaint.partition(" ")[0] for complaint in grown.complaints()] == list(Sample._fields)
    console = Console(record=True, width=100)
    console.print(grown.table())
    text = console.export_text()
    assert "idle after" in text
    assert "57.0" in text
