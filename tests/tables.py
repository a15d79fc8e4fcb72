"""Writes the generated tables of the pages from the code; ``make docs``. A test compares them."""

import asyncio
import re
from collections.abc import Iterable
from pathlib import Path

from pydantic_core import PydanticUndefined

from sidecar.app import assembled
from sidecar.kit.breaker import diagram
from sidecar.metrics import PREFIX as METRIC_PREFIX
from sidecar.settings import Settings, meanings
from sidecar.sources import PREFIX
from tests.fakes import settings_for
from tests.packaging import values

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = (
    README,
    *(ROOT / "docs" / page for page in ("metrics.md", "settings.md", "breaker.md")),
    values.LIBRARY / "values.yaml",
    values.LIBRARY / "README.md",
    values.APPLICATION / "README.md",
)
MAIN = (
    "stripe_api_key_file", "local_token_file", "fresh_for", "stale_for", "deadline", "events_poll", "policy", "rate", "replicas",
    "cache_bytes", "store",
)  # fmt: skip
"""Settings that most people look at; the README has these."""
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?([ #]*<!-- end -->)", re.DOTALL)


def settings_table(names: Iterable[str]) -> str:
    """Return the table of these settings."""
    defaults = Settings.model_construct().model_dump(mode="json")
    rows = ["| Variable | Default | Meaning |", "|---|---|---|"]
    for name in names:
        field = Settings.model_fields[name]
        if field.default is PydanticUndefined:
            raise ValueError(f"{name} has no default")
        rows.append(f"| `{PREFIX}{name.upper()}` | {shown(name, defaults[name])} | {meanings()[name]} |")
    return "\n".join(rows)


def shown(name: str, value: object) -> str:
    """Return a default as one would write it."""
    if value is None:
        return ""
    if name.endswith("_bytes") and isinstance(value, int):
        return f"`{value >> 20}MiB`"
    if name == "policy":
        return "`deny`"
    if value == "":
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else f'{value:g}' if isinstance(value, float) else value}`"


async def metrics_table() -> str:
    """Return the table of metrics; their names all begin with the prefix, which is left out."""
    async with assembled(settings_for("http://127.0.0.1:9")) as sidecar:
        families = [family for family in sidecar.metrics.collect() if family.name.startswith(METRIC_PREFIX)]
    rows = ["| Metric | Type | Labels | Meaning |", "|---|---|---|---|"]
    for family in families:
        name = family.name.removeprefix(METRIC_PREFIX) + ("_total" if family.type == "counter" else "")
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        if family.name.endswith("http_requests"):
            labels = ["route", "status"]  # no sample before the first request
        rows.append(f"| `{name}` | {family.type} | {', '.join(labels)} | {family.documentation} |")
    return "\n".join(rows)


async def with_tables(text: str) -> str:
    """Return ``text`` with what stands between the marks written anew."""
    tables = {
        "main_settings": settings_table(MAIN),
        "settings": settings_table(Settings.model_fields),
        "metrics": await metrics_table(),
        "breaker": f"```mermaid\n{diagram()}\n```",
        "chart_settings": values.settings_comments(),
        "library_values": values.values_table(values.LIBRARY),
        "application_values": values.values_table(values.APPLICATION),
    }
    return MARKED.sub(lambda match: f"{match[1]}{tables[match[2]]}\n{match[3]}", text)


if __name__ == "__main__":
    values.SCHEMA.write_text(values.schema_text())
    for page in PAGES:
        page.write_text(asyncio.run(with_tables(page.read_text())))
