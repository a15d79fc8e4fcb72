"""How the values of settings are written, and what is said of those that are written otherwise."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.kit.address import Address
from sidecar.sources import load
from tests.fakes import SECRET
from tests.reading import complaints


class TestSpellings:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("90", 90.0), ("0", 0.0), ("500ms", 0.5), ("1.5 m", 90.0), (".5s", 0.5), ("2h", 7200.0), (" 1d ", 86400.0)],
    )
    def test_of_durations(self, text: str, seconds: float) -> None:
        """A number of seconds, or one with a unit."""
        assert load({"unknown_for": text}).unknown_for == seconds

    @pytest.mark.parametrize("text", ["", "-1s", "1w", "s", "1e3", "1:30", "inf", "nan", "\u0661s", "9" * 400 + "d"])
    def test_of_what_is_no_duration(self, text: str) -> None:
        """Neither negative nor endless, and in units that everybody knows."""
        (complaint,) = complaints({"unknown_for": text})
        assert complaint.startswith("SIDECAR_UNKNOWN_FOR: ")

    @pytest.mark.parametrize(
        ("text", "addresses"),
        [
            ("127.0.0.1:1", (Address("127.0.0.1", 1),)),
            ("localhost:0", (Address("localhost", 0),)),
            ("[::1]:65535", (Address("::1", 65535),)),
            ("unix:/run/s.sock", (Address("", 0, "/run/s.sock"),)),
            ("127.0.0.1:1, unix:/run/s,", (Address("127.0.0.1", 1), Address("", 0, "/run/s"))),
        ],
    )
    def test_of_addresses(self, text: str, addresses: tuple[Address, ...]) -> None:
        """One or several, TCP or unix sockets, and written back the same."""
        found = load({"listen": text, "ops_listen": text})
        assert found.listen == found.ops_listen == addresses
        assert found.model_dump(mode="json")["listen"] == ",".join(map(str, addresses))

    @pytest.mark.parametrize(
        "text", ["", ",", "7420", ":7420", "localhost", "127.0.0.1:65536", "127.0.0.1:http", "unix:run/s", "unix:"]
    )
    def test_of_what_is_no_address(self, text: str) -> None:
        """A host and a port, or an absolute path."""
        (complaint,) = complaints({"ops_listen": text})
        assert complaint.startswith("SIDECAR_OPS_LISTEN: ")

    @pytest.mark.parametrize(
        ("value", "bounds", "least"),
        [
            ("1h", {"*": 3600.0}, 3600.0),
            (3600, {"*": 3600.0}, 3600.0),
            ('{"seats-*": "72h", "*": "1h"}', {"seats-*": 259200.0, "*": 3600.0}, 3600.0),
            (' {"seats-*": "72h", "sso": 600}', {"seats-*": 259200.0, "sso": 600.0, "*": 86400.0}, 600.0),
            ({"sso": "10m"}, {"sso": 600.0, "*": 86400.0}, 600.0),
            ("{}", {"*": 86400.0}, 86400.0),
        ],
    )
    def test_of_bounds_by_glob(self, value: object, bounds: dict[str, float], least: float) -> None:
        """One for all, or JSON by glob, whose order is kept; what none matches has the default."""
        found = load({"stale_for": value})
        assert list(found.stale_for.items()) == list(bounds.items())
        assert found.freshness.stale_for_by_glob == bounds
        assert list(found.freshness.stale_for_by_glob) == list(bounds)
        assert found.freshness.least_stale_for == least

    @pytest.mark.parametrize(
        ("value", "complaint"),
        [
            ("long", "SIDECAR_STALE_FOR: must be a duration such as"),
            ('{"seats-*": ', 'SIDECAR_STALE_FOR: must be a duration or JSON such as {"seats-*": "72h"}'),
            ('{"seats-*": "long"}', "SIDECAR_STALE_FOR[seats-*]: must be a duration such as"),
            ('{"seats-*": {"sso": "1h"}}', "SIDECAR_STALE_FOR[seats-*]: Input should be a valid number"),
            ("[]", "SIDECAR_STALE_FOR: must be a duration such as"),
            ([], "SIDECAR_STALE_FOR[*]: Input should be a valid number"),
        ],
    )
    def test_of_what_is_no_bound(self, value: object, complaint: str) -> None:
        """The complaint names the glob, and how a duration is written."""
        assert complaints({"stale_for": value})[0].startswith(complaint)

    @pytest.mark.parametrize(
        ("text", "policy"),
        [
            ("allow", {"*": "allow"}),
            (" error ", {"*": "error"}),
            ('{"seats-*": "allow", "*": "error"}', {"seats-*": "allow", "*": "error"}),
            (' {"sso": "deny"}', {"sso": "deny"}),
            ("{}", {}),
        ],
    )
    def test_of_policies(self, text: str, policy: dict[str, str]) -> None:
        """A word for all, or JSON by glob, whose order is kept."""
        assert list(load({"policy": text}).policy.items()) == list(policy.items())

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("maybe", "SIDECAR_POLICY[*]: Input should be 'deny', 'allow' or 'error'"),
            ("[]", "SIDECAR_POLICY[*]: Input should be 'deny', 'allow' or 'error'"),
            ('{"seats-*": "maybe"}', "SIDECAR_POLICY[seats-*]: Input should be 'deny', 'allow' or 'error'"),
            ('{"seats-*": ', "SIDECAR_POLICY: must be deny, allow, error or JSON such as"),
            (5, "SIDECAR_POLICY: Input should be a valid dictionary"),
        ],
    )
    def test_of_what_is_no_policy(self, text: object, complaint: str) -> None:
        """The complaint names the glob, and what a policy may be."""
        assert complaints({"policy": text})[0].startswith(complaint)

    @pytest.mark.parametrize(
        ("text", "count"),
        [("1MiB", 1 << 20), ("1048576", 1 << 20), ("2 GiB", 2 << 30), ("1GB", 10**9), ("64mb", 64 * 10**6)],
    )
    def test_of_byte_sizes(self, text: str, count: int) -> None:
        """With a binary or decimal unit, or none."""
        assert load({"cache_bytes": text}).cache_bytes == count

    @pytest.mark.parametrize("text", ["1023KiB", "0", "-1GiB", "much", ""])
    def test_of_what_is_too_little_memory(self, text: str) -> None:
        """Less than 1 MiB is a mistake."""
        assert complaints({"cache_bytes": text})[0].startswith("SIDECAR_CACHE_BYTES: ")

    @pytest.mark.parametrize(("text", "names"), [("a, b,", ("a", "b")), ("*", ("*",)), ("", ())])
    def test_of_host_names(self, text: str, names: tuple[str, ...]) -> None:
        """Separated by commas, and written back the same."""
        found = load({"allowed_hosts": text})
        assert found.allowed_hosts == names
        assert found.model_dump(mode="json")["allowed_hosts"] == ",".join(names)

    @pytest.mark.parametrize("url", ["https://stripe.example", "https://stripe.example/", "https://stripe.example//"])
    def test_of_stripes_address(self, url: str) -> None:
        """A slash at the end makes no difference."""
        assert load({"stripe_api_base": url}).stripe_api_base == "https://stripe.example"

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "api.stripe.com",
            "ftp://stripe.example",
            "https://",
            "https://a?b=c",
            "https://a#b",
            "https://u:p@a",
            "https://:p@a",
            "https://[::1",
            "https://a:port",
            "https://a:99999",
            "https://a b",
        ],
    )
    def test_of_what_is_no_address_of_stripes(self, url: str) -> None:
        """Scheme, host, perhaps a port and a path; nothing that would end up in the wrong place."""
        (complaint,) = complaints({"stripe_api_base": url})
        assert complaint.startswith("SIDECAR_STRIPE_API_BASE: ")
        assert "u:p" not in complaint

    def test_of_a_key_where_a_file_is_wanted(self) -> None:
        """It is refused without being repeated, wherever it was put."""
        (complaint,) = complaints({"stripe_api_key_file": "rk_live_51Secret"})
        assert "looks like a key itself" in complaint
        for name in ("listen", "stripe_api_base", "fresh_for"):
            assert "51Secret" not in str(complaints({name: "sk_live_51Secret"}))

    @pytest.mark.parametrize("version", ["2026-10-28.endive", "2024-04-10", "2026-10-28.endive;feature_beta=v1"])
    def test_of_versions(self, version: str) -> None:
        """A date, with a release's name since 2024."""
        assert load({"stripe_version": version}).stripe_version == version

    @pytest.mark.parametrize("version", ["", "2026-10-28\r\nX: y", "a b", "ä", "x" * 101])
    def test_of_what_is_no_version(self, version: str) -> None:
        """It becomes a header."""
        assert complaints({"stripe_version": version}) == [
            "SIDECAR_STRIPE_VERSION: must be a version such as 2026-10-28.endive"
        ]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("rate", "0"),
            ("rate", "-1"),
            ("rate", "inf"),
            ("rate", "nan"),
            ("burst", "0"),
            ("burst", "1.5"),
            ("replicas", "0"),
            ("max_pages", "0"),
            ("deadline", "0"),
            ("insecure_listen", "perhaps"),
            ("log_level", "verbose"),
            ("log_level", "INFO"),
            ("log_format", "xml"),
        ],
    )
    def test_of_what_is_out_of_bounds(self, name: str, value: str) -> None:
        """One complaint, which names the variable."""
        (complaint,) = complaints({name: value})
        assert complaint.startswith(f"SIDECAR_{name.upper()}: ")

    @pytest.mark.parametrize(
        ("text", "secrets"),
        [
            (SECRET, [SECRET]),
            (f"{SECRET},whsec_2", [SECRET, "whsec_2"]),
            (f" {SECRET} ,\n whsec_2\n", [SECRET, "whsec_2"]),
            ((SECRET, "whsec_2"), [SECRET, "whsec_2"]),
            ("whsec_/+=", ["whsec_/+="]),
            ("", []),
            (" , ", []),
        ],
    )
    def test_of_webhook_secrets(self, text: object, secrets: list[str]) -> None:
        """One or several, with commas or blanks; written back masked, one by one."""
        found = load({"webhook_secret": text})
        assert [secret.get_secret_value() for secret in found.webhook_secret] == secrets
        assert found.model_dump(mode="json")["webhook_secret"] == ",".join("whsec_***" for _ in secrets)

    @pytest.mark.parametrize("text", ["sk_live_51Secret", "rk_test_51Secret", f"{SECRET},sk_org_51Secret"])
    def test_of_an_api_key_where_a_webhook_secret_is_wanted(self, text: str) -> None:
        """They lie side by side in the Dashboard; the complaint says which is which and repeats neither."""
        assert complaints({"webhook_secret": text}) == [
            "SIDECAR_WEBHOOK_SECRET: is an API key; a webhook endpoint has a signing secret of its own (whsec_…)"
        ]

    @pytest.mark.parametrize(
        "text",
        [
            "51Secret",
            "whsec_",
            "whsec_\u00e4",
            "pk_live_51Secret",
            ["whsec_1 51Secret"],
            "whsec_***",
            ["whsec_1,whsec_2"],
        ],
    )
    def test_of_what_is_no_webhook_secret(self, text: object) -> None:
        """It would verify nothing, so it is said at the start."""
        assert complaints({"webhook_secret": text}) == [
            "SIDECAR_WEBHOOK_SECRET: is no signing secret of a webhook endpoint (whsec_…)"
        ]

    @pytest.mark.parametrize("value", [7, [7], {"a": SECRET}, [[SECRET]]])
    def test_of_webhook_secrets_that_are_no_text(self, value: object) -> None:
        """A complaint for each, without the value."""
        found = complaints({"webhook_secret": value})
        assert all(complaint.startswith("SIDECAR_WEBHOOK_SECRET") for complaint in found)
        assert SECRET not in str(found)

    @given(seconds=st.integers(1, 999_999), unit=st.sampled_from(["ms", "s", "m", "h", "d"]))
    def test_of_durations_survive_being_written(self, seconds: int, unit: str) -> None:
        """What `config` prints for a duration sets the same duration."""
        found = load({"unknown_for": f"{seconds}{unit}"})
        again = load({"unknown_for": found.model_dump(mode="json")["unknown_for"]})
        assert again.unknown_for == pytest.approx(found.unknown_for, rel=1e-5)


