"""All that speaks Stripe.

client     what is asked: complete lists, and what callers want passed on; attempts × budget
transport  one request; the errors of the network become ours here
pages      one complete read of a list, page by page, without I/O
answers    what a status, headers and body of Stripe mean, without I/O
render     the same objects the other way: what Stripe would say, from a snapshot, without I/O
key        the API key: never shown, read again when it was rotated
health     since when Stripe answers or does not, and why not
"""
