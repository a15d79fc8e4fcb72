"""What a sidecar has written down is of use when nothing else is; and when it is not, nothing is lost but that."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.disks import fill, small_disk
from tests.faults.processes import PATIENCE, Scene, Sidecar
from tests.faults.test_kill import with_store
from tests.faults.test_outages import asked_in_time, healed

pytestmark = [with_store, pytest.mark.timeout(90)]
CUSTOMERS = [f"cus_{number}" for number in range(50)]


async def written(sidecar: Sidecar) -> None:
    """Wait until all that was learnt is in the store."""
    async with asyncio.timeout(PATIENCE):
        while (await sidecar.status())["store"]["pending"]:
            await asyncio.sleep(0.02)


async def test_stripe_is_down_at_the_start(scene: Scene, tmp_path: Path) -> None:
    """What an earlier process learnt is answered at its true age, stale as time goes by; the unknown by policy."""
    for customer in ("cus_1", "cus_2"):
        scene.truth.change(customer, "a", held=True)
    sidecar = await scene.started(
        store=f"sqlite:///{tmp_path}/store.db", fresh_for="1s", stale_for="1h", deadline="300ms", events_poll="0"
    )
    before = await sidecar.check("cus_1", "a")
    await written(sidecar)
    assert await sidecar.terminate() == 0
    await scene.down()
    await sidecar.start()
    found = await asked_in_time(sidecar, "cus_1")
    assert (found["entitled"], found["source"], found["as_of"]) == (True, "store", before["as_of"])
    assert (await asked_in_time(sidecar, "cus_1"))["source"] == "memory"
    assert (await asked_in_time(sidecar, "cus_2"))["source"] == "policy"
    async with asyncio.timeout(PATIENCE):
        while not (await asked_in_time(sidecar, "cus_1"))["stale"]:
            await asyncio.sleep(0.05)
    assert [await sidecar.health(path) for path in ("/livez", "/startupz", "/readyz")] == [200, 200, 200]
    await scene.up()
    await healed(sidecar, "cus_1")
    await healed(sidecar, "cus_2")
    assert await sidecar.terminate() == 0


async def test_the_disk_is_full(scene: Scene, tmp_path: Path) -> None:
    """Memory goes on answering, the log says so once, the status why; with room again, the store is used again."""
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        for customer in CUSTOMERS:
            scene.truth.change(customer, "a", held=True)
        sidecar = await scene.started(store=f"sqlite:///{disk}/store.db", events_poll="0", rate=1000, burst=1000)
        await healed(sidecar, CUSTOMERS[0])
        await written(sidecar)
        rest = fill(disk)
        async with asyncio.timeout(PATIENCE):
            while (await sidecar.status())["store"]["state"] != "full":
                for customer in CUSTOMERS:
                    _ = await sidecar.check(customer, "a", Cache_Control="max-age=0", query="?default=deny")
        assert (await sidecar.metrics())["store_failing"] == 1
        for customer in CUSTOMERS:
            changed_at = scene.truth.change(customer, "a", held=False)
            assert await sidecar.post(scene.truth.last_event()) == 200
            scene.truth.acknowledged(customer, changed_at)
        for customer in CUSTOMERS:
            await healed(sidecar, customer)
        assert await sidecar.health("/readyz") == 200
        said = [line for line in sidecar.messages() if "the store is of no use" in line]
        assert len(said) == 1, said
        rest.unlink()
        async with asyncio.timeout(2 * PATIENCE):
            while (await sidecar.status())["store"]["state"] != "ok":
                await asyncio.sleep(0.1)
        await healed(sidecar, CUSTOMERS[0])
        await sidecar.kill()
        await sidecar.start()
        for customer in CUSTOMERS:
            await healed(sidecar, customer)
        assert await sidecar.terminate() == 0
