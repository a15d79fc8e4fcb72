"""What the house promises of itself."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests import tables

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    path.relative_to(ROOT / "sidecar") for path in (ROOT / "sidecar").rglob("*.py") if path.name != "__init__.py"
)


def home_of(module: Path) -> Path:
    """Return where a module's test is."""
    return ROOT / "tests" / module.parent / f"test_{module.stem.strip('_')}.py"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_has_its_test(module: Path) -> None:
    """You know where the test is: the same folder, the same name."""
    assert home_of(module).is_file()


@pytest.mark.parametrize("package", ["api", "core", "demo", "kit", "stripe"])
def test_every_package_opens_with_its_map(package: str) -> None:
    """The docstring of a package names each of its modules."""
    text = (ROOT / "sidecar" / package / "__init__.py").read_text()
    for module in (ROOT / "sidecar" / package).glob("*.py"):
        if module.stem != "__init__":
            assert re.search(rf"^{module.stem}\b", text, re.MULTILINE), f"{module.stem} is not on the map"


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: str(page.relative_to(ROOT)))
async def test_the_pages_are_what_the_code_says(page: Path) -> None:
    """Their tables are generated; ``make docs`` writes them again."""
    text = page.read_text()  # noqa: ASYNC240 -- a small file
    assert await tables.with_tables(text) == text


def test_the_readme_is_read_in_one_sitting() -> None:
    """What is longer has a page of its own."""
    assert tables.README.read_text().count("\n") <= 150


def test_the_layers_hold() -> None:
    """Imports go down only (import-linter's contracts in pyproject.toml)."""
    linter = str(Path(sys.executable).with_name("lint-imports"))
    checked = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 -- ours
    assert checked.returncode == 0, checked.stdout


def test_no_file_names_a_registry_or_a_machines_path() -> None:
    """The repository speaks of the project alone."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S607 -- any git
    if listed.returncode:
        pytest.skip("not a git checkout")
    hosts = re.compile(
        "|".join(("pypi" + r"\.org", "python" + r"hosted\.org", "npmjs" + r"\.org", "/" + "root/", "/" + "home/"))
    )
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file():
            assert not hosts.search(path.read_text(errors="replace")), name


def test_the_lock_files_cover_what_is_declared() -> None:
    """Every dependency of the project is in the lock file, by hash."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    locked = (ROOT / "requirements.lock").read_text()
    for requirement in declared:
        name = re.split(r"[<>=;\[ ]", requirement)[0]
        assert re.search(rf"^{name}==\S+ .*\\\n    --hash=sha256:", locked, re.MULTILINE), name
