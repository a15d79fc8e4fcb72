"""The image as a machine without a container engine builds and runs it: debootstrap, buildah and runc, all as root.

``python -m tests.packaging.image`` makes the base beforehand and keeps it, as it takes longer than all the rest.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TOOLS = ("buildah", "runc", "debootstrap", "strip")
BASE = "localhost/python:slim"
SUITE = "bookworm"
PACKAGES = (
    "ca-certificates,libbz2-1.0,libexpat1,libffi8,liblzma5,libreadline8,libsqlite3-0,libssl3,libuuid1,netbase,zlib1g"
)
MADE_AT = 1_700_000_000
"""The time that stands in an image and on all its files, as in a release SOURCE_DATE_EPOCH."""


def lacking() -> str:
    """Return what is not here that the image needs; empty if nothing."""
    tools = [tool for tool in TOOLS if shutil.which(tool) is None]
    if tools:
        return f"the image is built and run with {', '.join(TOOLS)}; there is no {', '.join(tools)}"
    if os.geteuid() != 0:
        return "the image is built and run as root"
    if python() == Path("/usr"):
        return "the base is made with a Python that stands in a folder of its own; there is none"
    return ""


def python() -> Path:
    """Return the folder of the Python for the base: the newest 3.13, as in the Dockerfile, or the one that runs this."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = sorted(
        versions.glob("3.13.*"), key=lambda path: [int(part) for part in path.name.split(".") if part.isdigit()]
    )
    return found[-1] if found else Path(sys.base_prefix)


def archive() -> Path:
    """Return where the base is kept."""
    return ROOT / "build" / f"base-{SUITE}-{python().name}-{platform.machine()}.tar"


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path = ROOT) -> str:
    """Run a command to its end and return what it wrote to stdout.

    :raises AssertionError: when it fails, with all that it wrote.
    """
    ended = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)  # noqa: S603 -- ours
    assert ended.returncode == 0, f"{command}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def make_base(directory: Path) -> None:
    """Make in ``directory`` what `python:slim` has: Debian without recommendations, a CPython in /usr/local, no bytecode."""
    run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, directory)
    (directory / "etc/resolv.conf").write_text("")  # the machine's own until now
    for useless in (
        "var/cache/apt",
        "var/lib/apt/lists",
        "var/log",
        "usr/share/doc",
        "usr/share/locale",
        "usr/share/man",
    ):
        shutil.rmtree(directory / useless)
        (directory / useless).mkdir()
    local, tree = directory / "usr/local", python()
    for name in ("bin", "include", "lib"):
        leave = shutil.ignore_patterns(
            "site-packages", "__pycache__", "test", "tests", "*.a", "pip*", "idle*", "pydoc*", "2to3*"
        )
        shutil.copytree(tree / name, local / name, symlinks=True, dirs_exist_ok=True, ignore=leave)
    library = next((tree / "lib").glob("python3.*"))
    for pip in (library / "site-packages").glob("pip*"):
        leave = shutil.ignore_patterns("__pycache__")
        shutil.copytree(pip, local / "lib" / library.name / "site-packages" / pip.name, ignore=leave)
    for extension in local.rglob("*.so*"):
        if not extension.is_symlink():
            run("strip", "--strip-unneeded", extension)
    run("chroot", directory, "ldconfig")


def kept_base() -> Path:
    """Return the base as an archive, made now if none is kept."""
    found = archive()
    if not found.exists():
        found.parent.mkdir(exist_ok=True)
        work = found.with_suffix(f".{os.getpid()}")
        make_base(work)
        run("tar", "-C", work, "-cf", work.with_suffix(".part"), ".")
        work.with_suffix(".part").rename(found)
        shutil.rmtree(work)
    return found


def pip_configuration() -> dict[str, str]:
    """Return how pip is told on this machine where wheels come from, by the names of a pip.conf."""
    found = {}
    for line in run(sys.executable, "-m", "pip", "config", "list").splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section in ("global", "install", ":env:"):
            found[key] = value.strip("'")
    return found


