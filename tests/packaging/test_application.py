"""The service of its own, and what watches every sidecar."""

import json
from pathlib import Path

import pytest
import yaml

from tests.packaging.engines import CHARTS, Chart, Object, Refused, kubectl

FILES = sorted((CHARTS / "entitlement-sidecar" / "ci").glob("*-values.yaml"))
STRIPE = {"credentials": {"existingSecret": "stripe"}}
OPEN: Object = {"sidecar": STRIPE | {"checks": {"insecure": True}}}
CARRIER = {"entitlement-sidecar/carrier": "true"}


def by_kind(objects: list[Object]) -> dict[str, Object]:
    """Return the objects by kind; of several, the first."""
    return {one["kind"]: one for one in reversed(objects)}


def values_in(file: Path) -> Object:
    """Return the values in a file."""
    return dict(yaml.safe_load(file.read_text()))


def environment(workload: Object) -> dict[str, str]:
    """Return the variables of the only container."""
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable.get("value", "") for variable in container["env"]}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
class TestEveryExampleOfValues:
    def test_passes_lint(self, application: Chart, file: Path) -> None:
        """Helm's own, with warnings as errors."""
        assert application.lint(values_in(file)) == []

    def test_renders_valid_objects_that_fit_together(self, application: Chart, file: Path) -> None:
        """Valid for every Kubernetes; unique; and what selects pods selects these."""
        objects = application.objects(values_in(file))
        names = [(one["kind"], one["metadata"]["name"]) for one in objects]
        assert len(names) == len(set(names)) > 0
        labels = [
            one["spec"]["template"]["metadata"]["labels"]
            for one in objects
            if one["kind"] in ("Deployment", "DaemonSet")
        ]
        selectors = [selector for one in objects for selector in selectors_of(one)]
        assert all(selector.items() <= found.items() for selector in selectors for found in labels)

    def test_is_read_by_kubectl(self, application: Chart, file: Path) -> None:
        """Into Kubernetes' own types: quantities are read, which no schema does."""
        for one in application.objects(values_in(file)):
            if one["kind"] in ("Deployment", "DaemonSet"):
                (container,) = one["spec"]["template"]["spec"]["containers"]
                image = f"{container['name']}=x"
                said = kubectl("set", "image", "--local", "-f", "-", image, "-o", "name", given=json.dumps(one))
                assert one["metadata"]["name"] in said

    def test_says_what_to_do_next(self, application: Chart, file: Path) -> None:
        """No template is left in it, and nothing is missing."""
        notes = application.texts(values_in(file))["NOTES.txt"]
        assert "<no value>" not in notes
        assert ("Nothing runs here" in notes) == (file.name == "monitoring-only-values.yaml")


def selectors_of(one: Object) -> list[dict[str, str]]:
    """Return the labels by which an object selects pods."""
    spec = one.get("spec", {})
    if one["kind"] == "Service":
        return [spec["selector"]]
    found = [spec.get("selector"), spec.get("podSelector")]
    spread = spec.get("template", {}).get("spec", {}).get("topologySpreadConstraints", [])
    return [item["matchLabels"] for item in [*found, *(constraint["labelSelector"] for constraint in spread)] if item]


