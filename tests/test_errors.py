"""What can go wrong."""

import re
from collections.abc import Iterator

import pytest

from sidecar import errors
from sidecar.errors import (
    BadSettings,
    Broken,
    CircuitOpen,
    CursorVanished,
    Defect,
    KeyRejected,
    Malformed,
    NoAnswer,
    NotAllowed,
    OverBudget,
    PermissionMissing,
    Refused,
    RequestRejected,
    SidecarError,
    Throttled,
    TimedOut,
    UnknownCustomer,
    Unreachable,
    Untold,
    UpstreamError,
)

CODES = {
    KeyRejected: ("key_rejected", False),
    PermissionMissing: ("permission_missing", False),
    RequestRejected: ("request_rejected", False),
    CursorVanished: ("cursor_vanished", False),
    Throttled: ("throttled", True),
    Broken: ("broken", True),
    Unreachable: ("unreachable", True),
    OverBudget: ("over_budget", False),
    CircuitOpen: ("circuit_open", False),
    Defect: ("internal", False),
    TimedOut: ("deadline", False),
}


def tree(kind: type[SidecarError], depth: int = 0) -> Iterator[tuple[int, str]]:
    """Walk over the error classes, each with how deep it lies."""
    yield depth, kind.__name__
    for below in kind.__subclasses__():
        yield from tree(below, depth + 1)


def test_the_tree_is_as_drawn() -> None:
    """The picture at the top of the module has every error where it is in the hierarchy."""
    drawn = {
        (len(match[1]) // 4, match[2])
        for line in (errors.__doc__ or "").splitlines()
        if (match := re.match(r"((?:[│├└ ][─ ]{2} )*)([A-Z]\w+)(?:  |$)", line))
    }
    assert drawn == set(tree(SidecarError))


def test_every_failure_of_a_read_has_a_code_of_its_own() -> None:
    """The codes are labels of metrics and words of the HTTP answers: changing one is a breaking change."""
    assert {kind: (kind.code, kind.retry) for kind in UpstreamError.__subclasses__()} == CODES


@pytest.mark.parametrize("kind", CODES)
def test_a_failure_tells_where_to_look(kind: type[UpstreamError]) -> None:
    """Its text is the detail; status and Stripe's request id are kept beside it, where there are any."""
    assert str(kind("why")) == kind("why").detail == "why"
    assert (kind("why").status, kind("why").request_id) == (None, None)
    error = kind("why", status=503, request_id="req_1")
    assert (error.status, error.request_id) == (503, "req_1")


@pytest.mark.parametrize("kind", CODES)
def test_stripe_may_say_that_a_retry_helps_or_not(kind: type[UpstreamError]) -> None:
    """What the one answer says beats what its kind says, and changes the kind for nobody else."""
    assert kind("why").retry is kind.retry
    assert kind("why", retry=True).retry is True
    assert kind("why", retry=False).retry is False
    assert kind.retry is CODES[kind][1]


def test_being_throttled_has_a_reason_and_an_end() -> None:
    """Without ``Stripe-Rate-Limited-Reason`` it was no rate limiter, without ``Retry-After`` it has no known end."""
    plain = Throttled("slow down", status=429)
    assert (plain.reason, plain.after, plain.retry, plain.status) == (None, None, True, 429)
    full = Throttled("slow down", reason="endpoint-rate", after=3.0, request_id="req_1", retry=False)
    assert (full.reason, full.after, full.retry, full.request_id) == ("endpoint-rate", 3.0, False, "req_1")


def test_an_open_circuit_tells_what_opened_it() -> None:
    """Whoever asks for the cause is told of the last failure; without frames, as it is kept for long."""
    with pytest.raises(Broken) as caught:
        raise Broken("Stripe answered 502", status=502, request_id="req_1")
    kept = caught.value.kept()
    assert (type(kept), str(kept), kept.status, kept.request_id) == (Broken, "Stripe answered 502", 502, "req_1")
    assert kept.__traceback__ is None
    assert CircuitOpen("nothing is asked", last=kept).last is kept
    assert CircuitOpen("nothing is asked").last is None


def test_too_much_to_read_is_not_tried_again() -> None:
    """It is broken to whoever counts, but the same pages would come again."""
    assert (Untold("a thousand pages").code, Untold("a thousand pages").retry) == (Broken.code, False)


def test_bad_settings_complain_all_at_once() -> None:
    """One failed start instead of four."""
    bad = BadSettings(["one", "two"])
    assert (bad.code, bad.complaints, str(bad)) == ("bad_settings", ["one", "two"], "one\ntwo")


@pytest.mark.parametrize(
    ("complaint", "shown"),
    [
        ("a: sk_live_51Secret is no duration", "a: sk_live_*** is no duration"),
        ("a: rk_test_51Secret", "a: rk_test_***"),
        ("a: sk_51Secret", "a: sk_***"),
        ("a: sk_org_live_51Secret", "a: sk_org_***"),
        ("a: whsec_Secret is no number; nor is whsec_Secret2", "a: whsec_*** is no number; nor is whsec_***"),
        ("a: 'whsec_Secret'", "a: 'whsec_***'"),
        ("a: whsec: is no address", "a: whsec: is no address"),
    ],
)
def test_bad_settings_repeat_no_secret(complaint: str, shown: str) -> None:
    """One that was put in the wrong place shows what kind it is, and nothing more."""
    bad = BadSettings([complaint])
    assert (bad.complaints, str(bad)) == ([shown], shown)


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ("customer", "malformed_customer"),
        ("checks[3].lookup_key", "malformed_lookup_key"),
        ("checks", "malformed_checks"),
        ("checks[3]", "malformed_checks"),
        ("Cache-Control", "malformed_cache_control"),
        ("Stripe-Account", "malformed_stripe_account"),
    ],
)
def test_what_is_malformed_has_a_name(part: str, code: str) -> None:
    """The code says what kind of thing it is, the part says which one."""
    malformed = Malformed(part, "must be better")
    assert (malformed.code, malformed.part, malformed.status) == (code, part, 400)
    assert malformed.detail == str(malformed) == f"{part}: must be better"


