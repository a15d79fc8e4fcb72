"""An Unleash as far as @unleash/proxy needs one: ten features, each for the one customer. ``toggles.py PORT``."""

import sys

from aiohttp import web

from tests.bench.upstream import CUSTOMER, LOOKUP_KEYS

FEATURES = [
    {
        "name": name,
        "type": "release",
        "enabled": True,
        "strategies": [{"name": "userWithId", "parameters": {"userIds": CUSTOMER}}],
        "variants": [],
    }
    for name in LOOKUP_KEYS
]


async def features(_: web.Request) -> web.Response:
    return web.json_response({"version": 2, "features": FEATURES})


async def take(_: web.Request) -> web.Response:
    return web.Response(status=202)


if __name__ == "__main__":
    app = web.Application()
    app.router.add_get("/api/client/features", features)
    app.router.add_post("/api/client/{what}", take)  # its registration and what it counted
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
