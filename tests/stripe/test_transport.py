"""One request over the network, and every way in which it can come to nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from yarl import URL

from sidecar.demo import FakeStripe, Fault
from sidecar.errors import Broken, Unreachable, UpstreamError
from sidecar.kit.clock import steady_clock
from sidecar.kit.limiter import Limiter, Urgency
from sidecar.parts import upstream_session
from sidecar.stripe.answers import Answer
from sidecar.stripe.transport import BODY, Transport

LIST = "/v1/entitlements/active_entitlements?customer=cus_secret"


def caller() -> Urgency:
    """Be somebody who waits."""
    return Urgency.CALLER


@asynccontextmanager
async def saying(what: bytes) -> AsyncIterator[str]:
    """Serve a host that says ``what`` to everybody and hangs up."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(what)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def get(base: str, *, repeated: Callable[[], None] = lambda: None) -> Answer:
    """Send one GET."""
    limiter = Limiter(rate=1000, burst=1000, clock=steady_clock())
    async with upstream_session() as session:
        headers = {"Authorization": "Bearer sk_test_x"}
        return await Transport(session, limiter).get(URL(base + LIST), headers, 1.0, repeated=repeated, urgency=caller)


async def test_an_answer_comes_as_it_is(upstream: str) -> None:
    """Whatever its status: what it means is for others to say."""
    answer = await get(upstream)
    assert (answer.status, answer.asked_at) == (401, 1.0)
    assert answer.headers["Request-Id"].startswith("req_")
    assert b"Invalid API Key" in answer.body


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"", Unreachable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", Broken),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", Broken),
        (b"HTTP/1.1 2xx what\r\n\r\n", Broken),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Broken),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope", Broken),
    ],
    ids=["nothing", "half", "bad chunk", "bad status", "not HTTP", "bad gzip"],
)
async def test_what_is_no_answer_is_an_error_of_ours(said: bytes, kind: type[UpstreamError]) -> None:
    """Its text names neither the customer nor the key."""
    async with saying(said) as base:
        with pytest.raises(kind) as caught:
            await get(base)
    assert "cus_secret" not in str(caught.value)
    assert "sk_test_x" not in str(caught.value)
    assert caught.value.retry


async def test_nobody_there_is_unreachable() -> None:
    """Refused, and a name that does not resolve."""
    for base in ("http://127.0.0.1:9", "http://stripe.invalid"):
        with pytest.raises(Unreachable):
            await get(base)


async def test_more_than_any_answer_is_not_read() -> None:
    """The bound is in bytes after decompression, and asking again would not help."""
    async with saying(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (BODY + 1) + bytes(BODY + 1)) as base:
        with pytest.raises(Broken, match="more than") as caught:
            await get(base)
    assert not caught.value.retry


async def test_a_repeat_of_aiohttps_own_is_told(upstream: str, stripe: FakeStripe) -> None:
    """A pooled connection that was closed meanwhile costs a second request, which the caller hears of."""
    told: list[int] = []
    limiter = Limiter(rate=1, burst=2, clock=steady_clock())
    async with upstream_session() as session:
        transport = Transport(session, limiter)
        await transport.get(
            URL(upstream + LIST), {"Authorization": f"Bearer {stripe.key}"}, 1.0, repeated=lambda: None, urgency=caller
        )
        stripe.break_with(Fault.RESET, times=1)
        answer = await transport.get(
            URL(upstream + LIST),
            {"Authorization": f"Bearer {stripe.key}"},
            1.0,
            repeated=lambda: told.append(1),
            urgency=caller,
        )
    assert answer.status == 400
    assert told == [1]
    assert limiter.left < 2
