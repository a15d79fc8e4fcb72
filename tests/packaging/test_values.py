"""Values, schema, tables and ``settings.py`` say the same; and whatever the schema lets through makes good YAML."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis_jsonschema import from_schema

from sidecar.errors import BadSettings
from sidecar.settings import Settings
from sidecar.sources import load
from tests.packaging.engines import Chart, Object, read, validate
from tests.packaging.values import APPLICATION, CALCULATED, HOMES, LIBRARY, SCHEMA, schema_text, values_of

CREDENTIALS = {"existingSecret": "stripe"}
SECRET, KEY_FILE = {"existingSecret": "s"}, "/run/secrets/entitlement-sidecar"

SAMPLES: dict[str, tuple[Object, Any]] = {
    "stripe_api_key_file": ({"credentials": {"existingSecret": "s", "key": "k"}}, Path(f"{KEY_FILE}/stripe/k")),
    "listen": ({"checks": {"address": "::1", "port": 9000}}, "[::1]:9000"),
    "ops_listen": ({"ops": {"address": "127.0.0.1", "port": 9001}}, "127.0.0.1:9001"),
    "insecure_listen": ({"checks": {"address": "::", "insecure": True}}, True),
    "local_token_file": ({"token": {"existingSecret": "s", "key": "k"}}, Path(f"{KEY_FILE}/token/k")),
    "webhook_secret_file": ({"webhooks": SECRET}, Path(f"{KEY_FILE}/webhooks/signing-secret")),
    "webhook_listen": ({"webhooks": SECRET | {"address": "::", "port": 9002}}, "[::]:9002"),
    "store": ({"store": {"enabled": True}}, Path("/var/lib/entitlement-sidecar/lists.db")),
    "store_key_file": ({"store": {"encryption": SECRET}}, Path(f"{KEY_FILE}/store-key/store-key")),
    "stripe_api_base": ({}, "https://proxy.example.test/stripe"),
    "stripe_version": ({}, "2027-01-01.x"),
    "allowed_hosts": ({}, ["one.example.test", "two"]),
    "max_connections": ({}, 1000000),
    "drain_timeout": ({}, "1m"),
    "quit_endpoint": ({}, True),
    "fresh_for": ({}, 90),
    "stale_for": ({}, [{"z-*": "72h"}, {'a"b': 400}, {"*": "2d"}]),
    "unknown_for": ({}, "1.5m"),
    "dirty_wait": ({}, ".25s"),
    "deadline": ({}, "750 ms"),
    "events_poll": ({}, 0),
    "events_lag": ({}, "10s"),
    "audit_every": ({}, "0"),
    "policy": ({}, [{"z-*": "allow"}, {"a": "error"}, {"*": "deny"}]),
    "rate": ({}, 0.000125),
    "burst": ({}, 3),
    "replicas": ({}, 1000000),
    "cache_bytes": ({}, "1.5GiB"),
    "store_bytes": ({}, 5000000000),
    "max_pages": ({}, 7),
    "traces": ({}, True),
    "log_level": ({}, "debug"),
    "log_format": ({}, "text"),
}  # fmt: skip
"""Every setting: the values that set it, and what it then is; as text where that is how an address is written."""

NEVER = {"stripe_api_key", "webhook_secret"}
"""Settings that are secrets themselves: a chart's values are no place for them, and there is a file for each."""


def environment(chart: Chart, values: Object) -> dict[str, str]:
    """Return the variables of the sidecar that ``values`` make."""
    (deployment,) = chart.objects({"sidecar": {"credentials": CREDENTIALS} | values})
    (container,) = deployment["spec"]["template"]["spec"]["initContainers"]
    return {variable["name"]: variable["value"] for variable in container["env"]}


