"""The command line: ``entitlement-sidecar serve | demo | check | config | health | ready | sleep | version``."""

import asyncio
import http.client
import json
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote, urlsplit

import click

from sidecar import __version__, heap, logs
from sidecar.errors import BadSettings
from sidecar.kit.clock import steady_clock
from sidecar.settings import Settings, meanings
from sidecar.signals import end_well
from sidecar.sources import PREFIX, load

ENTITLED, NOT_ENTITLED, NO_ANSWER = 0, 1, 2
"""Exit statuses of ``check``."""

WRONG_SETTINGS = 2

log = logging.getLogger(__name__)


CONFIG = click.option(
    "--config", type=click.Path(path_type=Path), envvar=f"{PREFIX}CONFIG", help="TOML file with settings by name."
)


class SettingOption(click.Option):
    """A setting's flag. What it means is looked up when somebody asks for help."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the flag and its meaning."""
        self.help = meanings().get(str(self.name), "").replace("`", "")
        return super().get_help_record(ctx)


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give ``command`` a flag per setting."""
    for name, field in reversed(Settings.model_fields.items()):
        flag = f"--{name.replace('_', '-')}"
        if field.annotation is bool:
            option = click.option(flag, name, cls=SettingOption, is_flag=True, default=None)
        else:
            option = click.option(flag, name, cls=SettingOption, default=None, metavar="VALUE")
        command = option(command)
    return CONFIG(command)


def settings_from(config: Path | None, flags: dict[str, Any]) -> Settings:
    """Read the settings, or say everything that is wrong with them and exit."""
    try:
        return load({name: value for name, value in flags.items() if value is not None}, config)
    except BadSettings as error:
        refuse(error)


def refuse(error: BadSettings) -> NoReturn:
    """Say what is wrong with the settings and exit."""
    for complaint in error.complaints:
        click.echo(f"error: {complaint}", err=True)
    sys.exit(WRONG_SETTINGS)


def run(work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run ``work`` in an event loop until it ends; TERM or Ctrl-C sets the event that it is given, a second one exits."""
    import uvloop  # noqa: PLC0415 -- commands that only ask need no loop

    heap.settle()

    async def main() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        end_well(lambda: loop.is_closed() or loop.call_soon_threadsafe(stop.set))
        await work(stop)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Answer "does this customer have this feature?" from Stripe's active entitlements, beside your application."""


@main.command()
@setting_options
def serve(config: Path | None, **flags: Any) -> None:
    """Answer checks until TERM or Ctrl-C; then finish what is under way and exit 0.

    Every setting is also an environment variable, SIDECAR_ and the flag's name, and a key of the TOML file.
    """
    from sidecar import app  # noqa: PLC0415 -- most of the start time; `health` should not pay for it

    settings = settings_from(config, flags)
    logs.set_up(settings.log_level, settings.log_format, steady_clock())
    try:
        run(lambda stop: app.serve(settings, stop))
    except BadSettings as error:
        refuse(error)
    except ExceptionGroup:
        log.critical("a part that must run for ever died", exc_info=True)
        sys.exit(1)


@main.command()
@click.option("--once", is_flag=True, help="End after the tour, as without a terminal.")
def demo(*, once: bool) -> None:
    """Show the sidecar at work against the built-in Stripe; no account needed."""
    from sidecar import tour  # noqa: PLC0415 -- see serve

    logs.set_up("warning", "text", steady_clock())
    run(lambda stop: tour.take(stop, stay=not once and sys.stdin.isatty()))


@main.command()
@setting_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def config(config: Path | None, *, as_json: bool, **flags: Any) -> None:
    """Print the settings in effect, secrets masked, or everything that is wrong with them."""
    effective = settings_from(config, flags).model_dump(mode="json")
    if as_json:
        click.echo(json.dumps(effective, indent=2))
        return
    for name, value in effective.items():
        shown = "" if value is None else value if isinstance(value, str) else json.dumps(value)
        click.echo(f"{PREFIX}{name.upper()}={shown}")


