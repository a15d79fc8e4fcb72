"""Secrets are rotated under a running sidecar: nothing is restarted, and no question fails for it."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from sidecar.demo import FakeStripe, sign
from tests.fakes import KEY, SECRET, Running, running

NEW_SECRET = "whsec_TheOneThatReplacesIt"
NEW_KEY = "rk_test_51PlantedNewKeyThatMustNeverBeShown"
CHECK = "/v1/customers/cus_1/entitlements/a"


async def rotate(sidecar: Running, file: Path, content: str) -> None:
    """Write a file and let the sidecar look at it as often as it takes."""
    await asyncio.to_thread(file.write_text, content)
    for _ in range(2):
        await sidecar.sidecar.rotation.look()


async def secret_of(sidecar: Running, name: str) -> dict[str, Any]:
    """Return what the status says of a secret."""
    found: dict[str, Any] = (await sidecar.get("/status"))[1]["secrets"][name]
    return found


async def test_webhook_secrets_overlap_and_then_do_not(upstream: str, stripe: FakeStripe, tmp_path: Path) -> None:
    """Old and new signatures are taken while both are in the file, and only the new ones afterwards."""
    file = tmp_path / "secrets"
    file.write_text(SECRET)
    async with running(upstream, webhook_secret_file=file) as sidecar:

        async def taken() -> list[bool]:
            body = b'{"object": "event", "id": "evt_1", "type": "x", "created": 1, "livemode": false}'
            url, found = f"{sidecar.webhook_url}/webhooks/stripe", []
            for secret in (SECRET, NEW_SECRET):
                headers = {"Stripe-Signature": sign(body, secret, int(stripe.now()))}
                async with sidecar.session.post(url, data=body, headers=headers) as response:
                    found.append(response.status == 200)
            return found

        assert await taken() == [True, False]
        await rotate(sidecar, file, f"{SECRET}\n{NEW_SECRET}\n")
        assert await taken() == [True, True]
        await rotate(sidecar, file, NEW_SECRET)
        assert await taken() == [False, True]
        await rotate(sidecar, file, "")
        assert await taken() == [False, True]
        assert (await secret_of(sidecar, "webhook_secret"))["last_problem"]["detail"] == "is empty"


async def test_a_token_that_was_replaced_is_refused(upstream: str, stripe: FakeStripe, tmp_path: Path) -> None:
    """From the moment on at which the new one is taken; there is none at which neither is."""
    stripe.grant("cus_1", "a")
    file = tmp_path / "token"
    file.write_text("old-token")
    async with running(upstream, local_token_file=file) as sidecar:

        async def statuses() -> list[int]:
            asked = [sidecar.get(CHECK, Authorization=f"Bearer {token}") for token in ("old-token", "new-token")]
            return [(await one)[0] for one in asked]

        assert await statuses() == [200, 401]
        await rotate(sidecar, file, "new-token\n")
        assert await statuses() == [401, 200]
        await rotate(sidecar, file, "new-token\nold-token\n")
        assert await statuses() == [401, 200]
        problem = (await secret_of(sidecar, "local_token"))["last_problem"]
        assert problem["detail"] == "has more than one line, or characters that no header can hold"
        assert problem["solved_at"] is None
        relayed = "/v1/entitlements/active_entitlements?customer=cus_1&expand[]=data.feature"
        assert (await sidecar.get(relayed, Authorization="Bearer new-token"))[0] == 200
    assert stripe.count() == 2
    assert not any("-token" in str(seen.headers) for seen in stripe.requests), "it is for this sidecar alone"


async def test_a_rotated_key_is_used_before_the_old_one_is_rejected(
    upstream: str, stripe: FakeStripe, tmp_path: Path
) -> None:
    """Stripe sees the new key from the next request on, and never answers 401."""
    for customer in ("cus_1", "cus_2", "cus_3"):
        stripe.grant(customer, "a")
    stripe.permissions = frozenset({"rak_entitlement_read"})
    file = tmp_path / "key"
    file.write_text(KEY)
    async with running(upstream, stripe_api_key_file=file) as sidecar:
        assert (await sidecar.check("cus_1", "a"))["entitled"] is True
        since = (await secret_of(sidecar, "stripe_api_key"))["in_use_since"]
        sidecar.clock.advance(60)
        stripe.key = NEW_KEY
        await rotate(sidecar, file, f"{NEW_KEY}\n")
        assert (await sidecar.check("cus_2", "a"))["entitled"] is True
        assert (await secret_of(sidecar, "stripe_api_key"))["in_use_since"] > since
        await rotate(sidecar, file, NEW_KEY.replace("_test_", "_live_"))
        assert (await sidecar.check("cus_3", "a"))["entitled"] is True
        detail = (await secret_of(sidecar, "stripe_api_key"))["last_problem"]["detail"]
        assert detail == "holds a key of the other mode (test, live); changing modes takes a restart"
        text = await sidecar.metrics()
    assert [seen.headers["Authorization"] for seen in stripe.requests] == [
        f"Bearer {key}" for key in (KEY, NEW_KEY, NEW_KEY)
    ]
    assert [seen.status for seen in stripe.requests] == [200] * 3
    for outcome in ("changed", "refused"):
        assert f'secrets_reloaded_total{{outcome="{outcome}",secret="stripe_api_key"}} 1.0' in text


async def test_nothing_of_a_rotation_is_shown(
    upstream: str, stripe: FakeStripe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither what was, nor what is, nor what could not be used."""
    caplog.set_level(logging.DEBUG)
    planted = {
        "stripe_api_key": (KEY, NEW_KEY, "pk_test_51PlantedPublishable"),
        "webhook_secret": (SECRET, NEW_SECRET, "sk_test_51PlantedElsewhere"),
        "local_token": ("PlantedOldToken", "PlantedNewToken", "PlantedHalf\nToken"),
    }
    files = {name: tmp_path / name for name in planted}
    for name, file in files.items():
        file.write_text(planted[name][0])
    outputs: list[str] = []
    knobs: dict[str, Any] = {f"{name}_file": file for name, file in files.items()}
    async with running(upstream, **knobs) as sidecar:
        for state in (1, 2):
            for name, file in files.items():
                await rotate(sidecar, file, planted[name][state])
            outputs += [str(await sidecar.get("/status")), await sidecar.metrics()]
            outputs += [repr(sidecar.sidecar), repr(vars(sidecar.sidecar.rotation)), repr(vars(sidecar.sidecar.client))]
            outputs += [repr(vars(file)) for file in sidecar.sidecar.rotation.files]
            outputs.append(str((await sidecar.get(CHECK))[1]))
    outputs += [caplog.text, *(str(vars(record)) for record in caplog.records)]
    assert caplog.text.count("has changed") == caplog.text.count("stays in use") == 3
    everything = "\n".join(outputs)
    for secret in (text for texts in planted.values() for text in texts):
        for part in secret.split("\n"):
            assert part not in everything
