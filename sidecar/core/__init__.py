"""The heart: remember, renew, answer. No I/O; time and the way to Stripe are passed in.

heart       the parts, put together

checker     the read road: is there an answer in memory that may be given? (``glance``; ``find`` and ``check`` wait)
cache       what is remembered, bounded in bytes; never goes back in time
trust       how far what is in memory may be trusted, and when it is due to be read again
globs       what holds for which lookup keys
wishes      how old an answer this caller accepts (RFC 9111 request directives)
recall      who is not in memory may be in the store
vigil       callers who wait for a grant

refresher   the write road: one flight per customer; the only writer of the cache
news        what is heard of changes, whoever brings it
schedule    customers to be read again because of news
watermarks  up to when every change has been heard of
audit       can the feed be trusted?
sizing      can the budget keep young what is remembered?
changes     what came and went, in a bounded ring
"""
