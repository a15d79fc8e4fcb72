"""Every knob: its name, default, unit and meaning. One line and its docstring make an environment variable
``SIDECAR_X``, a flag ``--x``, a key of the TOML file and a row of the README's table.
"""

import ast
import inspect
import re
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import Url

from sidecar.errors import KEY
from sidecar.kit.address import Address
from sidecar.kit.duration import say_duration
from sidecar.notation import (
    EVERY_KEY,
    Addresses,
    Bounds,
    Duration,
    Names,
    Policies,
    Secrets,
    Store,
    check_key,
    check_webhook_secret,
    say_unreachable,
)

STALE_FOR = 86400.0
"""Seconds; for lookup keys that no glob matches."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long information is trusted, in seconds."""

    fresh_for: float = 300.0
    stale_for: float = 86400.0
    unknown_for: float = 60.0
    dirty_wait: float = 0.5
    deadline: float = 2.0
    audit_every: float = 86400.0
    stale_by_glob: tuple[tuple[str, float], ...] = ()
    """Other bounds than ``stale_for``, by globs of lookup keys of which the first that matches wins."""

    @property
    def stale_for_by_glob(self) -> dict[str, float]:
        """Every bound by its glob, in the order in which they are compared."""
        return dict((*self.stale_by_glob, (EVERY_KEY, self.stale_for)))

    @property
    def least_stale_for(self) -> float:
        """The smallest bound: of what answers for every lookup key."""
        return min(self.stale_for_by_glob.values())


