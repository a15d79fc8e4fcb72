"""Where settings come from: flags, then the environment, then a TOML file; and what is wrong with them, all at once."""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from sidecar.errors import BadSettings
from sidecar.settings import Settings

PREFIX = "SIDECAR_"

OURS_ELSEWHERE = ("SIDECAR_CONFIG", "SIDECAR_URL")
"""Names that the command line reads by itself: the TOML file, and where ``check`` finds a running sidecar."""

FROM_KUBERNETES = re.compile(r"SIDECAR_(SERVICE_|PORT(_|$))")
"""Names that Kubernetes injects into every pod beside a Service called ``sidecar``; not ours, so let through."""


class StripesVariable(PydanticBaseSettingsSource):
    """``STRIPE_API_KEY``, as Stripe's own tools call it, where nothing else names a key."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 -- the library's signature
        """Return nothing per field; ``__call__`` does the work."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the key, if it is there and nothing of higher precedence named one."""
        key = os.environ.get("STRIPE_API_KEY")
        named = self.current_state.keys() & {"stripe_api_key", "stripe_api_key_file"}
        return {"stripe_api_key": key} if key and not named else {}


class Configured(Settings, BaseSettings):
    """The settings as a process finds them."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True)  # a chart's empty value: "not set"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- the library's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- the library's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take flags first, then the environment, then the TOML file, then Stripe's own variable for its key."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls), StripesVariable(settings_cls)


def load(flags: Mapping[str, Any], config: Path | None = None) -> Settings:
    """Read settings from flags, the environment and a TOML file, in this order of precedence.

    :raises BadSettings: with every error at once.
    """
    complaints = unknown_variables()
    if config is not None and not config.is_file():
        raise BadSettings([*complaints, f"{config}: there is no such file"])

    class FromThisFile(Configured):
        model_config = SettingsConfigDict(toml_file=config)

    try:
        settings = FromThisFile(**flags)
    except ValidationError as error:
        raise BadSettings(complaints + [say(item) for item in error.errors()]) from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings([*complaints, f"{config}: cannot be read: {error}"]) from None
    if complaints:
        raise BadSettings(complaints)
    return settings


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
