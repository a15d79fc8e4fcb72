"""The command line: what each command prints, and with which status it exits."""

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from sidecar import __version__
from sidecar.cli import connection, main
from sidecar.demo import FakeStripe, Fault
from sidecar.kit.lifecycle import Phase
from sidecar.settings import Settings
from tests.fakes import KEY, SECRET, Running, running

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "the-local-token-of-the-tests"


def command(*args: str, **environment: str) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, args, env=environment)


async def asked(*args: str, **environment: str) -> Result:
    """Run it in a thread, so that a sidecar of this process can answer."""
    return await asyncio.to_thread(command, *args, **environment)


@dataclass
class Serving:
    """A process that answers, and what it has said so far."""

    process: Process
    said: list[dict[str, Any]]

    @property
    def addresses(self) -> list[str]:
        """Where checks are answered, and where health is."""
        _, _, where = self.said[0]["message"].partition("answering checks on ")
        checks, _, ops = where.partition(", health and metrics on ")
        return [checks, ops]

    async def end(self, number: int) -> int:
        """Send a signal and give the exit status."""
        self.process.send_signal(number)
        _, err = await self.process.communicate()
        self.said += map(json.loads, err.splitlines())
        return self.process.returncode or 0


@asynccontextmanager
async def spawned(*args: str, **environment: str) -> AsyncIterator[Process]:
    """Start python in the repository's root; whatever happens, it is gone afterwards."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *args, cwd=ROOT, env=os.environ | environment, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def serving(*args: str, **environment: str) -> AsyncIterator[Serving]:
    """Run `serve` on free ports until it says that it answers."""
    environment = {"SIDECAR_LISTEN": "127.0.0.1:0", "SIDECAR_OPS_LISTEN": "127.0.0.1:0"} | environment
    async with spawned("-m", "sidecar", "serve", *args, **environment) as process:
        assert process.stderr is not None
        yield Serving(process, [json.loads(await process.stderr.readline())])


async def ended(*args: str, **environment: str) -> tuple[int | None, str]:
    """Run python to its end and give its status and what it said on standard error."""
    async with spawned(*args, **environment) as process:
        out, err = await process.communicate()
        assert out == b""
        return process.returncode, err.decode()


class TestServe:
    async def test_answers_until_term(self, stripe: FakeStripe, upstream: str) -> None:
        """Checks and health are answered; TERM ends it with 0; each log line is a JSON object."""
        stripe.grant("cus_ada", "sso")
        async with serving(SIDECAR_STRIPE_API_KEY=KEY, SIDECAR_STRIPE_API_BASE=upstream) as served:
            checks, ops = served.addresses
            found = await asked("check", "cus_ada", "sso", "--url", f"http://{checks}")
            assert (found.exit_code, json.loads(found.stdout)["entitled"]) == (0, True)
            assert (await asked("ready", "--url", ops)).exit_code == 0
            assert await served.end(signal.SIGTERM) == 0
        assert [(line["level"], line["logger"]) for line in served.said] == [("INFO", "sidecar.app")] * 3
        assert served.said[2]["message"] == "shutting down"
        assert all(line["time"] for line in served.said)
        assert KEY not in json.dumps(served.said)

    async def test_ends_with_0_on_ctrl_c(self, tmp_path: Path) -> None:
        """INT is asked for as often as TERM; here on a unix socket, configured by flags and a file."""
        config, key = tmp_path / "sidecar.toml", tmp_path / "key"
        configure(config, f'listen = "unix:{tmp_path}/s"\nlog_format = "json"\n')
        configure(key, f"{KEY}\n")
        async with serving("--config", str(config), "--stripe-api-key-file", str(key), SIDECAR_LISTEN="") as served:
            assert served.addresses[0] == f"unix:{tmp_path}/s"
            found = await asked("check", "cus/ada", "sso", "--url", served.addresses[0])
            assert (found.exit_code, json.loads(found.stdout)["code"]) == (2, "malformed_customer")
            assert await served.end(signal.SIGINT) == 0

    async def test_ends_with_0_on_term_while_it_still_imports(self) -> None:
        """As PID 1 a process without a handler would not see the signal at all."""
        async with spawned("-X", "importtime", "-m", "sidecar", "serve", SIDECAR_STRIPE_API_KEY=KEY) as process:
            assert process.stderr is not None
            async for line in process.stderr:  # pragma: no branch -- click is imported
                if b"| " in line and b"click" in line:
                    break
            process.terminate()
            _, err = await process.communicate()
        assert process.returncode == 0
        assert b"answering" not in err
        assert b"Traceback" not in err

    async def test_without_a_key_says_what_to_set(self) -> None:
        """Status 2, and one line that names the three ways."""
        assert await ended(
            "-m", "sidecar", "serve", SIDECAR_LISTEN="127.0.0.1:0", SIDECAR_OPS_LISTEN="127.0.0.1:0"
        ) == (
            2,
            "error: SIDECAR_STRIPE_API_KEY_FILE: set this, SIDECAR_STRIPE_API_KEY or STRIPE_API_KEY to a Stripe API key\n",
        )

    async def test_on_a_port_that_is_taken_says_so(self) -> None:
        """Status 2, and the address; nothing is answered on the others."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            found = await ended(
                "-m", "sidecar", "serve", "--listen", address, "--ops-listen", "127.0.0.1:0", STRIPE_API_KEY=KEY
            )
        assert found == (2, f"error: {address} cannot be listened on: Address already in use\n")

    async def test_ends_with_1_when_a_loop_dies(self) -> None:
        """A part that must run for ever does not die in silence: the process ends and says why."""
        status, err = await ended("-c", A_LOOP_DIES, SIDECAR_STRIPE_API_KEY=KEY)
        assert status == 1
        last = json.loads(err.splitlines()[-1])
        assert (last["level"], last["message"]) == ("CRITICAL", "a part that must run for ever died")
        assert "RuntimeError: this loop died" in last["exc_info"]

    def test_says_everything_that_is_wrong(self) -> None:
        """Status 2 and a line per complaint, before anything is started."""
        found = command("serve", "--rate", "0", "--deadline", "soon", SIDECAR_RAET="1")
        assert found.exit_code == 2
        assert found.stdout == ""
        assert [line.split(": ")[:2] for line in found.stderr.splitlines()] == [
            ["error", "SIDECAR_RAET"],
            ["error", "SIDECAR_DEADLINE"],
            ["error", "SIDECAR_RATE"],
        ]

    def test_has_a_flag_per_setting(self) -> None:
        """Each with its meaning."""
        found = command("serve", "--help")
        assert found.exit_code == 0
        for name in Settings.model_fields:
            assert f"--{name.replace('_', '-')} " in found.stdout


