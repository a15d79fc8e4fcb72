"""The sidecar in somebody else's pod."""

from pathlib import Path
from typing import Any

import pytest

from sidecar import __version__
from tests.packaging.engines import CHARTS, Chart, Object, Refused
from tests.packaging.values import LIBRARY, ROOT


def pod_of(chart: Chart, **values: Any) -> Object:
    """Return the specification of the pods, the sidecar set up with ``values``."""
    values.setdefault("credentials", {"existingSecret": "stripe"})
    (deployment,) = chart.objects({"sidecar": values})
    return dict(deployment["spec"]["template"]["spec"])


def sidecar_of(pod: Object) -> Object:
    """Return the only sidecar of a pod."""
    containers = [*(pod["initContainers"] or []), *pod["containers"]]
    (found,) = [container for container in containers if container["name"] == "entitlement-sidecar"]
    return dict(found)


def refusal(chart: Chart, **values: Any) -> str:
    """Return how values of the sidecar are refused."""
    with pytest.raises(Refused) as refused:
        pod_of(chart, **values)
    return str(refused.value)


class TestANativeSidecar:
    def test_starts_before_the_application_and_ends_after_it(self, user: Chart) -> None:
        """It is an init container that goes on; a hook before its end would run with the application's, so there is none."""
        pod = pod_of(user)
        (sidecar,) = pod["initContainers"]
        assert sidecar["restartPolicy"] == "Always"
        assert "lifecycle" not in sidecar
        assert [container["name"] for container in pod["containers"]] == ["shop"]

    def test_holds_up_the_application_only_until_it_listens(self, user: Chart) -> None:
        """Its startup probe is asked each second, and Stripe is never asked for it."""
        probe = sidecar_of(pod_of(user))["startupProbe"]
        assert probe["httpGet"] == {"path": "/startupz", "port": 7421}
        assert probe["periodSeconds"] == 1

    def test_does_not_decide_whether_the_pod_is_ready(self, user: Chart) -> None:
        """An answer of some age is an answer; all replicas would leave at once."""
        assert "readinessProbe" not in sidecar_of(pod_of(user))


class TestAPlainSidecar:
    def test_is_a_container_beside_the_application(self, user: Chart) -> None:
        """For clusters before 1.29."""
        pod = pod_of(user, native=False)
        assert pod["initContainers"] is None
        assert [container["name"] for container in pod["containers"]] == ["shop", "entitlement-sidecar"]
        assert "restartPolicy" not in pod["containers"][1]

    def test_outlives_for_a_while_what_asks_it(self, user: Chart) -> None:
        """Both are told to end at once; the hook is a command of the image's own, where there is no shell."""
        hook = {"preStop": {"exec": {"command": ["entitlement-sidecar", "sleep", "5"]}}}
        assert sidecar_of(pod_of(user, native=False))["lifecycle"] == hook
        assert "lifecycle" not in sidecar_of(pod_of(user, native=False, preStopSleepSeconds=0))


