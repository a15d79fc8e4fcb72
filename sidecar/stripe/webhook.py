"""What Stripe sends of its own accord: whether it was Stripe, and what it says, without I/O.

The verdict on a signature (docs.stripe.com/webhooks/signature) is that of the official SDK, stripe-python 16's
``WebhookSignature.verify_header``, oddities included: a time stamp is whatever ``int`` takes, one from the future is
not too old, and a tolerance of zero accepts any age.
"""

import hmac
from collections.abc import Sequence
from hashlib import sha256
from itertools import takewhile
from typing import Any, NamedTuple

import orjson

from sidecar.errors import Broken, Malformed, Refused
from sidecar.stripe.events import Event, read_event
from sidecar.stripe.pages import is_text

SCHEME = "v1"
TOLERANCE = 300.0
"""Seconds; each attempt of Stripe's to deliver an event is signed anew."""

LONGEST_HEADER = 8192
MOST_PARTS = 100
"""Stripe sends a time stamp and one signature for each active secret."""

THIN = "v2.core.event"
THIN_NEWS = "v1.entitlements.active_entitlement_summary."
"""What the types of thin events about entitlements begin with; none of them names the customer."""


class Thin(NamedTuple):
    """A thin event, which says what happened but not to whom (docs.stripe.com/event-destinations/overview)."""

    id: str
    type: str
    livemode: bool

    @property
    def is_news(self) -> bool:
        """Whether the entitlements of some customer changed."""
        return self.type.startswith(THIN_NEWS)


def verify(
    body: bytes, header: str | None, secrets: Sequence[str], *, now: float, tolerance: float = TOLERANCE
) -> None:
    """Return if ``header`` (``Stripe-Signature``) proves that Stripe sent ``body``, with any of ``secrets``.

    ``now`` is in Unix seconds; ``tolerance`` is how many of them the signature may be old. A secret is a key as it is
    written, ``whsec_`` included; a blank one proves nothing.

    :raises Refused: ``no_signature``, ``malformed_signature``, ``bad_signature`` or ``signature_too_old``; it repeats
        nothing of what was sent.
    """
    if not header:
        raise Refused("no_signature", "Stripe-Signature: is missing")
    at, signatures = read_header(header)
    if not any(is_signed(body, at, signatures, secret) for secret in secrets):
        raise Refused("bad_signature", "Stripe-Signature: fits none of the configured secrets and this body")
    if tolerance and at < now - tolerance:
        age = f"{now - max(at, 0):.0f} s ago by this host's clock; at most {tolerance:g} s are accepted"
        raise Refused("signature_too_old", f"Stripe-Signature: was made {age}")


def read_header(header: str) -> tuple[int, list[str]]:
    """Return the time stamp in Unix seconds and the signatures of the one scheme that counts.

    :raises Refused: when either is missing, or there is far more than Stripe would send.
    """
    if len(header) > LONGEST_HEADER or header.count(",") >= MOST_PARTS:
        raise Refused("malformed_signature", f"Stripe-Signature: has more than {MOST_PARTS} parts or is too long")
    parts = [part.split("=", 2) for part in header.split(",")]
    try:
        times = [part[1] for part in parts if part[0] == "t"]
        signatures = [part[1] for part in parts if part[0] == SCHEME]
        at = int(times[0])
    except (IndexError, ValueError):
        signatures, at = [], 0
    if not signatures:
        raise Refused("malformed_signature", "Stripe-Signature: must have t=… and v1=…")
    return at, signatures


def is_signed(body: bytes, at: int, signatures: Sequence[str], secret: str) -> bool:
    """Tell whether one of ``signatures`` is ``secret``'s for ``body`` at the time ``at``; each takes equally long."""
    if not secret.strip(" \t\r\n\f\v"):
        return False
    mac = hmac.new(secret.encode(errors="surrogatepass"), b"%d." % at, sha256)
    mac.update(body)
    expected = mac.hexdigest()
    ascii_ones = takewhile(str.isascii, signatures)  # the SDK, too, gives up at one that is not
    return any(hmac.compare_digest(expected, signature) for signature in ascii_ones)


def read_notification(body: bytes) -> Event | Thin:
    """Return the event in a verified body.

    :raises Malformed: when it is none; it repeats nothing of the body.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Malformed("body", "is not JSON") from None
    try:
        return read_thin(found) if isinstance(found, dict) and found.get("object") == THIN else read_event(found)
    except Broken as error:
        raise Malformed("body", f"must be one of Stripe's events; it is {error.detail}") from None


def read_thin(item: dict[str, Any]) -> Thin:
    """Read a thin event.

    :raises Broken: when something is missing.
    """
    id_, type_, livemode = item.get("id"), item.get("type"), item.get("livemode")
    if not is_text(id_) or not is_text(type_) or not isinstance(livemode, bool):
        raise Broken("a thin event without id, type or livemode", retry=False)
    return Thin(id_, type_, livemode)
