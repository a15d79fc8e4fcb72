"""A fresh Stripe, a way to ask it, and Stripe's own schema."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from sidecar.demo import FakeStripe
from tests.demo.asking import KEY, Check, Curl, curling

SCHEMA = Path(__file__).resolve().parents[3] / "shared" / "reference" / "stripe-entitlements.schema.json"


@pytest.fixture
def fake() -> FakeStripe:
    return FakeStripe(key=KEY)


@pytest.fixture
async def curl(fake: FakeStripe) -> AsyncIterator[Curl]:
    async with curling(fake) as curl:
        yield curl


@pytest.fixture
def check() -> Check:
    if not SCHEMA.exists():
        pytest.skip("Stripe's schema is kept outside the repository and is not here")
    defs = json.loads(SCHEMA.read_text())["$defs"]

    def check(name: str, instance: Any) -> None:
        jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": defs}).validate(instance)

    return check
