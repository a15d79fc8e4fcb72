"""What Stripe's refusals mean, row by row of what is known about them, and for anything else that may come."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import (
    Broken,
    CursorVanished,
    KeyRejected,
    PermissionMissing,
    RequestRejected,
    SidecarError,
    Throttled,
    UnknownCustomer,
    UpstreamError,
)
from sidecar.stripe.answers import date_in, read_json, refusal

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "reference" / "stripe-entitlements.fixtures.json"
REASONS = ("global-rate", "global-concurrency", "endpoint-rate", "endpoint-concurrency", "resource-specific")
OTHER_MODE = "No such customer: 'cus_a'; a similar object exists in test mode, but a live mode key was used to make this request."


def answer(status: int, error: object = None, headers: dict[str, str] | None = None) -> SidecarError:
    """Ask what Stripe means with ``error``."""
    return refusal(status, {"Request-Id": "req_1"} | (headers or {}), orjson.dumps({"error": error}))


def said(message: str = "So it is.", **fields: Any) -> dict[str, Any]:
    return {"type": "invalid_request_error", "message": message} | fields


def upstream(found: SidecarError, kind: type[UpstreamError]) -> UpstreamError:
    """Insist on exactly this kind of error."""
    assert type(found) is kind
    assert isinstance(found, UpstreamError)
    return found


def throttled(found: SidecarError) -> Throttled:
    assert isinstance(found, Throttled)
    return found


class TestAnUnknownCustomer:
    @pytest.mark.parametrize("status", [400, 404, 402, 410, 499])
    @pytest.mark.parametrize("param", ["customer", "id"])
    def test_is_known_by_code_and_parameter_whatever_the_status(self, status: int, param: str) -> None:
        """Stripe does not document whether it says so with 400 or 404."""
        message = "No such customer: 'cus_a'"
        found = answer(status, said(message, code="resource_missing", param=param))
        assert isinstance(found, UnknownCustomer)
        assert (found.status, found.message, str(found)) == (status, message, message)
        assert found.code == "unknown_customer"

    def test_of_the_other_mode_is_told_by_the_message(self) -> None:
        """The message goes on to say that a similar object exists in the other mode."""
        found = answer(404, said(OTHER_MODE, code="resource_missing", param="customer"))
        assert isinstance(found, UnknownCustomer)
        assert found.code == "wrong_mode"

    def test_without_a_message_is_unknown_all_the_same(self) -> None:
        """Only `type` is required of an error."""
        found = answer(400, {"code": "resource_missing", "param": "customer"})
        assert isinstance(found, UnknownCustomer)
        assert found.message == "Stripe answered 400"

    @pytest.mark.parametrize("status", [500, 502, 302])
    def test_is_never_a_5xx(self, status: int) -> None:
        """A failure of Stripe's says nothing about a customer, whatever its body claims."""
        assert upstream(answer(status, said(code="resource_missing", param="customer")), Broken).retry

    @pytest.mark.parametrize("param", [None, "feature", ["customer"], {"customer": 1}])
    def test_is_not_another_resource_that_is_missing(self, param: object) -> None:
        """What else is missing is a request that was wrong."""
        found = upstream(answer(404, said(code="resource_missing", param=param)), RequestRejected)
        assert not found.retry


class TestAVanishedCursor:
    @pytest.mark.parametrize("status", [400, 404])
    @pytest.mark.parametrize("param", ["starting_after", "ending_before"])
    def test_is_known_by_code_and_parameter_whatever_the_status(self, status: int, param: str) -> None:
        """The list changed between two pages; a retry of the same page does not help."""
        found = upstream(answer(status, said(code="resource_missing", param=param)), CursorVanished)
        assert (found.status, found.request_id, found.retry) == (status, "req_1", False)


class TestTheOperatorsErrors:
    @pytest.mark.parametrize(
        "error",
        [
            said("Invalid API Key provided: sk_test_***"),
            said("Expired API Key provided: sk_test_***", code="api_key_expired"),
            said("This API call cannot be made with a publishable API key.", code="secret_key_required"),
        ],
    )
    def test_401_is_a_key_that_is_not_accepted(self, error: dict[str, Any]) -> None:
        """Stripe's own words are the detail; asking again with the same key is pointless."""
        found = upstream(answer(401, error), KeyRejected)
        assert (found.detail, found.status, found.request_id) == (error["message"], 401, "req_1")
        assert not found.retry

    def test_403_names_the_permission_that_is_missing(self) -> None:
        """The permission's name reaches the operator."""
        message = "Having the 'rak_entitlement_read' permission would allow this request to continue."
        found = upstream(answer(403, said(message)), PermissionMissing)
        assert found.detail == message
        assert not found.retry

    @pytest.mark.parametrize("status", [401, 403])
    def test_need_no_body(self, status: int) -> None:
        """The status decides where there is no error to read."""
        found = refusal(status, {}, b"")
        assert isinstance(found, KeyRejected | PermissionMissing)
        assert str(found) == f"Stripe answered {status} with nothing"

    @pytest.mark.parametrize(("status", "kind"), [(401, KeyRejected), (403, PermissionMissing)])
    def test_stay_pointless_to_repeat(self, status: int, kind: type[UpstreamError]) -> None:
        """Not even Stripe-Should-Retry makes another attempt with the same key worth while."""
        assert not upstream(answer(status, said(), {"Stripe-Should-Retry": "true"}), kind).retry