def loaded(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> Settings:
    """Return the settings of a process with these variables."""
    with monkeypatch.context() as patched:
        for name, value in variables.items():
            patched.setenv(name, value)
        return load({})


def complaints_of(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> list[str]:
    """Return what a process would find wrong with these variables."""
    try:
        loaded(monkeypatch, variables)
    except BadSettings as bad:
        return list(bad.complaints)
    return []


class TestEverySetting:
    @pytest.mark.parametrize("name", [name for name in Settings.model_fields if name not in NEVER])
    def test_reaches_the_process_as_it_was_meant(self, user: Chart, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """From the values through Helm and the environment into `settings.py`."""
        values, meant = SAMPLES[name]
        if name not in HOMES:
            values = {"settings": {name: meant}}
        found = getattr(loaded(monkeypatch, environment(user, values)), name)
        if name.endswith("listen") and name != "insecure_listen":
            assert ",".join(map(str, found)) == meant
            return
        if name in ("policy", "stale_for"):
            meant = json.dumps({glob: what for one in meant for glob, what in one.items()})
        elif name == "allowed_hosts":
            meant = tuple(meant)
        expected = (
            getattr(Settings.model_validate({"stripe_api_key": "sk_test_1", name: meant}), name)
            if name not in HOMES
            else meant
        )
        assert found == expected
        assert list(found) == list(expected) if isinstance(found, dict) else True

    def test_is_as_the_process_has_it_when_it_is_not_set(self, user: Chart, monkeypatch: pytest.MonkeyPatch) -> None:
        """The chart has no defaults of its own, but for what a pod needs: its addresses, its files, its store."""
        found = loaded(monkeypatch, environment(user, {})).model_dump()
        default = Settings.model_construct().model_dump()
        changed = {name for name in found if found[name] != default[name]}
        assert changed == {"stripe_api_key_file", "ops_listen", "store"}

    def test_is_in_the_schema_or_has_a_value_of_its_own(self) -> None:
        """One or the other, and all of them."""
        named = json.loads(SCHEMA.read_text())["properties"]["settings"]["properties"].keys()
        assert named | HOMES.keys() == Settings.model_fields.keys()
        assert not named & HOMES.keys()
        assert set(HOMES.values()) <= {value.path for value in values_of(LIBRARY)}

    def test_is_described_once(self) -> None:
        """The schema's part is made from `settings.py`: `make docs` writes it again."""
        assert SCHEMA.read_text() == schema_text()

    @pytest.mark.parametrize("name", CALCULATED)
    def test_that_is_calculated_with_starts_from_the_same_number(self, name: str) -> None:
        """Those are written out in the values, since memory, volume and grace period follow from them."""
        (default,) = [value.default for value in values_of(LIBRARY) if value.path == f"settings.{name}"]
        found = Settings.model_validate({"stripe_api_key": "sk_test_1", name: default})
        assert getattr(found, name) == Settings.model_fields[name].default


FREE = re.compile(r"\w+Probe\.|securityContext\.")
"""Values that a template takes as a whole."""


@pytest.mark.parametrize("chart", [LIBRARY, APPLICATION], ids=lambda chart: chart.name)
class TestEveryValue:
    def test_is_in_the_schema_and_every_name_of_the_schema_is_a_value(self, chart: Path) -> None:
        """Nothing is left out, but what Helm gives to a dependency, and settings that the process has a default for."""
        schema = json.loads((chart / "values.schema.json").read_text())
        known = set(leaves(schema, schema))
        optional = {"global", "enabled"} | {f"settings.{name}" for name in Settings.model_fields} - {
            f"settings.{name}" for name in CALCULATED
        }
        written = {value.path for value in values_of(chart) if value.default}
        homes = {path: [leaf for leaf in known if f"{path}.".startswith(f"{leaf}.")] for path in written}
        assert [path for path, home in homes.items() if len(home) != 1] == []
        assert known - {leaf for home in homes.values() for leaf in home} <= optional

    def test_is_documented(self, chart: Path) -> None:
        """In the values themselves, from which the README's table is made."""
        undocumented = {value.path for value in values_of(chart) if not value.meaning}
        explained = {value.path for value in values_of(chart) if value.meaning}
        assert {path for path in undocumented if not any(path.startswith(f"{above}.") for above in explained)} == set()

    def test_is_used(self, chart: Path) -> None:
        """Its name stands in a template."""
        text = "".join(file.read_text() for file in chart.rglob("templates/*"))
        text += (LIBRARY / "templates" / "_helpers.tpl").read_text()
        names = {
            value.path.rpartition(".")[2]
            for value in values_of(chart)
            if not value.path.startswith(("sidecar.", "dashboard.labels."))
        }
        inside = {value.path.rpartition(".")[2] for value in values_of(chart) if FREE.match(value.path)}
        assert {name for name in names - inside - {"key"} if f".{name}" not in text} <= set(CALCULATED)


def leaves(schema: Object, part: Object, path: str = "") -> list[str]:
    """Return the paths of the values that a schema knows by name."""
    part = resolved(schema, part)
    if "properties" not in part or path in (
        "startupProbe",
        "livenessProbe",
        "readinessProbe",
        "resources",
        "store.volume",
    ):
        return [path]
    return [
        leaf
        for name, below in part["properties"].items()
        for leaf in leaves(schema, below, f"{path}.{name}" if path else name)
    ]


def resolved(schema: Object, part: Object) -> Object:
    """Return what a reference refers to."""
    reference = part.get("$ref")
    return dict(schema["$defs"][reference.rpartition("/")[2]]) if reference else part


ANYTHING = {
    "type": "object",
    "propertyNames": {"pattern": r"^[ -~]{1,9}\Z"},
    "additionalProperties": {
        "anyOf": [
            {"type": "string", "pattern": r"^[ -~\n\té]{0,20}\Z"},
            {"type": "integer", "minimum": -9, "maximum": 1 << 50},
            {"type": "boolean"},
        ]
    },
}
"""Texts that YAML would take for something else, unless they are quoted."""


def generator(chart: Path, *, free: bool) -> Object:
    """Return the chart's schema such that values can be made from it.

    What it leaves to Kubernetes is anything when ``free``, else empty. A pattern ends where the text does: Python's `$`
    would let a line end pass, Helm's does not.
    """

    def made(part: Any) -> Any:
        if isinstance(part, list):
            return [made(item) for item in part]
        if not isinstance(part, dict):
            return part
        if part == {"type": "object"}:
            return ANYTHING if free else {"const": {}}
        found = {key: made(value) for key, value in part.items() if key not in ("title", "description")}
        if isinstance(found.get("pattern"), str):
            found["pattern"] = found["pattern"].removesuffix("$") + r"\Z"
        return found

    return dict(made(json.loads((chart / "values.schema.json").read_text())))


def put_right(values: Object) -> Object:
    """Return the values of a sidecar without the contradictions that no schema can name."""
    checks = values.setdefault("checks", {})
    checks.pop("port", None)
    values.setdefault("ops", {}).pop("port", None)
    values.setdefault("webhooks", {}).pop("port", None)
    values.setdefault("credentials", {})["existingSecret"] = "stripe"
    values.setdefault("token", {})["existingSecret"] = "" if checks.get("insecure") else "token"
    if not values.setdefault("store", {}).get("enabled", True):
        values["store"].pop("encryption", None)
    if values["store"].get("volume"):
        values["store"]["volume"] = {"emptyDir": {}}
    for variable in values.get("extraEnv", []):
        variable.pop("valueFrom", None)
    values["extraEnv"] = list({variable["name"]: variable for variable in values.get("extraEnv", [])}.values())
    values.pop("enabled", None)
    values.pop("global", None)
    return values


MANY = settings(
    max_examples=25,
    phases=[Phase.generate],  # each try takes long, and what failed is readable as it is
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


class TestWhateverTheSchemaLetsThrough:
    @MANY
    @given(from_schema(generator(LIBRARY, free=False)))
    @pytest.mark.timeout(60)
    def test_makes_a_valid_pod(self, user: Chart, values: Object) -> None:
        """Of an application with a sidecar."""
        (deployment,) = read(user.texts({"sidecar": put_right(values)})["deployment.yaml"])
        validate(deployment, ("1.33",))

    @MANY
    @given(from_schema(generator(APPLICATION, free=False)))
    @pytest.mark.timeout(60)
    def test_makes_a_valid_service(self, application: Chart, values: Object) -> None:
        """In every kind, with everything that belongs to it."""
        for one in objects_of(application, values):
            validate(one, ("1.33",))

    @settings(MANY, max_examples=10)
    @given(from_schema(generator(APPLICATION, free=True)))
    @pytest.mark.timeout(60)
    def test_is_yaml_that_says_the_same(self, application: Chart, values: Object) -> None:
        """Also what the schema leaves to Kubernetes comes out as it went in."""
        for one in objects_of(application, values):
            if one["kind"] in ("Deployment", "DaemonSet"):
                pod = one["spec"]["template"]["spec"]
                assert pod.get("affinity", {}) == values.get("affinity", {})
                assert pod.get("tolerations", []) == values.get("tolerations", [])

    @MANY
    @given(from_schema(generator(LIBRARY, free=False)["properties"]["settings"]))
    @pytest.mark.timeout(60)
    def test_is_read_by_the_process(self, user: Chart, monkeypatch: pytest.MonkeyPatch, values: Object) -> None:
        """It may judge that a number is too large or that two contradict each other, but it understands all of them."""
        complaints = complaints_of(monkeypatch, environment(user, {"settings": values}))
        assert [complaint for complaint in complaints if not any(word in complaint for word in JUDGED)] == []


JUDGED = (
    "less than or equal to",
    "greater than",
    "is shorter than fresh_for",
    "which matches every lookup_key",
    "must be 0 or at least 1s",
    "must be a URL",
    "must be a version",
)
"""What the process refuses although it reads it; a URL and a version are more than words."""


def objects_of(application: Chart, values: Object) -> list[Object]:
    """Return what the application chart makes of generated values."""
    values = values | {"sidecar": put_right({"webhooks": {"existingSecret": "w"}, "checks": {"address": "::"}})}
    if values.get("kind") == "None":
        values = values | {"podMonitor": {"enabled": True}, "webhookIngress": {}, "webhookRoute": {}}
    if values.get("kind") == "DaemonSet" or "autoscaling" in values:
        values = values | {"autoscaling": {}}
    texts = application.texts(values)
    return [one for name, text in texts.items() if name != "NOTES.txt" for one in read(text)]