def test_a_refusal_has_a_status() -> None:
    """By its kind, unless it is given one; 4xx in any case."""
    assert Malformed("body", "is too large", status=413).status == 413
    assert NotAllowed("wrong_host", "not here").status == 403
    assert NotAllowed("no_token", "who are you?", status=401).status == 401
    assert (Refused("gone", "no").status, Refused("gone", "no").part) == (400, None)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("No such customer: 'cus_1'", "unknown_customer"),
        (
            "No such customer: 'cus_1'; a similar object exists in test mode, but a live mode key was used.",
            "wrong_mode",
        ),
    ],
)
def test_an_unknown_customer_may_be_known_in_the_other_mode(message: str, code: str) -> None:
    """Stripe says so in words only; its message and status are kept as they were."""
    unknown = UnknownCustomer(404, message)
    assert (unknown.status, unknown.message, str(unknown), unknown.code) == (404, message, message, code)
    assert UnknownCustomer.code == "unknown_customer"


def test_not_knowing_is_not_failing() -> None:
    """That a customer does not exist is an answer; whoever handles failures of Stripe's does not catch it."""
    assert not issubclass(UnknownCustomer, UpstreamError)


def test_no_answer_says_why_and_how_old_what_there_is() -> None:
    """It carries the failure that led to it, if there was one."""
    cause = Unreachable("no route")
    missing = NoAnswer("too_old", "no route", age=12.5, cause=cause)
    assert (missing.code, missing.detail, str(missing), missing.age) == ("too_old", "no route", "no route", 12.5)
    assert missing.cause is cause
    bare = NoAnswer("not_cached", "nothing")
    assert (bare.age, bare.cause) == (None, None)


@pytest.mark.parametrize("code", errors.STORE_TROUBLES)
def test_a_store_in_trouble_says_whether_it_is_worth_keeping(code: str) -> None:
    """What can never be used is put out of the way; what may be mended, or is somebody else's, stays."""
    error = errors.StoreError(code, "what to look at")
    assert (error.code, error.detail, str(error)) == (code, "what to look at", "what to look at")
    assert error.is_worthless == (code in errors.WORTHLESS)
    assert not (set(errors.WORTHLESS) & {"full", "in_use", "gone", "read_only", "not_ours", "too_slow", "failed"})
