"""The API key is never shown, and read again when it was rotated."""

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import BadSettings
from sidecar.stripe.key import ApiKey
from tests.fakes import FakeClock

OLD, NEW, LIVE = "sk_test_51OldSecret", "rk_test_51NewSecret", "sk_live_51OldSecret"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "key"
    found.write_text(OLD)
    return found


def read(file: Path) -> ApiKey:
    return ApiKey.from_file(file, clock=FakeClock())


def rotate(file: Path, content: str) -> None:
    """Write to the key's file; a function of its own, for what is called by a coroutine of a test may not block."""
    file.write_text(content)


def complaint(file: Path) -> str:
    with pytest.raises(BadSettings) as caught:
        read(file)
    assert len(caught.value.complaints) == 1
    return str(caught.value)


class TestShowing:
    @pytest.mark.parametrize(
        ("key", "masked"),
        [
            ("sk_test_51Secret", "sk_test_***"),
            ("rk_live_51Secret", "rk_live_***"),
            ("sk_test_51_with_underscores", "sk_test_***"),
            ("sk_51Secret", "sk_***"),
            ("Secret", "***"),
        ],
    )
    def test_a_key_shows_its_kind_and_mode_only(self, key: str, masked: str) -> None:
        """Neither repr nor str nor a format has more than the prefix."""
        found = ApiKey(key)
        assert found.masked == masked
        assert repr(found) == str(found) == f"{found}" == f"ApiKey({masked})"
        assert found.reveal() == key

    @given(secret=st.text("abcdefghijklmnopqrstuvwxyzABC0123456789", min_size=8, max_size=99), live=st.booleans())
    def test_no_secret_is_in_what_is_shown(self, secret: str, *, live: bool) -> None:
        """Whatever the secret part is."""
        key = ApiKey(f"sk_{'live' if live else 'test'}_{secret}")
        assert secret not in repr(key)
        assert secret not in key.scrub(f"not {key.reveal()}, {key.reveal()}")

    @pytest.mark.parametrize(
        ("key", "live"), [("sk_test_x", False), ("rk_test_x", False), ("sk_live_x", True), ("rk_live_x", True)]
    )
    def test_a_key_is_live_unless_it_says_test(self, key: str, *, live: bool) -> None:
        """The prefix says which mode's objects to expect."""
        assert ApiKey(key).livemode is live

    @pytest.mark.parametrize(
        "key", ["", "pk_live_51Secret", "whsec_51Secret", "sk_test_51 Secret", "sk_test_51Secret\n", "sk_test_é"]
    )
    def test_what_cannot_be_a_key_is_refused_unseen(self, key: str) -> None:
        """The error does not repeat it."""
        with pytest.raises(
            ValueError, match=r"^is (a publishable key|a webhook's signing secret|empty or has blanks)"
        ) as caught:
            ApiKey(key)
        assert "51" not in str(caught.value)


class TestAFile:
    def test_is_read_without_the_blanks_around(self, file: Path) -> None:
        """An editor's newline is no part of the key."""
        file.write_text(f"  {OLD}\n\n")
        assert read(file).reveal() == OLD

    def test_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        """The complaint has the setting, the path and the reason."""
        missing = tmp_path / "nowhere"
        assert complaint(missing) == f"SIDECAR_STRIPE_API_KEY_FILE: {missing}: No such file or directory"

    def test_that_is_a_directory_is_named(self, tmp_path: Path) -> None:
        """The same for what cannot be read."""
        assert complaint(tmp_path) == f"SIDECAR_STRIPE_API_KEY_FILE: {tmp_path}: Is a directory"

    @pytest.mark.parametrize(
        "content", [b"", b"\n", b"pk_live_51Secret", b"sk_test_51 Secret", b"sk_test_\xff51Secret"]
    )
    def test_that_has_no_key_is_refused_unseen(self, file: Path, content: bytes) -> None:
        """The complaint says what is wrong and not what was there."""
        file.write_bytes(content)
        assert complaint(file).startswith(f"SIDECAR_STRIPE_API_KEY_FILE: {file}: ")
        assert "51" not in complaint(file).removeprefix(f"SIDECAR_STRIPE_API_KEY_FILE: {file}")


class TestReading:
    """Reading a key's file again."""

    @pytest.fixture
    def key(self, file: Path) -> ApiKey:
        return read(file)

    async def test_a_rotated_key_takes_over(self, file: Path, key: ApiKey, caplog: pytest.LogCaptureFixture) -> None:
        """The new key is used, the log says so, and neither key is in it."""
        caplog.set_level(logging.INFO, "sidecar")
        rotate(file, f"{NEW}\n")
        await key.reload()
        assert key.reveal() == NEW
        assert caplog.messages == [f"SIDECAR_STRIPE_API_KEY_FILE: {file}: has changed, and the new content is in use"]

    async def test_an_unchanged_key_is_no_news(self, file: Path, key: ApiKey, caplog: pytest.LogCaptureFixture) -> None:
        """Reading the same key again changes and says nothing."""
        await key.reload()
        assert key.reveal() == OLD
        assert not caplog.messages

    async def test_a_key_without_a_file_stays(self) -> None:
        """A key from the environment cannot be rotated under a running process."""
        key = ApiKey(OLD)
        await key.reload()
        assert key.reveal() == OLD

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            ("", "is empty or has blanks or characters that no key has"),
            ("pk_test_51NewSecret", "is a publishable key (pk_…); a secret (sk_…) or restricted (rk_…) key is needed"),
            ("whsec_51NewSecret", "is a webhook's signing secret (whsec_…); a secret (sk_…) or restricted (rk_…) key"),
            (LIVE, "holds a key of the other mode (test, live); changing modes takes a restart"),
        ],
    )
    async def test_what_is_no_key_of_ours_changes_nothing(
        self, file: Path, key: ApiKey, content: str, why: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The old key stays in use, and the log says why: what is in memory is of its mode, to begin with."""
        rotate(file, content)
        await key.reload()
        assert (key.reveal(), key.livemode) == (OLD, False)
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert caplog.messages[0].startswith(f"SIDECAR_STRIPE_API_KEY_FILE: {file}: {why}")
        assert caplog.messages[0].endswith("; what was read before stays in use")
        assert "51" not in caplog.messages[0].replace(str(file), "")

    async def test_both_keys_are_made_unreadable(self, file: Path, key: ApiKey) -> None:
        """An answer to a request that was under way may still have the former key."""
        rotate(file, NEW)
        await key.reload()
        assert key.scrub(f"not {OLD}, not {NEW}") == "not rk_test_***, not rk_test_***"
        assert key.scrub_bytes(f"not {OLD}, not {NEW}".encode()) == b"not rk_test_***, not rk_test_***"