class TestTheStore:
    @pytest.mark.parametrize(
        ("text", "path", "written"),
        [
            ("memory", None, "memory"),
            ("sqlite:///var/lib/lists.db", "/var/lib/lists.db", "sqlite:///var/lib/lists.db"),
            ("sqlite:////var/lib/lists.db", "/var/lib/lists.db", "sqlite:///var/lib/lists.db"),
        ],
    )
    def test_is_memory_or_a_file(self, text: str, path: str | None, written: str) -> None:
        """An absolute path, with three slashes or, as SQLAlchemy writes it, four."""
        found = load({"store": text})
        assert found.store == (None if path is None else Path(path))
        assert found.model_dump(mode="json")["store"] == written

    @pytest.mark.parametrize(
        "text", ["", "disk", "sqlite:", "sqlite://", "sqlite:///", "sqlite://host/x", "/var/x.db", 5]
    )
    def test_is_nothing_else(self, text: object) -> None:
        """The complaint says how it is written."""
        (complaint,) = complaints({"store": text})
        assert complaint.startswith("SIDECAR_STORE: ")

    def test_a_key_needs_something_to_encrypt(self) -> None:
        """Memory is not written anywhere."""
        assert complaints({"store_key_file": "/run/key"}) == [
            "SIDECAR_STORE_KEY_FILE: there is nothing to encrypt: store is memory"
        ]
        assert load({"store": "sqlite:///x/y.db", "store_key_file": "/run/key"}).store_key_file == Path("/run/key")
