"""How old an answer this caller accepts: the request directives of ``Cache-Control`` (RFC 9111 §5.2.1, RFC 5861 §4).

=====================  ================================================================================================
``max-age=N``          at most N seconds old, or learnt by a flight within the deadline; otherwise no answer
``no-cache``           the same as ``max-age=0``: only what was asked of Stripe after this request arrived
``max-stale[=N]``      at most N seconds past freshness, or any age; this alone can reach beyond ``stale_for``
``stale-if-error[=N]`` when Stripe cannot be asked: the old answer, N seconds past freshness or of any age, marked
``only-if-cached``     from memory or not at all
=====================  ================================================================================================

Other directives are ignored, as RFC 9111 §5.2.3 demands; a known one with an impossible value is refused.
"""

import re
from dataclasses import dataclass
from math import inf

from sidecar.errors import Malformed
from sidecar.model import Policy

DIRECTIVE = re.compile(r"""[\s,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?\s*(?:,|$)""")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a caller asks of an answer, in seconds; None where nothing was said.

    ``default`` overrides the operator's policy for this question.
    """

    max_age: float | None = None
    max_stale: float | None = None
    stale_if_error: float | None = None
    only_if_cached: bool = False
    default: Policy | None = None

    def oldest(self, fresh_for: float, stale_for: float) -> float:
        """Return the greatest age that may be answered at once from memory."""
        if self.max_stale is not None:
            return min(fresh_for, inf if self.max_age is None else self.max_age) + self.max_stale
        return stale_for if self.max_age is None else min(self.max_age, stale_for)

    def oldest_on_error(self, fresh_for: float) -> float:
        """Return the greatest age that may be answered when nothing better can be learnt; below zero for none."""
        return -1.0 if self.stale_if_error is None else fresh_for + self.stale_if_error


NO_WISHES = Wishes()


def read_cache_control(text: str) -> dict[str, float | None]:
    """Return the directives that we know and their seconds; None for a directive without a value.

    :raises Malformed: for text that is not a list of directives, or a known directive with an impossible value.
    """
    found: dict[str, float | None] = {}
    at, text = 0, text.rstrip(", \t")  # empty list elements, RFC 9110 §5.6.1.2; elsewhere DIRECTIVE skips them
    while at < len(text):
        match = DIRECTIVE.match(text, at)
        if match is None:
            raise Malformed("Cache-Control", f"cannot be read from {text[at : at + 20]!r} on")
        at = match.end()
        name, value = match[1].lower(), match[3] if match[2] is None else match[2]
        if name in KNOWN:
            found.setdefault(name, seconds(name, value))  # RFC 9111 §4.2.1: of several, the first counts
    return found


KNOWN = {
    "max-age": "a number of seconds",
    "no-cache": None,
    "max-stale": "a number of seconds, or no value",
    "stale-if-error": "a number of seconds, or no value",
    "only-if-cached": None,
}


def seconds(name: str, value: str | None) -> float | None:
    """Return the value of the known directive ``name``; RFC 9111 §1.2.2 delta-seconds."""
    wanted = KNOWN[name]
    if wanted is None:
        return None  # an argument where none belongs means nothing
    if value is None:
        if name == "max-age":
            raise Malformed("Cache-Control", f"max-age needs {wanted}")
        return inf
    if not re.fullmatch("[0-9]+", value):
        raise Malformed("Cache-Control", f"{name} must be {wanted}, not {value[:20]!r}")
    return min(float(value), 2.0**31)  # RFC 9111 §1.2.2: as good as for ever


def wishes(cache_control: str | None, default: str | None = None) -> Wishes:
    """Read a request's ``Cache-Control`` field and its ``default`` parameter.

    :raises Malformed: naming the one that cannot be read.
    """
    if not cache_control and default is None:
        return NO_WISHES
    policy = None
    if default is not None:
        if default not in (Policy.ALLOW, Policy.DENY):
            raise Malformed("default", f"must be allow or deny, not {default[:20]!r}")
        policy = Policy(default)
    said = read_cache_control(cache_control or "")
    return Wishes(
        max_age=0.0 if "no-cache" in said else said.get("max-age"),
        max_stale=None if "no-cache" in said else said.get("max-stale"),
        stale_if_error=said.get("stale-if-error"),
        only_if_cached="only-if-cached" in said,
        default=policy,
    )
