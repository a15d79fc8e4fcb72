"""Changes as they are seen, as server-sent events (WHATWG HTML §9.2), resumable with ``Last-Event-ID``.

An id is sent only together with what it stands for, or when there is nothing before it that the client lacks: however
a connection breaks, the id that the client comes back with loses nothing.
"""

import asyncio
from contextlib import suppress
from typing import Any, Final

import orjson
from aiohttp import web

from sidecar.api import answers
from sidecar.api.questions import parameters
from sidecar.api.request_ids import HEADER
from sidecar.core.changes import Change, Changes
from sidecar.errors import Refused
from sidecar.kit.request_id import request_id

CHANGES: Final = "/v1/changes"

RETRY: Final = b"retry: 2000\n"
"""Milliseconds after which a client connects again."""

COMMENT: Final = b":\n\n"
"""What a client ignores; it keeps proxies from closing a silent connection, and shows us those who left."""


class ChangeStream:
    """The handler. After ``heartbeat`` seconds without a change a comment is sent; at ``most`` so many may read."""

    def __init__(self, changes: Changes, *, heartbeat: float = 15.0, most: int = 1000) -> None:
        self._changes = changes
        self._heartbeat = heartbeat
        self._most = most

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this surface."""
        return [web.get(CHANGES, self.stream)]

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Send changes from where the client left off until it leaves or the process shuts down.

        A client that has missed some gets ``reset`` with the reason: it has to list again. A shutdown is the end of
        a 200: after any other status an ``EventSource`` would not come back.
        """
        parameters(request)
        if self._changes.subscribers >= self._most:
            raise Refused("too_many_subscribers", f"{self._most} readers are served already", status=503)
        headers = answers.no_store()
        headers["Content-Type"] = "text/event-stream"
        if (caller_says := request_id.get()) is not None:
            headers[HEADER] = caller_says  # it is too late for that when the stream ends
        headers["X-Accel-Buffering"] = "no"  # nginx would hold events back
        response = web.StreamResponse(headers=headers)
        with self._changes.subscribed(), suppress(ConnectionError):  # the client left, as all do in the end
            await response.prepare(request)
            if request.method != "HEAD":
                await self._send(response, last_seen(request))
        return response

    async def _send(self, response: web.StreamResponse, last_event_id: str | None) -> None:
        changes = self._changes
        cursor = changes.after(last_event_id)
        if cursor is None:
            cursor = changes.last
            await response.write(RETRY + b"\n" + self._reset("not_resumable", cursor))
        else:
            await response.write(RETRY + b"id: %s\n\n" % changes.id_of(cursor).encode())
        while True:
            reading = changes.since(cursor)
            cursor = reading.cursor
            if reading.missed:
                await response.write(self._reset("fell_behind", cursor))
            elif reading.changes:
                await response.write(b"".join(map(self._change, reading.changes)))
                await asyncio.sleep(0)  # a write that need not wait does not suspend, and there may be many
            elif changes.closed:
                return
            else:
                await self._wait(response, cursor)

    async def _wait(self, response: web.StreamResponse, cursor: int) -> None:
        """Wait for the next change; when there was none for a heartbeat, say so."""
        try:
            async with asyncio.timeout(self._heartbeat):
                await self._changes.wait(cursor)
        except TimeoutError:
            await response.write(COMMENT)

    def _change(self, change: Change) -> bytes:
        members = {
            **answers.who(change.customer),
            "lookup_key": change.lookup_key,
            "as_of": answers.moment(change.as_of),
        }
        return event(change.kind, self._changes.id_of(change.number), members)

    def _reset(self, reason: str, cursor: int) -> bytes:
        return event("reset", self._changes.id_of(cursor), {"reason": reason})


def last_seen(request: web.Request) -> str | None:
    """Return what the client says that it saw last; more than one such field is one that we never sent."""
    found = request.headers.getall("Last-Event-ID", [])
    return ", ".join(found) if found else None


def event(name: str, id_: str, members: dict[str, Any]) -> bytes:
    """Return an event; JSON has no line breaks of its own, so its data is one line."""
    return b"event: %s\nid: %s\ndata: %s\n\n" % (name.encode(), id_.encode(), orjson.dumps(members))
