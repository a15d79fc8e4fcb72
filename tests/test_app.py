"""The parts, put together."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecar import app
from sidecar.demo import FakeStripe, Fault
from sidecar.kit.clock import steady_clock
from sidecar.kit.lifecycle import Phase
from sidecar.model import Customer
from tests.fakes import KEY, SECRET, running, settings_for


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


async def test_a_key_from_a_file(upstream: str, stripe: FakeStripe, tmp_path: Path) -> None:
    """The file's key is used, without the line's end."""
    (tmp_path / "key").write_text(f"{KEY}\n")
    async with app.assembled(settings_for(upstream, stripe_api_key_file=tmp_path / "key")) as sidecar:
        assert (await sidecar.heart.checker.refresh(Customer("cus_1"))).snapshot.unknown is not None
    assert stripe.requests[0].headers["Authorization"] == f"Bearer {KEY}"


async def test_secrets_in_files_are_looked_after(upstream: str, tmp_path: Path) -> None:
    """By a loop that there is only with such files."""
    (tmp_path / "token").write_text("local-token")
    async with running(upstream) as sidecar:
        assert sidecar.sidecar.rotation.run not in sidecar.sidecar.loops
    async with running(upstream, local_token_file=tmp_path / "token") as sidecar:
        assert sidecar.sidecar.rotation.run in sidecar.sidecar.loops


async def test_a_shutdown_lets_nobody_wait(upstream: str, stripe: FakeStripe) -> None:
    """A check that waits for a grant is answered with what is known, and the process ends."""
    stripe.add_customer("cus_1")
    stop, started = asyncio.Event(), asyncio.Event()
    found: list[app.Sidecar] = []

    def begin(sidecar: app.Sidecar) -> None:
        found.append(sidecar)
        started.set()

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        serving = group.create_task(app.serve(settings_for(upstream, deadline=15), stop, started=begin))
        await started.wait()
        url = f"http://{found[0].checks.addresses[0]}/v1/customers/cus_1/entitlements/a?wait=30s"
        waiting = group.create_task(answered(session, url))
        while not len(found[0].heart.vigil):
            await asyncio.sleep(0.01)
        stop.set()
        assert (await waiting)["reason"] == "not_entitled"
        await serving


async def answered(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with session.get(url) as response:
        found: dict[str, Any] = await response.json()
    return found


async def test_webhooks_are_taken_with_a_secret_only(upstream: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without one there is no listener to take them; the log says on which addresses what is."""
    caplog.set_level(logging.INFO, "sidecar")
    found: list[list[str]] = []
    for knobs in ({}, {"webhook_secret": SECRET}):
        stop = asyncio.Event()

        def begin(sidecar: app.Sidecar, stop: asyncio.Event = stop) -> None:
            found.append([*sidecar.checks.addresses, *sidecar.ops.addresses, *(sidecar.webhooks.addresses or [""])])
            stop.set()

        await app.serve(settings_for(upstream, **knobs), stop, started=begin)
    said = [message for message in caplog.messages if message.startswith(("answering", "taking"))]
    (checks, ops, nothing), (checks_too, ops_too, webhooks) = found
    assert said == [
        f"answering checks on {checks}, health and metrics on {ops}",
        "taking no webhooks: there is no webhook_secret",
        f"answering checks on {checks_too}, health and metrics on {ops_too}",
        f"taking webhooks on {webhooks}",
    ]
    assert not nothing
