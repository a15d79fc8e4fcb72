"""Every knob: its default, and what contradicts what."""

import pytest
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
