"""Addresses of listeners as people write them."""

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple


class Address(NamedTuple):
    """Where a listener listens: a host and port, or the path of a unix socket."""

    host: str
    port: int
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this host can reach it."""
        if self.path is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def read_addresses(value: object) -> object:
    """Return the addresses in ``127.0.0.1:7420,[::1]:7420,unix:/run/sidecar.sock`` (or in a list of such)."""
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    if isinstance(value, Iterable):
        return tuple(part if isinstance(part, Address) else read_address(str(part).strip()) for part in value)
    return value


def read_address(text: str) -> Address:
    """Return the address in ``text``; port 0 lets the system choose."""
    if text.startswith("unix:"):
        if not text.startswith("unix:/"):
            raise ValueError(f"{text!r}: a unix socket needs an absolute path, such as unix:/run/sidecar.sock")
        return Address("", 0, text.removeprefix("unix:"))
    match = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^:\[\]]+)):([0-9]{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise ValueError(f"{text!r} is not host:port (such as 127.0.0.1:7420 or [::1]:7420) or unix:/path")
    return Address(match[1] or match[2], int(match[3]))
