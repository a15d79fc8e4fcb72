"""What one account knows: its features, its customers and their entitlements, and what became of them as events."""

from collections.abc import Callable, Mapping

from sidecar.demo.events import Events
from sidecar.demo.faults import Json, Refusal
from sidecar.demo.pages import Params, is_true

Maker = Callable[[str, str, str], Json]
"""Of a prefix for the id, a kind of object and a lookup key makes what every object has."""


class Account:
    """The own account, or a connected one."""

    def __init__(self, make: Maker) -> None:
        self._make = make
        self.features: dict[str, Json] = {}  # by id, oldest first
        self.customers: dict[str, dict[str, Json]] = {}  # their entitlements by id, oldest first
        self.events = Events()

    def held(self, customer: str) -> list[Json]:
        """List the customer's entitlements, newest first."""
        return list(self.customers.get(customer, {}).values())[::-1]

    def grant(self, customer: str, lookup_key: str, *, new_feature: bool) -> str:
        feature = self._active(lookup_key)
        if feature and new_feature:
            feature["active"] = False
        if not feature or new_feature:
            feature = self.add_feature(lookup_key)
        held = self.customers.setdefault(customer, {})
        for id_, entitlement in held.items():
            if entitlement["feature"] == feature["id"]:
                return id_
        new = self._make("ent", "active_entitlement", lookup_key) | {"feature": feature["id"]}
        held[new["id"]] = new
        return str(new["id"])

    def revoke(self, customer: str, lookup_key: str) -> int:
        held = self.customers.get(customer, {})
        gone = [id_ for id_, entitlement in held.items() if entitlement["lookup_key"] == lookup_key]
        for id_ in gone:
            del held[id_]
        return len(gone)

    def inlined(self, entitlement: Json, params: Params) -> Json:
        return entitlement | {"feature": self.features[entitlement["feature"]]} if "expand" in params else entitlement

    def catalogue(self, params: Params) -> Mapping[str, Json]:
        """Pick the features that are in use, or in the archive, and of one key if there is one to go by."""
        active, key = not is_true(params, "archived"), params.get("lookup_key")
        return {id_: f for id_, f in self.features.items() if f["active"] is active and key in (None, f["lookup_key"])}

    def add_feature(self, lookup_key: str) -> Json:
        new = self._make("feat", "feature", lookup_key) | {"active": True, "metadata": {}, "name": lookup_key}
        self.features[new["id"]] = new
        return new

    def update(self, feature: Json, params: Params) -> Json:
        if "active" in params:
            active = is_true(params, "active")
            if active and not feature["active"]:
                self.check_free(feature["lookup_key"])
            feature["active"] = active
        feature["name"] = params.get("name", feature["name"])
        noted = {name[len("metadata[") : -1]: value for name, value in params.items() if name.startswith("metadata[")}
        feature["metadata"] = {name: value for name, value in (feature["metadata"] | noted).items() if value}
        return feature

    def check_free(self, lookup_key: str) -> None:
        if self._active(lookup_key):
            message = f"A feature has the lookup key '{lookup_key}' already."
            raise Refusal(400, message, "resource_already_exists", "lookup_key")

    def _active(self, lookup_key: str) -> Json | None:
        """Find the feature of this key: one is active at most, any number may be archived."""
        return next((f for f in self.features.values() if f["active"] and f["lookup_key"] == lookup_key), None)
