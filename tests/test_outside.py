"""What lies outside the process: all of it is had, or everything that is missing is said at once."""

import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sidecar.api.listening import bind
from sidecar.errors import BadSettings
from sidecar.kit.address import Address
from sidecar.outside import Outside, outside
from sidecar.stores.codec import Sealed
from tests.fakes import KEY, SECRET, FakeClock, settings_for

ROOT = Path(__file__).resolve().parents[1]
NOWHERE = "http://127.0.0.1:9"
OTHER = "whsec_TheOneBeforeTheRotation"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def had(stack: ExitStack, **knobs: Any) -> Outside:
    return outside(settings_for(NOWHERE, **knobs), stack, clock=FakeClock())


def complaints(**knobs: Any) -> list[str]:
    """Return what is complained about; then nothing stays open."""
    with ExitStack() as stack, pytest.raises(BadSettings) as caught:
        had(stack, **knobs)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value.complaints


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "secret"


class TestTheKey:
    def test_comes_from_the_setting(self, stack: ExitStack) -> None:
        """As it is."""
        assert had(stack).key.reveal() == KEY

    def test_comes_from_a_file(self, stack: ExitStack, file: Path) -> None:
        """Without the line's end."""
        file.write_text(f"{KEY}\n")
        assert had(stack, stripe_api_key_file=file).key.reveal() == KEY

    def test_is_needed(self) -> None:
        """The complaint names the settings that would help."""
        (complaint,) = complaints(stripe_api_key=None)
        assert complaint == (
            "SIDECAR_STRIPE_API_KEY_FILE: set this, SIDECAR_STRIPE_API_KEY or STRIPE_API_KEY to a Stripe API key"
        )


class TestTheToken:
    def test_is_none_unless_it_is_wanted(self, stack: ExitStack) -> None:
        """Callers on this host need none."""
        assert had(stack).token is None

    def test_comes_from_a_file(self, stack: ExitStack, file: Path) -> None:
        """Without blanks around it."""
        file.write_text(" local-token \n")
        token = had(stack, local_token_file=file).token
        assert token is not None
        assert token.reveal() == "local-token"


