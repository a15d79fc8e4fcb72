"""Ways in. Each turns HTTP into a question for ``core.checker`` and its answer into HTTP; none knows another.

checks     our own surface: check, list, batch, refresh, explain
stripe     Stripe's surface: the official SDKs work on it unchanged
changes    what came and went, as server-sent events
webhooks   Stripe's way in: signed news, on a listener of its own
ops        health, status and metrics, on a listener of its own

questions  what a caller may say, and how it is refused
answers    decisions and lists as JSON and headers
problems   errors as problem+json (RFC 9457), or in Stripe's words
guards     who may ask: Host, token, size of the head
listening  sockets, bound early and served late; refusals of what is not HTTP
"""