@dataclass(frozen=True)
class Image:
    """What was built, and its files."""

    files: Path
    told: dict[str, Any]
    """All that buildah tells of it."""

    @property
    def configuration(self) -> dict[str, Any]:
        """What the Dockerfile says of how to run it."""
        return dict(self.told["OCIv1"]["config"])

    @property
    def size(self) -> int:
        """The bytes of all its files."""
        return sum(path.lstat().st_size for path in self.files.rglob("*") if path.is_file() and not path.is_symlink())


@dataclass
class Store:
    """A place for images, apart from the machine's own."""

    directory: Path
    secret: str
    """What stands in pip's configuration during a build, and must not anywhere afterwards."""

    def __post_init__(self) -> None:
        texts = {
            "storage.conf": f'[storage]\ndriver = "overlay"\ngraphroot = "{self.directory}/graph"\nrunroot = "{self.directory}/run"\n',
            "containers.conf": "",
            "registries.conf": "unqualified-search-registries = []\n",
            "policy.json": '{"default": [{"type": "insecureAcceptAnything"}]}',
        }
        for name, text in texts.items():
            (self.directory / name).write_text(text)
        (self.directory / "tmp").mkdir()
        kinds = {name.partition(".")[0].upper(): str(self.directory / name) for name in texts}
        self.environment = os.environ | {
            "BUILDAH_ISOLATION": "chroot",
            "CONTAINERS_CONF": kinds["CONTAINERS"],
            "CONTAINERS_REGISTRIES_CONF": kinds["REGISTRIES"],
            "CONTAINERS_STORAGE_CONF": kinds["STORAGE"],
            "TMPDIR": str(self.directory / "tmp"),
        }

    def buildah(self, *arguments: str | Path) -> str:
        """Run buildah and return what it printed."""
        command, *rest = arguments
        trusting: list[str | Path] = []
        if command in ("bud", "commit", "from"):
            trusting = ["--signature-policy", self.directory / "policy.json"]
        return run("buildah", command, *trusting, *rest, env=self.environment)

    def add_base(self) -> None:
        """Have an image to begin from."""
        container = self.buildah("from", "scratch").strip()
        self.buildah("add", "--quiet", container, kept_base(), "/")
        self.buildah("config", "--env", "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", container)
        self.buildah("commit", "--quiet", "--rm", container, BASE)

    def build(self, target: str, *options: str) -> str:
        """Build a target of the Dockerfile and return the image's id."""
        configuration = pip_configuration()
        secret = self.directory / "pip.conf"
        secret.write_text(
            f"# {self.secret}\n[global]\n" + "".join(f"{name} = {value}\n" for name, value in configuration.items())
        )
        files = {
            Path(word.removeprefix("file://").removesuffix("/simple"))  # beside an index are the files that it names
            for value in configuration.values()
            for word in value.split()
        }
        # What the configuration names on this machine is there during the build, and only then.
        mounts = [f"--volume={path}:{path}:ro" for path in sorted(files) if path.is_absolute() and path.exists()]
        self.buildah(
            *("bud", "--pull-never", "--quiet", "--layers", f"--timestamp={MADE_AT}", f"--target={target}"),
            *(f"--build-arg=PYTHON_IMAGE={BASE}", f"--secret=id=pip.conf,src={secret}", *mounts, *options),
            *(f"--tag={target}", "."),
        )
        return str(self.told(target)["FromImageID"])

    def told(self, image: str) -> dict[str, Any]:
        """Return all that buildah tells of an image."""
        return dict(json.loads(self.buildah("inspect", "--type=image", image)))

    @contextmanager
    def mounted(self, image: str) -> Iterator[Image]:
        """Have the image with its files in a folder."""
        container = self.buildah("from", "--pull-never", f"localhost/{image}").strip()
        yield Image(Path(self.buildah("mount", container).strip()), self.told(image))
        self.buildah("rm", container)

    def end(self) -> None:
        """Leave nothing that is mounted."""
        self.buildah("rm", "--all")


if __name__ == "__main__":
    print(lacking() or kept_base())  # noqa: T201 -- a command's answer
