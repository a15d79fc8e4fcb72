"""Sockets, and what is not HTTP."""

import asyncio
import socket
from pathlib import Path

import aiohttp
import pytest

from sidecar.api.listening import bind, named
from sidecar.demo import FakeStripe
from sidecar.errors import BadSettings
from sidecar.kit.address import Address
from tests.fakes import Running, running


async def raw(sidecar: Running, sent: bytes) -> bytes:
    """Return all that comes back for bytes on a fresh connection, which the server closes."""
    host, port = sidecar.sidecar.checks.addresses[0].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    received = await reader.read()
    writer.close()
    await writer.wait_closed()
    return received


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"garbage\r\n\r\n", 400, b"malformed_request"),
        (b"GET /v1/customers/cus_1/entitlements/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, b"malformed_request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, b"malformed_request"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA\x00B: c\r\n\r\n", 400, b"malformed_request"),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431, b"head_too_large"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 70 + b"\r\n", 431, b"head_too_large"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: " + b"x" * 20_000 + b"\r\n\r\n", 431, b"head_too_large"),
    ],
    ids=range(7),
)
async def test_what_is_not_http_is_refused(
    sidecar: Running, stripe: FakeStripe, caplog: pytest.LogCaptureFixture, sent: bytes, status: int, code: bytes
) -> None:
    """A problem document that echoes nothing, on a connection that is closed, without a traceback in the log."""
    received = await raw(sidecar, sent)
    head, _, body = received.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert b"application/problem+json" in head
    assert b'"code":"%s"' % code in body
    assert b"xxxx" not in body
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
    assert not stripe.requests


async def test_a_caller_that_hangs_up_in_its_body_is_no_news(
    sidecar: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a body and a closed connection are nobody's defect: no traceback in the log."""
    host, port = sidecar.sidecar.checks.addresses[0].split(":")
    for _ in range(5):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/checks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.transport.abort()
    await asyncio.sleep(0.05)
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


@pytest.mark.parametrize(("expected", "status"), [(b"100-continue", 200), (b"100-Continue", 200), (b"banana", 417)])
async def test_expectations(sidecar: Running, expected: bytes, status: int) -> None:
    """Who asks may go on; what cannot be met is a problem document that does not repeat it."""
    body = b'{"checks":[]}'
    head = (
        b"POST /v1/checks HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\nExpect: %s\r\n\r\n"
    )
    received = await raw(sidecar, head % (len(body), expected) + body)
    if status == 200:
        assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")
        assert received.endswith(b'{"results":[]}')
    else:
        assert received.startswith(b"HTTP/1.1 417")
        assert b"application/problem+json" in received
        assert expected not in received


async def test_a_request_without_host_in_http_1_0(sidecar: Running, stripe: FakeStripe) -> None:
    """HTTP/1.0 has no Host, and no browser speaks it."""
    stripe.grant("cus_1", "a")
    received = await raw(sidecar, b"GET /v1/customers/cus_1/entitlements/a HTTP/1.0\r\n\r\n")
    assert b'"entitled":true' in received


async def test_a_unix_socket_is_served(upstream: str, stripe: FakeStripe, tmp_path: Path) -> None:
    """Checks are answered on a unix socket; one that a dead process left behind is replaced."""
    stripe.grant("cus_1", "a")
    path = tmp_path / "s.sock"
    bind(Address("", 0, str(path))).close()  # left behind
    async with running(upstream, listen=f"unix:{path},127.0.0.1:0") as sidecar:
        assert sidecar.sidecar.checks.addresses[0] == f"unix:{path}"
        connector = aiohttp.UnixConnector(str(path))
        url = "http://localhost/v1/customers/cus_1/entitlements/a"
        async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as response:
            assert (await response.json())["entitled"] is True
        with pytest.raises(BadSettings, match="another process listens there"):
            bind(Address("", 0, str(path)))


def test_addresses_that_cannot_be_had_name_themselves(tmp_path: Path) -> None:
    """A port in use, a folder that is not there, a host that is not ours."""
    with bind(Address("127.0.0.1", 0)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        for address in (Address("127.0.0.1", port), Address("", 0, f"{tmp_path}/none/s"), Address("192.0.2.1", 1)):
            with pytest.raises(BadSettings, match=r"cannot be listened on"):
                bind(address)


def test_ipv6_is_named_in_brackets() -> None:
    """An address is written so that it can stand in a URL."""
    try:
        bound = bind(Address("::1", 0))
    except BadSettings:
        with socket.socket(socket.AF_INET) as bound:
            assert named(bound) == "0.0.0.0:0"
        return
    with bound:
        assert named(bound).startswith("[::1]:")
