"""What can be asked: the calls by method and path, and each request as it arrived."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

VERSION = "2026-10-28.endive"
ENTITLEMENTS = "/v1/entitlements/active_entitlements"
FEATURES = "/v1/entitlements/features"
EVENTS = "/v1/events"
CURSORS = ("starting_after", "ending_before")


class Operation(NamedTuple):
    name: str
    permission: str = ""
    parameters: frozenset[str] = frozenset()
    expandable: str = ""


READ, WRITE, READ_EVENTS = "rak_entitlement_read", "rak_entitlement_write", "rak_event_read"
PAGED = frozenset({"limit", *CURSORS})
OPERATIONS = {
    ("GET", ENTITLEMENTS): Operation("list", READ, PAGED | {"customer"}, "data.feature"),
    ("GET", f"{ENTITLEMENTS}/*"): Operation("retrieve", READ, expandable="feature"),
    ("GET", FEATURES): Operation("features", READ, PAGED | {"archived", "lookup_key"}),
    ("GET", f"{FEATURES}/*"): Operation("feature", READ),
    ("POST", FEATURES): Operation("create_feature", WRITE, frozenset({"lookup_key", "name", "metadata"})),
    ("POST", f"{FEATURES}/*"): Operation("update_feature", WRITE, frozenset({"name", "active", "metadata"})),
    ("GET", EVENTS): Operation("events", READ_EVENTS, PAGED | {"type", "types", "created", "delivery_success"}),
    ("GET", f"{EVENTS}/*"): Operation("event", READ_EVENTS),
}
UNKNOWN = Operation("unknown")


def operation_of(method: str, path: str) -> Operation:
    parent, _, last = path.rpartition("/")
    return OPERATIONS.get((method, f"{parent}/*")) or OPERATIONS.get((method, path), UNKNOWN) if last else UNKNOWN


@dataclass(slots=True)
class Seen:
    """One request as it arrived; `status` comes with the answer and stays None where there was none."""

    method: str
    path: str
    query: Mapping[str, str]
    account: str | None
    request_id: str
    at: float
    headers: Mapping[str, str] = field(repr=False)  # they hold the key
    status: int | None = None

    @property
    def operation(self) -> str:
        """The name in OPERATIONS, or "unknown"."""
        return operation_of(self.method, self.path).name
