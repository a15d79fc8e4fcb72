"""Durations as people write them."""

import re

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|h|d)?", re.ASCII)


def read_duration(value: object) -> object:
    """Return seconds for ``500ms``, ``30s``, ``5m``, ``24h``, ``1d`` or a plain number of seconds."""
    if isinstance(value, bool):
        raise ValueError("must be a duration, not true or false")  # noqa: TRY004 -- pydantic wants this kind
    if isinstance(value, str):
        match = DURATION.fullmatch(value.strip())
        if match is None:
            raise ValueError("must be a duration such as 500ms, 30s, 5m, 24h or a number of seconds")
        return float(match[1]) * UNITS[match[2] or "s"]
    return value


def say_duration(value: float) -> str:
    """Return seconds in the largest unit that divides them."""
    for unit in ("d", "h", "m", "s"):
        if value >= UNITS[unit] and value % UNITS[unit] == 0:
            return f"{value / UNITS[unit]:.15g}{unit}"
    return f"{value * 1000:.15g}ms" if value else "0"
