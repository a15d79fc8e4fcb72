"""Where listeners listen, as people write it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.kit.address import Address, read_address, read_addresses

READ = {
    "127.0.0.1:7420": Address("127.0.0.1", 7420),
    "localhost:1": Address("localhost", 1),
    "0.0.0.0:0": Address("0.0.0.0", 0),  # noqa: S104 -- read, not listened on
    "[::1]:65535": Address("::1", 65535),
    "unix:/run/sidecar.sock": Address("", 0, "/run/sidecar.sock"),
}
REFUSED = [
    "::1:7420",
    "[::1:7420",
    "::1]:7420",
    "",
    "7420",
    ":7420",
    "[]:7420",
    "localhost:",
    "localhost:http",
    "localhost:65536",
    "localhost:123456",
    "localhost:-1",
    "localhost:+1",
    "localhost:٣",  # an Arabic-Indic three: a digit to Python, not to people who run servers
    "unix:run/sidecar.sock",
    "unix:",
]
LOCAL = {
    "127.0.0.1:1": True,
    "127.9.9.9:1": True,
    "localhost:1": True,
    "[::1]:1": True,
    "unix:/run/sidecar.sock": True,
    "0.0.0.0:1": False,
    "[::]:1": False,
    "10.0.0.1:1": False,
    "localhost.example.com:1": False,
    "a-host:1": False,
}


@pytest.mark.parametrize("text", READ)
def test_an_address_is_read(text: str) -> None:
    """A host and port, with brackets around IPv6 or without, or the path of a socket."""
    assert read_address(text) == READ[text]


@pytest.mark.parametrize("text", REFUSED)
def test_anything_else_is_refused(text: str) -> None:
    """The refusal repeats the text and shows what would do."""
    with pytest.raises(ValueError, match="unix:/") as refused:
        read_address(text)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize("text", LOCAL)
def test_only_loopback_and_sockets_are_local(text: str) -> None:
    """A name that is not localhost is not local, wherever it may point today."""
    assert read_address(text).is_local is LOCAL[text]


@given(
    st.builds(
        Address,
        st.one_of(st.ip_addresses().map(str), st.from_regex("[a-z][a-z0-9.-]{0,20}", fullmatch=True)),
        st.integers(0, 65535),
        st.none(),
    )
)
def test_an_address_is_read_as_it_is_written(address: Address) -> None:
    """Writing an address and reading it again changes nothing."""
    assert read_address(str(address)) == address


def test_a_socket_is_written_as_it_is_read() -> None:
    """The path of a socket keeps its prefix."""
    assert str(read_address("unix:/run/a b.sock")) == "unix:/run/a b.sock"


def test_several_are_read_from_one_text() -> None:
    """Commas divide, spaces and empty parts mean nothing."""
    one, other = Address("127.0.0.1", 1), Address("", 0, "/a")
    assert read_addresses(" 127.0.0.1:1, unix:/a,,") == (one, other)
    assert read_addresses("") == ()


def test_several_are_read_from_a_list() -> None:
    """A list may hold texts and addresses."""
    one = Address("127.0.0.1", 1)
    assert read_addresses([one, "[::1]:2 "]) == (one, Address("::1", 2))


def test_what_is_neither_is_left_to_the_validator() -> None:
    """A number is no list; whoever checks the type will say so."""
    assert read_addresses(7420) == 7420
