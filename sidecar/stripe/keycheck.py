"""Does Stripe accept the API key, and may it read entitlements? Asked once at the start, before a caller has to.

Whether it may read events shows in the feed's first poll. What comes of both is told by their healths.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from sidecar.errors import KeyRejected, PermissionMissing, RequestRejected, UpstreamError
from sidecar.stripe.health import Health

ANSWERS: Final = (KeyRejected, PermissionMissing, RequestRejected)
"""Failures that are an answer: asking again would bring the same."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
"""Seconds after the first request that brought no answer, and at most; each pause is twice the one before."""


class KeyCheck:
    """Asks by ``probe``, with what the budget has left over, until there is an answer or somebody else has got one.

    ``probe`` is one request, paid by ``take_spare``, that notes in ``health`` what came of it.
    """

    def __init__(
        self, probe: Callable[[], Coroutine[Any, Any, None]], take_spare: Callable[[], bool], health: Health
    ) -> None:
        self._probe = probe
        self._take_spare = take_spare
        self._health = health
        self._again = asyncio.Event()

    def again(self) -> None:
        """Ask once more: there is another key."""
        self._health.forget()
        self._again.set()

    async def run(self) -> None:
        """Ask now, and again for each new key, for ever."""
        while True:
            await self._ask()
            _ = await self._again.wait()

    async def _ask(self) -> None:
        pause = FIRST_PAUSE
        while self._health.may_read is None:
            self._again.clear()
            if self._take_spare() and await self._is_answered():
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _is_answered(self) -> bool:
        """Ask; tell whether that brought an answer."""
        try:
            await self._probe()
        except UpstreamError as error:  # the health has said it
            return isinstance(error, ANSWERS) and not error.retry
        return True