A_LOOP_DIES = """
from contextlib import asynccontextmanager
from dataclasses import replace
from sidecar import app, cli

built = app.assembled

async def dies():
    raise RuntimeError("this loop died")

@asynccontextmanager
async def assembled(*args, **kwargs):
    async with built(*args, **kwargs) as sidecar:
        yield replace(sidecar, loops=[*sidecar.loops, dies])

app.assembled = assembled
cli.main(["serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"])
"""


def configure(path: Path, text: str) -> None:
    path.write_text(text)


class TestCheck:
    async def test_exits_0_when_entitled(self, stripe: FakeStripe, sidecar: Running) -> None:
        """The answer is printed as it came."""
        stripe.grant("cus_ada", "sso")
        found = await asked("check", "cus_ada", "sso", "--url", sidecar.url)
        assert found.exit_code == 0
        answer = json.loads(found.stdout)
        assert (answer["customer"], answer["lookup_key"], answer["reason"]) == ("cus_ada", "sso", "entitled")
        assert found.stderr == ""

    async def test_exits_1_when_not_entitled(self, stripe: FakeStripe, sidecar: Running) -> None:
        """The one no that is a fact about a feature."""
        stripe.add_customer("cus_ada")
        found = await asked("check", "cus_ada", "sso", "--url", sidecar.url)
        assert (found.exit_code, json.loads(found.stdout)["reason"]) == (1, "not_entitled")

    async def test_exits_2_when_the_customer_is_unknown(self, sidecar: Running) -> None:
        """A misspelt id is no "not entitled"."""
        found = await asked("check", "cus_nope", "sso", "--url", sidecar.url)
        assert (found.exit_code, json.loads(found.stdout)["reason"]) == (2, "unknown_customer")

    @pytest.mark.parametrize("policy", ["allow", "deny", "error"])
    async def test_exits_2_when_the_policy_answers(self, stripe: FakeStripe, upstream: str, policy: str) -> None:
        """Neither a yes nor a no of the policy's is knowledge."""
        stripe.break_with(Fault.ERROR)
        async with running(upstream, policy=policy, deadline="20ms") as sidecar:
            found = await asked("check", "cus_ada", "sso", "--url", sidecar.url)
        assert found.exit_code == 2
        answer = json.loads(found.stdout)
        assert answer.get("entitled") is {"allow": True, "deny": False, "error": None}[policy]

    @pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "127.0.0.1:{port}", "unix:/nowhere/sidecar.sock"])
    def test_exits_2_when_nobody_answers(self, url: str) -> None:
        """The address is said, on standard error."""
        with socket.socket() as unserved:
            unserved.bind(("127.0.0.1", 0))
            url = url.format(port=unserved.getsockname()[1])
            found = command("check", "cus_ada", "sso", "--url", url)
        assert (found.exit_code, found.stdout) == (2, "")
        assert found.stderr.startswith(f"error: {url} gives no answer: ")

    @pytest.mark.parametrize("url", ["https://127.0.0.1:7420", "http://", "ftp://x", "http://x:port", ""])
    def test_exits_2_when_the_address_is_none(self, url: str) -> None:
        """Only plain HTTP and unix sockets are spoken."""
        found = command("check", "cus_ada", "sso", "--url", url)
        assert (found.exit_code, found.stdout) == (2, "")

    async def test_exits_2_when_the_answer_is_not_a_sidecars(self) -> None:
        """Whatever else listens there."""
        for body in ("<html>", "", '{"half":', "[]", "{}", "1"):
            async with echoing(web.Response(text=body)) as (url, _):
                found = await asked("check", "cus_ada", "sso", "--url", url)
            assert (found.exit_code, found.stdout) == (2, "")
        for status in (403, 500):
            async with echoing(web.json_response({"reason": "entitled"}, status=status)) as (url, _):
                assert (await asked("check", "cus_ada", "sso", "--url", url)).exit_code == 2

    async def test_quotes_what_it_is_given(self) -> None:
        """Odd characters in a customer or a key stay in their part of the path, and no line can be smuggled in."""
        customer, key = "cus/../ä?x=1#y%2F", "a b\r\nX: y"
        async with echoing(web.json_response({})) as (url, seen):
            found = await asked("check", customer, key, "--url", url)
        assert found.exit_code == 2
        assert [request.raw_path for request in seen] == [
            "/v1/customers/cus%2F..%2F%C3%A4%3Fx%3D1%23y%252F/entitlements/a%20b%0D%0AX%3A%20y"
        ]
        assert "X" not in seen[0].headers

    async def test_may_ask_on_a_unix_socket(self, stripe: FakeStripe, upstream: str, tmp_path: Path) -> None:
        """The address is the one that `listen` has."""
        stripe.grant("cus_ada", "sso")
        async with running(upstream, listen=f"unix:{tmp_path}/s"):
            found = await asked("check", "cus_ada", "sso", "--url", f"unix:{tmp_path}/s")
        assert found.exit_code == 0

    async def test_finds_the_address_in_the_environment(self, stripe: FakeStripe, sidecar: Running) -> None:
        """SIDECAR_URL saves typing."""
        stripe.grant("cus_ada", "sso")
        assert (await asked("check", "cus_ada", "sso", SIDECAR_URL=sidecar.url)).exit_code == 0

    async def test_may_ask_for_a_connected_accounts_customer(self, stripe: FakeStripe, sidecar: Running) -> None:
        """A customer's id means something within its account only."""
        stripe.grant("cus_ada", "sso", account="acct_1")
        found = await asked("check", "cus_ada", "sso", "--url", sidecar.url, "--account", "acct_1")
        assert found.exit_code == 0
        assert (await asked("check", "cus_ada", "sso", "--url", sidecar.url)).exit_code == 2

    async def test_shows_the_local_token(self, stripe: FakeStripe, upstream: str, tmp_path: Path) -> None:
        """With the token from a file there is an answer, without it a refusal; the token is not printed."""
        stripe.grant("cus_ada", "sso")
        path = tmp_path / "token"
        configure(path, f"{TOKEN}\n")
        async with running(upstream, local_token_file=path) as sidecar:
            known = await asked("check", "cus_ada", "sso", "--url", sidecar.url, "--token-file", str(path))
            stranger = await asked("check", "cus_ada", "sso", "--url", sidecar.url)
        assert (known.exit_code, stranger.exit_code) == (0, 2)
        assert TOKEN not in known.output + stranger.output

    def test_exits_2_when_it_cannot_even_ask(self, tmp_path: Path) -> None:
        """An argument or a token that is no text is no "not entitled"."""
        assert command("check", "cus_\udcff", "sso").exit_code == 2
        (tmp_path / "token").write_bytes(b"\xff")
        assert command("check", "cus_ada", "sso", "--token-file", str(tmp_path / "token")).exit_code == 2

    def test_needs_a_token_file_that_is_there(self, tmp_path: Path) -> None:
        """Status 2, like every wrong use."""
        for path in (tmp_path, tmp_path / "nowhere"):
            assert command("check", "cus_ada", "sso", "--token-file", str(path)).exit_code == 2
        assert command("check", "cus_ada").exit_code == 2


