"""Durations as people write them."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.kit.duration import UNITS, read_duration, say_duration

READ = {
    "500ms": 0.5,
    "30s": 30.0,
    "5m": 300.0,
    "24h": 86400.0,
    "1d": 86400.0,
    "7": 7.0,
    "0": 0.0,
    "1.5h": 5400.0,
    ".5": 0.5,
    "2.s": 2.0,
    "  10  s ": 10.0,
}
REFUSED = ["", " ", "s", "5 minutes", "1h30m", "-1s", "+1s", "1e3", "5S", ".", "1,5s", "٣s", "nan", "inf"]
SAID = {
    0.0: "0",
    0.0005: "0.5ms",
    0.5: "500ms",
    1.5: "1500ms",
    1.0: "1s",
    90.0: "90s",
    300.0: "5m",
    5400.0: "90m",
    7200.0: "2h",
    86400.0: "1d",
    864000.0: "10d",
}


@pytest.mark.parametrize("text", READ)
def test_a_duration_is_read_in_seconds(text: str) -> None:
    """A number without a unit is seconds."""
    assert read_duration(text) == READ[text]


@pytest.mark.parametrize("text", REFUSED)
def test_anything_else_is_refused(text: str) -> None:
    """The refusal says what would do."""
    with pytest.raises(ValueError, match="such as 500ms, 30s, 5m, 24h"):
        read_duration(text)


@pytest.mark.parametrize("value", [5, 2.5, None])
def test_what_is_no_text_is_left_to_the_validator(value: object) -> None:
    """A number is taken as seconds as it is."""
    assert read_duration(value) is value


@given(st.text() | st.from_regex(r"[0-9.]{1,6}\s?(ms|s|m|h|d)?"))
def test_no_text_raises_anything_but_a_refusal(text: str) -> None:
    """Whatever is typed, the answer is a number or a ValueError."""
    with contextlib.suppress(ValueError):
        assert isinstance(read_duration(text), float)


@pytest.mark.parametrize("seconds", SAID)
def test_a_duration_is_said_in_its_largest_whole_unit(seconds: float) -> None:
    """Ninety seconds are not one and a half minutes."""
    assert say_duration(seconds) == SAID[seconds]


@given(st.integers(0, 10**12).map(lambda milliseconds: milliseconds / 1000))
@example(1_000_001.0)
@example(1234.567)
def test_what_is_said_can_be_read(seconds: float) -> None:
    """Saying a duration and reading it again changes nothing, down to the millisecond."""
    said = say_duration(seconds)
    assert read_duration(said) == pytest.approx(seconds, rel=1e-12)
    assert said == "0" or said.endswith(tuple(UNITS))


@pytest.mark.parametrize("value", [True, False])
def test_a_truth_is_no_duration(value: object) -> None:
    """TOML has both, and Python counts with either."""
    with pytest.raises(ValueError, match="not true or false"):
        read_duration(value)
