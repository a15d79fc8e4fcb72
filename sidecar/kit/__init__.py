"""Mechanisms, a page each; none knows what an entitlement is.

address       where a listener listens
breaker       no more requests for a while when all fail; one finds out when that is over
bucket        tokens at a rate that halves when it has to, and recovers
clock         what time it is: wall time that never jumps
duration      30s, 5m, 24h
lifecycle     starting, serving, draining
limiter       who gets the next token: a bounded queue of three classes
pulse         how late the event loop runs
singleflight  many askers, one piece of work
tally         a histogram of plain integers
tasks         one-off tasks that neither get lost nor die in silence
"""