@asynccontextmanager
async def echoing(answer: web.Response) -> AsyncIterator[tuple[str, list[web.BaseRequest]]]:
    """Serve one answer; yield where, and what was asked."""
    seen: list[web.BaseRequest] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(request)
        return answer

    runner = web.ServerRunner(web.Server(handle, access_log=None), shutdown_timeout=0.05)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", seen
    finally:
        await runner.cleanup()


class TestHealthAndReady:
    @pytest.mark.parametrize("name", ["health", "ready"])
    async def test_exit_0_when_all_is_well(self, sidecar: Running, name: str) -> None:
        """The answer is printed, whichever way the address is written."""
        for url in (sidecar.ops_url, sidecar.ops_url.removeprefix("http://")):
            found = await asked(name, "--url", url)
            assert (found.exit_code, json.loads(found.stdout)["ok"]) == (0, True)

    async def test_find_the_listener_in_the_settings(self, sidecar: Running) -> None:
        """Without an address the first of `ops_listen` is asked; "every interface" is asked on loopback."""
        port = sidecar.ops_url.rpartition(":")[2]
        for listen in (f"127.0.0.1:{port}", f"0.0.0.0:{port},127.0.0.1:1"):
            assert (await asked("health", SIDECAR_OPS_LISTEN=listen)).exit_code == 0

    async def test_find_the_listener_in_the_file(self, sidecar: Running, tmp_path: Path) -> None:
        """The TOML file that `serve` is started with is read here too."""
        configure(tmp_path / "c.toml", f'ops_listen = "{sidecar.ops_url.removeprefix("http://")}"')
        assert (await asked("health", SIDECAR_CONFIG=str(tmp_path / "c.toml"))).exit_code == 0
        assert (await asked("ready", "--config", str(tmp_path / "c.toml"))).exit_code == 0

    async def test_differ_when_it_shuts_down(self, sidecar: Running) -> None:
        """Alive, but not ready."""
        sidecar.sidecar.lifecycle.enter(Phase.DRAINING)
        assert (await asked("health", "--url", sidecar.ops_url)).exit_code == 0
        found = await asked("ready", "--url", sidecar.ops_url)
        assert (found.exit_code, json.loads(found.stdout)["ok"]) == (1, False)

    @pytest.mark.parametrize("name", ["health", "ready"])
    def test_exit_1_when_nobody_answers(self, name: str) -> None:
        """As the container engines want it."""
        with socket.socket() as unserved:
            unserved.bind(("127.0.0.1", 0))
            url = f"127.0.0.1:{unserved.getsockname()[1]}"
            found = command(name, "--url", url)
        assert (found.exit_code, found.stdout) == (1, "")
        assert found.stderr.startswith(f"error: {url} gives no answer: ")
        assert command(name, "--url", "https://127.0.0.1:1").exit_code == 1

    @pytest.mark.parametrize(
        ("url", "place"),
        [
            ("0.0.0.0:7421", ("127.0.0.1", 7421)),
            ("[::]:7421", ("::1", 7421)),
            ("http://[::1]:7421", ("::1", 7421)),
            ("http://sidecar", ("sidecar", 80)),
        ],
    )
    def test_ask_where_the_address_says(self, url: str, place: tuple[str, int]) -> None:
        """An address to listen on is not always one to connect to."""
        found = connection(url, 1.0)
        assert (found.host, found.port) == place


