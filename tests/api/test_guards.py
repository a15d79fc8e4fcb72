"""Who may ask."""

import base64
from pathlib import Path

import pytest

from sidecar.api.guards import credential, read_token, without_port
from sidecar.demo import FakeStripe
from tests.fakes import Running, running

pytestmark = pytest.mark.usefixtures("each_way")

CHECK = "/v1/customers/cus_1/entitlements/a"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:7420", "127.0.0.1:1", "[::1]:7420", "[::1]"])
async def test_local_names_are_served(sidecar: Running, stripe: FakeStripe, host: str) -> None:
    """The names of this host pass, with any port."""
    stripe.grant("cus_1", "a")
    status, _ = await sidecar.ask("GET", CHECK, headers={"Host": host})
    assert status == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:7420", "127.0.0.1.nip.io", "a b"])
async def test_other_names_are_not(sidecar: Running, stripe: FakeStripe, host: str) -> None:
    """A page whose name was rebound to this address gets 421 (RFC 9110 §15.5.20), whatever X-Forwarded-Host says."""
    headers = {"Host": host, "X-Forwarded-Host": "localhost"}
    status, body = await sidecar.ask("GET", CHECK, headers=headers)
    assert (status, body["code"]) == (421, "host_not_allowed")
    status, body = await sidecar.ask("GET", "/v1/entitlements/active_entitlements?customer=cus_1", headers=headers)
    assert (status, body["error"]["code"]) == (421, "host_not_allowed")
    assert not stripe.requests


async def test_any_host_may_be_allowed(upstream: str, stripe: FakeStripe) -> None:
    """A star lets every name pass."""
    stripe.grant("cus_1", "a")
    async with running(upstream, allowed_hosts="*") as sidecar:
        assert (await sidecar.ask("GET", CHECK, headers={"Host": "sidecar.prod.svc"}))[0] == 200


async def test_health_is_asked_under_any_name(sidecar: Running) -> None:
    """The kubelet dials the pod's address: the ops listener takes any Host."""
    assert (await sidecar.ask("GET", "/livez", headers={"Host": "10.1.2.3:7421"}))[0] == 200


def test_a_port_is_not_part_of_the_name() -> None:
    """RFC 9110 §7.2, with IPv6 addresses in brackets."""
    assert [without_port(host) for host in ("a:1", "a", "[::1]:80", "[::1]", "a:", "a:b")] == [
        "a",
        "a",
        "[::1]",
        "[::1]",
        "a",
        "a:b",
    ]


async def test_a_token_is_demanded(upstream: str, stripe: FakeStripe, tmp_path: Path) -> None:
    """Without the token 401 on every path of the checks listener; with it, as bearer or as a Stripe key, an answer."""
    stripe.grant("cus_1", "a")
    (tmp_path / "token").write_text("s3cret\n")
    basic = base64.b64encode(b"s3cret:").decode()
    async with running(upstream, local_token_file=tmp_path / "token") as sidecar:
        for wrong in (
            {},
            {"Authorization": "Bearer s3cre"},
            {"Authorization": "Bearer s3cret2"},
            {"Authorization": "s3cret"},
        ):
            status, body = await sidecar.ask("GET", CHECK, headers=wrong)
            assert (status, body["code"]) == (401, "unauthorized")
            status, body = await sidecar.ask(
                "GET", "/v1/entitlements/active_entitlements?customer=cus_1", headers=wrong
            )
            assert (status, body["error"]["type"]) == (401, "invalid_request_error")
            assert (await sidecar.ask("GET", "/nowhere", headers=wrong))[0] == 401
        async with sidecar.session.get(sidecar.url + CHECK) as response:
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert not stripe.requests
        for right in ("Bearer s3cret", "bearer s3cret", f"Basic {basic}"):
            assert (await sidecar.ask("GET", CHECK, headers={"Authorization": right}))[0] == 200
        assert (await sidecar.get("/livez"))[0] == 200


@pytest.mark.parametrize(("text", "why"), [("", "is empty"), (" \n", "is empty"), ("one\ntwo\n", "more than one line")])
def test_a_token_file_must_hold_a_token(text: str, why: str) -> None:
    """One that a header can hold; blanks around it are none of it."""
    with pytest.raises(ValueError, match=why):
        read_token(text)
    assert read_token(" s3cret \r\n") == "s3cret"


def test_credentials_that_cannot_be_read_are_none() -> None:
    """Bad base64 and unknown schemes hold nothing."""
    assert credential("Basic !!!") == b""
    assert credential("Digest abc") == b""
    assert credential("") == b""


async def test_a_head_may_have_sixteen_kibibytes(sidecar: Running) -> None:
    """More is 431, whether in one line or in many."""
    for headers in ({"X-A": "a" * 20_000}, {f"X-{place}": "a" * 1000 for place in range(20)}):
        status, body = await sidecar.ask("GET", CHECK, headers=headers)
        assert (status, body["code"]) == (431, "head_too_large")
