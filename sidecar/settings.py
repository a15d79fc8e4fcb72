"""Every knob: its name, default, unit and meaning. One line and its docstring make an environment variable
``SIDECAR_X``, a flag ``--x``, a key of the TOML file and a row of the README's table.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    AnyHttpUrl,
    BeforeValidator,
    ByteSize,
    Field,
    PlainSerializer,
    SecretStr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from sidecar.errors import KEY, BadSettings
from sidecar.kit.address import Address, read_addresses
from sidecar.kit.duration import read_duration, say_duration

PREFIX = "SIDECAR_"
OURS_ELSEWHERE = ("SIDECAR_CONFIG", "SIDECAR_URL")
"""Names that the command line reads by itself: the TOML file, and where ``check`` finds a running sidecar."""

FROM_KUBERNETES = re.compile(r"SIDECAR_(SERVICE_|PORT(_|$))")
"""Names that Kubernetes injects into every pod beside a Service called ``sidecar``; not ours, so let through."""

Duration = Annotated[
    float,
    BeforeValidator(read_duration),
    Field(ge=0, allow_inf_nan=False),
    PlainSerializer(say_duration, return_type=str),
]


Addresses = Annotated[
    tuple[Address, ...],
    NoDecode,
    BeforeValidator(read_addresses),
    Field(min_length=1),
    PlainSerializer(lambda value: ",".join(map(str, value)), return_type=str),
]

URL_OF_AN_API = TypeAdapter(AnyHttpUrl)

Policy = Literal["deny", "allow", "error"]


def read_policy(value: object) -> object:
    """Return policies by glob for ``deny`` or ``{"seats-*": "allow"}``."""
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        return {"*": value.strip()}
    if isinstance(value, str):
        import json  # noqa: PLC0415 -- only for this spelling

        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError(f'must be deny, allow, error or JSON such as {{"seats-*": "allow"}}: {error}') from None
    return value


def read_names(value: object) -> object:
    """Return the parts of a comma-separated list."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long information is trusted, in seconds."""

    fresh_for: float = 300.0
    stale_for: float = 86400.0
    unknown_for: float = 60.0
    deadline: float = 2.0


