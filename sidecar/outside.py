"""What lies outside the process and must be had before anything is built: keys, token, signing secrets, sockets."""

import logging
import resource
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from sidecar.api.guards import read_token
from sidecar.api.listening import bind, remover
from sidecar.errors import BadSettings
from sidecar.kit.address import Address
from sidecar.kit.clock import Clock
from sidecar.notation import read_webhook_secrets
from sidecar.rotation import Held, Rotation, SecretFile, opened
from sidecar.settings import Settings
from sidecar.stores.codec import Checksum, Seal, Sealed
from sidecar.stores.codec import read_key as read_key_of_store
from sidecar.stripe.key import ApiKey

T = TypeVar("T")

log = logging.getLogger(__name__)

OTHER_FILES = 256
"""Descriptors kept for everything that is not a caller's connection: connections to Stripe, files, sockets."""

FEWEST = 16
"""Connections that a listener takes whatever the system says."""


@dataclass(frozen=True)
class Outside:
    """All that was had; ``webhooks`` has sockets only when there is a secret to know Stripe by.

    ``rotation`` looks after the files that key, token and secrets came from; ``connections`` is how many each listener
    may have.
    """

    key: ApiKey
    token: Held[str] | None
    webhook_secrets: Held[tuple[str, ...]]
    seal: Seal
    rotation: Rotation
    checks: list[socket.socket]
    ops: list[socket.socket]
    webhooks: list[socket.socket]
    connections: int


def outside(settings: Settings, stack: ExitStack, *, clock: Clock) -> Outside:
    """Read the files and bind the sockets, which ``stack`` closes.

    :raises BadSettings: with everything that could not be had, at once.
    """
    complaints: list[str] = []

    def had(get: Callable[[], T]) -> T | None:
        try:
            return get()
        except BadSettings as error:
            complaints.extend(error.complaints)
            return None

    def sockets(addresses: tuple[Address, ...]) -> list[socket.socket]:
        bound = [had(partial(bind, address)) for address in addresses]
        for one in filter(None, bound):
            if one.family == socket.AF_UNIX:
                stack.callback(remover(one))
        return [stack.enter_context(one) for one in bound if one is not None]

    files = Files(clock)
    key = had(partial(files.key, settings))
    token = had(partial(files.token, settings))
    secrets = had(partial(files.webhook_secrets, settings))
    seal = had(partial(read_seal, settings.store_key_file))
    checks, ops = sockets(settings.listen), sockets(settings.ops_listen)
    webhooks = sockets(settings.webhook_listen) if secrets is not None and secrets.reveal() else []
    if key is None or secrets is None or seal is None or complaints:
        raise BadSettings(complaints)
    connections = room_for(settings.max_connections, listeners=3 if webhooks else 2)
    return Outside(key, token, secrets, seal, Rotation(files.opened), checks, ops, webhooks, connections)


@dataclass(frozen=True)
class Files:
    """Reads what the settings say to be in files; ``opened`` are those that there are."""

    clock: Clock
    opened: list[SecretFile] = field(default_factory=list)

    def key(self, settings: Settings) -> ApiKey:
        """Return the API key from where the settings say it is.

        :raises BadSettings: when it is nowhere, or what is there is no key.
        """
        if settings.stripe_api_key_file is not None:
            key = ApiKey.from_file(settings.stripe_api_key_file, clock=self.clock)
            self.opened.extend(filter(None, [key.file]))
            return key
        if settings.stripe_api_key is not None:
            return ApiKey(settings.stripe_api_key.get_secret_value())
        raise BadSettings(
            ["SIDECAR_STRIPE_API_KEY_FILE: set this, SIDECAR_STRIPE_API_KEY or STRIPE_API_KEY to a Stripe API key"]
        )

    def token(self, settings: Settings) -> Held[str] | None:
        """Return the token that callers must have; None when they need none.

        :raises BadSettings: when there should be one and is not.
        """
        path = settings.local_token_file
        return None if path is None else self._held("local_token", path, read_token)

    def webhook_secrets(self, settings: Settings) -> Held[tuple[str, ...]]:
        """Return the webhook endpoints' signing secrets from where the settings say they are; none when nowhere.

        :raises BadSettings: when there should be some and are not.
        """
        path = settings.webhook_secret_file
        if path is not None:
            return self._held("webhook_secret", path, read_webhook_secrets)
        return Held(tuple(secret.get_secret_value() for secret in settings.webhook_secret), read_webhook_secrets)

    def _held(self, secret: str, path: Path, read: Callable[[str], T]) -> Held[T]:
        held, file = opened(secret, path, lambda text: Held(read(text), read), clock=self.clock)
        self.opened.append(file)
        return held


def read_seal(file: Path | None) -> Seal:
    """Return what seals the store, by the key in ``file``; what only checks it when there is none.

    :raises BadSettings: when the key cannot be read or is none, or the library is missing.
    """
    if file is None:
        return Checksum()
    try:
        return Sealed(read_key_of_store(file.read_text()))
    except ImportError:
        why = "encryption needs a library that is not installed: pip install 'entitlement-sidecar[encryption]'"
    except (OSError, ValueError) as error:
        why = str(error.strerror if isinstance(error, OSError) else error)
    raise BadSettings([f"SIDECAR_STORE_KEY_FILE: {file}: {why}"])


def room_for(wanted: int, *, listeners: int) -> int:
    """Return how many connections each listener may have, ``wanted`` if the system lets us open as many files.

    Few is a common default of that limit, for the sake of old programs, and may be raised by whoever knows better.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # where "unlimited" is a limit that nobody may have
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if soft == resource.RLIM_INFINITY else max(FEWEST, (soft - OTHER_FILES) // listeners)
    found = min(wanted, most)
    if found < wanted:
        log.warning(
            "max_connections is %d, but only %d files may be open (RLIMIT_NOFILE): each listener takes %d connections",
            wanted,
            soft,
            found,
        )
    return found
