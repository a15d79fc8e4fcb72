"""Rules and dashboard: by promtool, against the real page of metrics, and by a real Prometheus that scrapes real sidecars."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.app import assembled
from sidecar.metrics import PREFIX
from tests.fakes import settings_for
from tests.packaging.values import APPLICATION, ROOT
from tests.packaging.watching import RULES, TROUBLES, dashboard_queries, prometheus, sidecars

UNIT_TESTS = Path(__file__).with_name("rules_test.yaml")
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
IN_TROUBLE = {
    "EntitlementSidecarPolicyAnswers": {"down", "rejected", "poor"},
    "EntitlementSidecarStripeFailing": {"down", "rejected", "old"},
    "EntitlementSidecarFeedLag": {"deaf", "old"},
    "EntitlementSidecarAnswersOld": {"old"},
    "EntitlementSidecarBudgetExhausted": {"poor"},
    "EntitlementSidecarBreakerOpen": {"down"},
    "EntitlementSidecarKeyRejected": {"rejected"},
    "EntitlementSidecarStoreDegraded": {"broken"},
    "EntitlementSidecarAuditDifferences": {"misled"},
}
"""For whom each alert is, by the troubles of ``watching``."""


def promtool(*arguments: str | Path) -> None:
    """Run promtool; it finds nothing wrong."""
    path = shutil.which("promtool")
    if path is None:
        pytest.skip("promtool is not installed (Debian's package prometheus)")
    found = subprocess.run([path, *map(str, arguments)], capture_output=True, text=True, check=False)  # noqa: S603 -- ours
    assert found.returncode == 0, found.stdout + found.stderr


def names_in(expressions: Iterable[str]) -> set[str]:
    """Return the metrics of ours that are asked for."""
    return {name for text in expressions for name in re.findall(rf"(?<![\w:]){PREFIX}\w+", text)}


def unit_tests() -> list[dict[str, Any]]:
    """Return what promtool is to find of each alert."""
    tests = yaml.safe_load(UNIT_TESTS.read_text())["tests"]
    return [found for test in tests for found in test.get("alert_rule_test", [])]


class TestTheRules:
    def test_are_rules(self) -> None:
        """Names, expressions and templates."""
        promtool("check", "rules", RULES)

    def test_do_what_their_tests_say(self) -> None:
        """When each fires, and for whom."""
        promtool("test", "rules", UNIT_TESTS)

    @pytest.mark.parametrize("name", ALERTS)
    def test_have_a_test_that_fires_and_one_that_does_not(self, name: str) -> None:
        """An alert that always fires, or never, says nothing."""
        fires = [bool(test.get("exp_alerts")) for test in unit_tests() if test["alertname"] == name]
        assert {True, False} == set(fires)

    @pytest.mark.parametrize("name", ALERTS)
    def test_lead_to_what_to_do(self, name: str) -> None:
        """The link is to a heading of the page, whose anchor is made as GitHub makes it."""
        page, _, anchor = ALERTS[name]["annotations"]["runbook_url"].partition("#")
        headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.MULTILINE)
        assert name in headings
        assert anchor == name.lower()


class TestEveryQuery:
    async def test_is_about_metrics_that_there_are(self) -> None:
        """Each name that rules and dashboard ask for is on the page."""
        async with assembled(settings_for("http://127.0.0.1:9")) as sidecar:
            samples = {sample.name for family in sidecar.metrics.collect() for sample in family.samples}
        rules = [rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
        asked = names_in([*rules, *dashboard_queries()])
        assert asked - samples == set()
        assert len(asked) > 25

    def test_of_the_dashboard_is_promql(self, tmp_path: Path) -> None:
        """Read by promtool as the expressions of rules."""
        rules = [{"record": f"q{number}", "expr": query} for number, query in enumerate(dashboard_queries())]
        file = tmp_path / "rules.yaml"
        file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
        promtool("check", "rules", file)

    def test_has_a_place_of_its_own_on_the_dashboard(self) -> None:
        """No panel covers another, and each has its number."""
        panels = json.loads((APPLICATION / "files" / "dashboard.json").read_text())["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        cells = [
            (x, y)
            for panel in panels
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        ]
        assert len(cells) == len(set(cells))
        assert max(x for x, _ in cells) < 24


@pytest.mark.timeout(150)
async def test_a_real_prometheus_finds_every_trouble_and_no_other(tmp_path: Path) -> None:
    """Each alert's expression has samples of the sidecars that it is about, with the labels of its unit test; the calm one has none.

    The dashboard's queries are all answered.
    """
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (Debian's package prometheus)")
    expected = {test["alertname"]: test["exp_alerts"] for test in unit_tests() if test.get("exp_alerts")}
    async with sidecars() as cases:
        targets = {name: case.sidecar.ops_url.removeprefix("http://") for name, case in cases.items()}
        async with prometheus(targets, tmp_path) as server:
            await server.wait_for("up == 1", *TROUBLES)
            for name, trouble in TROUBLES.items():
                await trouble(cases[name])
            for alert, rule in ALERTS.items():
                await server.wait_for(rule["expr"], *IN_TROUBLE[alert])
                samples = await server.query(rule["expr"])
                assert {sample["metric"]["namespace"] for sample in samples} == IN_TROUBLE[alert], alert
                labels = expected[alert][0]["exp_labels"].keys() - {"severity"}
                assert {frozenset(sample["metric"].keys() - {"__name__"}) for sample in samples} == {frozenset(labels)}
            for query in dashboard_queries():
                assert await server.query(query), query
