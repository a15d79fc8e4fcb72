"""Every knob: its default, its spellings, and what contradicts what."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sidecar.kit.address import Address
from sidecar.settings import Freshness, Settings, meanings
from sidecar.sources import load
from tests.fakes import KEY, SECRET
from tests.reading import LIVE, Toml, complaints

DEFAULTS = {
    "stripe_api_key": None,
    "stripe_api_key_file": None,
    "stripe_api_base": "https://api.stripe.com",
    "stripe_version": "2026-10-28.endive",
    "listen": (Address("127.0.0.1", 7420),),
    "ops_listen": (Address("127.0.0.1", 7421),),
    "insecure_listen": False,
    "local_token_file": None,
    "allowed_hosts": ("localhost", "127.0.0.1", "[::1]"),
    "max_connections": 4096,
    "drain_timeout": 5.0,
    "quit_endpoint": False,
    "fresh_for": 300.0,
    "stale_for": {"*": 86400.0},
    "unknown_for": 60.0,
    "dirty_wait": 0.5,
    "deadline": 2.0,
    "events_poll": 60.0,
    "events_lag": 30.0,
    "audit_every": 86400.0,
    "webhook_secret": (),
    "webhook_secret_file": None,
    "webhook_listen": (Address("127.0.0.1", 7422),),
    "policy": {"*": "deny"},
    "rate": 20.0,
    "burst": 5,
    "replicas": 1,
    "cache_bytes": 128 * 1024 * 1024,
    "store": None,
    "store_bytes": 1 << 30,
    "store_key_file": None,
    "max_pages": 100,
    "traces": False,
    "log_level": "info",
    "log_format": "auto",
}


class TestDefaults:
    def test_are_these(self) -> None:
        """Nothing set gives the documented defaults, and no knob is missing from the list."""
        found = load({})
        assert {name: getattr(found, name) for name in Settings.model_fields} == DEFAULTS

    def test_are_valid_themselves(self) -> None:
        """What `config` prints of the defaults can be set as it stands."""
        written = load({}).model_dump(mode="json")
        again = load({name: value for name, value in written.items() if value is not None})
        assert {name: getattr(again, name) for name in Settings.model_fields} == DEFAULTS

    def test_have_a_meaning_each(self) -> None:
        """Every knob says what it is for; the README and `--help` show it."""
        assert list(meanings()) == list(Settings.model_fields)
        assert all(meanings().values())

    def test_make_a_freshness(self) -> None:
        """The heart gets durations and no settings."""
        assert load({}).freshness == Freshness()
        *names, globs = Freshness.__slots__
        changed = load({name: f"{place}s" for place, name in enumerate(names, 1)})
        assert (changed.freshness, globs) == (Freshness(1.0, 2.0, 3.0, 4.0, 5.0, 6.0), "stale_by_glob")

    def test_cannot_be_changed_afterwards(self) -> None:
        """Settings are read once."""
        with pytest.raises(ValidationError, match="frozen"):
            load({}).rate = 1.0  # type: ignore[misc]


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


class TestContradictions:
    @pytest.mark.parametrize(
        ("base", "key"),
        [
            ("http://stripe.example", LIVE),
            ("http://stripe.example", "rk_live_x"),
            ("http://192.0.2.1:8080", LIVE),
            ("http://stripe.example", None),
        ],
    )
    def test_a_key_never_goes_to_another_host_unencrypted(self, base: str, key: str | None) -> None:
        """Neither a live key, nor one that will be read from a file."""
        flags = {"stripe_api_base": base} | (
            {"stripe_api_key_file": "/run/key"} if key is None else {"stripe_api_key": key}
        )
        assert complaints(flags) == [
            "SIDECAR_STRIPE_API_BASE: the key would go to another host without encryption; use https"
        ]

    @pytest.mark.parametrize(
        ("base", "key"),
        [
            ("http://127.0.0.1:12111", LIVE),
            ("http://localhost:12111", LIVE),
            ("http://[::1]:12111", LIVE),
            ("http://stripe-mock:12111", KEY),
            ("https://stripe.example", LIVE),
        ],
    )
    def test_a_key_may_go_where_nobody_listens_in(self, base: str, key: str) -> None:
        """To this host, over TLS, or if it is a test key: that is what stripe-mock in a compose file is."""
        assert load({"stripe_api_base": base, "stripe_api_key": key}).stripe_api_base == base

    @pytest.mark.parametrize("listen", ["0.0.0.0:7420", "[::]:7420", "127.0.0.1:7420,10.0.0.1:7420", "app.example:1"])
    def test_others_are_not_answered_unguarded(self, listen: str) -> None:
        """A listener that other hosts reach needs a token, or the word that this is meant."""
        (complaint,) = complaints({"listen": listen})
        assert complaint.startswith("SIDECAR_LOCAL_TOKEN_FILE: ")
        assert "can be reached from other hosts: set this, or insecure_listen to allow it" in complaint
        assert load({"listen": listen, "insecure_listen": True}).local_token_file is None
        assert load({"listen": listen, "local_token_file": "/run/token"}).listen

    @pytest.mark.parametrize("listen", ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "localhost:1", "unix:/run/s"])
    def test_this_host_is_answered_unguarded(self, listen: str) -> None:
        """Loopback and unix sockets need no token."""
        assert load({"listen": listen}).listen

    def test_stale_is_not_shorter_than_fresh(self) -> None:
        """Equal is allowed: then nothing is ever stale."""
        assert complaints({"events_poll": "500ms"}) == [
            "SIDECAR_EVENTS_POLL: must be 0 or at least 1s: each poll is a request to Stripe"
        ]
        assert complaints({"fresh_for": "10m", "stale_for": "5m"}) == [
            "SIDECAR_STALE_FOR: is shorter than fresh_for (10m)"
        ]
        assert complaints({"fresh_for": "2d"}) == ["SIDECAR_STALE_FOR: is shorter than fresh_for (2d)"]
        assert load({"fresh_for": "5m", "stale_for": "5m"}).stale_for == {"*": 300.0}

    @pytest.mark.parametrize(
        ("fresh_for", "text", "complaint"),
        [
            ("10m", '{"seats-*": "5m", "*": "1h"}', "'seats-*' is shorter than fresh_for (10m)"),
            ("10m", '{"seats-*": "1h", "*": "5m"}', "'*' is shorter than fresh_for (10m)"),
            ("2d", '{"seats-*": "3d"}', "is 1d for what no glob matches, shorter than fresh_for (2d); add '*'"),
        ],
    )
    def test_no_glob_is_stale_before_it_is_fresh(self, fresh_for: str, text: str, complaint: str) -> None:
        """The complaint names the one that would be."""
        assert complaints({"fresh_for": fresh_for, "stale_for": text}) == [f"SIDECAR_STALE_FOR: {complaint}"]

    def test_no_glob_comes_after_the_one_that_matches_all(self) -> None:
        """It would never be the first to match: somebody sorted them."""
        for name, value in (("policy", "allow"), ("stale_for", "1h")):
            text = f'{{"*": "{value}", "seats-*": "{value}"}}'
            assert complaints({name: text}) == [
                f"SIDECAR_{name.upper()}: 'seats-*' comes after '*', which matches every lookup_key"
            ]

    def test_webhook_secrets_come_from_one_place(self) -> None:
        """A setting and a file contradict each other; an empty setting contradicts nothing."""
        assert complaints({"webhook_secret": SECRET, "webhook_secret_file": "/run/secret"}) == [
            "SIDECAR_WEBHOOK_SECRET_FILE: webhook_secret is set too; set one of them"
        ]
        assert load({"webhook_secret": "", "webhook_secret_file": "/run/secret"}).webhook_secret == ()

    def test_webhooks_may_be_taken_from_anywhere(self) -> None:
        """Who sent one is known by its signature, so other hosts may reach that listener without a token."""
        assert load({"webhook_listen": "0.0.0.0:7422", "webhook_secret": SECRET}).webhook_listen

    def test_are_all_said_at_once(self, monkeypatch: pytest.MonkeyPatch, toml: Toml) -> None:
        """Unknown names, wrong values and contradictions, from all three places, in one answer."""
        monkeypatch.setenv("SIDECAR_RAET", "1")
        monkeypatch.setenv("SIDECAR_BURST", "many")
        monkeypatch.setenv("SIDECAR_STRIPE_API_KEY", LIVE)
        monkeypatch.setenv("SIDECAR_STRIPE_API_BASE", "http://stripe.example")
        flags = {"fresh_for": "2d", "listen": "0.0.0.0:1", "stripe_api_key_file": "/run/key", "deadline": "soon"}
        found = complaints(flags, toml("polcy = 'deny'\nlog_level = 'loud'"))
        assert [complaint.partition(":")[0] for complaint in found] == [
            "SIDECAR_RAET",
            "SIDECAR_STRIPE_API_KEY_FILE",
            "SIDECAR_STRIPE_API_BASE",
            "SIDECAR_LOCAL_TOKEN_FILE",
            "SIDECAR_STALE_FOR",
            "SIDECAR_DEADLINE",
            "SIDECAR_BURST",
            "SIDECAR_LOG_LEVEL",
            "polcy",
        ]
        assert LIVE not in "\n".join(found)

    def test_with_a_value_that_is_wrong_itself_are_not_said(self) -> None:
        """What cannot be read contradicts nothing."""
        assert [c.partition(":")[0] for c in complaints({"fresh_for": "x", "stale_for": "5m"})] == ["SIDECAR_FRESH_FOR"]
        assert [c.partition(":")[0] for c in complaints({"listen": "x"})] == ["SIDECAR_LISTEN"]


def test_meanings_are_missing_where_the_source_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a distribution of compiled files only; all else works."""

    def no_source(_: object) -> str:
        raise OSError("could not get source code")

    assert meanings()["rate"]
    monkeypatch.setattr("inspect.getsource", no_source)
    assert meanings.__wrapped__() == {}
