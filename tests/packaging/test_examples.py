"""What users copy: every example is valid, and all of them put the same sidecar beside the application."""

import json
from typing import Any

import pytest

from tests.packaging.engines import CHARTS, Chart, Object, kubectl, read, validate

EXAMPLES = CHARTS / "examples"


def in_order(part: Any) -> Any:
    """Return a part of an object such that the order of what has names does not count."""
    if isinstance(part, dict):
        return {key: in_order(value) for key, value in part.items()}
    if isinstance(part, list):
        return sorted((in_order(item) for item in part), key=lambda item: json.dumps(item, sort_keys=True))
    return part


@pytest.fixture
def rendered(user: Chart) -> Object:
    """The pod of the example chart, whose sidecar the others are compared with."""
    (deployment,) = user.objects()
    return dict(deployment["spec"]["template"])


def same(template: Object, rendered: Object) -> None:
    """Find the same sidecar, first among the containers, with the same volumes and label."""
    pod, model = template["spec"], rendered["spec"]
    assert in_order(pod["initContainers"][0]) == in_order(model["initContainers"][0])
    assert in_order(pod["volumes"]) == in_order(model["volumes"])
    assert template["metadata"]["labels"]["entitlement-sidecar/carrier"] == "true"


@pytest.mark.parametrize("file", ["plain/deployment.yaml", "job/job.yaml"])
def test_plain_yaml_is_what_the_chart_renders(rendered: Object, file: str) -> None:
    """A Deployment and a Job."""
    (one,) = read((EXAMPLES / file).read_text())
    validate(one)
    same(one["spec"]["template"], rendered)
    assert one["spec"]["template"]["spec"]["containers"][0]["env"] == rendered["spec"]["containers"][0]["env"]


def test_the_component_patches_those_who_want_it_and_nobody_else(rendered: Object) -> None:
    """The sidecar comes before the application's own init containers, which may then ask it."""
    objects = read(kubectl("kustomize", str(EXAMPLES / "kustomize" / "app")))
    for one in objects:
        validate(one)
    shop, blog = (next(one for one in objects if one["metadata"]["name"] == name) for name in ("shop", "blog"))
    same(shop["spec"]["template"], rendered)
    assert [container["name"] for container in shop["spec"]["template"]["spec"]["initContainers"]] == [
        "entitlement-sidecar",
        "migrations",
    ]
    assert shop["spec"]["template"]["metadata"]["labels"]["app"] == "shop"
    assert blog == next(
        one
        for one in read((EXAMPLES / "kustomize" / "app" / "applications.yaml").read_text())
        if one["metadata"]["name"] == "blog"
    )