class Settings(BaseSettings):
    """The knobs. Frozen; only ``app`` and ``cli`` hold all of them."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,  # or a secret in the wrong place is echoed
        use_attribute_docstrings=True,
        validate_default=True,
        env_ignore_empty=True,  # a chart's empty value means "not set"
    )

    stripe_api_key: SecretStr | None = None
    """Stripe API key; a restricted key with read access to entitlements is enough. Also read from `STRIPE_API_KEY`."""

    stripe_api_key_file: Path | None = None
    """File that holds the key instead; read again when Stripe rejects the key, so a rotated Secret is picked up."""

    stripe_api_base: str = "https://api.stripe.com"
    """Where Stripe's API is."""

    stripe_version: str = "2026-10-28.endive"
    """`Stripe-Version` sent with every request, so that an account's default cannot change what answers look like."""

    listen: Addresses = (Address("127.0.0.1", 7420),)
    """Where checks are answered: `host:port` or `unix:/path`, several with commas."""

    ops_listen: Addresses = (Address("127.0.0.1", 7421),)
    """Where health and metrics are answered."""

    insecure_listen: bool = False
    """Allow checks from other hosts without `local_token_file`."""

    local_token_file: Path | None = None
    """File with a token that callers of checks must send as `Authorization: Bearer …` (or as a Stripe SDK's key)."""

    allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(read_names), PlainSerializer(",".join)] = (
        "localhost",
        "127.0.0.1",
        "[::1]",
    )
    """`Host` names that checks may be asked under (against DNS rebinding); `*` for any."""

    fresh_for: Duration = 300.0
    """Up to this age an answer is fresh."""

    stale_for: Duration = 86400.0
    """Up to this age an answer is given at once, marked stale, while one refresh runs."""

    unknown_for: Duration = 60.0
    """How long a customer that Stripe does not know is remembered as unknown."""

    deadline: Annotated[Duration, Field(gt=0)] = 2.0
    """How long a check waits for Stripe before the policy answers."""

    policy: Annotated[dict[str, Policy], NoDecode, BeforeValidator(read_policy)] = {"*": "deny"}
    """Answer when nothing trustworthy is at hand: `deny`, `allow`, `error`, or JSON of lookup_key globs, first match wins."""

    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 20.0
    """Requests a second that may be sent to Stripe, which allows 25 per endpoint to all of an account's programs."""

    burst: Annotated[int, Field(ge=1)] = 5
    """Requests that may be sent at once when none were for a while."""

    replicas: Annotated[int, Field(ge=1)] = 1
    """Sidecars that share the account; each takes its part of `rate` and `burst`."""

    cache_bytes: Annotated[ByteSize, Field(ge=1 << 20)] = ByteSize(128 << 20)
    """Memory for remembered customers, such as `128MiB`; the least recently asked go first."""

    max_pages: Annotated[int, Field(ge=1)] = 100
    """Pages of 100 entitlements that one customer's list may have."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is logged."""

    log_format: Literal["auto", "text", "json"] = "auto"
    """`text`, `json`, or `auto`: text on a terminal, JSON elsewhere."""

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

    @field_validator("stripe_api_base")
    @classmethod
    def _base_is_a_url(cls, value: str) -> str:
        try:
            url = URL_OF_AN_API.validate_python(value)
        except ValidationError:
            url = None
        if url is None or any((url.query, url.fragment, url.username, url.password)):
            raise ValueError("must be a URL such as https://api.stripe.com")
        return str(url).rstrip("/")

    @field_validator("stripe_api_key")
    @classmethod
    def _key_is_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_key(value.get_secret_value())
        return value

    @field_validator("stripe_version")
    @classmethod
    def _version_is_a_word(cls, value: str) -> str:
        if not re.fullmatch(r"[0-9A-Za-z._;=-]{1,100}", value):
            raise ValueError("must be a version such as 2026-10-28.endive")
        return value

    @field_validator("stripe_api_key_file")
    @classmethod
    def _file_is_no_key(cls, value: Path | None) -> Path | None:
        if value is not None and KEY.match(value.name):
            raise ValueError("looks like a key itself; the path of a file that holds it is wanted")
        return value

    # What contradicts what: each rule sits at the later of its fields, so that all of them complain at once.

    @field_validator("stripe_api_key_file")
    @classmethod
    def _one_key(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("stripe_api_key") is not None:
            raise ValueError("stripe_api_key is set too; set one of them")
        return value

    @field_validator("stripe_api_base")
    @classmethod
    def _key_stays_secret(cls, value: str, info: ValidationInfo) -> str:
        parts, key = urlsplit(value), info.data.get("stripe_api_key")
        harmless = key is not None and "_test_" in key.get_secret_value()
        if parts.scheme == "http" and not Address(parts.hostname or "", 0).is_local and not harmless:
            raise ValueError("the key would go to another host without encryption; use https")
        return value

    @field_validator("local_token_file")
    @classmethod
    def _guarded(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is None and not info.data.get("insecure_listen"):
            for address in info.data.get("listen", ()):
                if not address.is_local:
                    raise ValueError(
                        f"{address} can be reached from other hosts: set this, or insecure_listen to allow it"
                    )
        return value

    @field_validator("stale_for")
    @classmethod
    def _stale_after_fresh(cls, value: float, info: ValidationInfo) -> float:
        fresh_for = info.data.get("fresh_for", 0.0)
        if fresh_for > value:
            raise ValueError(f"is shorter than fresh_for ({say_duration(fresh_for)})")
        return value

    @property
    def freshness(self) -> Freshness:
        """How long information is trusted."""
        return Freshness(self.fresh_for, self.stale_for, self.unknown_for, self.deadline)


def check_key(key: str) -> None:
    """Refuse what cannot be a secret API key, without repeating it.

    :raises ValueError: saying what is wrong.
    """
    if key.startswith("pk_"):
        raise ValueError("is a publishable key (pk_…); a secret (sk_…) or restricted (rk_…) key is needed")
    if not re.fullmatch("[!-~]+", key):
        raise ValueError("is empty or has blanks or characters that no key has")


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a hint at the name that was probably meant."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


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


def load(flags: Mapping[str, Any], config: Path | None = None) -> Settings:
    """Read settings from flags, the environment and a TOML file, in this order of precedence.

    :raises BadSettings: with every error at once.
    """
    complaints = unknown_variables()
    if config is not None and not config.is_file():
        raise BadSettings([*complaints, f"{config}: there is no such file"])

    class Configured(Settings):
        model_config = SettingsConfigDict(toml_file=config)

    try:
        settings = Configured(**flags)
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


def choices(name: str) -> tuple[str, ...]:
    """Return the words that the setting ``name`` takes, where it takes only some."""
    return get_args(Settings.model_fields[name].annotation) if name.startswith("log_") else ()
