"""Mechanisms, a page each; none knows what an entitlement is.

address       where a listener listens
breaker       no more requests for a while when all fail; one finds out when that is over
bucket        tokens at a rate that halves when it has to, and recovers
clock         what time it is: wall time that never jumps
door          how many may be inside, and who leaves when one more comes
duration      30s, 5m, 24h
lifecycle     starting, serving, draining
limiter       who gets the next token: a bounded queue of three classes
pulse         how late the event loop runs
request_id    what its caller calls the request that is being handled
singleflight  many askers, one piece of work
spans         what a trace may say of a piece of work
tally         a histogram of plain integers
tasks         one-off tasks that neither get lost nor die in silence
worker        a thread for what blocks, which holds up no exit
"""