class TestConfig:
    def test_prints_what_is_in_effect(self) -> None:
        """A line per setting, which could be an environment; secrets are masked."""
        found = command("config", "--rate", "3", "--insecure-listen", SIDECAR_STRIPE_API_KEY=KEY, SIDECAR_BURST="4")
        assert found.exit_code == 0
        lines = dict(line.split("=", 1) for line in found.stdout.splitlines())
        assert lines.keys() == {f"SIDECAR_{name.upper()}" for name in Settings.model_fields}
        assert (lines["SIDECAR_RATE"], lines["SIDECAR_BURST"], lines["SIDECAR_FRESH_FOR"]) == ("3.0", "4", "5m")
        assert (lines["SIDECAR_INSECURE_LISTEN"], lines["SIDECAR_LISTEN"]) == ("true", "127.0.0.1:7420")
        assert (lines["SIDECAR_STRIPE_API_KEY"], lines["SIDECAR_STRIPE_API_KEY_FILE"]) == ("**********", "")
        assert KEY not in found.output

    def test_masks_webhook_secrets(self) -> None:
        """How many there are is shown, as text and as JSON."""
        for option in ([], ["--json"]):
            found = command("config", *option, SIDECAR_WEBHOOK_SECRET=f"{SECRET},{SECRET}2")
            assert found.exit_code == 0
            assert "whsec_***,whsec_***" in found.stdout
            assert SECRET not in found.output
            found = command("config", *option, "--webhook-secret", SECRET, "--webhook-secret-file", "/run/secret")
            assert (found.exit_code, found.stdout) == (2, "")
            assert SECRET not in found.output

    def test_prints_lines_that_set_the_same(self) -> None:
        """What was printed, as the environment of another run, prints the same."""
        globs = ("--policy", '{"seats-*": "allow"}', "--stale-for", '{"seats-*": "72h"}')
        printed = command("config", *globs, "--listen", "unix:/run/s").stdout
        assert 'SIDECAR_STALE_FOR={"seats-*": "3d", "*": "1d"}\n' in printed
        assert command("config", **dict(line.split("=", 1) for line in printed.splitlines())).stdout == printed

    def test_prints_json_on_request(self) -> None:
        """The same as one object, with nulls."""
        found = command("config", "--json", STRIPE_API_KEY=KEY)
        effective = json.loads(found.stdout)
        assert effective.keys() == Settings.model_fields.keys()
        assert (effective["stripe_api_key"], effective["stripe_api_key_file"]) == ("**********", None)
        assert (effective["policy"], effective["cache_bytes"]) == ({"*": "deny"}, 128 << 20)
        assert KEY not in found.output

    def test_reads_the_file_it_is_given(self, tmp_path: Path) -> None:
        """By flag or by SIDECAR_CONFIG."""
        path = tmp_path / "sidecar.toml"
        path.write_text("rate = 3\n")
        for found in (command("config", "--config", str(path)), command("config", SIDECAR_CONFIG=str(path))):
            assert "SIDECAR_RATE=3.0\n" in found.stdout
        assert command("config", "--config", str(tmp_path / "nowhere")).exit_code == 2

    def test_says_everything_that_is_wrong(self) -> None:
        """Status 2, complaints on standard error, nothing on standard output; the secret in neither."""
        found = command("config", "--stripe-api-key", "pk_live_51Secret", "--fresh-for", "2d")
        assert (found.exit_code, found.stdout, len(found.stderr.splitlines())) == (2, "", 2)
        assert "51Secret" not in found.output