class TestThrottling:
    @pytest.mark.parametrize("reason", REASONS)
    def test_429_with_a_reason_is_a_limiter(self, reason: str) -> None:
        """The header says which one."""
        found = throttled(answer(429, said(code="rate_limit"), {"Stripe-Rate-Limited-Reason": reason}))
        assert (found.reason, found.after, found.status, found.request_id) == (reason, None, 429, "req_1")
        assert found.retry

    def test_429_without_a_reason_is_no_limiter(self) -> None:
        """A lock that timed out has no reason, and no request id."""
        error = said(code="lock_timeout")
        found = throttled(refusal(429, {"Stripe-Should-Retry": "true"}, orjson.dumps({"error": error})))
        assert (found.reason, found.request_id, found.retry) == (None, None, True)

    def test_400_with_code_rate_limit_is_an_older_form(self) -> None:
        """The SDK still knows it, so we do."""
        assert throttled(answer(400, said(code="rate_limit"))).retry

    def test_only_400_has_an_older_form(self) -> None:
        """The code means nothing with another status."""
        assert not upstream(answer(404, said(code="rate_limit")), RequestRejected).retry

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"error":"no"}'])
    def test_429_needs_no_body(self, body: bytes) -> None:
        """A proxy's 429 is one as well."""
        assert throttled(refusal(429, {}, body)).retry

    @pytest.mark.parametrize(
        ("after", "seconds"),
        [
            ("0", 0.0),
            ("1", 1.0),
            ("30", 30.0),
            ("99999", 99999.0),
            ("", None),
            ("100000", None),
            ("-1", None),
            ("1.5", None),
            ("٣", None),
            ("²", None),
            ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ],
    )
    def test_takes_retry_after_in_whole_seconds(self, after: str, seconds: float | None) -> None:
        """Retry-After is not documented: it is read where it is a plain number, and never relied on."""
        assert throttled(answer(429, said(), {"Retry-After": after})).after == seconds


class TestOtherRefusals:
    def test_409_is_worth_a_retry(self) -> None:
        """Both SDKs repeat after a conflict."""
        assert upstream(answer(409, said()), RequestRejected).retry

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (400, said("Missing required param: customer.", code="parameter_missing", param="customer")),
            (400, said(code="parameter_unknown", param="colour")),
            (402, said(type="card_error")),
            (404, said("Unrecognized request URL (GET: /v2).")),
            (405, said()),
            (451, said()),
        ],
    )
    def test_another_4xx_is_ours_and_final(self, status: int, error: dict[str, Any]) -> None:
        """What Stripe says is wrong with a request stays wrong."""
        found = upstream(answer(status, error), RequestRejected)
        assert (found.detail, found.status, found.retry) == (error["message"], status, False)

    @pytest.mark.parametrize("status", [424, 500, 502, 503, 504, 599])
    def test_5xx_and_424_are_stripes(self, status: int) -> None:
        """424 says that something Stripe depends on failed."""
        found = upstream(answer(status, said("An unknown error occurred", type="api_error")), Broken)
        assert (found.detail, found.status, found.request_id) == ("An unknown error occurred", status, "req_1")
        assert found.retry

    @pytest.mark.parametrize("status", [400, 404, 418, 500, 502, 302, 204])
    @pytest.mark.parametrize(
        ("body", "why"),
        [
            (b"", "with nothing"),
            (b"<html>502 Bad Gateway</html>", "28 bytes that are not a JSON object"),
            (b'{"error": {"type": "api_err', "27 bytes that are not a JSON object"),
            (b"[]", "2 bytes that are not a JSON object"),
            (b'"no"', "4 bytes that are not a JSON object"),
            (b"{}", "without an error object"),
            (b'{"error": null}', "without an error object"),
            (b'{"error": "no"}', "without an error object"),
        ],
    )
    def test_what_is_not_stripes_error_is_something_on_the_way(self, status: int, body: bytes, why: str) -> None:
        """HTML, half a body, another kind of JSON: Stripe did not say this, so it decides nothing."""
        found = upstream(refusal(status, {"Request-Id": "req_1"}, body), Broken)
        assert found.detail.startswith(f"Stripe answered {status} ")
        assert found.detail.endswith(why)
        assert (found.status, found.request_id, found.retry) == (status, "req_1", True)

    def test_an_empty_error_object_is_nobodys(self) -> None:
        """An error without a single field is as good as none."""
        assert upstream(answer(400, {}), Broken).retry

    @pytest.mark.parametrize("message", [None, "", 0, []])
    def test_without_a_message_say_the_status(self, message: object) -> None:
        """There is always something to read."""
        assert upstream(answer(400, said() | {"message": message}), RequestRejected).detail == "Stripe answered 400"


