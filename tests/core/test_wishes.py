"""How old an answer a caller accepts."""

import contextlib
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.wishes import NO_WISHES, Wishes, read_cache_control, wishes
from sidecar.errors import Malformed
from sidecar.model import Policy

READ = {
    "": Wishes(),
    "max-age=5": Wishes(max_age=5),
    "max-age=0": Wishes(max_age=0),
    "MAX-Age=5": Wishes(max_age=5),
    'max-age="5"': Wishes(max_age=5),
    "no-cache": Wishes(max_age=0),
    "no-cache=whatever": Wishes(max_age=0),
    "max-age=5, no-cache": Wishes(max_age=0),
    "max-stale": Wishes(max_stale=inf),
    "max-stale=60": Wishes(max_stale=60),
    "stale-if-error": Wishes(stale_if_error=inf),
    "stale-if-error=60": Wishes(stale_if_error=60),
    "only-if-cached": Wishes(only_if_cached=True),
    "only-if-cached=1": Wishes(only_if_cached=True),
    "max-age=5, stale-if-error=60": Wishes(max_age=5, stale_if_error=60),
    "max-age=5,max-stale=60,only-if-cached": Wishes(max_age=5, max_stale=60, only_if_cached=True),
    "\tmax-age=5 ,  max-stale=6  ": Wishes(max_age=5, max_stale=6),
    # of several of a kind the first counts
    "max-age=5, max-age=6": Wishes(max_age=5),
    "max-stale, max-stale=6": Wishes(max_stale=inf),
    # others mean nothing
    "no-store": Wishes(),
    "no-transform, min-fresh=5, immutable": Wishes(),
    "private=\"set-cookie, max-age=1\", community='UCI', max-age=5": Wishes(max_age=5),
    r'note="a \" quoted, max-age=1", max-age=5': Wishes(max_age=5),
    "x-max-age=1, max-age-x=2": Wishes(),
    # an empty element of a list is none
    ",": Wishes(),
    "  ": Wishes(),
    ",,max-age=5,,max-stale=6,": Wishes(max_age=5, max_stale=6),
    " , max-age=5, , max-stale=6, ": Wishes(max_age=5, max_stale=6),
    "max-age=999999999999": Wishes(max_age=2.0**31),
    "max-age=" + "9" * 400: Wishes(max_age=2.0**31),
}

REFUSED = {
    "max-age": "max-age needs a number",
    "max-age=": "max-age must be a number of seconds, not ''",
    'max-age=""': "max-age must be a number of seconds, not ''",
    "max-age=-1": "max-age must be a number of seconds, not '-1'",
    "max-age=+1": "max-age must be a number of seconds, not '+1'",
    "max-age=1.5": "max-age must be a number of seconds, not '1.5'",
    "max-age=1e3": "max-age must be a number of seconds, not '1e3'",
    "max-age=5s": "max-age must be a number of seconds, not '5s'",
    "max-age=٣": "max-age must be a number of seconds, not '٣'",  # a digit to Python, not to HTTP
    "max-age=5, max-age=x": "max-age must be a number of seconds, not 'x'",
    "max-stale=x": "max-stale must be a number of seconds, or no value, not 'x'",
    "stale-if-error=x": "stale-if-error must be a number of seconds, or no value, not 'x'",
    "max-age =5": "cannot be read from 'max-age =5' on",
    "max-age= 5": "cannot be read from 'max-age= 5' on",
    "max-age=5 6": "cannot be read from 'max-age=5 6' on",
    "max-age=5; max-stale": "cannot be read from 'max-age=5; max-stale' on",
    "no-cache; x": "cannot be read from 'no-cache; x' on",
    'no-store, max-age="5': "cannot be read from ' max-age=\"5' on",
    "=5": "cannot be read from '=5' on",
    "max-age=5, ümlaut": "cannot be read from",
}


@pytest.mark.parametrize("text", READ, ids=repr)
def test_directives_are_read(text: str) -> None:
    """Names in any case, values plain or quoted, what is not known ignored."""
    assert wishes(text) == READ[text]


