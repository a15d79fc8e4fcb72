"""The key is planted, everything is provoked, and every output is searched for it."""

import logging
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sidecar.demo import FakeStripe, Fault, serving, sign
from tests.fakes import KEY, SECRET, running, settings_for

TOKEN = "local-token-that-must-not-be-shown"


async def test_the_key_is_in_no_output(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Logs at debug, every answer, metrics, status, explain and reprs, under every fault and with a rejected key."""
    caplog.set_level(logging.DEBUG)
    (tmp_path / "token").write_text(TOKEN)
    outputs: list[str] = []
    for real_key in (KEY, "sk_test_rotated"):
        stripe = FakeStripe(key=real_key)
        stripe.grant("cus_1", "a")
        knobs: dict[str, Any] = {"deadline": 0.1, "local_token_file": tmp_path / "token", "log_level": "debug"}
        async with serving(stripe) as upstream, running(upstream, **knobs) as sidecar:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            for fault in [None, *Fault]:
                stripe.break_with(fault)
                for method, path in (
                    ("GET", "/v1/customers/cus_1/entitlements/a"),
                    ("POST", "/v1/customers/cus_1/refresh"),
                    ("GET", "/v1/customers/cus_1/explain"),
                    ("GET", "/v1/entitlements/active_entitlements?customer=cus_2"),
                ):
                    async with sidecar.session.request(method, sidecar.url + path, headers=headers) as response:
                        outputs += [str(response.headers), await response.text()]
            stripe.break_with(None)
            outputs += [await sidecar.metrics(), str(await sidecar.get("/status"))]
            outputs += [repr(sidecar.sidecar), repr(vars(sidecar.sidecar.client)), repr(settings_for(upstream))]
    outputs.append(caplog.text)
    outputs += [str(vars(record)) for record in caplog.records]
    everything = "\n".join(outputs)
    assert "cus_1" in everything
    assert KEY not in everything
    assert TOKEN not in everything


async def test_a_stripe_that_echoes_the_key(caplog: pytest.LogCaptureFixture) -> None:
    """Even an upstream that repeats the Authorization header in its errors does not make us show it."""
    caplog.set_level(logging.DEBUG)

    async def echo(request: web.Request) -> web.Response:
        said = f"you sent {request.headers['Authorization']}"
        headers = {"Request-Id": KEY, "Stripe-Version": KEY}
        error = {"error": {"type": "invalid_request_error", "message": said}}
        return web.json_response(error, status=403, headers=headers)

    app = web.Application()
    app.router.add_get("/{any:.*}", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    await (site := web.TCPSite(runner, "127.0.0.1", 0)).start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    async with running(f"http://127.0.0.1:{port}", policy="error") as sidecar:
        found = [
            str(await sidecar.get("/v1/customers/cus_1/entitlements/a")),
            str(await sidecar.get("/v1/customers/cus_1/explain")),
            str(await sidecar.get("/v1/entitlements/active_entitlements?customer=cus_1")),
            str(await sidecar.get("/v1/entitlements/active_entitlements?customer=cus_1&expand[]=data.feature")),
            str(await sidecar.get("/status")),
        ]
        async with sidecar.session.get(f"{sidecar.url}/v1/entitlements/active_entitlements/ent_1") as response:
            found += [await response.text(), str(response.headers)]
        found += [
            caplog.text,
            *(str(vars(record)) for record in caplog.records),
        ]
    await runner.cleanup()
    assert any("you sent Bearer sk_test_***" in text for text in found)
    assert all(KEY not in text for text in found)


EXPLAIN = "/v1/customers/cus_1/explain"
OLD_SECRET = "whsec_PlantedOldSecretThatMustNeverBeShown"


@pytest.mark.parametrize("from_file", [False, True])
async def test_webhook_secrets_are_in_no_output(
    tmp_path: Path,
    upstream: str,
    stripe: FakeStripe,
    caplog: pytest.LogCaptureFixture,
    from_file: bool,  # noqa: FBT001 -- a case
) -> None:
    """Whatever is sent to the webhooks' listener: its answers, the log, metrics, status, explain and reprs."""
    caplog.set_level(logging.DEBUG)
    (tmp_path / "secrets").write_text(f"{SECRET}\n{OLD_SECRET}\n")
    knobs: dict[str, Any] = {"webhook_secret": f"{SECRET},{OLD_SECRET}"}
    if from_file:
        knobs = {"webhook_secret_file": tmp_path / "secrets"}
    outputs: list[str] = []
    async with running(upstream, log_level="debug", **knobs) as sidecar:
        url = f"{sidecar.webhook_url}/webhooks/stripe"
        for secret in (SECRET, OLD_SECRET, [SECRET, OLD_SECRET]):
            stripe.add_endpoint(url, secret)
        stripe.grant("cus_1", "a")
        await sidecar.check("cus_1", "a")
        stripe.revoke("cus_1", "a")
        await stripe.delivered()
        now = int(stripe.now())
        body = b'{"object": "event", "id": "evt_1", "type": "x", "created": 1, "livemode": false}'
        other = b'{"id": "%s"}' % SECRET.encode()
        for header in (
            sign(body, SECRET, now),
            sign(body, SECRET, now - 1000),
            sign(body, "whsec_another", now),
            sign(other, SECRET, now),
            f"t={now},v1={SECRET}",
            f"t={SECRET},v1=0",
            SECRET,
            "",
        ):
            for sent in (body, other):
                async with sidecar.session.post(url, data=sent, headers={"Stripe-Signature": header}) as response:
                    outputs += [str(response.status), str(response.headers), await response.text()]
        async with sidecar.session.get(f"{url}?{SECRET}") as response:
            outputs += [str(response.headers), await response.text()]
        outputs += [await sidecar.metrics(), *[str(await sidecar.get(path)) for path in ("/status", EXPLAIN)]]
        outputs += [repr(sidecar.sidecar), repr(vars(sidecar.sidecar)), repr(settings_for(upstream, **knobs))]
        outputs += [repr(listener.app) for listener in sidecar.sidecar.listeners]
    outputs += [caplog.text, *(str(vars(record)) for record in caplog.records)]
    everything = "\n".join(outputs)
    assert {"200", "400"} <= set(outputs)
    assert "cus_1" in everything
    assert SECRET not in everything
    assert OLD_SECRET not in everything
