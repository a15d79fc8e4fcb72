"""Somebody sets the machine's clock while a sidecar runs: ages go on as if nothing had happened."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.faults.processes import Scene, execute

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


def set_clock(file: Path, by: str) -> None:
    """Let the wall clock of the processes that go by ``file`` be wrong by so much from now on."""
    file.with_suffix(".new").write_text(f"{by}\n")
    file.with_suffix(".new").replace(file)


def moment_of_last_line(lines: list[str]) -> datetime:
    """Return when a log was written to last, by the clock of the process that did."""
    return datetime.fromisoformat(json.loads(lines[-1])["time"])


@pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed (Debian: faketime)")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("by", ["+2h", "-2h"])
async def test_the_clock_is_set(scene: Scene, tmp_path: Path, by: str) -> None:
    """Forwards or backwards by hours: no age jumps, nothing expires before its time, what is fetched has its true age."""
    file = tmp_path / "clock"
    set_clock(file, "+0")
    for customer in ("cus_1", "cus_2"):
        scene.truth.change(customer, "a", held=True)
    sidecar = scene.sidecar(launch=execute, stale_for="1h", deadline="10s", events_poll="0")
    sidecar.environment |= {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # a clock that is set changes no other
    }
    await sidecar.start()
    started_at = moment_of_last_line(sidecar.lines())
    before = await sidecar.check("cus_1", "a")
    set_clock(file, by)
    after = await sidecar.check("cus_1", "a")
    assert (after["source"], after["stale"], after["as_of"]) == ("memory", False, before["as_of"])
    fetched = await sidecar.check("cus_2", "a")
    assert (fetched["source"], fetched["entitled"]) == ("upstream", True)
    read = [
        seen.query["customer"] for seen in scene.stripe.requests if seen.query.get("customer") in ("cus_1", "cus_2")
    ]
    assert read == ["cus_1", "cus_2"]
    assert await sidecar.terminate() == 0
    stepped = moment_of_last_line(sidecar.lines()) - started_at
    assert abs(stepped) > timedelta(hours=1), "the clock of the process was not set after all"
