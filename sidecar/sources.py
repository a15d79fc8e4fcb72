"""Where settings come from: flags, then the environment, then a TOML file; and what is wrong with them, all at once."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sidecar.errors import BadSettings
from sidecar.settings import Settings

PREFIX = "SIDECAR_"

OURS_ELSEWHERE = ("SIDECAR_CONFIG", "SIDECAR_URL")
"""Names that the command line reads by itself: the TOML file, and where ``check`` finds a running sidecar."""

FROM_KUBERNETES = re.compile(r"SIDECAR_(SERVICE_|PORT(_|$))")
"""Names that Kubernetes injects into every pod beside a Service called ``sidecar``; not ours, so let through."""


def load(flags: Mapping[str, Any], config: Path | None = None) -> Settings:
    """Read settings from flags, the environment and a TOML file, in this order of precedence.

    :raises BadSettings: with every error at once.
    """
    complaints = unknown_variables()
    if config is not None and not config.is_file():
        raise BadSettings([*complaints, f"{config}: there is no such file"])
    try:
        of_file = {} if config is None else from_file(config)
    except (OSError, ValueError, RecursionError) as error:
        raise BadSettings([*complaints, f"{config}: cannot be read: {error}"]) from None
    found = {**of_file, **from_environment(), **flags}
    try:
        settings = Settings.model_validate(with_stripes_variable(found))
    except ValidationError as error:
        raise BadSettings(complaints + [say(item) for item in error.errors()]) from None
    if complaints:
        raise BadSettings(complaints)
    return settings


def from_file(path: Path) -> dict[str, Any]:
    """Return what a TOML file says, by name.

    :raises OSError: when it cannot be read.
    :raises ValueError: when it is not UTF-8, or no TOML.
    """
    import tomllib  # noqa: PLC0415 -- who has no file need not load it

    with path.open("rb") as file:
        return tomllib.load(file)


def from_environment() -> dict[str, str]:
    """Return what variables say, by the setting's name; an empty one, as a chart may write it, means "not set"."""
    said = {name.upper(): value for name, value in os.environ.items() if value}
    variables = ((name, f"{PREFIX}{name.upper()}") for name in Settings.model_fields)
    return {name: said[variable] for name, variable in variables if variable in said}


def with_stripes_variable(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was found, with ``STRIPE_API_KEY``, as Stripe's own tools call it, where nothing else names a key."""
    key = os.environ.get("STRIPE_API_KEY")
    named = found.keys() & {"stripe_api_key", "stripe_api_key_file"}
    return {**found, "stripe_api_key": key} if key and not named else {**found}


def unknown_variables() -> list[str]:
    """Return a complaint for each variable that looks like one of ours and is none."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    return [
        f"{name}: there is no such setting{nearest(name, known)}"
        for name in sorted(os.environ)
        if name.upper().startswith(PREFIX)
        and name.upper() not in known
        and name not in OURS_ELSEWHERE
        and not FROM_KUBERNETES.match(name)
    ]


def say(error: Any) -> str:
    """Return one validation error in words that name the setting."""
    name, *rest = map(str, error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{name}: there is no such setting{nearest(name, Settings.model_fields)}"
    where = "".join(f"[{part}]" for part in rest)
    return f"{PREFIX}{name.upper()}{where}: {error['msg'].removeprefix('Value error, ')}"


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a hint at the name that was probably meant."""
    from difflib import get_close_matches  # noqa: PLC0415 -- who makes no mistake need not load it

    close = get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""
