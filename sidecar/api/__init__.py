"""Ways in. Each turns HTTP into a question for ``core.checker`` and its answer into HTTP; none knows another.

checks     our own surface: check, list, refresh, explain
batches    many checks in one request
stripe     Stripe's surface: the official SDKs work on it unchanged
changes    what came and went, as server-sent events
webhooks   Stripe's way in: signed news, on a listener of its own
ops        health, status and metrics, on a listener of its own

questions  what a caller may say, and how it is refused
answers    decisions and lists as JSON and headers
problems   errors as problem+json (RFC 9457), or in Stripe's words
request_ids  what a caller calls its request: given back, and logged
guards     who may ask: Host, token, size of the head
listening  sockets, bound early, served late, and drained in the end
front      the protocol of every connection: shortcuts first, then aiohttp's; how slow a connection may be
shortcuts  requests that are answered at once, as bytes, without aiohttp
connections  aiohttp's protocol as we use it: its limits, and refusals of what is not HTTP
"""
