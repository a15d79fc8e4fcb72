"""The heart: remember, renew, answer. No I/O; time and the way to Stripe are passed in.

checker    the read road: is there an answer in memory that may be given? (``glance``; ``find`` and ``check`` wait)
cache      what is remembered, bounded in bytes; never goes back in time
refresher  the write road: one flight per customer; the only writer of the cache
wishes     how old an answer this caller accepts (RFC 9111 request directives)
"""