class TestTheRest:
    def test_version_is_printed(self) -> None:
        """And nothing else."""
        assert (command("version").exit_code, command("version").stdout) == (0, f"{__version__}\n")

    def test_sleep_waits_as_long_as_it_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """And exits 0; what is no number of seconds is refused."""
        slept: list[float] = []
        monkeypatch.setattr("sidecar.cli.time.sleep", slept.append)
        assert (command("sleep", "5").exit_code, command("sleep", "0.5").exit_code, slept) == (0, 0, [5, 0.5])
        assert command("sleep", "5s").exit_code == command("sleep", "--", "-1").exit_code == 2

    @pytest.mark.parametrize("flag", ["-h", "--help"])
    def test_help_lists_the_commands(self, flag: str) -> None:
        """All of them."""
        found = command(flag)
        assert found.exit_code == 0
        for name in ("serve", "demo", "check", "config", "health", "ready", "sleep", "version"):
            assert f"  {name} " in found.stdout

    def test_what_is_no_command_is_refused(self) -> None:
        """Status 2."""
        assert command("srve").exit_code == 2


class TestTheEnd:
    """Of a real process, by signals and over real sockets."""

    @pytest.mark.timeout(180)
    async def test_term_is_never_lost(self, tmp_path: Path) -> None:
        """Whenever it comes, from the moment the handler is there: status 0, no traceback, and no socket is left."""
        turns = asyncio.Semaphore(4)

        async def end_after(milliseconds: int) -> None:
            environment = {"SIDECAR_LISTEN": f"unix:{tmp_path}/{milliseconds}", "SIDECAR_OPS_LISTEN": "127.0.0.1:0"}
            async with turns, spawned("-m", "sidecar", "serve", STRIPE_API_KEY=KEY, **environment) as process:
                await catching_term(process)
                await asyncio.sleep(milliseconds / 1000)
                process.terminate()
                _, err = await process.communicate()
            assert (milliseconds, process.returncode, b"Traceback" in err) == (milliseconds, 0, False)

        await asyncio.gather(*map(end_after, range(0, 1200, 60)))
        assert not list(tmp_path.iterdir())  # noqa: ASYNC240 -- a small folder

    @pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
    async def test_a_second_signal_does_not_wait(self, stripe: FakeStripe, upstream: str, second: int) -> None:
        """While an answer is under way that takes long; the status says which signal it was."""
        stripe.break_with(Fault.SLOW, delay=60)
        knobs = {"SIDECAR_STRIPE_API_KEY": KEY, "SIDECAR_STRIPE_API_BASE": upstream}
        async with serving("--drain-timeout", "5m", "--deadline", "1h", **knobs) as served, hanging(served, stripe):
            served.process.terminate()
            assert json.loads(await line_of(served.process))["message"].startswith("taking no webhooks")
            assert json.loads(await line_of(served.process))["message"] == "shutting down"
            assert await served.end(second) == (128 + second if second == signal.SIGTERM else 130)

    @pytest.mark.parametrize("as_pid_1", [False, True])
    async def test_a_second_signal_ends_a_loop_that_is_stuck(self, *, as_pid_1: bool) -> None:
        """In Python code, where no handler of the loop's would be called; also as the first process of a container."""
        prefix = ["unshare", "--pid", "--fork", "--kill-child"] if as_pid_1 else []
        if as_pid_1 and subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:  # noqa: ASYNC221, S603 -- short, ours
            pytest.skip("needs the right to make a PID namespace")
        process = await asyncio.create_subprocess_exec(
            *prefix, sys.executable, "-c", STUCK, cwd=ROOT, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
        )
        try:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"stuck\n"
            inner = int(children_of(process.pid)[0]) if as_pid_1 else process.pid
            for _ in range(2):
                os.kill(inner, signal.SIGTERM)
                await asyncio.sleep(0.2)
            async with asyncio.timeout(15):
                assert await process.wait() == 143
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def test_answers_under_way_are_finished_and_idle_connections_are_not_waited_for(
        self, stripe: FakeStripe, upstream: str
    ) -> None:
        """Ready no more, alive still, nobody else let in; those who wait for a grant or for changes are let go at once."""
        stripe.break_with(Fault.SLOW, delay=1.5)
        stripe.grant("cus_1", "a")
        knobs = {"SIDECAR_STRIPE_API_KEY": KEY, "SIDECAR_STRIPE_API_BASE": upstream, "SIDECAR_EVENTS_POLL": "0"}
        async with (
            serving("--drain-timeout", "5m", "--deadline", "1m", **knobs) as served,
            aiohttp.ClientSession() as session,
            asyncio.TaskGroup() as group,
        ):
            checks, ops = (f"http://{address}" for address in served.addresses)
            async with session.get(f"{ops}/startupz") as response:
                assert response.status == 200
            async with session.get(f"{checks}/nowhere") as response:  # and now it is idle
                assert response.status == 404
            changes = await session.get(f"{checks}/v1/changes")
            waiting = group.create_task(status_of(session, f"{checks}/v1/customers/cus_2/entitlements/a?wait=30s"))
            asking = group.create_task(status_of(session, f"{checks}/v1/customers/cus_1/entitlements/a"))
            while stripe.count() < 2:
                await asyncio.sleep(0.01)
            served.process.terminate()
            async with asyncio.timeout(10):
                while (await status_of(session, f"{ops}/readyz"))[0] != 503:
                    await asyncio.sleep(0.01)
                assert (await status_of(session, f"{ops}/livez"))[0] == 200
                with pytest.raises(aiohttp.ClientConnectionError):
                    await session.get(f"{checks}/nowhere")
                assert b"retry" in await changes.read()
                assert (await asking)[0] == 200
                assert b'"entitled":true' in (await asking)[1]
                assert (await waiting)[0] == 200
                _, err = await served.process.communicate()
        assert served.process.returncode == 0
        assert [json.loads(line)["message"] for line in err.splitlines()][-1] == "shutting down"

    async def test_what_takes_too_long_is_cut_off(self, stripe: FakeStripe, upstream: str) -> None:
        """The log says how many; the status is 0 all the same."""
        stripe.break_with(Fault.SLOW, delay=60)
        knobs = {"SIDECAR_STRIPE_API_KEY": KEY, "SIDECAR_STRIPE_API_BASE": upstream}
        async with serving("--drain-timeout", "100ms", "--deadline", "1h", **knobs) as served, hanging(served, stripe):
            assert await served.end(signal.SIGTERM) == 0
        assert served.said[-1]["message"] == "cut off 1 connections whose answers were not done in time"

    async def test_a_job_may_ask_for_it(self, stripe: FakeStripe, upstream: str) -> None:
        """POST /quitquitquit is answered, and does what TERM does."""
        knobs = {"SIDECAR_STRIPE_API_KEY": KEY, "SIDECAR_STRIPE_API_BASE": upstream, "SIDECAR_QUIT_ENDPOINT": "true"}
        async with serving("--drain-timeout", "0", **knobs) as served, aiohttp.ClientSession() as session:
            async with session.post(f"http://{served.addresses[1]}/quitquitquit") as response:
                assert (response.status, await response.json()) == (200, {"ok": True})
            async with asyncio.timeout(15):
                assert await served.process.wait() == 0

    async def test_running_out_of_descriptors_is_survived(self, stripe: FakeStripe, upstream: str) -> None:
        """What cannot be accepted is dropped; those who are served go on, and there is no endless loop."""
        stripe.grant("cus_1", "a")
        async with serving(SIDECAR_STRIPE_API_KEY=KEY, SIDECAR_STRIPE_API_BASE=upstream) as served:
            pid, (host, port) = served.process.pid, served.addresses[0].split(":")
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (60, 60))
            peers = [socket.create_connection((host, int(port))) for _ in range(100)]
            await asyncio.sleep(0.5)
            before = cpu_of(pid)
            await asyncio.sleep(1.0)
            assert cpu_of(pid) - before < 0.5
            for peer in peers:
                peer.close()
            async with asyncio.timeout(15):
                while (await asked("check", "cus_1", "a", "--url", f"http://{host}:{port}")).exit_code:
                    await asyncio.sleep(0.1)
            assert await served.end(signal.SIGTERM) == 0


