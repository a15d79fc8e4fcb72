"""``X-Request-Id``: what a caller calls its request is given back, and is in the log lines written for it."""

import re

from aiohttp import web
from aiohttp.typedefs import Handler

from sidecar.kit.request_id import request_id

HEADER = "X-Request-Id"
ACCEPTABLE = re.compile(r"[\x20-\x7e]{1,200}")


@web.middleware
async def identified(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Note the request's id, if it has one that is printable ASCII and not too long; others are ignored."""
    found = request.headers.get(HEADER)
    if found is None or not ACCEPTABLE.fullmatch(found):
        return await handler(request)
    request_id.set(found)  # the task is this request's alone, so nothing is taken back
    response = await handler(request)
    if not response.prepared:
        response.headers[HEADER] = found
    return response
