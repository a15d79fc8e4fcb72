"""A bare aiohttp server, for how long one takes to start: ``hello.py PORT``."""

import sys

from aiohttp import web


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="hello")


if __name__ == "__main__":
    app = web.Application()
    app.router.add_get("/{path:.*}", hello)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