class TestADeployment:
    def test_shares_one_budget_among_its_pods(self, application: Chart) -> None:
        """As many as there are, or may be; what the user says goes before."""
        cases: list[tuple[Object, str]] = [
            ({}, "2"),
            ({"replicas": 5}, "5"),
            ({"replicas": 0}, "1"),
            ({"autoscaling": {"enabled": True, "maxReplicas": 9}}, "9"),
        ]
        for values, replicas in cases:
            objects = by_kind(application.objects(OPEN | values))
            assert environment(objects["Deployment"])["SIDECAR_REPLICAS"] == replicas
        sidecar = OPEN["sidecar"] | {"settings": {"replicas": 7}}
        assert environment(by_kind(application.objects({"sidecar": sidecar}))["Deployment"])["SIDECAR_REPLICAS"] == "7"

    def test_is_asked_under_the_names_of_its_service(self, application: Chart) -> None:
        """Others are refused by the process, which has nothing else to know a browser by."""
        objects = by_kind(application.objects(OPEN, release="r", namespace="shop"))
        assert environment(objects["Deployment"])["SIDECAR_ALLOWED_HOSTS"].split(",") == [
            "localhost", "127.0.0.1", "[::1]", "r-entitlement-sidecar", "r-entitlement-sidecar.shop",
            "r-entitlement-sidecar.shop.svc", "r-entitlement-sidecar.shop.svc.cluster.local",
        ]  # fmt: skip
        assert objects["Service"]["metadata"]["name"] == "r-entitlement-sidecar"

    def test_survives_a_drain_and_does_not_hold_it_fast(self, application: Chart) -> None:
        """One pod at a time; a single pod has no budget of disruptions, which would never let it go."""
        budget = by_kind(application.objects(OPEN))["PodDisruptionBudget"]
        assert budget["spec"]["maxUnavailable"] == 1
        for values in ({"replicas": 1}, {"podDisruptionBudget": {"enabled": False}}):
            assert "PodDisruptionBudget" not in by_kind(application.objects(OPEN | values))

    def test_grows_with_the_work_of_its_container(self, application: Chart) -> None:
        """The autoscaler's number is then nobody else's to set."""
        objects = by_kind(application.objects(OPEN | {"autoscaling": {"enabled": True}}))
        assert "replicas" not in objects["Deployment"]["spec"]
        scaler = objects["HorizontalPodAutoscaler"]["spec"]
        assert scaler["scaleTargetRef"]["name"] == objects["Deployment"]["metadata"]["name"]
        (container,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
        assert scaler["metrics"][0]["containerResource"]["container"] == container["name"]
        assert container["resources"]["requests"]["cpu"]  # what the percentage is of

    def test_gets_traffic_when_it_answers_and_loses_it_before_it_ends(self, application: Chart) -> None:
        """Ready by its own word; a hook outlasts the endpoints; and the grace period outlasts both and what is under way."""
        for drain, grace in [("5s", 30), ("2m", 135), ("15.5s", 31)]:
            sidecar = OPEN["sidecar"] | {"settings": {"drain_timeout": drain}}
            pod = by_kind(application.objects({"sidecar": sidecar}))["Deployment"]["spec"]["template"]["spec"]
            (container,) = pod["containers"]
            assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": 7421}
            assert container["lifecycle"]["preStop"]["exec"]["command"] == ["entitlement-sidecar", "sleep", "5"]
            assert pod["terminationGracePeriodSeconds"] == grace

    def test_has_no_word_with_the_cluster(self, application: Chart) -> None:
        """No token is mounted, and no variables of other services."""
        objects = by_kind(application.objects(OPEN))
        pod = objects["Deployment"]["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is pod["enableServiceLinks"] is False
        assert objects["ServiceAccount"]["automountServiceAccountToken"] is False
        assert pod["serviceAccountName"] == objects["ServiceAccount"]["metadata"]["name"]
        objects = by_kind(application.objects(OPEN | {"serviceAccount": {"create": False}}))
        assert "ServiceAccount" not in objects
        assert objects["Deployment"]["spec"]["template"]["spec"]["serviceAccountName"] == "default"


class TestADaemonSet:
    def test_is_asked_on_the_callers_own_node(self, application: Chart) -> None:
        """Unless that is not wanted: while the node's pod restarts, nobody else answers."""
        for policy, expected in [("", "Local"), ("Cluster", "Cluster")]:
            values = OPEN | {"kind": "DaemonSet", "service": {"internalTrafficPolicy": policy}}
            objects = by_kind(application.objects(values))
            assert objects.keys() == {"DaemonSet", "Service", "ServiceAccount"}
            assert objects["Service"]["spec"]["internalTrafficPolicy"] == expected
        assert by_kind(application.objects(OPEN))["Service"]["spec"]["internalTrafficPolicy"] == "Cluster"

    def test_is_told_of_when_its_budget_is_nobodys(self, application: Chart) -> None:
        """Only the user knows how many nodes there are."""
        values = OPEN | {"kind": "DaemonSet"}
        assert "takes the whole budget" in application.texts(values)["NOTES.txt"]
        assert "SIDECAR_REPLICAS" not in environment(by_kind(application.objects(values))["DaemonSet"])


class TestWebhooks:
    def test_come_by_a_service_of_their_own(self, application: Chart) -> None:
        """What the world may reach leads nowhere else, and to any pod."""
        sidecar = OPEN["sidecar"] | {"webhooks": {"existingSecret": "w"}}
        objects = application.objects({"kind": "DaemonSet", "sidecar": sidecar})
        checks, webhooks = [one for one in objects if one["kind"] == "Service"]
        assert [port["port"] for port in checks["spec"]["ports"]] == [7420]
        assert [port["port"] for port in webhooks["spec"]["ports"]] == [7422]
        assert "internalTrafficPolicy" not in webhooks["spec"]

    def test_come_in_at_one_path_only(self, application: Chart) -> None:
        """By an Ingress, or by an HTTPRoute, whose schema is not to be had: so all of it is here."""
        values = {
            "sidecar": OPEN["sidecar"] | {"webhooks": {"existingSecret": "w"}},
            "webhookIngress": {"enabled": True},
            "webhookRoute": {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["hooks.example.test"]},
        }
        objects = by_kind(application.objects(values))
        (rule,) = objects["Ingress"]["spec"]["rules"]
        (path,) = rule["http"]["paths"]
        assert (path["path"], path["pathType"]) == ("/webhooks/stripe", "Exact")
        assert path["backend"]["service"] == {"name": "rel-entitlement-sidecar-webhooks", "port": {"number": 7422}}
        assert objects["HTTPRoute"]["spec"] == {
            "parentRefs": [{"name": "public"}],
            "hostnames": ["hooks.example.test"],
            "rules": [
                {
                    "matches": [{"method": "POST", "path": {"type": "Exact", "value": "/webhooks/stripe"}}],
                    "backendRefs": [{"name": "rel-entitlement-sidecar-webhooks", "port": 7422}],
                }
            ],
        }


class TestANetworkPolicy:
    def test_lets_in_what_there_is_to_ask_and_out_what_must_be_asked(self, application: Chart) -> None:
        """Checks from the namespace, metrics from everywhere; out to DNS and Stripe."""
        spec = by_kind(application.objects(OPEN | {"networkPolicy": {"enabled": True}}))["NetworkPolicy"]["spec"]
        assert [(rule["ports"][0]["port"], rule["from"]) for rule in spec["ingress"]] == [
            (7420, [{"podSelector": {}}]),
            (7421, [{"namespaceSelector": {}}]),
        ]
        assert [[port["port"] for port in rule["ports"]] for rule in spec["egress"]] == [[53, 53, 443]]
        assert "NetworkPolicy" not in by_kind(application.objects(OPEN))


ALONE: Object = {
    "kind": "None",
    "podMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboard": {"enabled": True},
}


class TestMonitoring:
    def test_needs_nothing_that_runs(self, application: Chart) -> None:
        """No Secret either."""
        assert by_kind(application.objects(ALONE)).keys() == {"PodMonitor", "PrometheusRule", "ConfigMap"}

    def test_finds_every_sidecar(self, application: Chart, user: Chart) -> None:
        """By a label and a port that every pod with one has, whoever put it there."""
        spec = by_kind(application.objects(ALONE))["PodMonitor"]["spec"]
        assert spec["selector"]["matchLabels"] == CARRIER
        assert spec["namespaceSelector"] == {"any": True}
        for workload in (user.objects()[0], by_kind(application.objects(OPEN))["Deployment"]):
            template = workload["spec"]["template"]
            assert CARRIER.items() <= template["metadata"]["labels"].items()
            containers = [*(template["spec"].get("initContainers") or []), *template["spec"]["containers"]]
            ports = [port["name"] for container in containers for port in container.get("ports", [])]
            assert ports.count(spec["podMetricsEndpoints"][0]["port"]) == 1

    def test_is_what_promtool_has_tested(self, application: Chart) -> None:
        """Rules and dashboard come through as they stand in their files."""
        objects = by_kind(application.objects(ALONE))
        files = application.path / "files"
        assert objects["PrometheusRule"]["spec"] == yaml.safe_load((files / "rules.yaml").read_text())
        links = {"enabled": True, "runbooks": "https://wiki.example.test/entitlements"}
        linked = by_kind(application.objects(ALONE | {"prometheusRule": links}))["PrometheusRule"]["spec"]
        assert "https://wiki.example.test/entitlements#entitlementsidecarfeedlag" in str(linked)
        assert "docs/operations.md" not in str(linked)
        text = objects["ConfigMap"]["data"]["entitlement-sidecar.json"]
        assert text.strip() == (files / "dashboard.json").read_text().strip()


class TestAMistake:
    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({}, "sidecar.checks.insecure to let every pod ask"),
            ({"sidecar": {"checks": {"insecure": True}}}, "sidecar.credentials.existingSecret is required"),
            ({"kind": "None"}, "nothing else is wanted"),
            (
                {"kind": "None", "podMonitor": {"enabled": True}, "webhookIngress": {"enabled": True}},
                "need a kind that runs",
            ),
            (OPEN | {"kind": "StatefulSet"}, "/kind"),
            (OPEN | {"webhookIngress": {"enabled": True}}, "need sidecar.webhooks.existingSecret"),
            (OPEN | {"webhookRoute": {"enabled": True}}, "/webhookRoute/parentRefs"),
            (OPEN | {"kind": "DaemonSet", "autoscaling": {"enabled": True}}, "autoscaling is for a Deployment"),
            (OPEN | {"autoscaling": {"enabled": True, "minReplicas": 9}}, "greater than autoscaling.maxReplicas"),
            (OPEN | {"replicaCount": 3}, "additional properties 'replicaCount' not allowed"),
            (OPEN | {"replicas": "3"}, "/replicas"),
            (OPEN | {"podLabels": {"app.kubernetes.io/name": "x"}}, "invalid propertyName 'app.kubernetes.io/name'"),
            (OPEN | {"podMonitor": {"interval": "often"}}, "/podMonitor/interval"),
            (
                {"sidecar": OPEN["sidecar"] | {"settings": {"fresh_fr": 1}}},
                "additional properties 'fresh_fr' not allowed",
            ),
        ],
        ids=str,
    )
    def test_is_named(self, application: Chart, values: Object, said: str) -> None:
        """Before anything is applied."""
        with pytest.raises(Refused) as refused:
            application.texts(values)
        assert said in str(refused.value)

    def test_of_a_parent_chart_is_none(self, application: Chart) -> None:
        """`global` and `enabled` are what Helm itself gives to a dependency."""
        assert application.objects(OPEN | {"global": {"anything": 1}, "enabled": True})


def test_both_charts_can_be_published(application: Chart, charts: Path, tmp_path: Path) -> None:
    """What is packed renders what was packed, its dependency inside."""
    packed = Chart(application.package(tmp_path / "a"))
    assert packed.texts(OPEN) == application.texts(OPEN)
    library = Chart(charts / "entitlement-sidecar-lib")
    assert library.lint() == []
    assert library.package(tmp_path / "b").name == "entitlement-sidecar-lib-0.1.0.tgz"
