"""Stripe's way in: news of customers, signed by Stripe.

Nothing is trusted but the signature, and of what is signed only whom it is about. The answer waits for nothing: news is
marked before it is sent, and Stripe delivers anew, for days, what was not answered with 2xx.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from sidecar.api import answers
from sidecar.api.questions import read_body
from sidecar.errors import Malformed, Refused
from sidecar.kit.clock import Clock
from sidecar.model import Customer
from sidecar.stripe.events import Event
from sidecar.stripe.webhook import Thin, read_notification, verify

log = logging.getLogger(__name__)

PATH = "/webhooks/stripe"

OUTCOMES = (
    "news",
    "duplicate",
    "other_type",
    "thin",
    "other_mode",
    "no_signature",
    "malformed_signature",
    "bad_signature",
    "signature_too_old",
    "malformed",
    "too_large",
    "refused",
)
"""What can become of a request, as metrics count it; ``malformed`` was signed by Stripe and is still no event."""


class Webhooks:
    """The handler.

    ``secrets`` are those by which Stripe signs, as they are just then. ``hear`` is told of an event's id and customer,
    and returns, once that would survive the process, False when it has heard that id before; ``hurry`` is told when
    somebody's entitlements changed and it was not said whose.
    """

    def __init__(
        self,
        secrets: Callable[[], Sequence[str]],
        *,
        livemode: bool,
        hear: Callable[[str, Customer], Awaitable[bool]],
        hurry: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._secrets = secrets
        self._livemode = livemode
        self._hear = hear
        self._hurry = hurry
        self._clock = clock
        self.outcomes = dict.fromkeys(OUTCOMES, 0)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this surface."""
        return [web.post(PATH, self.receive)]

    async def receive(self, request: web.Request) -> web.Response:
        """Take in one delivery of Stripe's; what is refused is not answered with 2xx, so Stripe tries again."""
        body = await self._read(request)
        outcome = await self._take(self._understand(request, body))
        self.outcomes[outcome] += 1
        return answers.json({"received": True, "outcome": outcome}, answers.no_store())

    async def _read(self, request: web.Request) -> bytes:
        try:
            return await read_body(request)
        except web.HTTPRequestEntityTooLarge:
            self._refuse("too_large", "the body is too large")
            raise
        except Refused as error:
            self._refuse("refused", error.detail)
            raise

    def _understand(self, request: web.Request, body: bytes) -> Event | Thin:
        try:
            verify(body, signature_of(request), self._secrets(), now=self._clock())
            return read_notification(body)
        except Refused as error:
            self._refuse("malformed" if isinstance(error, Malformed) else error.code, error.detail)
            raise

    async def _take(self, notification: Event | Thin) -> str:
        """Do what a notification asks for, and return what it was."""
        if notification.livemode is not self._livemode:
            modes = ("live", "test") if notification.livemode else ("test", "live")
            log.warning("Stripe sent an event of %s mode, but the API key is of %s mode", *modes)
            return "other_mode"
        if isinstance(notification, Thin):
            if notification.is_news:
                self._hurry()
            return "thin"
        if notification.customer is None:
            return "other_type"
        return "news" if await self._hear(notification.id, notification.customer) else "duplicate"

    def _refuse(self, outcome: str, why: str) -> None:
        self.outcomes[outcome] += 1
        log.warning("refused a webhook's request (%s): %s", outcome, why)


def signature_of(request: web.BaseRequest) -> str | None:
    """Return the signature that a request has, if it has one.

    :raises Refused: when there is more than one; which of them another reader took could not be told.
    """
    fields = request.headers.getall("Stripe-Signature", [])
    if len(fields) > 1:
        raise Refused("malformed_signature", "Stripe-Signature: is there more than once")
    return fields[0] if fields else None
