"""What many would write in an afternoon: a handler before a TTL cache. It serves ``plain.py PORT STRIPE_URL``."""

import sys
from datetime import UTC, datetime

import orjson
import uvloop
from aiohttp import ClientSession, web
from cachetools import TTLCache

CACHE: TTLCache[str, tuple[frozenset[str], datetime]] = TTLCache(maxsize=100_000, ttl=3600)
HEADERS = {"Authorization": "Bearer sk_test_demo"}


async def fetch(customer: str) -> tuple[frozenset[str], datetime]:
    url = f"{sys.argv[2]}/v1/entitlements/active_entitlements"
    async with ClientSession(raise_for_status=True) as session:
        answer = await session.get(url, params={"customer": customer, "limit": "100"}, headers=HEADERS)
        return frozenset(entitlement["lookup_key"] for entitlement in (await answer.json())["data"]), datetime.now(UTC)


async def decide(customer: str, lookup_key: str) -> dict[str, object]:
    found, source = CACHE.get(customer), "memory"
    if found is None:
        found, source = await fetch(customer), "upstream"
        CACHE[customer] = found
    entitled = lookup_key in found[0]
    return {
        "customer": customer,
        "lookup_key": lookup_key,
        "entitled": entitled,
        "reason": "entitled" if entitled else "not_entitled",
        "source": source,
        "age": (datetime.now(UTC) - found[1]).total_seconds(),
        "stale": False,
        "as_of": found[1],
    }


async def check(request: web.Request) -> web.Response:
    answer = await decide(request.match_info["customer"], request.match_info["lookup_key"])
    return web.Response(body=orjson.dumps(answer), content_type="application/json")


async def checks(request: web.Request) -> web.Response:
    asked = orjson.loads(await request.read())["checks"]
    answer = {"results": [await decide(one["customer"], one["lookup_key"]) for one in asked]}
    return web.Response(body=orjson.dumps(answer), content_type="application/json")


def main() -> None:
    app = web.Application()
    app.router.add_get("/v1/customers/{customer}/entitlements/{lookup_key}", check)
    app.router.add_post("/v1/checks", checks)
    loop = uvloop.new_event_loop()
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None, loop=loop)


if __name__ == "__main__":
    main()
