"""What a sidecar has written down is of use when nothing else is; and when it is not, nothing is lost but that."""

import asyncio
import os
import sqlite3
from contextlib import closing
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


async def learnt(scene: Scene, file: Path) -> Sidecar:
    """Return a sidecar that has written down what every customer holds."""
    for customer in CUSTOMERS:
        scene.truth.change(customer, "a", held=True)
    sidecar = await scene.started(store=f"sqlite:///{file}", events_poll="0", rate=1000, burst=1000)
    for customer in CUSTOMERS:
        await healed(sidecar, customer)
    await written(sidecar)
    return sidecar


@pytest.mark.parametrize("damage", ["noise", "half", "newer", "no database"])
async def test_the_file_is_damaged(scene: Scene, tmp_path: Path, damage: str) -> None:
    """It is put aside and begun anew; the log says it once; answers are right all the while."""
    file = tmp_path / "store.db"
    sidecar = await learnt(scene, file)
    assert await sidecar.terminate() == 0
    spoil(file, damage)
    await sidecar.start()
    for customer in CUSTOMERS:
        await healed(sidecar, customer)
    await written(sidecar)
    assert (await sidecar.status())["store"]["state"] == "ok"
    said = [line for line in sidecar.messages() if "the store is of no use" in line]
    assert len(said) == 1, said
    assert file.with_name("store.db.set-aside").exists()
    assert await sidecar.terminate() == 0
    await scene.down()
    await sidecar.start()
    assert {(await sidecar.check(customer, "a"))["source"] for customer in CUSTOMERS} == {"store"}
    assert await sidecar.terminate() == 0


def spoil(file: Path, damage: str) -> None:
    """Damage a store that nobody uses."""
    whole = file.read_bytes()
    match damage:
        case "noise":
            file.write_bytes(whole[:4096] + os.urandom(len(whole) - 4096))
        case "half":
            file.write_bytes(whole[: len(whole) // 2])
        case "newer":
            with closing(sqlite3.connect(file)) as connection:
                connection.execute("PRAGMA user_version=99")
        case _:
            file.write_bytes(b"what is this? not a database, that is for sure")


def remove(file: Path) -> None:
    """Delete a store, with all that belongs to it."""
    for one in file.parent.glob(f"{file.name}*"):
        one.unlink()


async def test_the_file_is_deleted_under_us(scene: Scene, tmp_path: Path) -> None:
    """It is missed at the next change, and made again with all that is in memory."""
    file = tmp_path / "store.db"
    sidecar = await learnt(scene, file)
    remove(file)
    _ = await sidecar.check(CUSTOMERS[0], "a", Cache_Control="max-age=0", query="?default=deny")
    async with asyncio.timeout(PATIENCE):
        while not file.exists() or (await sidecar.status())["store"]["state"] != "ok":
            await asyncio.sleep(0.1)
    await written(sidecar)
    await sidecar.kill()
    await scene.down()
    await sidecar.start()
    assert {(await sidecar.check(customer, "a"))["source"] for customer in CUSTOMERS} == {"store"}
    assert await sidecar.terminate() == 0


async def test_the_file_cannot_be_written(scene: Scene, tmp_path: Path) -> None:
    """Memory answers; the status says why there is no store."""
    (tmp_path / "store.db").mkdir()  # which is what no permission does to everybody but root
    scene.truth.change("cus_1", "a", held=True)
    sidecar = await scene.started(store=f"sqlite:///{tmp_path}/store.db", events_poll="0")
    await healed(sidecar, "cus_1")
    assert (await sidecar.status())["store"]["state"] == "failed"
    assert await sidecar.health("/readyz") == 200
    assert await sidecar.terminate() == 0
