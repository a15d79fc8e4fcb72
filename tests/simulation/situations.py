"""What has to happen now and then, or the simulation tests less than it claims."""

from collections.abc import Mapping

ENOUGH = 1000
"""Seeds among which each of them occurs."""

SITUATIONS = (
    "answers", "requests", "requests for a further page", "cursors vanished", "polls", "polls that failed", "gaps", "jumps",
    "news", "news told again", "flights overtaken by news", "flights put off for the budget",
    "requests that the budget refused", "lists compared for the audit", "changes told", "evictions", "restarts",
    "offered lists taken", "offered lists refused", "callers who hung up", "answers that were waited for",
    "waits satisfied", "dirty waits satisfied", "dirty waits in vain", "no answer",
    "answer entitled", "answer not_entitled", "answer unknown_customer", "answer unavailable",
    "told memory", "told upstream", "told fresh", "told stale", "told dirty", "told unknown", "told vouched for",
    "asked when absent", "asked when dirty", "asked when expired", "asked when fresh", "asked when stale",
    "ask answer", "ask check", "ask find", "ask refresh", "ask renew_soon",
    "flight broken", "flight cancelled", "flight landed", "flight over_budget", "flight throttled",
    "flight unknown_customer", "flight unreachable", "flight circuit_open", "refusals of the limiter", "breakers opened",
    "trouble 403", "trouble 429", "trouble 500", "trouble half", "trouble html", "trouble lost", "trouble refused",
    "trouble slow", "trouble throttled",
)  # fmt: skip


def missing(counts: Mapping[str, int]) -> list[str]:
    """Return those that never happened."""
    return [situation for situation in SITUATIONS if not counts.get(situation)]