class TestThePod:
    def test_carries_the_label_that_the_monitor_looks_for(self, user: Chart) -> None:
        """So that a sidecar is watched wherever it is."""
        (deployment,) = user.objects()
        assert deployment["spec"]["template"]["metadata"]["labels"]["entitlement-sidecar/carrier"] == "true"

    def test_asks_at_loopback_where_nobody_else_can(self, user: Chart) -> None:
        """The checks' port is not even told to the cluster."""
        pod = pod_of(user)
        assert pod["containers"][0]["env"] == [{"name": "SIDECAR_URL", "value": "http://127.0.0.1:7420"}]
        assert {"name": "SIDECAR_LISTEN", "value": "127.0.0.1:7420"} in sidecar_of(pod)["env"]
        assert [port["name"] for port in sidecar_of(pod)["ports"]] == ["ent-ops"]

    def test_is_asked_for_health_at_its_own_address(self, user: Chart) -> None:
        """The kubelet and Prometheus do not come from inside the pod; a `host` in a probe would be another host's."""
        sidecar = sidecar_of(pod_of(user, ops={"port": 9000}))
        assert {"name": "SIDECAR_OPS_LISTEN", "value": "0.0.0.0:9000"} in sidecar["env"]
        assert sidecar["livenessProbe"]["httpGet"] == {"path": "/livez", "port": 9000}

    def test_has_the_key_as_a_file_that_may_change(self, user: Chart) -> None:
        """All may read it, as the pod has no group of ours; a `subPath` would never be renewed."""
        pod = pod_of(user)
        (volume,) = [volume for volume in pod["volumes"] if "secret" in volume]
        assert volume["secret"]["secretName"] == "stripe"
        assert volume["secret"]["defaultMode"] == 0o444
        (mount,) = [mount for mount in sidecar_of(pod)["volumeMounts"] if mount["name"] == volume["name"]]
        assert mount["readOnly"] is True
        assert "subPath" not in mount
        path = f"{mount['mountPath']}/{volume['secret']['items'][0]['path']}"
        assert {"name": "SIDECAR_STRIPE_API_KEY_FILE", "value": path} in sidecar_of(pod)["env"]

    def test_grants_the_container_nothing(self, user: Chart) -> None:
        """What the restricted profile of Pod Security wants, and a root that cannot be written."""
        context = sidecar_of(pod_of(user))["securityContext"]
        assert context["runAsNonRoot"] is context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["runAsUser"] == context["runAsGroup"] == 65532
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}

    def test_has_nothing_of_it_when_it_is_switched_off(self, user: Chart) -> None:
        """Also without a Secret."""
        pod = pod_of(user, enabled=False, credentials={"existingSecret": ""})
        assert (pod["initContainers"], pod["volumes"], pod["containers"][0]["env"]) == (None, None, None)
        assert len(pod["containers"]) == 1

    @pytest.mark.parametrize(
        ("cache", "request_", "limit"),
        [
            ("1MiB", "65Mi", "129Mi"),
            ("128MiB", "192Mi", "272Mi"),
            ("1GiB", "1088Mi", "1280Mi"),
            (134217729, "193Mi", "273Mi"),
        ],
    )
    def test_has_the_memory_that_its_cache_takes(
        self, user: Chart, cache: str | int, request_: str, limit: str
    ) -> None:
        """64 MiB for the process (54 measured at rest, 60 after a load) and what it may remember; room above it, and no CPU limit."""
        pod = pod_of(user, settings={"cache_bytes": cache})
        assert sidecar_of(pod)["resources"] == {
            "requests": {"cpu": "20m", "memory": request_},
            "limits": {"memory": limit},
        }

    def test_takes_what_the_user_says_of_resources(self, user: Chart) -> None:
        """One by one: the others still follow."""
        pod = pod_of(user, resources={"requests": {"memory": "1Gi"}, "limits": {"cpu": 1}})
        assert sidecar_of(pod)["resources"] == {
            "requests": {"cpu": "20m", "memory": "1Gi"},
            "limits": {"memory": "272Mi", "cpu": 1},
        }

    @pytest.mark.parametrize(("store_bytes", "limit"), [("1024MiB", "2112Mi"), ("500MB", "1018Mi")])
    def test_has_room_for_the_store_and_one_set_aside(self, user: Chart, store_bytes: str, limit: str) -> None:
        """A pod that outgrows an `emptyDir` is evicted, application and all."""
        pod = pod_of(user, settings={"store_bytes": store_bytes})
        assert [volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume] == [{"sizeLimit": limit}]

    def test_keeps_the_store_where_the_user_wants(self, user: Chart) -> None:
        """On any volume; or nowhere."""
        claim = {"persistentVolumeClaim": {"claimName": "lists"}}
        volumes = pod_of(user, store={"volume": claim})["volumes"]
        assert {"name": "entitlement-sidecar-store", **claim} in volumes
        pod = pod_of(user, store={"enabled": False})
        assert [volume["name"] for volume in pod["volumes"]] == ["entitlement-sidecar-stripe"]
        assert "SIDECAR_STORE" not in [variable["name"] for variable in sidecar_of(pod)["env"]]

    def test_pulls_this_version_unless_a_digest_says_which(self, user: Chart) -> None:
        """A registry for all goes before ours."""
        assert sidecar_of(pod_of(user))["image"] == f"entitlement-sidecar:{__version__}"
        digest = "sha256:" + "0" * 64
        image = {"registry": "one.example.test", "digest": digest}
        assert sidecar_of(pod_of(user, image=image))["image"] == f"one.example.test/entitlement-sidecar@{digest}"
        (deployment,) = user.objects({"global": {"imageRegistry": "two.example.test/x"}, "sidecar": {"image": image}})
        pod = deployment["spec"]["template"]["spec"]
        assert sidecar_of(pod)["image"] == f"two.example.test/x/entitlement-sidecar@{digest}"