class TestStripeShouldRetry:
    @pytest.mark.parametrize(
        ("status", "error", "by_itself"),
        [
            (400, said(), False),
            (404, said(), False),
            (409, said(), True),
            (424, said(), True),
            (429, said(), True),
            (500, said(), True),
            (502, None, True),
        ],
    )
    def test_beats_the_status(self, status: int, error: object, *, by_itself: bool) -> None:
        """true and false override, in any case of letters; anything else leaves the status to decide."""
        for value, expected in [
            ("true", True),
            ("True", True),
            ("false", False),
            ("FALSE", False),
            ("", by_itself),
            ("maybe", by_itself),
        ]:
            found = answer(status, error, {"Stripe-Should-Retry": value})
            assert isinstance(found, UpstreamError)
            assert found.retry is expected, value


class TestReadJson:
    def test_returns_the_object(self) -> None:
        """An object is what every answer of Stripe's is."""
        assert read_json(b'{"data": []}', status=200, request_id=None) == {"data": []}

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b"1", b'"x"', b'{"data": [', b"\xff\xfe{}"])
    def test_takes_nothing_else(self, body: bytes) -> None:
        """What is no object is Broken, with Stripe's id of the request."""
        with pytest.raises(Broken, match="Stripe answered 200 with") as caught:
            read_json(body, status=200, request_id="req_1")
        assert (caught.value.status, caught.value.request_id, caught.value.retry) == (200, "req_1", True)


FOUND = {
    "400_unknown_customer": (UnknownCustomer, None),
    "400_unknown_customer_other_mode": (UnknownCustomer, None),
    "404_unknown_entitlement": (UnknownCustomer, None),
    "401_bad_key": (KeyRejected, False),
    "403_restricted_key": (PermissionMissing, False),
    "429_endpoint_rate": (Throttled, True),
    "429_lock_timeout": (Throttled, True),
    "500": (Broken, True),
}


@pytest.mark.skipif(not FIXTURES.exists(), reason="the reference fixtures are not beside the repository")
class TestTheReferenceFixtures:
    def test_are_all_expected_here(self) -> None:
        """A fixture that is added there is missed here."""
        assert constructed().keys() == FOUND.keys()

    @pytest.mark.parametrize("name", FOUND)
    def test_mean_what_they_are_called(self, name: str) -> None:
        """Each constructed error is classified as its name says."""
        fixture, (kind, retry) = constructed()[name], FOUND[name]
        found = refusal(fixture["status"], fixture.get("headers", {}), orjson.dumps(fixture["body"]))
        assert type(found) is kind
        assert getattr(found, "retry", None) is retry
        assert str(found) == fixture["body"]["error"]["message"]


def constructed() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FIXTURES.read_text())["constructed"]["errors"]
    return found


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["resource_missing", "rate_limit", "customer", "id", "starting_after"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
ERRORS = st.dictionaries(st.sampled_from(["type", "code", "param", "message", "doc_url"]), VALUES)
BODIES = (
    st.binary(max_size=100) | VALUES.map(orjson.dumps) | (ERRORS | VALUES).map(lambda e: orjson.dumps({"error": e}))
)
HEADERS = st.dictionaries(
    st.sampled_from(["Request-Id", "Stripe-Should-Retry", "Stripe-Rate-Limited-Reason", "Retry-After", "X-Other"]),
    st.text(max_size=12) | st.sampled_from(["true", "false", "1", "99999"]),
)


@given(status=st.integers(100, 599), headers=HEADERS, body=BODIES)
def test_anything_at_all_is_one_of_our_errors(status: int, headers: dict[str, str], body: bytes) -> None:
    """No status, headers or body make classifying raise, and only a 4xx makes a customer unknown."""
    found = refusal(status, headers, body)
    assert isinstance(found, UpstreamError | UnknownCustomer)
    assert str(found)
    assert 400 <= status < 500 or not isinstance(found, UnknownCustomer)
    assert getattr(found, "request_id", None) in (None, headers.get("Request-Id"))
    assert getattr(found, "retry", False) in (True, False)
    assert found.status == status


@given(body=st.binary(max_size=200) | BODIES)
def test_any_bytes_are_an_object_or_broken(body: bytes) -> None:
    """Reading a body gives an object or raises Broken."""
    try:
        found = read_json(body, status=200, request_id=None)
    except Broken:
        return
    assert isinstance(found, dict)


@pytest.mark.parametrize(
    ("said", "at"),
    [
        ({"Date": "Sun, 22 Nov 2026 15:04:05 GMT"}, 1_795_359_845.0),
        ({"Date": "Sun, 22 Nov 2026 99:04:05 GMT"}, None),
        ({"Date": "soon"}, None),
        ({"Date": ""}, None),
        ({}, None),
    ],
)
def test_the_date_of_an_answer_is_when_stripe_sent_it(said: dict[str, str], at: float | None) -> None:
    """RFC 9110 §6.6.1; what is no date says nothing."""
    assert date_in(said) == at
