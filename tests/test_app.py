"""The parts, put together."""

import asyncio
import socket
from pathlib import Path

import aiohttp
import pytest

from sidecar import app
from sidecar.demo import FakeStripe, Fault
from sidecar.errors import BadSettings
from sidecar.kit.clock import steady_clock
from sidecar.kit.lifecycle import Phase
from sidecar.model import Customer
from tests.fakes import KEY, settings_for


async def test_it_serves_until_it_is_told_to_stop(upstream: str, stripe: FakeStripe) -> None:
    """Both listeners answer once ``started`` is told, and are gone when ``serve`` returns."""
    stripe.grant("cus_1", "a")
    stop, started = asyncio.Event(), asyncio.Event()
    found: list[app.Sidecar] = []

    def begin(sidecar: app.Sidecar) -> None:
        found.append(sidecar)
        started.set()

    async with asyncio.TaskGroup() as group:
        _ = group.create_task(app.serve(settings_for(upstream), stop, started=begin))
        await started.wait()
        (sidecar,) = found
        url = f"http://{sidecar.checks.addresses[0]}/v1/customers/cus_1/entitlements/a"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert (await response.json())["entitled"] is True
        phases = [sidecar.lifecycle.phase]
        stop.set()
    phases.append(sidecar.lifecycle.phase)
    assert phases == [Phase.SERVING, Phase.DRAINING]
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(url)


async def test_what_is_under_way_is_finished_first(upstream: str, stripe: FakeStripe) -> None:
    """A question that waits for Stripe when the process is told to stop gets its answer."""
    stripe.grant("cus_1", "a")
    stripe.break_with(Fault.SLOW, delay=0.1)
    stop, started = asyncio.Event(), asyncio.Event()
    found: list[app.Sidecar] = []

    def begin(sidecar: app.Sidecar) -> None:
        found.append(sidecar)
        started.set()

    async with asyncio.TaskGroup() as group, aiohttp.ClientSession() as session:
        _ = group.create_task(app.serve(settings_for(upstream), stop, started=begin))
        await started.wait()
        url = f"http://{found[0].checks.addresses[0]}/v1/customers/cus_1/entitlements/a"
        asking = group.create_task(session.get(url))
        while not stripe.count():
            await asyncio.sleep(0.001)
        stop.set()
        async with await asking as response:
            assert (await response.json())["entitled"] is True


async def test_a_loop_that_dies_ends_the_process(upstream: str) -> None:
    """An error in a loop closes the listeners and comes out of ``serve``."""
    good, started = steady_clock(), asyncio.Event()

    def clock() -> float:
        if started.is_set():
            raise ZeroDivisionError("the clock broke")
        return good()

    with pytest.raises(ExceptionGroup) as raised:
        await app.serve(settings_for(upstream), asyncio.Event(), started=lambda _: started.set(), clock=clock)
    assert raised.group_contains(ZeroDivisionError)


async def test_a_loop_that_ends_is_a_dead_loop() -> None:
    """Loops run for ever; one that returns is as bad as one that raises."""

    async def short() -> None: ...

    with pytest.raises(RuntimeError, match="must not"):
        await app.loop_forever(short)


async def test_without_a_key_nothing_starts() -> None:
    """The complaint names the settings that would help."""
    with pytest.raises(BadSettings, match=r"SIDECAR_STRIPE_API_KEY_FILE.*STRIPE_API_KEY"):
        async with app.assembled(settings_for("http://127.0.0.1:9", stripe_api_key=None)):
            pass


async def test_a_key_from_a_file(upstream: str, stripe: FakeStripe, tmp_path: Path) -> None:
    """The file's key is used, without the line's end."""
    (tmp_path / "key").write_text(f"{KEY}\n")
    async with app.assembled(settings_for(upstream, stripe_api_key_file=tmp_path / "key")) as sidecar:
        assert (await sidecar.checker.refresh(Customer("cus_1"))).snapshot.unknown is not None
    assert stripe.requests[0].headers["Authorization"] == f"Bearer {KEY}"


async def test_replicas_share_the_budget(upstream: str) -> None:
    """Each of four replicas takes a quarter of rate and burst, but at least one request at once."""
    async with app.assembled(settings_for(upstream, rate=20, burst=2, replicas=4)) as sidecar:
        rates = {
            metric.name: metric.samples[0].value for metric in sidecar.metrics.collect() if "budget" in metric.name
        }
    assert rates["entitlement_sidecar_budget_rate_requests_per_second"] == 5
    assert rates["entitlement_sidecar_budget_left_requests"] == 1


async def test_what_cannot_be_had_is_said_at_once(tmp_path: Path) -> None:
    """A key file, a token file and an address that are all wrong are three complaints, and nothing stays open."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        wrong = settings_for(
            "http://127.0.0.1:9",
            stripe_api_key_file=tmp_path / "none",
            local_token_file=tmp_path / "none",
            listen=f"127.0.0.1:0,{address}",
        )
        with pytest.raises(BadSettings) as caught:
            async with app.assembled(wrong):
                pass
    assert [complaint.split(":")[0] for complaint in caught.value.complaints] == [
        "SIDECAR_STRIPE_API_KEY_FILE",
        "SIDECAR_LOCAL_TOKEN_FILE",
        "127.0.0.1",
    ]


async def test_two_processes_cannot_share_an_address() -> None:
    """The second is told at its start, although the first does not serve yet."""
    async with app.assembled(settings_for("http://127.0.0.1:9")) as first:
        with pytest.raises(BadSettings, match="in use"):
            async with app.assembled(settings_for("http://127.0.0.1:9", listen=first.checks.addresses[0])):
                pass
