"""Who wins where several name a setting, and every complaint at once."""

from pathlib import Path

import pytest

from sidecar.errors import BadSettings
from sidecar.kit.address import Address
from sidecar.notation import check_key
from sidecar.settings import Settings
from sidecar.sources import load, nearest
from tests.fakes import KEY, SECRET
from tests.reading import LIVE, Toml, complaints, key_of, read


class TestPrecedence:
    def test_of_flag_environment_and_file(self, monkeypatch: pytest.MonkeyPatch, toml: Toml) -> None:
        """A flag beats the environment, which beats the file; each knob by itself."""
        monkeypatch.setenv("SIDECAR_RATE", "2")
        monkeypatch.setenv("SIDECAR_BURST", "2")
        found = load({"rate": "1"}, toml("rate = 3\nburst = 3\nreplicas = 3\n"))
        assert (found.rate, found.burst, found.replicas) == (1.0, 2, 3)

    def test_of_an_empty_variable_is_none(self, monkeypatch: pytest.MonkeyPatch, toml: Toml) -> None:
        """A chart's empty value means "not set"."""
        assert read(monkeypatch, toml("rate = 3\n"), SIDECAR_RATE="", SIDECAR_LISTEN="").rate == 3.0

    def test_goes_by_a_name_in_any_case(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Variables are written in capitals; who does otherwise means the same."""
        monkeypatch.setenv("sidecar_rate", "7")
        assert load({}).rate == 7.0

    def test_does_not_last(self, toml: Toml) -> None:
        """A file that one call read is unknown to the next."""
        assert load({}, toml("rate = 3\n")).rate == 3.0
        assert load({}).rate == 20.0

    def test_leaves_bare_settings_without_a_file(self) -> None:
        """Code that makes Settings itself reads none."""
        assert Settings(rate=3).rate == 3.0


class TestTheKey:
    def test_may_come_from_stripes_own_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """STRIPE_API_KEY is what Stripe's own tools call it."""
        assert key_of(read(monkeypatch, STRIPE_API_KEY=KEY)) == KEY

    def test_of_ours_beats_stripes_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """SIDECAR_STRIPE_API_KEY is more particular; empty, it is not set."""
        assert key_of(read(monkeypatch, STRIPE_API_KEY=LIVE, SIDECAR_STRIPE_API_KEY=KEY)) == KEY
        assert key_of(read(monkeypatch, STRIPE_API_KEY=LIVE, SIDECAR_STRIPE_API_KEY="")) == LIVE

    def test_in_the_toml_file_beats_stripes_variable(self, monkeypatch: pytest.MonkeyPatch, toml: Toml) -> None:
        """Whatever names a key for the sidecar is meant more than what names one for all tools."""
        assert key_of(read(monkeypatch, toml(f'stripe_api_key = "{KEY}"'), STRIPE_API_KEY=LIVE)) == KEY

    def test_file_beats_stripes_variable_wherever_it_is_named(
        self, monkeypatch: pytest.MonkeyPatch, toml: Toml
    ) -> None:
        """With a key file, STRIPE_API_KEY is not looked at: no contradiction, and no wrong key."""
        monkeypatch.setenv("STRIPE_API_KEY", LIVE)
        for found in (
            load({"stripe_api_key_file": "/run/key"}),
            load({}, toml('stripe_api_key_file = "/run/key"')),
            read(monkeypatch, SIDECAR_STRIPE_API_KEY_FILE="/run/key"),
        ):
            assert (key_of(found), found.stripe_api_key_file) == (None, Path("/run/key"))

    def test_and_a_key_file_contradict_each_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Which of the two is meant cannot be known."""
        monkeypatch.setenv("SIDECAR_STRIPE_API_KEY", KEY)
        assert complaints({"stripe_api_key_file": "/run/key"}) == [
            "SIDECAR_STRIPE_API_KEY_FILE: stripe_api_key is set too; set one of them"
        ]

    def test_of_nobody_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An empty STRIPE_API_KEY is none; that `serve` needs a key is for `serve` to say."""
        assert key_of(read(monkeypatch, STRIPE_API_KEY="")) is None

    @pytest.mark.parametrize("name", ["STRIPE_API_KEY", "SIDECAR_STRIPE_API_KEY"])
    def test_must_not_be_publishable(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """Stripe would refuse each request with it."""
        monkeypatch.setenv(name, "pk_live_51Secret")
        assert complaints() == [
            "SIDECAR_STRIPE_API_KEY: is a publishable key (pk_…); a secret (sk_…) or restricted (rk_…) key is needed"
        ]

    @pytest.mark.parametrize("key", ["", " ", f" {KEY}", f"{KEY}\n", "sk_test_ä", "sk_test_\x7f"])
    def test_must_fit_into_a_header(self, key: str) -> None:
        """A stray newline from a pasted secret is said at start and not by the first request."""
        with pytest.raises(ValueError, match="is empty or has blanks or characters that no key has"):
            check_key(key)
        assert complaints({"stripe_api_key": key})[0].startswith("SIDECAR_STRIPE_API_KEY: is empty or has blanks")


class TestSecrets:
    def test_are_in_no_text_of_settings(self) -> None:
        """Neither repr, str nor a dump shows the key."""
        found = load({"stripe_api_key": LIVE})
        assert LIVE not in f"{found!r} {found} {found.model_dump(mode='json')} {found.model_dump_json()}"
        assert found.model_dump(mode="json")["stripe_api_key"] == "**********"

    def test_of_webhooks_are_in_no_text_of_settings(self, monkeypatch: pytest.MonkeyPatch, toml: Toml) -> None:
        """Wherever they come from."""
        for found in (
            load({"webhook_secret": f"{SECRET},{SECRET}2"}),
            load({}, toml(f'webhook_secret = ["{SECRET}", "{SECRET}2"]')),
            read(monkeypatch, SIDECAR_WEBHOOK_SECRET=f"{SECRET}\n{SECRET}2"),
        ):
            assert [secret.get_secret_value() for secret in found.webhook_secret] == [SECRET, f"{SECRET}2"]
            shown = f"{found!r} {found} {found.model_dump()} {found.model_dump(mode='json')} {found.model_dump_json()}"
            assert SECRET not in shown
            assert found.model_dump(mode="json")["webhook_secret"] == "whsec_***,whsec_***"

    @pytest.mark.parametrize("secret", [LIVE, SECRET])
    @pytest.mark.parametrize(
        "name",
        [
            "stripe_api_base",
            "listen",
            "webhook_listen",
            "insecure_listen",
            "fresh_for",
            "events_poll",
            "policy",
            "rate",
            "burst",
            "cache_bytes",
            "log_level",
        ],
    )
    def test_in_the_wrong_place_are_not_echoed(self, name: str, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A secret pasted into another variable is refused without being repeated."""
        monkeypatch.setenv(f"SIDECAR_{name.upper()}", secret)
        found = complaints()
        assert secret not in "\n".join(found)
        assert all(complaint.startswith(f"SIDECAR_{name.upper()}") for complaint in found)

    def test_under_a_wrong_name_are_not_echoed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only the name of an unknown variable is repeated."""
        monkeypatch.setenv("SIDECAR_STRIPE_KEY", LIVE)
        assert complaints() == ["SIDECAR_STRIPE_KEY: there is no such setting; did you mean SIDECAR_STRIPE_API_KEY?"]

    @pytest.mark.parametrize(
        "text",
        [
            f"stripe_api_key = {LIVE}",
            f'stripe_api_key = "{LIVE}\n"',
            f'stripe_api_key = "{LIVE} "',
            f"webhook_secret = {SECRET}",
            f'webhook_secret = ["{SECRET}\n"]',
            f'webhook_secret = ["{SECRET} "]',
        ],
    )
    def test_in_a_broken_file_are_not_echoed(self, toml: Toml, text: str) -> None:
        """What TOML's reader complains about is not repeated either."""
        found = "\n".join(complaints({}, toml(text)))
        assert LIVE not in found
        assert SECRET not in found

    def test_are_not_in_what_an_error_came_from(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A traceback of the complaint has no validation error with inputs behind it."""
        monkeypatch.setenv("SIDECAR_RATE", LIVE)
        with pytest.raises(BadSettings) as caught:
            load({})
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


class TestUnknownNames:
    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("SIDECAR_RAET", "; did you mean SIDECAR_RATE?"),
            ("SIDECAR_FRESHFOR", "; did you mean SIDECAR_FRESH_FOR?"),
            ("SIDECAR_API_KEY_FILE", "; did you mean SIDECAR_STRIPE_API_KEY_FILE?"),
            ("SIDECAR_XYZZY_QUUX_FROB", ""),
            ("SIDECAR_", ""),
            ("SIDECAR_PORTAL", ""),
            ("SIDECAR_SERVICES", ""),
        ],
    )
    def test_in_the_environment_are_refused(self, monkeypatch: pytest.MonkeyPatch, name: str, hint: str) -> None:
        """A typing error must not silently leave the default; the nearest name is offered."""
        monkeypatch.setenv(name, "1")
        (complaint,) = complaints()
        assert complaint.startswith(f"{name}: there is no such setting")
        assert complaint.endswith(hint)

    @pytest.mark.parametrize(
        "name",
        [
            "SIDECAR_SERVICE_HOST",
            "SIDECAR_SERVICE_PORT",
            "SIDECAR_SERVICE_PORT_CHECKS",
            "SIDECAR_PORT",
            "SIDECAR_PORT_7420_TCP",
            "SIDECAR_PORT_7420_TCP_ADDR",
            "SIDECAR_CONFIG",
            "SIDECAR_URL",
            "ENTITLEMENT_SIDECAR_SERVICE_HOST",
        ],
    )
    def test_that_are_somebody_elses_are_let_through(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """Kubernetes injects names for a Service called sidecar; the command line has two of its own."""
        found = read(monkeypatch, **{name: "tcp://10.0.0.1:7420"})
        assert found.model_dump() == load({}).model_dump()

    def test_no_setting_is_called_like_one_of_kubernetes(self) -> None:
        """Such a setting could not be told from what a Service injects."""
        assert [name for name in Settings.model_fields if name.startswith(("service_", "port"))] == []

    def test_in_the_file_are_refused(self, toml: Toml) -> None:
        """By the name that the file has."""
        assert complaints({}, toml("raet = 1\nxyzzy = 2\n[sidecar]\nrate = 1\n")) == [
            "raet: there is no such setting; did you mean rate?",
            "xyzzy: there is no such setting",
            "sidecar: there is no such setting",
        ]

    @pytest.mark.parametrize(
        ("name", "hint"), [("rat", "; did you mean rate?"), ("rate", "; did you mean rate?"), ("qqqq", "")]
    )
    def test_have_one_nearest_or_none(self, name: str, hint: str) -> None:
        """A hint that is far off is worse than none."""
        assert nearest(name, ["rate", "burst", "listen"]) == hint


class TestTheFile:
    def test_that_is_not_there_is_an_error(self, tmp_path: Path) -> None:
        """Whoever names a file wants it read."""
        for missing in (tmp_path / "nowhere.toml", tmp_path):
            assert complaints({}, missing) == [f"{missing}: there is no such file"]

    @pytest.mark.parametrize(
        "content", [b"rate =", b"rate = 1\nrate = 2", b"rate: 1", b'policy = "\xff"', b"\x00", b"rate = " + b"[" * 3000]
    )
    def test_that_is_no_toml_is_an_error(self, tmp_path: Path, content: bytes) -> None:
        """One complaint, with the reason that TOML's reader gives."""
        path = tmp_path / "sidecar.toml"
        path.write_bytes(content)
        (complaint,) = complaints({}, path)
        assert complaint.startswith(f"{path}: cannot be read: ")

    def test_may_use_tomls_own_kinds(self, toml: Toml) -> None:
        """Numbers, booleans, lists and tables need no quotes."""
        found = load(
            {},
            toml(
                "rate = 1.5\ninsecure_listen = true\nfresh_for = 60\ncache_bytes = 1048576\n"
                'listen = ["127.0.0.1:1", "unix:/run/s"]\nallowed_hosts = ["a", "b"]\n'
                f'webhook_secret = ["{SECRET}", "whsec_2"]\n'
                '[policy]\n"seats-*" = "allow"\n"*" = "error"\n'
            ),
        )
        assert (found.rate, found.insecure_listen, found.fresh_for, found.cache_bytes) == (1.5, True, 60.0, 1 << 20)
        assert found.listen == (Address("127.0.0.1", 1), Address("", 0, "/run/s"))
        assert found.allowed_hosts == ("a", "b")
        assert [secret.get_secret_value() for secret in found.webhook_secret] == [SECRET, "whsec_2"]
        assert list(found.policy.items()) == [("seats-*", "allow"), ("*", "error")]

    def test_may_spell_as_the_environment_does(self, toml: Toml) -> None:
        """A value copied from the environment means the same."""
        found = load({}, toml('rate = "1.5"\nlisten = "127.0.0.1:1"\nfresh_for = "1m"\nallowed_hosts = "a,b"\n'))
        assert (found.rate, found.listen, found.fresh_for) == (1.5, (Address("127.0.0.1", 1),), 60.0)
        assert found.allowed_hosts == ("a", "b")

    def test_and_unknown_variables_are_complained_about_together(
        self, monkeypatch: pytest.MonkeyPatch, toml: Toml, tmp_path: Path
    ) -> None:
        """Whatever is wrong with the file, what is wrong with the environment is said too."""
        monkeypatch.setenv("SIDECAR_RAET", "1")
        unknown = "SIDECAR_RAET: there is no such setting; did you mean SIDECAR_RATE?"
        assert complaints({}, tmp_path / "nowhere")[0] == unknown
        assert complaints({}, toml("rate ="))[0] == unknown
        assert complaints({}, toml("burst = 0")) == [
            unknown,
            "SIDECAR_BURST: Input should be greater than or equal to 1",
        ]
