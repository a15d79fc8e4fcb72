"""The same questions through every way in get the same decisions."""

from collections.abc import Awaitable, Callable
from urllib.parse import quote

import pytest
from yarl import URL

from sidecar.demo import FakeStripe
from tests.api.test_checks import give
from tests.fakes import Running

pytestmark = pytest.mark.usefixtures("each_way")

QUESTIONS = {
    ("cus_many", "feature-000"): True,
    ("cus_many", "feature-100"): True,
    ("cus_many", "feature-101"): False,
    ("cus_many", "Feature-000"): False,
    ("cus_few", "a/b"): True,
    ("cus_few", "ключ"): True,
    ("cus_few", "a b"): True,
    ("cus_few", "a"): False,
    ("cus_twice", "seats"): True,
    ("cus_none", "a"): False,
    ("cus_nobody", "a"): None,
}
"""Whether each is entitled; None for a customer that there is not."""

Way = Callable[[Running, str, str], Awaitable[bool | None]]


async def by_check(sidecar: Running, customer: str, lookup_key: str) -> bool | None:
    url = URL(f"{sidecar.url}/v1/customers/{customer}/entitlements/{quote(lookup_key, safe='')}", encoded=True)
    async with sidecar.session.get(url) as response:
        answer = await response.json()
    return None if answer["reason"] == "unknown_customer" else answer["entitled"]


async def by_batch(sidecar: Running, customer: str, lookup_key: str) -> bool | None:
    question = {"customer": customer, "lookup_key": lookup_key}
    _, body = await sidecar.ask("POST", "/v1/checks", json={"checks": [question]})
    (answer,) = body["results"]
    return None if answer["reason"] == "unknown_customer" else answer["entitled"]


async def by_list(sidecar: Running, customer: str, lookup_key: str) -> bool | None:
    status, body = await sidecar.get(f"/v1/customers/{customer}/entitlements")
    return None if status == 404 else lookup_key in {item["lookup_key"] for item in body["entitlements"]}


async def by_refresh(sidecar: Running, customer: str, lookup_key: str) -> bool | None:
    status, body = await sidecar.ask("POST", f"/v1/customers/{customer}/refresh")
    return None if status == 404 else lookup_key in {item["lookup_key"] for item in body["entitlements"]}


async def by_stripes_list(sidecar: Running, customer: str, lookup_key: str) -> bool | None:
    found: set[str] = set()
    cursor = ""
    while True:
        status, body = await sidecar.get(f"/v1/entitlements/active_entitlements?customer={customer}&limit=100{cursor}")
        if status == 400:
            return None
        found |= {item["lookup_key"] for item in body["data"]}
        if not body["has_more"]:
            return lookup_key in found
        cursor = f"&starting_after={body['data'][-1]['id']}"


@pytest.mark.parametrize("way", [by_check, by_batch, by_list, by_refresh, by_stripes_list])
async def test_every_way_in_gives_the_same_decisions(sidecar: Running, stripe: FakeStripe, way: Way) -> None:
    """One truth, whichever road the question takes."""
    give(stripe, "cus_many", 101)
    for key in ("a/b", "ключ", "a b"):
        stripe.grant("cus_few", key)
    stripe.grant("cus_twice", "seats")
    stripe.grant("cus_twice", "seats", new_feature=True)
    stripe.add_customer("cus_none")
    assert {question: await way(sidecar, *question) for question in QUESTIONS} == QUESTIONS
