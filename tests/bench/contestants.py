"""Who is compared: how each is started. A function here starts its server on a stage once and returns it."""

import json
import shutil
import sys
from collections.abc import Callable
from functools import partial

from tests.bench.nginx import configuration
from tests.bench.questions import CHECK, RESOURCE, TOGGLE, Question
from tests.bench.servers import Absent, Server, Stage, free_port
from tests.bench.upstream import KEY

OURS, PLAIN, NGINX, CONSTANT = "this sidecar", "aiohttp + TTLCache", "nginx proxy_cache", "nginx return 200"
BARE, UNLEASH, CERBOS = "bare asyncio protocol", "@unleash/proxy", "cerbos"

Contestant = Callable[[Stage], Server]


def stripe(stage: Stage) -> Server:
    """Start the built-in Stripe, beside the load generator: it has nothing to do while others are measured."""

    def start() -> Server:
        port = free_port()
        command = [sys.executable, "-m", "tests.bench.upstream", str(port)]
        return Server("the built-in Stripe", stage.start("stripe", command, port, beside_load=True), port)

    return stage.once("stripe", start)


def ours(stage: Stage) -> Server:
    """Start this project's sidecar; its budget is larger than usual, so that it soon knows the crowd."""

    def start() -> Server:
        port, ops, path = free_port(), free_port(), str(stage.folder / "sidecar.sock")
        variables = {
            "SIDECAR_STRIPE_API_KEY": KEY,
            "SIDECAR_STRIPE_API_BASE": stripe(stage).url,
            "SIDECAR_LISTEN": f"127.0.0.1:{port},unix:{path}",
            "SIDECAR_OPS_LISTEN": f"127.0.0.1:{ops}",
            "SIDECAR_RATE": "10000",
            "SIDECAR_BURST": "1000",
        }
        command = [sys.executable, "-m", "sidecar", "serve"]
        return Server(OURS, stage.start("sidecar", command, port, variables=variables), port, path, ops)

    return stage.once(OURS, start)


def plain(stage: Stage) -> Server:
    """Start the plain handler."""

    def start() -> Server:
        port = free_port()
        command = [sys.executable, "-m", "tests.bench.plain", str(port), stripe(stage).url]
        return Server(PLAIN, stage.start("plain", command, port), port)

    return stage.once(PLAIN, start)


def nginx(stage: Stage) -> Server:
    """Start nginx before the built-in Stripe; it also knows our answer to the one check as a constant."""

    def start() -> Server:
        program = shutil.which("nginx")
        if program is None:
            raise Absent("nginx is not on PATH (Debian keeps it in /usr/sbin)")
        port, home = free_port(), stage.folder / "nginx"
        home.mkdir()
        path = str(home / "nginx.sock")
        constant = answer_of_ours(stage, CHECK).partition(b"\r\n\r\n")[2].decode()
        written = home / "nginx.conf"
        written.write_text(configuration(port, path, stripe(stage).port, constant))
        command = [program, "-p", f"{home}/", "-e", "stderr", "-c", str(written)]
        return Server(NGINX, stage.start("nginx", command, port), port, path)

    return stage.once(NGINX, start)


def answer_of_ours(stage: Stage, question: Question) -> bytes:
    """Return what the sidecar says, byte for byte, once it knows all that is needed."""
    server = ours(stage)
    for path in question.to_warm.paths:
        server.await_right(Question([path], question.to_warm.is_right))
    return server.verify(question).raw


def bare(question: Question) -> Contestant:
    """Return what starts a bare protocol that gives the sidecar's answer to ``question``, whatever it is asked."""
    number = f"{abs(hash((question.paths[-1], question.body))):x}"

    def start(stage: Stage) -> Server:
        port, said = free_port(), stage.folder / f"answer-{number}"
        path = str(said.with_suffix(".sock"))
        said.write_bytes(answer_of_ours(stage, question))
        command = [sys.executable, "-m", "tests.bench.bare", str(port), path, str(said)]
        return Server(BARE, stage.start(f"bare-{number}", command, port), port, path)

    return lambda stage: stage.once(f"{BARE} {number}", partial(start, stage))


def unleash(stage: Stage) -> Server:
    """Start @unleash/proxy before an Unleash that knows ten features, each for the one customer."""

    def start() -> Server:
        script = stage.package("@unleash/proxy/dist/start.js")
        node = shutil.which("node")
        if node is None:
            raise Absent("node, which @unleash/proxy runs on, is not on PATH")
        port, features = free_port(), free_port()
        home = stage.folder / "unleash"
        home.mkdir()
        command = [sys.executable, "-m", "tests.bench.toggles", str(features)]
        stage.start("toggles", command, features, beside_load=True)
        variables = {
            "PORT": str(port),
            "UNLEASH_URL": f"http://127.0.0.1:{features}/api",
            "UNLEASH_API_TOKEN": "bench",
            "UNLEASH_PROXY_CLIENT_KEYS": "bench",
            "LOG_LEVEL": "error",
            "NODE_ENV": "production",
            "TMPDIR": str(home),
        }
        server = Server(UNLEASH, stage.start("unleash", [node, str(script)], port, variables=variables), port)
        server.await_right(TOGGLE)
        return server

    return stage.once(UNLEASH, start)


POLICY = {
    "apiVersion": "api.cerbos.dev/v1",
    "resourcePolicy": {
        "resource": "feature",
        "version": "default",
        "rules": [
            {
                "actions": ["use"],
                "effect": "EFFECT_ALLOW",
                "roles": ["customer"],
                "condition": {"match": {"expr": "R.id in P.attr.features"}},
            }
        ],
    },
}
"""May the customer use the feature? Cerbos keeps no facts: the caller brings what the customer holds."""


def cerbos(stage: Stage) -> Server:
    """Start cerbos with one policy."""

    def start() -> Server:
        found = shutil.which("cerbos")
        program = found or str(stage.package("@cerbos/cerbos-linux-x64/cerbos-linux-x64"))
        port, policies = free_port(), stage.folder / "policies"
        policies.mkdir()
        (policies / "feature.json").write_text(json.dumps(POLICY))
        settings = {
            "server": {"httpListenAddr": f"127.0.0.1:{port}", "grpcListenAddr": f"127.0.0.1:{free_port()}"},
            "telemetry": {"disabled": True},
            "storage": {"driver": "disk", "disk": {"directory": str(policies), "watchForChanges": False}},
        }
        written = stage.folder / "cerbos.json"
        written.write_text(json.dumps(settings))
        command = [program, "server", f"--config={written}", "--log-level=error"]
        server = Server(CERBOS, stage.start("cerbos", command, port), port)
        server.await_right(RESOURCE)
        return server

    return stage.once(CERBOS, start)
