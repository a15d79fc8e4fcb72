"""The engines that packaging is put to the test with: Helm's own, the schemas of Kubernetes and of the Prometheus operator.

They exist for Linux on x86_64 alone; elsewhere what needs them is skipped.
"""

import shutil
import subprocess
import sys
from collections.abc import Hashable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed: there is none for this system")
kubernetes_validate = pytest.importorskip("kubernetes_validate")
operator = pytest.importorskip("cloudcoil.models.prometheus_operator.v1", reason="cloudcoil is not installed")

CHARTS = Path(__file__).parents[2] / "charts"
kubernetes_validate.utils.schema_contents = cache(kubernetes_validate.utils.schema_contents)  # megabytes, each time

VERSIONS = ("1.29", "1.33", "1.37")
"""The first Kubernetes with native sidecars switched on, the one that made them stable, the newest."""

MONITORING = "monitoring.coreos.com/v1"
GATEWAY = "gateway.networking.k8s.io/v1"

Object = dict[str, Any]
Refused = helm.HelmError


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which the last would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 -- the library's signature
        """Return the mapping.

        :raises ValueError: when a key stands twice.
        """
        found = super().construct_mapping(node, deep=deep)
        if len(found) < len(node.value):
            raise ValueError(f"a key stands twice{node.start_mark}")
        return found


def read(text: str) -> list[Object]:
    """Return the objects in a stream of YAML."""
    return [found for found in yaml.load_all(text, StrictLoader) if found]


class Chart:
    """A chart that is loaded, with what it depends on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir() and "dependencies:" in (path / "Chart.yaml").read_text():
            helm.dependency_update(path)
        self._chart = helm.Chart.load(path)

    def texts(self, values: Object | None = None, *, release: str = "rel", namespace: str = "ns") -> dict[str, str]:
        """Return what each template renders.

        :raises Refused: when the schema or a template refuses the values.
        """
        found = self._chart.render(values or {}, name=release, namespace=namespace)
        return {name.rpartition("/")[2]: text for name, text in found.items()}

    def objects(self, values: Object | None = None, **names: str) -> list[Object]:
        """Return the objects that are rendered, valid for every Kubernetes.

        :raises Refused: see ``texts``.
        """
        texts = self.texts(values, **names)
        found = [one for name, text in texts.items() if name != "NOTES.txt" for one in read(text)]
        for one in found:
            validate(one)
        return found

    def lint(self, values: Object | None = None) -> list[str]:
        """Return what Helm finds wrong."""
        found = helm.lint(self.path, values or {}, strict=True)
        said = [message["error"] for message in found["messages"]] + found["errors"]
        return [message for message in said if message != "icon is recommended"]

    def package(self, destination: Path) -> Path:
        """Return the archive that is published."""
        return Path(helm.package(self.path, destination=destination))


def copied(destination: Path) -> Path:
    """Return a copy of the charts: loading leaves the archives of what they depend on beside them."""
    return Path(shutil.copytree(CHARTS, destination / "charts"))


def validate(one: Object, versions: tuple[str, ...] = VERSIONS) -> None:
    """Find an object valid: its structure, by the schemas of Kubernetes or of the operator; and some of what they leave open."""
    if one["apiVersion"] == MONITORING:
        closed_schema(one["kind"]).validate(one)
    elif one["apiVersion"] == GATEWAY:
        assert one["kind"] == "HTTPRoute"  # no schema of it is to be had; the one there is has a test of its own
    else:
        for version in versions:
            kubernetes_validate.validate(one, version, strict=True)
    for pod in pods(one):
        check_pod(pod)


def kubectl(*arguments: str, given: str = "") -> str:
    """Return what kubectl says, without a cluster; it finds nothing wrong."""
    beside = Path(sys.executable).with_name("kubectl")
    path = str(beside) if beside.exists() else shutil.which("kubectl")
    if path is None:
        pytest.skip("kubectl is not installed")
    found = subprocess.run([path, *arguments], input=given, capture_output=True, text=True, check=False)  # noqa: S603 -- ours
    assert found.returncode == 0, found.stderr
    return found.stdout


def pods(one: Object) -> Iterator[Object]:
    """Yield the specification of the pods that an object makes."""
    template = one.get("spec", {}).get("template")
    if template is not None:
        yield template["spec"]


def check_pod(pod: Object) -> None:
    """Find right what no schema says: names are unique, and every mount has its volume."""
    containers = [*(pod.get("initContainers") or []), *pod["containers"]]
    volumes = [volume["name"] for volume in pod.get("volumes") or []]
    ports = [port["containerPort"] for container in containers for port in container.get("ports", [])]
    for names in ([container["name"] for container in containers], volumes, ports):
        assert len(names) == len(set(names)), names
    for container in containers:
        mounts = [mount["name"] for mount in container.get("volumeMounts", [])]
        variables = [variable["name"] for variable in container.get("env") or []]
        assert set(mounts) <= set(volumes)
        assert len(variables) == len(set(variables)), variables


@cache
def closed_schema(kind: str) -> Draft202012Validator:
    """Return what checks an object of the Prometheus operator, unknown names refused."""
    return Draft202012Validator(closed(getattr(operator, kind).model_json_schema(by_alias=True)))


def closed(schema: Any) -> Any:
    """Return a schema with every object in it closed, and None no value of anything: an API server takes none."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if isinstance(found.get("anyOf"), list):
        found["anyOf"] = [item for item in found["anyOf"] if item != {"type": "null"}]
    if isinstance(found.get("properties"), dict) and "type" in found:
        found.setdefault("additionalProperties", False)
    return found