STUCK = """
import asyncio
from sidecar.cli import run

async def stuck(stop):
    print("stuck", flush=True)
    while True:
        pass

run(stuck)
"""


async def catching_term(process: Process) -> None:
    """Wait until a process has a handler for TERM."""
    status = Path(f"/proc/{process.pid}/status")
    async with asyncio.timeout(15):
        while True:
            caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt"))  # noqa: ASYNC240 -- no disk
            if int(caught.split()[1], 16) & 1 << (signal.SIGTERM - 1):
                return
            await asyncio.sleep(0.002)


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def cpu_of(pid: int) -> float:
    """Return the CPU time of a process in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def line_of(process: Process) -> bytes:
    assert process.stderr is not None
    return await process.stderr.readline()


async def status_of(session: aiohttp.ClientSession, url: str) -> tuple[int, bytes]:
    async with session.get(url) as response:
        return response.status, await response.read()


@asynccontextmanager
async def hanging(served: Serving, stripe: FakeStripe) -> AsyncIterator[None]:
    """Ask something that Stripe does not answer."""
    host, port = served.addresses[0].split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /v1/customers/cus_1/entitlements/a HTTP/1.1\r\nHost: localhost\r\n\r\n")
    while not stripe.count("list"):
        await asyncio.sleep(0.01)
    yield
    writer.transport.abort()