class TestTheStoresKey:
    STORE = "sqlite:///nowhere/lists.db"

    def test_is_none_unless_it_is_wanted(self, stack: ExitStack) -> None:
        """The file is checked for damage, no more."""
        assert not had(stack, store=self.STORE).seal.is_secret

    def test_comes_from_a_file(self, stack: ExitStack, file: Path) -> None:
        """As openssl writes it."""
        file.write_bytes(b64encode(b"k" * 32) + b"\n")
        found = had(stack, store=self.STORE, store_key_file=file)
        assert found.seal.is_secret
        assert found.seal.open(Sealed(b"k" * 32).close(b"body", b"name"), b"name") == b"body"

    def test_is_complained_about(self, file: Path) -> None:
        """It is missing, or no key; its content is not repeated."""
        why = "No such file or directory"
        assert complaints(store=self.STORE, store_key_file=file) == [f"SIDECAR_STORE_KEY_FILE: {file}: {why}"]
        file.write_text("secret51")
        why = "must hold 32 random bytes in base64 (openssl rand -base64 32)"
        assert complaints(store=self.STORE, store_key_file=file) == [f"SIDECAR_STORE_KEY_FILE: {file}: {why}"]

    def test_needs_a_library(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The complaint says what to install."""
        file.write_bytes(b64encode(b"k" * 32))
        monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
        (complaint,) = complaints(store=self.STORE, store_key_file=file)
        assert complaint.endswith("pip install 'entitlement-sidecar[encryption]'")


class TestTheWebhookSecrets:
    def test_are_none_unless_there_are_some(self, stack: ExitStack) -> None:
        """Nobody could be told from Stripe, so nobody is listened to."""
        found = had(stack)
        assert (found.webhook_secrets.reveal(), found.webhooks) == ((), [])
        assert found.checks
        assert found.ops

    @pytest.mark.parametrize(
        ("text", "secrets"),
        [
            (SECRET, (SECRET,)),
            (f"{SECRET},{OTHER}", (SECRET, OTHER)),
            (f" {SECRET} ,\n {OTHER},", (SECRET, OTHER)),
            ([SECRET, OTHER], (SECRET, OTHER)),
        ],
    )
    def test_come_from_the_setting(self, stack: ExitStack, text: object, secrets: tuple[str, ...]) -> None:
        """One, or several while one replaces another; then there is a listener."""
        found = had(stack, webhook_secret=text)
        assert found.webhook_secrets.reveal() == secrets
        assert len(found.webhooks) == 1

    @pytest.mark.parametrize(
        ("text", "secrets"),
        [
            (SECRET, (SECRET,)),
            (f"{SECRET}\n", (SECRET,)),
            (f"\n{SECRET}\r\n\r\n  {OTHER}\n", (SECRET, OTHER)),
            (f"{SECRET},{OTHER}\n", (SECRET, OTHER)),
        ],
    )
    def test_come_from_a_file(self, stack: ExitStack, file: Path, text: str, secrets: tuple[str, ...]) -> None:
        """One a line, whatever the line ends; then there is a listener."""
        file.write_bytes(text.encode())
        found = had(stack, webhook_secret_file=file)
        assert found.webhook_secrets.reveal() == secrets
        assert len(found.webhooks) == 1

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"", "is empty"),
            (b" \n,\n", "is empty"),
            (b"sk_live_51Secret\n", "is an API key; a webhook endpoint has a signing secret of its own (whsec_…)"),
            (f"{SECRET}\nrk_test_51Secret".encode(), "is an API key; a webhook endpoint has a signing secret of its"),
            (b"51Secret\n", "is no signing secret of a webhook endpoint (whsec_…)"),
            (b"whsec_\n", "is no signing secret of a webhook endpoint (whsec_…)"),
            ("whsec_51Secretä\n".encode(), "is no signing secret of a webhook endpoint (whsec_…)"),
            (b"whsec_51Secret\xff\n", "is not UTF-8"),
        ],
    )
    def test_in_a_file_are_checked(self, file: Path, content: bytes, why: str) -> None:
        """The complaint names the setting and the file, and repeats nothing of what is in it."""
        file.write_bytes(content)
        (complaint,) = complaints(webhook_secret_file=file)
        assert complaint.startswith(f"SIDECAR_WEBHOOK_SECRET_FILE: {file}: {why}")
        assert "51Secret" not in complaint
        assert SECRET not in complaint

    def test_in_a_file_that_cannot_be_read_are_missed(self, tmp_path: Path) -> None:
        """The system's own word for it."""
        assert complaints(webhook_secret_file=tmp_path / "none", webhook_listen="127.0.0.1:0") == [
            f"SIDECAR_WEBHOOK_SECRET_FILE: {tmp_path / 'none'}: No such file or directory"
        ]
        assert complaints(webhook_secret_file=tmp_path) == [f"SIDECAR_WEBHOOK_SECRET_FILE: {tmp_path}: Is a directory"]

    def test_show_nowhere(self, file: Path) -> None:
        """A secret where a path belongs is not repeated either."""
        for secret in (SECRET, "sk_live_51Secret"):
            for name in ("webhook_secret_file", "local_token_file"):
                with pytest.raises(ValidationError, match="looks like a key itself") as caught:
                    settings_for("http://127.0.0.1:9", **{name: file.parent / secret})
                assert secret not in str(caught.value)


class TestTheFiles:
    def test_are_looked_after(self, stack: ExitStack, tmp_path: Path) -> None:
        """Each that there is; what the settings themselves say does not change."""
        for name, text in (("key", KEY), ("token", "local-token"), ("secrets", SECRET)):
            (tmp_path / name).write_text(text)
        everything = had(
            stack,
            stripe_api_key_file=tmp_path / "key",
            local_token_file=tmp_path / "token",
            webhook_secret_file=tmp_path / "secrets",
        )
        assert [file.secret for file in everything.rotation.files] == [
            "stripe_api_key",
            "local_token",
            "webhook_secret",
        ]
        assert not had(stack, webhook_secret=SECRET).rotation.files


class TestTheSockets:
    def test_are_bound_and_closed(self) -> None:
        """Before anything is served; who gives up leaves none behind."""
        with ExitStack() as stack:
            found = had(stack, listen="127.0.0.1:0,127.0.0.1:0", webhook_secret=SECRET)
            assert [len(found.checks), len(found.ops), len(found.webhooks)] == [2, 1, 1]
            everything = [*found.checks, *found.ops, *found.webhooks]
            assert all(bound.fileno() >= 0 for bound in everything)
        assert all(bound.fileno() < 0 for bound in everything)

    def test_of_webhooks_may_be_several(self, stack: ExitStack, tmp_path: Path) -> None:
        """A port for a proxy, a unix socket for a neighbour."""
        listen = f"127.0.0.1:0,unix:{tmp_path}/s"
        assert len(had(stack, webhook_secret=SECRET, webhook_listen=listen).webhooks) == 2

    def test_cannot_be_shared_by_two_processes(self, stack: ExitStack) -> None:
        """The second is told at its start, although the first does not serve yet."""
        host, port = had(stack).checks[0].getsockname()
        (complaint,) = complaints(listen=f"{host}:{port}")
        assert complaint == f"{host}:{port} cannot be listened on: Address already in use"


def test_what_cannot_be_had_is_said_at_once(tmp_path: Path) -> None:
    """Everything that is wrong is a complaint, in the order of the settings, and nothing stays open."""
    (tmp_path / "secrets").write_text("nonsense")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        found = complaints(
            stripe_api_key_file=tmp_path / "none",
            local_token_file=tmp_path / "none",
            webhook_secret_file=tmp_path / "secrets",
            listen=f"127.0.0.1:0,{address}",
            ops_listen=address,
        )
    assert [complaint.partition(":")[0] for complaint in found] == [
        "SIDECAR_STRIPE_API_KEY_FILE",
        "SIDECAR_LOCAL_TOKEN_FILE",
        "SIDECAR_WEBHOOK_SECRET_FILE",
        "127.0.0.1",
        "127.0.0.1",
    ]


def test_an_address_of_webhooks_is_only_wanted_with_a_secret() -> None:
    """One that is taken is no trouble to a sidecar that would not listen on it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with ExitStack() as stack:
            assert had(stack, webhook_listen=address).webhooks == []
        (complaint,) = complaints(webhook_listen=address, webhook_secret=SECRET)
    assert complaint == f"{address} cannot be listened on: Address already in use"


class TestConnections:
    @pytest.mark.parametrize(
        ("hard", "wanted", "listeners", "found"),
        [(10_000, 4096, 2, 4096), (5000, 4096, 2, 2372), (5000, 4096, 3, 1581), (100, 4096, 2, 16), (100, 5, 2, 5)],
    )
    def test_are_as_many_as_files_may_be_open(self, hard: int, wanted: int, listeners: int, found: int) -> None:
        """The soft limit is raised to the hard one; where that is not enough, a warning says so."""
        program = ROOM.format(hard=hard, wanted=wanted, listeners=listeners)
        ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603 -- ours
        assert ended.stdout == f"{found} {hard}\n"
        assert ended.stderr.count("RLIMIT_NOFILE") == (found < wanted)

    def test_are_bounded_for_each_listener(self, stack: ExitStack) -> None:
        """By the setting."""
        assert had(stack, max_connections=7).connections == 7


ROOM = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard}))
from sidecar.outside import room_for
print(room_for({wanted}, listeners={listeners}), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


class TestUnixSockets:
    def test_are_removed_in_the_end(self, tmp_path: Path) -> None:
        """Also when something else could not be had."""
        listen = f"unix:{tmp_path}/a,unix:{tmp_path}/b"
        with ExitStack() as stack:
            had(stack, listen=listen)
            assert len(list(tmp_path.iterdir())) == 2
        assert not list(tmp_path.iterdir())
        complaints(listen=listen, local_token_file=tmp_path / "nowhere")
        assert not list(tmp_path.iterdir())

    def test_that_are_anothers_by_now_stay(self, tmp_path: Path) -> None:
        """A process that takes over binds the same path before this one has ended."""
        path = tmp_path / "s"
        with ExitStack() as stack:
            had(stack, listen=f"unix:{path}")
            path.unlink()
            successor = stack.enter_context(bind(Address("", 0, str(path))))
        assert path.is_socket()
        assert successor.fileno() == -1
        with ExitStack() as stack:
            had(stack, listen=f"unix:{path}")
            path.unlink()
        assert not path.exists()
