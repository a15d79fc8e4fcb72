"""How the values of settings are written: their types, each with what reads it and what writes it."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, SecretStr

from sidecar.errors import KEY
from sidecar.kit.address import Address, read_addresses
from sidecar.kit.duration import read_duration, say_duration

Duration = Annotated[
    float,
    BeforeValidator(read_duration),
    Field(ge=0, allow_inf_nan=False),
    PlainSerializer(say_duration, return_type=str),
]


Addresses = Annotated[
    tuple[Address, ...],
    BeforeValidator(read_addresses),
    Field(min_length=1),
    PlainSerializer(lambda value: ",".join(map(str, value)), return_type=str),
]


def read_secrets(text: str) -> tuple[str, ...]:
    """Return the signing secrets in a list with commas, or one a line."""
    return tuple(filter(None, re.split(r"[,\s]+", text)))


Secrets = Annotated[
    tuple[SecretStr, ...],
    BeforeValidator(lambda value: read_secrets(value) if isinstance(value, str) else value),
    PlainSerializer(lambda value: ",".join("whsec_***" for _ in value), return_type=str),
]

Policy = Literal["deny", "allow", "error"]

EVERY_KEY = "*"


def read_store(value: object) -> object:
    """Return the path of ``sqlite:///path``, None for ``memory``."""
    if not isinstance(value, str) or value.strip() == "memory":
        return value if not isinstance(value, str) else None
    scheme, slashes, path = value.strip().partition("://")
    if scheme != "sqlite" or not slashes or len(path) < 2 or not path.startswith("/"):
        raise ValueError("must be memory or sqlite:///path/to/file")
    return Path("/" + path.lstrip("/"))


Store = Annotated[
    Path | None,
    BeforeValidator(read_store),
    PlainSerializer(lambda path: "memory" if path is None else f"sqlite://{path}", return_type=str),
]


def read_policy(value: object) -> object:
    """Return policies by glob for ``deny`` or ``{"seats-*": "allow"}``."""
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        return {"*": value.strip()}
    return read_json(value, 'deny, allow, error or JSON such as {"seats-*": "allow"}')


def read_json(value: object, wanted: str) -> object:
    """Return what JSON says; anything but text as it is."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"must be {wanted}: {error}") from None


def read_stale_for(value: object) -> object:
    """Return durations by glob for ``1d`` or ``{"seats-*": "72h"}``."""
    if isinstance(value, Mapping) or (isinstance(value, str) and value.lstrip().startswith("{")):
        return read_json(value, 'a duration or JSON such as {"seats-*": "72h"}')
    return {EVERY_KEY: read_duration(value)}


def say_stale_for(value: dict[str, float]) -> str | dict[str, str]:
    """Return durations by glob, or the only one."""
    said = {glob: say_duration(bound) for glob, bound in value.items()}
    return said if len(said) > 1 else said[EVERY_KEY]


def say_unreachable(globs: Iterable[str]) -> None:
    """Refuse a glob that can never be the first to match.

    :raises ValueError: naming it.
    """
    last = None
    for glob in globs:
        if last == EVERY_KEY:
            raise ValueError(f"{glob!r} comes after {EVERY_KEY!r}, which matches every lookup_key")
        last = glob


def read_names(value: object) -> object:
    """Return the parts of a comma-separated list."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def say_names(names: tuple[str, ...]) -> str:
    """Return the comma-separated list. (To look at ``str.join`` itself takes pydantic a hundredth of the start.)"""
    return ",".join(names)


Names = Annotated[tuple[str, ...], BeforeValidator(read_names), PlainSerializer(say_names)]
Policies = Annotated[dict[str, Policy], BeforeValidator(read_policy)]
Bounds = Annotated[dict[str, Duration], BeforeValidator(read_stale_for), PlainSerializer(say_stale_for)]
"""Durations by globs of lookup keys, of which the first that matches wins."""


def check_key(key: str) -> None:
    """Refuse what cannot be a secret API key, without repeating it.

    :raises ValueError: saying what is wrong.
    """
    if key.startswith("whsec_"):
        raise ValueError("is a webhook's signing secret (whsec_…); a secret (sk_…) or restricted (rk_…) key is needed")
    if key.startswith("pk_"):
        raise ValueError("is a publishable key (pk_…); a secret (sk_…) or restricted (rk_…) key is needed")
    if not re.fullmatch("[!-~]+", key):
        raise ValueError("is empty or has blanks or characters that no key has")


def read_webhook_secrets(text: str) -> tuple[str, ...]:
    """Return the signing secrets in a file's ``text``.

    :raises ValueError: when there is none, or something else.
    """
    found = read_secrets(text)
    for secret in found:
        check_webhook_secret(secret)
    if not found:
        raise ValueError("is empty")
    return found


def check_webhook_secret(secret: str) -> None:
    """Refuse what cannot be a webhook's signing secret, without repeating it.

    :raises ValueError: saying what is wrong.
    """
    if KEY.match(secret) and not secret.startswith("whsec_"):
        raise ValueError("is an API key; a webhook endpoint has a signing secret of its own (whsec_…)")
    if not re.fullmatch("whsec_[A-Za-z0-9+/=_-]+", secret):
        raise ValueError("is no signing secret of a webhook endpoint (whsec_…)")
