"""What is asked, byte for byte, and how an answer is known to be the right one."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from tests.bench.upstream import CROWD, CUSTOMER, HELD, LOOKUP_KEYS

MEMBERS = {"customer", "lookup_key", "entitled", "reason", "source", "age", "stale", "as_of"}
LIST = "/v1/entitlements/active_entitlements"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, also as it came over the wire."""

    head: bytes
    body: bytes

    @property
    def is_ok(self) -> bool:
        """Whether the status is 200."""
        return self.head.startswith(b"HTTP/1.1 200 ")

    @property
    def raw(self) -> bytes:
        """Every byte of it."""
        return self.head + self.body


@dataclass(frozen=True)
class Question:
    """What is asked again and again: one or many paths in turn, one body and the headers for all."""

    paths: list[str]
    is_right: Callable[[str, Answer], bool]
    """Of a path, whether this is the answer to it."""
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    warming: list[str] | None = None
    """Checks to be asked once before; ``None`` for the same question."""
    decisions: int = 1
    """How many decisions are in an answer."""

    @property
    def method(self) -> str:
        """POST where there is a body."""
        return "POST" if self.body else "GET"

    def raw(self, path: str) -> bytes:
        """Return the request, as wrk would send it."""
        headers = {"Host": "127.0.0.1", **self.headers} | ({"Content-Length": str(len(self.body))} if self.body else {})
        lines = [f"{self.method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return ("\r\n".join(lines) + "\r\n\r\n" + self.body).encode()

    @cached_property
    def to_warm(self) -> "Question":
        """What has to be asked once, so that every answer comes out of memory."""
        return self if self.warming is None else Question(self.warming, is_decision)


def check_of(customer: str, key: str) -> str:
    """Return the path of a check."""
    return f"/v1/customers/{customer}/entitlements/{key}"


def is_decision(path: str, answer: Answer) -> bool:
    """Whether this is a check's decision, the right one, out of memory."""
    said = json.loads(answer.body) if answer.is_ok else {}
    _, _, _, customer, _, key = path.split("/")
    expected = key in (LOOKUP_KEYS if customer == CUSTOMER else HELD)
    return (
        said.keys() >= MEMBERS
        and (said["customer"], said["lookup_key"]) == (customer, key)
        and said["entitled"] is expected
        and said["source"] == "memory"
    )


def keys_in_list(answer: Answer) -> set[str]:
    """Return the lookup keys of Stripe's list; none when the answer is no list."""
    said = json.loads(answer.body) if answer.is_ok else {"data": []}
    return {entitlement["lookup_key"] for entitlement in said["data"]}


def is_list(path: str, answer: Answer) -> bool:
    """Whether this is the whole list of the one who holds everything, or of one of the crowd."""
    return keys_in_list(answer) == set(LOOKUP_KEYS if CUSTOMER in path else HELD)


def is_cached_list(path: str, answer: Answer) -> bool:
    """Whether this is that list out of nginx's cache."""
    return b"\r\nX-Cache-Status: HIT\r\n" in answer.head and is_list(path, answer)


def is_batch(path: str, answer: Answer) -> bool:
    """Whether these are a thousand decisions out of memory, half of them yes."""
    said = json.loads(answer.body) if answer.is_ok else {"results": []}
    results = said["results"]
    yes = [decision["lookup_key"] for decision in results if decision["entitled"] is True]
    return (
        len(results) == 1000
        and len(yes) == 500
        and set(yes) <= set(HELD)
        and all(decision["source"] == "memory" for decision in results)
    )


def batch(pairs: list[tuple[str, str]]) -> Question:
    """Return the question for many checks at once."""
    body = json.dumps({"checks": [{"customer": customer, "lookup_key": key} for customer, key in pairs]})
    return Question(
        ["/v1/checks"],
        is_batch,
        body,
        {"Content-Type": "application/json"},
        warming=list({check_of(customer, LOOKUP_KEYS[0]): None for customer, _ in pairs}),
        decisions=len(pairs),
    )


def shuffled(paths: list[str]) -> list[str]:
    """Return them in an order that is random and always the same."""
    return random.Random(1).sample(paths, len(paths))  # noqa: S311 -- no secret


def crowd_checks(customers: list[str]) -> Question:
    """Return the question for five keys of each, in random order."""
    return Question(
        shuffled([check_of(customer, key) for customer in customers for key in LOOKUP_KEYS[:5]]),
        is_decision,
        warming=[check_of(customer, LOOKUP_KEYS[0]) for customer in customers],
    )


CHECK = Question([check_of(CUSTOMER, LOOKUP_KEYS[3])], is_decision)
CROWD_CHECKS = crowd_checks(CROWD)
STRIPE_LIST = Question([f"{LIST}?customer={CUSTOMER}"], is_list)
CACHED_LIST = Question(STRIPE_LIST.paths, is_cached_list)
CROWD_LISTS = Question(shuffled([f"{LIST}?customer={customer}" for customer in CROWD]), is_cached_list)
HUNDRED_BY_TEN = batch([(customer, key) for customer in CROWD[:100] for key in LOOKUP_KEYS])
THOUSAND_BY_ONE = batch([(customer, LOOKUP_KEYS[n % 10]) for n, customer in enumerate(CROWD[:1000])])
TOGGLE = Question(
    ["/proxy"],
    lambda _, answer: answer.is_ok and json.loads(answer.body)["toggles"][0]["name"] == LOOKUP_KEYS[3],
    json.dumps({"context": {"userId": CUSTOMER}, "toggles": [LOOKUP_KEYS[3]]}),
    {"Content-Type": "application/json", "Authorization": "bench"},
)
RESOURCE = Question(
    ["/api/check/resources"],
    lambda _, answer: answer.is_ok and json.loads(answer.body)["results"][0]["actions"] == {"use": "EFFECT_ALLOW"},
    json.dumps(
        {
            "principal": {"id": CUSTOMER, "roles": ["customer"], "attr": {"features": LOOKUP_KEYS}},
            "resources": [{"resource": {"kind": "feature", "id": LOOKUP_KEYS[3]}, "actions": ["use"]}],
        }
    ),
    {"Content-Type": "application/json"},
)
