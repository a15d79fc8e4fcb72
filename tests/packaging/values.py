"""What the charts say of the settings, made from ``settings.py``; and of their values, made from ``values.yaml``.

``make docs`` writes it: the part ``settings`` of the library's schema, the comments in its values, the tables of both
READMEs.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sidecar.kit.duration import read_duration
from sidecar.settings import Settings, meanings

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "charts" / "entitlement-sidecar-lib"
APPLICATION = ROOT / "charts" / "entitlement-sidecar"
SCHEMA = LIBRARY / "values.schema.json"

HOMES = {
    "stripe_api_key": "credentials.existingSecret",
    "stripe_api_key_file": "credentials.existingSecret",
    "listen": "checks.port",
    "ops_listen": "ops.port",
    "insecure_listen": "checks.insecure",
    "local_token_file": "token.existingSecret",
    "webhook_secret": "webhooks.existingSecret",
    "webhook_secret_file": "webhooks.existingSecret",
    "webhook_listen": "webhooks.port",
    "store": "store.enabled",
    "store_key_file": "store.encryption.existingSecret",
}
"""Settings that a chart must know of, and the values that stand for them; the others are set by name in ``settings``."""

CALCULATED = ("cache_bytes", "store_bytes", "drain_timeout")
"""Settings that templates calculate with: they are always set."""

DURATION = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+) ?(ms|s|m|h|d)?$"
SIZE = r"^[0-9]+(\.[0-9]+)?(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$"
GLOB = {"pattern": r"^[^\x00-\x1f\x7f-\x9f]{1,200}$"}
BOUNDS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum"}
WORD = r"^[!-~]+$"


def settings_schema() -> dict[str, Any]:
    """Return the schema of ``settings``."""
    found = Settings.model_json_schema()["properties"]
    named = {name: schema for name, schema in found.items() if name not in HOMES}
    properties = {name: schema_of(name, schema) for name, schema in named.items()}
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": [*CALCULATED]}


def schema_of(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return what a setting may be in a chart's values: as the process reads it, but for what only the process can judge."""
    meaning, metadata = {"description": meanings()[name]}, Settings.model_fields[name].metadata
    limits = {BOUNDS[kind]: bound for item in metadata for kind, bound in bounds_of(item)}
    kind = "integer" if name.endswith("_bytes") else schema.get("type")
    number = {"type": kind, **limits} if kind in ("integer", "number") else {}
    if name in ("policy", "stale_for"):
        one = {"enum": ["deny", "allow", "error"]} if name == "policy" else duration({})
        return meaning | {"anyOf": [one, by_glob(one)]}
    if name == "allowed_hosts":
        return meaning | {"type": "array", "minItems": 1, "items": {"type": "string", "pattern": r"^[!-+\--~]+$"}}
    if name.endswith("_bytes"):
        return meaning | {"anyOf": [number, {"type": "string", "pattern": SIZE}]}
    if any(getattr(item, "func", None) is read_duration for item in metadata):
        return meaning | duration(number)
    if number or "enum" in schema:
        return meaning | (number or {"enum": schema["enum"]})
    return meaning | ({"type": "boolean"} if kind == "boolean" else {"type": "string", "pattern": WORD})


def bounds_of(item: object) -> Iterator[tuple[str, Any]]:
    """Yield the bounds that a piece of metadata has, by kind."""
    for kind in BOUNDS:
        if hasattr(item, kind):
            yield kind, getattr(item, kind)


def duration(number: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a duration: text, or whole seconds, as Helm writes small fractions with an exponent."""
    whole = {"type": "integer", "minimum": 0, "maximum": 10**12} | {key: number[key] for key in number if key != "type"}
    return {"anyOf": [whole, {"type": "string", "pattern": DURATION}]}


def by_glob(one: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a list of ``{glob: what}``: a map of Helm's has no order, and the first match wins."""
    return {
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "propertyNames": GLOB,
            "additionalProperties": one,
        },
    }


def schema_text() -> str:
    """Return the library's schema with the settings written anew."""
    schema = json.loads(SCHEMA.read_text())
    schema["properties"]["settings"] = settings_schema()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def settings_comments() -> str:
    """Return every setting that the values do not set, as a comment: its meaning, its name and default."""
    defaults = Settings.model_construct().model_dump(mode="json")
    lines = []
    for name in Settings.model_fields:
        if name not in HOMES and name not in CALCULATED:
            default = defaults[name]
            value = default.split(",") if name == "allowed_hosts" else "deny" if name == "policy" else default
            lines += [f"  # {meanings()[name]}", f"  # {name}: {json.dumps(value)}"]
    return "\n".join(lines)


class Value(NamedTuple):
    """A value of a chart: its path, its default as it is written, what stands above it."""

    path: str
    default: str
    meaning: str


def values_of(chart: Path) -> Iterator[Value]:
    """Yield the values that the chart's ``values.yaml`` sets: those that have a text, or a comment right above them."""
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in (chart / "values.yaml").read_text().splitlines():
        if match := re.fullmatch(r"( *)# (.*)", line):
            comment.append(match[2])
        elif match := re.fullmatch(r"( *)([A-Za-z_]+):(?: (.*))?", line):
            indent, name, default = len(match[1]), match[2], match[3]
            path = [step for step in path if step[0] < indent] + [(indent, name)]
            if comment or default:
                yield Value(".".join(step for _, step in path), default or "", " ".join(comment))
            comment = []
        else:
            comment = []


def values_table(chart: Path) -> str:
    """Return the table of the chart's values."""
    rows = ["| Value | Default | Meaning |", "|---|---|---|"]
    for path, default, meaning in values_of(chart):
        if meaning:
            rows.append(f"| `{path}` | {f'`{default}`' if default else ''} | {meaning} |")
    return "\n".join(rows)