class TestAMistake:
    """Is refused in words that name it."""

    def test_of_no_secret(self, user: Chart) -> None:
        """There is no key without."""
        assert "sidecar.credentials.existingSecret is required" in refusal(user, credentials={"existingSecret": ""})

    def test_of_checks_for_everybody(self, user: Chart) -> None:
        """A wish for it must be said, or there must be a token."""
        checks = {"address": "0.0.0.0"}  # noqa: S104 -- the mistake
        assert "0.0.0.0 can be reached from other pods" in refusal(user, checks=checks)
        assert "contradicts" in refusal(user, checks=checks | {"insecure": True}, token={"existingSecret": "t"})
        for more in ({"token": {"existingSecret": "t"}}, {"checks": checks | {"insecure": True}}):
            assert "ent-checks" in [
                port["name"] for port in sidecar_of(pod_of(user, **{"checks": checks, **more}))["ports"]
            ]

    def test_of_one_port_for_two(self, user: Chart) -> None:
        """Webhooks count only where they are taken."""
        assert "must differ: 7421, 7421" in refusal(user, checks={"port": 7421})
        assert "must differ" in refusal(user, webhooks={"existingSecret": "w", "port": 7421})
        assert pod_of(user, webhooks={"port": 7421})

    def test_of_nothing_to_encrypt(self, user: Chart) -> None:
        """The key of a store that is not there."""
        said = refusal(user, store={"enabled": False, "encryption": {"existingSecret": "k"}})
        assert "nothing to encrypt" in said

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"stripeKey": "sk_test_1"}, "additional properties 'stripeKey' not allowed"),
            ({"settings": {"stripe_api_key": "sk_test_1"}}, "additional properties 'stripe_api_key' not allowed"),
            ({"settings": {"fresh_fr": "5m"}}, "additional properties 'fresh_fr' not allowed"),
            ({"settings": {"fresh_for": "5 minutes"}}, "/settings/fresh_for"),
            ({"settings": {"policy": "maybe"}}, "/settings/policy"),
            ({"settings": {"policy": {"*": "deny"}}}, "/settings/policy"),
            ({"settings": {"burst": 0}}, "/settings/burst"),
            ({"settings": {"cache_bytes": "128Mi"}}, "/settings/cache_bytes"),
            ({"settings": {"cache_bytes": None}}, "missing property 'cache_bytes'"),
            ({"extraEnv": [{"name": "STRIPE_API_KEY", "value": "sk_test_1"}]}, "/extraEnv/0/name"),
            ({"extraEnv": [{"name": "SIDECAR_RATE", "value": "1"}]}, "/extraEnv/0/name"),
            ({"image": {"digest": "sha256:short"}}, "/image/digest"),
            ({"image": {"repository": "A b"}}, "/image/repository"),
            ({"checks": {"port": 80}}, "/checks/port"),
            ({"checks": {"address": "0.0.0.0:1"}}, "/checks/address"),
            ({"credentials": {"existingSecret": 'a"\nb'}}, "/credentials/existingSecret"),
            ({"resources": {"limits": {"memory": "1 GB"}}}, "/resources/limits/memory"),
            ({"startupProbe": {"exec": {}}}, "additional properties 'exec' not allowed"),
            ({"preStopSleepSeconds": "5s"}, "/preStopSleepSeconds"),
        ],
        ids=str,
    )
    def test_of_a_value(self, user: Chart, values: Object, said: str) -> None:
        """By the schema: the path, or the name that there is not."""
        refused = refusal(user, **values)
        assert said in refused, refused

    def test_of_the_alias(self, charts: Path, tmp_path: Path) -> None:
        """Without it there are no values to be found."""
        path = tmp_path / "app"
        (path / "templates").mkdir(parents=True)
        library = charts / "entitlement-sidecar-lib"
        depends = f"[{{name: entitlement-sidecar-lib, version: 0.1.x, repository: 'file://{library}'}}]"
        (path / "Chart.yaml").write_text(f"apiVersion: v2\nname: app\nversion: 0.1.0\ndependencies: {depends}\n")
        (path / "templates" / "x.yaml").write_text('{{ include "entitlement-sidecar-lib.volumes" . }}')
        with pytest.raises(Refused, match="give the dependency the alias sidecar"):
            Chart(path).texts()
        given = '{{ include "entitlement-sidecar-lib.volumes" (dict "root" $ "values" (index .Values "entitlement-sidecar-lib")) }}'
        (path / "templates" / "x.yaml").write_text(given)
        values = {"entitlement-sidecar-lib": {"credentials": {"existingSecret": "stripe"}}}
        assert 'secretName: "stripe"' in Chart(path).texts(values)["x.yaml"]


def test_the_chart_is_of_this_version() -> None:
    """And so is the image that it pulls."""
    for chart in (LIBRARY, CHARTS / "entitlement-sidecar"):
        assert f'appVersion: "{__version__}"' in (chart / "Chart.yaml").read_text()
        assert f"\nversion: {__version__}\n" in (chart / "Chart.yaml").read_text()


def test_it_takes_at_most_twelve_lines_of_a_users_own_chart() -> None:
    """Those of the example, which the README shows: dependency, values, includes."""
    shown = (ROOT / "README.md").read_text().partition("<!-- lines of a chart -->\n```yaml\n")[2].partition("```")[0]
    example = CHARTS / "examples" / "helm-app"
    lines = [line.partition("  #")[0].strip() for line in shown.splitlines()]
    files = "\n".join(
        (example / name).read_text() for name in ("Chart.yaml", "values.yaml", "templates/deployment.yaml")
    )
    assert 0 < len(lines) <= 12
    assert [line for line in lines if line not in files] == []
    assert [
        line.strip() for line in files.splitlines() if "entitlement-sidecar-lib" in line and line.strip() not in lines
    ] == []
