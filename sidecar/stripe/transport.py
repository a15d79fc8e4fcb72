"""One request over the network. Its errors become ours here and nowhere else; nothing above sees one of aiohttp's."""

from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
from yarl import URL

from sidecar.errors import Broken, Unreachable
from sidecar.kit.limiter import Limiter, Urgency
from sidecar.stripe.answers import Answer

BODY = 16 << 20
"""Bytes that an answer may have: a page of 100 entitlements with lookup keys of 5,000 characters is 1.5 MB."""

TIMEOUT = aiohttp.ClientTimeout(total=10.0, sock_connect=2.0)


class Repeats:
    """A client middleware: aiohttp sends a GET once more by itself when a pooled connection turns out to be closed.

    That is a request like any other, so the budget is asked, as urgently as for the first, and it is counted.
    """

    def __init__(self, limiter: Limiter, urgency: Callable[[], Urgency], repeated: Callable[[], None]) -> None:
        self._limiter = limiter
        self._urgency = urgency
        self._repeated = repeated
        self._sent = False

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send ``request``, by way of the budget unless it is the first time."""
        if self._sent:
            await self._limiter.take(self._urgency, within=1.0)
            self._repeated()
        self._sent = True
        return await handler(request)


class Transport:
    """The pool of connections to Stripe."""

    def __init__(self, session: aiohttp.ClientSession, limiter: Limiter) -> None:
        self._session = session
        self._limiter = limiter

    async def get(
        self,
        url: URL,
        headers: Mapping[str, str],
        asked_at: float,
        *,
        repeated: Callable[[], None],
        urgency: Callable[[], Urgency],
    ) -> Answer:
        """Send one GET; ``repeated`` is told when aiohttp sent it once more, which is as urgent as the first time.

        :raises Unreachable: when no answer came.
        :raises Broken: when what came is not one.
        :raises OverBudget: when it would have to be sent once more and the budget has no room.
        """
        repeats = Repeats(self._limiter, urgency, repeated)
        try:
            # Redirects are not followed: they would carry the key to another place.
            async with self._session.get(
                url, headers=headers, allow_redirects=False, timeout=TIMEOUT, middlewares=[repeats]
            ) as response:
                return Answer(response.status, await read_body(response), response.headers, asked_at)
        except TimeoutError:
            raise Unreachable(f"no answer from {url.origin()} in time") from None
        except aiohttp.ClientResponseError as error:  # its own text has the URL, and so the customer
            raise Broken(f"the answer from {url.origin()} is not HTTP: {error.message}") from None
        except aiohttp.ClientPayloadError as error:
            raise Broken(f"the answer from {url.origin()} was cut off: {error}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{url.origin()} cannot be reached: {str(error) or type(error).__name__}") from None


async def read_body(response: aiohttp.ClientResponse) -> bytes:
    """Return the body of ``response``, unless it is far longer than any answer of Stripe's.

    :raises Broken: when it is.
    """
    chunks: list[Any] = []
    size = 0
    async for chunk in response.content.iter_chunked(1 << 16):
        size += len(chunk)
        if size > BODY:
            raise Broken(f"an answer of more than {BODY} bytes", status=response.status, retry=False)
        chunks.append(chunk)
    return b"".join(chunks)
