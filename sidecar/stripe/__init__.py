"""All that speaks Stripe.

client     what is asked: lists, events, and what callers want passed on; attempts × budget
manners    how it is asked: how patiently, and each request how urgently
feed       the events, polled: what changed, and up to when every change is known
transport  one request; the errors of the network become ours here
pages      one complete read of a list, page by page, without I/O
events     one complete read of the events, and what one of them says, without I/O
webhook    what Stripe sends of its own accord: signature and event, without I/O
answers    what a status, headers and body of Stripe mean, without I/O
render     the same objects the other way: what Stripe would say, from a snapshot, without I/O
key        the API key: never shown, replaced when it was rotated
keycheck   what the key may do, asked once at the start
health     since when Stripe answers or does not, and why not
"""