class Settings(BaseModel):
    """The knobs, wherever they come from (``sources``). Frozen; only ``app``, ``cli`` and ``tour`` hold all of them."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,  # or a secret in the wrong place is echoed
        validate_default=True,
    )

    stripe_api_key: SecretStr | None = None
    """Stripe API key; a restricted key that may read entitlements and events is enough. Also read from `STRIPE_API_KEY`."""

    stripe_api_key_file: Path | None = None
    """File that holds the key instead; like the other files, read again when it changes, and when Stripe rejects the key."""

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

    allowed_hosts: Names = (
        "localhost",
        "127.0.0.1",
        "[::1]",
    )
    """`Host` names that checks may be asked under (against DNS rebinding); `*` for any."""

    max_connections: Annotated[int, Field(ge=1, le=10**6)] = 4096
    """Connections that each listener takes; one more closes the one idle longest, or is refused when all are busy."""

    drain_timeout: Annotated[Duration, Field(le=300)] = 5.0
    """How long answers under way may take to finish once the process is told to end; then they are cut off."""

    quit_endpoint: bool = False
    """Take `POST /quitquitquit` on the ops listener for TERM: for jobs whose main container ends first."""

    fresh_for: Duration = 300.0
    """Up to this age an answer is fresh."""

    stale_for: Bounds = {EVERY_KEY: STALE_FOR}
    """Up to this age an answer is given at once, marked stale, while one refresh runs; or JSON of lookup_key globs."""

    unknown_for: Duration = 60.0
    """How long a customer that Stripe does not know is remembered as unknown."""

    dirty_wait: Duration = 0.5
    """How long a check waits for the new list of a customer that is known to have changed, before the old one answers."""

    deadline: Annotated[Duration, Field(gt=0)] = 2.0
    """How long a check waits for Stripe before the policy answers."""

    events_poll: Annotated[Duration, Field(le=86400)] = 60.0
    """How often Stripe's list of events is read for changes; `0` to age answers by each customer's own list alone."""

    events_lag: Annotated[Duration, Field(le=3600)] = 30.0
    """How long an event may take to appear in that list; answers are that much older than the last poll."""

    audit_every: Duration = 86400.0
    """How often the list of a customer who is asked about is read again although no event told of a change; `0` never."""

    webhook_secret: Secrets = ()
    """Signing secret of a webhook endpoint (`whsec_…`), several with commas while one replaces another."""

    webhook_secret_file: Path | None = None
    """File that holds them instead, one a line."""

    webhook_listen: Addresses = (Address("127.0.0.1", 7422),)
    """Where Stripe's webhooks are taken, at `/webhooks/stripe`; nowhere without a secret."""

    policy: Policies = {"*": "deny"}
    """Answer when nothing trustworthy is at hand: `deny`, `allow`, `error`, or JSON of lookup_key globs, first match wins."""

    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 20.0
    """Requests a second that may be sent to Stripe, which allows 25 per endpoint to all of an account's programs."""

    burst: Annotated[int, Field(ge=1, le=10**6)] = 5
    """Requests that may be sent at once when none were for a while."""

    replicas: Annotated[int, Field(ge=1, le=10**6)] = 1
    """Sidecars that share the account; each takes its part of `rate` and `burst`."""

    cache_bytes: Annotated[ByteSize, Field(ge=1 << 20, le=1 << 50)] = ByteSize(128 << 20)
    """Memory for remembered customers, such as `128MiB`; the least recently asked go first."""

    store: Store = None
    """Memory beyond the process: `memory` for none, or `sqlite:///path/to/file` on a local disk, which a restart answers from."""

    store_bytes: Annotated[ByteSize, Field(ge=1 << 20, le=1 << 50)] = ByteSize(1 << 30)
    """Size of that file, about; the least recently asked customers go first."""

    store_key_file: Path | None = None
    """File with 32 random bytes in base64 (`openssl rand -base64 32`) to encrypt that file with; needs the extra `encryption`."""

    max_pages: Annotated[int, Field(ge=1, le=10**6)] = 100
    """Pages of 100 entitlements that one customer's list may have."""

    traces: bool = False
    """Send OpenTelemetry traces of questions that leave memory, as the `OTEL_*` variables say; needs the extra `otel`."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is logged."""

    log_format: Literal["auto", "text", "json"] = "auto"
    """`text`, `json`, or `auto`: text on a terminal, JSON elsewhere."""

    @field_validator("stripe_api_base")
    @classmethod
    def _base_is_a_url(cls, value: str) -> str:
        try:  # the library drops line ends inside a URL, and so would join what stands on both sides
            url = Url(value) if re.fullmatch("[!-~]+", value) else None
        except ValidationError:
            url = None
        if (
            url is None
            or url.scheme not in ("http", "https")
            or any((url.query, url.fragment, url.username, url.password))
        ):
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

    @field_validator("stripe_api_key_file", "webhook_secret_file", "local_token_file", "store_key_file")
    @classmethod
    def _file_is_no_key(cls, value: Path | None) -> Path | None:
        if value is not None and KEY.match(value.name):
            raise ValueError("looks like a key itself; the path of a file that holds it is wanted")
        return value

    @field_validator("events_poll")
    @classmethod
    def _polls_with_moderation(cls, value: float) -> float:
        if 0 < value < 1:
            raise ValueError("must be 0 or at least 1s: each poll is a request to Stripe")
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _secrets_sign(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in value:
            check_webhook_secret(secret.get_secret_value())
        return value

    @field_validator("webhook_secret_file")
    @classmethod
    def _one_way_to_sign(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("webhook_secret"):
            raise ValueError("webhook_secret is set too; set one of them")
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

    @field_validator("store_key_file")
    @classmethod
    def _something_to_encrypt(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and "store" in info.data and info.data["store"] is None:
            raise ValueError("there is nothing to encrypt: store is memory")
        return value

    @field_validator("policy", "stale_for")
    @classmethod
    def _globs_are_reached(cls, value: dict[str, Any]) -> dict[str, Any]:
        say_unreachable(value)
        return value

    @field_validator("stale_for")
    @classmethod
    def _stale_after_fresh(cls, value: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        fresh_for = info.data.get("fresh_for", 0.0)
        for glob, bound in value.items():
            if fresh_for > bound:
                which = "" if len(value) == 1 else f"{glob!r} "
                raise ValueError(f"{which}is shorter than fresh_for ({say_duration(fresh_for)})")
        if EVERY_KEY not in value and fresh_for > STALE_FOR:
            rest = f"is {say_duration(STALE_FOR)} for what no glob matches, shorter than fresh_for"
            raise ValueError(f"{rest} ({say_duration(fresh_for)}); add {EVERY_KEY!r}")
        return value if EVERY_KEY in value else {**value, EVERY_KEY: STALE_FOR}

    @property
    def freshness(self) -> Freshness:
        """How long information is trusted."""
        *globs, (_, stale_for) = self.stale_for.items()
        return Freshness(
            self.fresh_for,
            stale_for,
            self.unknown_for,
            self.dirty_wait,
            self.deadline,
            self.audit_every,
            tuple(globs),
        )


@cache
def meanings() -> dict[str, str]:
    """Return what stands below each setting, by its name; nothing where the source was not installed.

    To read it takes a while, so this is for ``--help``, not for a start.
    """
    found: dict[str, str] = {}
    try:
        source = inspect.getsource(Settings)
    except OSError:
        return found
    for lines in pairwise(ast.walk(ast.parse(source))):  # one level after the other, so what stands below comes next
        match lines:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(meaning))):
                found[name] = inspect.cleandoc(meaning)
            case _:
                pass
    return found