@main.command()
@click.argument("customer")
@click.argument("lookup_key")
@click.option(
    "--url",
    envvar=f"{PREFIX}URL",
    default="http://127.0.0.1:7420",
    show_default=True,
    help="A running sidecar's checks listener; http://host:port or unix:/path.",
)
@click.option("--account", help="Connected account (acct_…) that the customer belongs to.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with the sidecar's local token.",
)
def check(customer: str, lookup_key: str, *, url: str, account: str | None, token_file: Path | None) -> None:
    """Ask a running sidecar whether CUSTOMER has LOOKUP_KEY and print its answer.

    Exit status: 0 entitled, 1 not entitled, 2 unknown customer or no answer.
    """
    try:
        headers = {} if account is None else {"Stripe-Account": account}
        if token_file is not None:
            headers["Authorization"] = f"Bearer {token_file.read_text().strip()}"
        path = f"/v1/customers/{quote(customer, safe='')}/entitlements/{quote(lookup_key, safe='')}"
        status, body = get(url, path, headers)
        answer = json.loads(body)
        reason = str(answer["reason"]) if status == http.HTTPStatus.OK else ""
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        click.echo(f"error: {url} gives no answer: {error}", err=True)
        sys.exit(NO_ANSWER)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    click.echo(body.decode())
    sys.exit({"entitled": ENTITLED, "not_entitled": NOT_ENTITLED}.get(reason, NO_ANSWER))


def ask_ops(path: str, url: str | None, config: Path | None) -> NoReturn:
    """Ask this host's ops listener and exit 0 if it says yes, else 1."""
    if url is None:
        url = str(settings_from(config, {}).ops_listen[0])
    try:
        status, body = get(url, path, {})
    except (OSError, http.client.HTTPException, ValueError) as error:
        click.echo(f"error: {url} gives no answer: {error}", err=True)
        sys.exit(1)
    click.echo(body.decode())
    sys.exit(0 if status == http.HTTPStatus.OK else 1)


OPS_URL = click.option("--url", help="The ops listener; by default the first of ops_listen.")


@main.command()
@OPS_URL
@CONFIG
def health(url: str | None, config: Path | None) -> None:
    """Exit 0 if the sidecar on this host is alive, else 1; for images without curl."""
    ask_ops("/livez", url, config)


@main.command()
@OPS_URL
@CONFIG
def ready(url: str | None, config: Path | None) -> None:
    """Exit 0 if the sidecar on this host is ready, else 1; for images without curl."""
    ask_ops("/readyz", url, config)


@main.command()
@click.argument("seconds", type=click.FloatRange(0, 3600))
def sleep(seconds: float) -> None:
    """Do nothing for SECONDS; for a container's preStop hook where there is no shell."""
    time.sleep(seconds)  # there is no loop here


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(__version__)


def get(url: str, path: str, headers: dict[str, str], *, timeout: float = 35.0) -> tuple[int, bytes]:
    """Return the status and body of a GET to ``http://host:port``, ``host:port`` or ``unix:/path``.

    :raises OSError: when nobody answers there.
    """
    with closing(connection(url, timeout)) as open_connection:
        open_connection.request("GET", path, headers=headers)
        response = open_connection.getresponse()
        return response.status, response.read()


def connection(url: str, timeout: float) -> http.client.HTTPConnection:
    """Return a connection to where ``url`` says; an address that means "every interface" is asked on loopback."""
    if url.startswith("unix:"):
        found = http.client.HTTPConnection("localhost", timeout=timeout)
        found.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        found.sock.settimeout(timeout)
        try:
            found.sock.connect(url.removeprefix("unix:"))
        except OSError:
            found.close()
            raise
        return found
    parts = urlsplit(url if "://" in url else f"http://{url}")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(parts.hostname or "", parts.hostname)  # noqa: S104 -- replaced
    if parts.scheme != "http" or not host:
        raise ValueError("must be http://host:port or unix:/path")
    return http.client.HTTPConnection(host, parts.port or 80, timeout=timeout)