@pytest.mark.parametrize("text", REFUSED, ids=repr)
def test_an_impossible_text_is_refused(text: str) -> None:
    """The refusal names the field, and the directive where it is one of ours."""
    with pytest.raises(Malformed) as refused:
        wishes(text)
    assert (refused.value.code, refused.value.part) == ("malformed_cache_control", "Cache-Control")
    assert REFUSED[text] in refused.value.detail


@given(
    st.text()
    | st.lists(
        st.sampled_from(["max-age", "no-cache", "max-stale", "x", "=", ",", " ", '"', "\\", "5", "\n", "\t", "é"])
    ).map("".join)
)
def test_no_text_raises_anything_but_malformed(text: str) -> None:
    """Whatever a caller sends, it is understood or refused as theirs, and no refusal repeats more than a little."""
    try:
        read_cache_control(text)
    except Malformed as refused:
        assert len(refused.detail) < 150  # noqa: PT017 -- either outcome will do


@given(
    st.lists(st.sampled_from([text for text in READ if text.strip(" ,")]), max_size=4),
    st.sampled_from([",", " , ", ",,"]),
)
def test_a_field_may_come_in_parts(parts: list[str], between: str) -> None:
    """Several header lines are one list: what is known is what all of them say, the first counting."""
    found: dict[str, float | None] = {}
    for part in parts:
        found = read_cache_control(part) | found
    assert read_cache_control(between.join(parts)) == found


def test_nothing_said_is_no_wishes() -> None:
    """Most callers say nothing, and share one object."""
    assert wishes(None) is NO_WISHES
    assert wishes("") is NO_WISHES


@pytest.mark.parametrize("policy", [Policy.ALLOW, Policy.DENY])
def test_a_default_overrides_the_policy(policy: Policy) -> None:
    """It may be given with directives or alone."""
    assert wishes(None, str(policy)) == Wishes(default=policy)
    assert wishes("max-age=5", str(policy)) == Wishes(max_age=5, default=policy)


@pytest.mark.parametrize("default", ["", "error", "Allow", "true", "x" * 500])
def test_a_default_is_allow_or_deny(default: str) -> None:
    """Everything else is refused under the parameter's name."""
    with pytest.raises(Malformed) as refused:
        wishes(None, default)
    assert (refused.value.code, refused.value.part) == ("malformed_default", "default")
    assert len(refused.value.detail) < 100


@given(st.text())
def test_no_default_raises_anything_but_malformed(default: str) -> None:
    """Whatever the parameter holds."""
    with contextlib.suppress(Malformed):
        assert wishes(None, default).default is not None


@pytest.mark.parametrize(
    ("said", "oldest"),
    [
        (Wishes(), 1000),
        (Wishes(max_age=5), 5),
        (Wishes(max_age=500), 500),
        (Wishes(max_age=5000), 1000),
        (Wishes(max_stale=50), 150),
        (Wishes(max_stale=5000), 5100),
        (Wishes(max_stale=inf), inf),
        (Wishes(max_age=5, max_stale=50), 55),
        (Wishes(max_age=500, max_stale=50), 150),
        (Wishes(max_age=5, max_stale=inf), inf),
        (Wishes(stale_if_error=inf), 1000),
    ],
)
def test_the_oldest_answer_from_memory(said: Wishes, oldest: float) -> None:
    """With ``fresh_for`` 100 and ``stale_for`` 1000: ``max-stale`` counts from the end of freshness."""
    assert said.oldest(100, 1000) == oldest


@pytest.mark.parametrize(
    ("said", "oldest"),
    [
        (Wishes(), -1),
        (Wishes(max_age=5, max_stale=inf), -1),
        (Wishes(stale_if_error=0), 100),
        (Wishes(stale_if_error=50), 150),
        (Wishes(max_age=5, stale_if_error=inf), inf),
    ],
)
def test_the_oldest_answer_in_an_outage(said: Wishes, oldest: float) -> None:
    """Without ``stale-if-error`` there is none, not even one of age zero."""
    assert said.oldest_on_error(100) == oldest
