"""The tour shows what is so, beside another on the same host, and ends when it is told what is not."""

import asyncio
import os
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from rich.console import Console

from sidecar import tour
from sidecar.demo import FakeStripe, serving
from tests.fakes import KEY, Running, running

ROOT = Path(__file__).resolve().parents[1]
CHECKS = re.compile(r"curl .*?(http://127\.0\.0\.1:\d+)/v1/customers/cus_ada/entitlements/sso")


def paper() -> tuple[Console, StringIO]:
    """Return a console and what is printed on it."""
    printed = StringIO()
    return Console(file=printed, width=200, highlight=False), printed


async def demonstrated(**environment: str) -> tuple[int | None, str, str]:
    """Run the demo as `make demo </dev/null` does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "sidecar", "demo", "--once"),
        cwd=ROOT,
        env=os.environ | environment,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.timeout(90)
async def test_two_tours_on_one_host_come_to_their_end() -> None:
    """One stays until it is told to stop; another, as a program without a terminal and amid a reader's own variables,
    finds the usual ports taken, takes others, and exits with 0."""
    console, printed = paper()
    stop = asyncio.Event()
    async with asyncio.timeout(80), asyncio.TaskGroup() as group:
        _ = group.create_task(tour.take(stop, stay=True, console=console))
        while not CHECKS.search(printed.getvalue()):
            await asyncio.sleep(0.01)
        status, out, err = await demonstrated(
            SIDECAR_LISTEN="0.0.0.0:1", SIDECAR_RAET="1", SIDECAR_FRESH_FOR="soon", STRIPE_API_KEY="pk_live_x"
        )
        while "Your turn" not in printed.getvalue():
            await asyncio.sleep(0.01)
        answer = await readmes_answer(printed.getvalue())
        stop.set()
    assert answer["entitled"] is True, "what the README shows of the demo is what it says"
    assert status == 0
    for what in ("entitlements", "events"):  # that is part of the show, and all there is
        assert f"reading {what} from Stripe fails (broken)" in err
    others = [line for line in err.splitlines() if " from Stripe fails (broken)" not in line]
    assert all(" at Stripe: 5 failures in a row" in line for line in others)
    assert len(others) == len({line.partition("WARNING")[2] for line in others}) <= 2
    for text in (out, printed.getvalue()):
        for title in (
            "Ask",
            "Three different no's",
            "Change",
            "Lose a webhook",
            "Wait for a grant",
            "Break Stripe",
            "Mend Stripe",
            "What it cost",
        ):
            assert f"\n{title}  " in text
        assert "1000 answers, 0 requests to Stripe" in text
    ours, theirs = CHECKS.search(printed.getvalue()), CHECKS.search(out)
    assert ours is not None
    assert theirs is not None
    assert ours[1] != theirs[1]
    assert "Your turn" in printed.getvalue()
    assert "Your turn" not in out


async def readmes_answer(printed: str) -> dict[str, Any]:
    """Ask the running demo the README's question."""
    shown = CHECKS.search(printed)
    assert shown is not None
    assert "/v1/customers/cus_ada/entitlements/sso" in (ROOT / "README.md").read_text()
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{shown[1]}/v1/customers/cus_ada/entitlements/sso") as response,
    ):
        answer: dict[str, Any] = await response.json()
    return answer


async def test_a_tour_can_be_left_at_any_time() -> None:
    """Ctrl-C in the middle ends it at once, and in order."""
    console, printed = paper()
    stop = asyncio.Event()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        _ = group.create_task(tour.take(stop, stay=True, console=console))
        while "Break Stripe" not in printed.getvalue():
            await asyncio.sleep(0.01)
        stop.set()
    assert "Mend Stripe" not in printed.getvalue()
    assert "Your turn" not in printed.getvalue()


async def test_an_answer_that_is_not_so_ends_the_tour(stripe: FakeStripe, upstream: str, sidecar: Running) -> None:
    """At a Stripe where nobody has anything, the first answer is not what the tour tells its reader."""
    console, printed = paper()
    guide = tour.Tour(console, stripe, upstream, sidecar.session)
    with pytest.raises(tour.WrongAnswer, match=r"expected \{'entitled': True, 'source': 'upstream'\}") as caught:
        await guide.go(sidecar.sidecar)
    assert caught.value.args[1]["reason"] == "unknown_customer"
    assert "Change" not in printed.getvalue()


class LyingStripe(FakeStripe):
    """Says of itself that a customer holds what it does not."""

    def held(self, customer: str, *, account: str | None = None) -> list[str]:
        return ["white-label"]


async def test_a_list_that_is_not_stripes_ends_the_tour() -> None:
    """What a refresh gives is compared with what Stripe has, key by key."""
    stripe = LyingStripe(key=KEY)
    stripe.grant("cus_ada", "sso")
    async with serving(stripe) as upstream, running(upstream, webhook_secret=tour.SECRET) as sidecar:
        guide = tour.Tour(paper()[0], stripe, upstream, sidecar.session)
        guide._url = sidecar.url
        with pytest.raises(tour.WrongAnswer, match=r"expected \{'lookup_keys': \['white-label'\]\}"):
            await guide._change(sidecar.sidecar)


@asynccontextmanager
async def batches(result: dict[str, Any], count: int) -> AsyncIterator[str]:
    """Serve something that answers every batch alike."""

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.json_response({"results": [result] * count})

    runner = web.ServerRunner(web.Server(answer, access_log=None), shutdown_timeout=0.05)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(("entitled", "count"), [(False, 1000), (None, 1000), (True, 999)])
async def test_a_batch_that_is_not_so_ends_the_tour(entitled: object, count: int) -> None:
    """A thousand questions have a thousand answers, and each of them is yes."""
    async with batches({"entitled": entitled}, count) as url, aiohttp.ClientSession() as session:
        guide = tour.Tour(paper()[0], FakeStripe(), url, session)
        guide._url = url
        with pytest.raises(tour.WrongAnswer, match="the batch"):
            await guide._count()
