"""Ways to read settings, for tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import BadSettings
from sidecar.settings import Settings
from sidecar.sources import load

LIVE = "sk_live_51PlantedKeyThatMustNeverBeShown"
Toml = Callable[[str], Path]


def read(monkeypatch: pytest.MonkeyPatch, config: Path | None = None, /, **environment: str) -> Settings:
    """Load settings from the environment, and from a file if there is one."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load({}, config)


def complaints(flags: dict[str, Any] | None = None, config: Path | None = None) -> list[str]:
    with pytest.raises(BadSettings) as caught:
        load(flags or {}, config)
    assert str(caught.value) == "\n".join(caught.value.complaints)
    return caught.value.complaints


def key_of(settings: Settings) -> str | None:
    return None if settings.stripe_api_key is None else settings.stripe_api_key.get_secret_value()
