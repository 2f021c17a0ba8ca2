"""The alert rules in deploy/: shaped as Prometheus reads them, about metrics and labels that the gateway exports."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from server.telemetry import Metrics

FOLDER = Path(__file__).parents[1] / "deploy" / "prometheus"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"] for rule in group["rules"]
]
FUNCTIONS = {"max", "sum", "rate", "increase", "by", "on", "up"}
DURATION = r"(?:\d+(?:ms|s|m|h|d|w))+"


def exported() -> dict[str, set[str]]:
    """Metric -> its labels, under the names that Prometheus stores."""
    registry = CollectorRegistry()
    Metrics(registry)
    found = {}
    for collector in set(registry._names_to_collectors.values()):
        labels = set(collector._labelnames)  # type: ignore[attr-defined]
        for name in registry._get_names(collector):
            found[name] = labels
    return found


def names(expression: str) -> set[str]:
    """What stands where metrics and functions stand: no labels, no values, no durations."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"|\b(?:by|on)\s*\([^)]*\)", " ", expression)
    return set(re.findall(r"[a-zA-Z_:][\w:]*", bare))


def test_every_metric_in_a_rule_is_one_that_the_gateway_exports() -> None:
    known = exported()
    unknown = {
        rule["alert"]: sorted(names(rule["expr"]) - known.keys() - FUNCTIONS)
        for rule in RULES
        if names(rule["expr"]) - known.keys() - FUNCTIONS
    }
    assert unknown == {}


def test_every_label_in_a_rule_is_one_of_its_metrics() -> None:
    known = exported()
    for rule in RULES:
        expression = rule["expr"]
        for metric, selector in re.findall(r"(tw_\w+)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selector)) <= known[metric], rule["alert"]
        labels = set().union(*(known.get(name, set()) for name in names(expression)))
        for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
            assert {label.strip() for label in group.split(",")} <= labels, rule["alert"]
        said = " ".join(rule["annotations"].values())
        grouped = {label.strip() for each in re.findall(r"\bby\s*\(([^)]*)\)", expression) for label in each.split(",")}
        allowed = grouped or ({"instance"} if "up" in names(expression) else set())
        assert set(re.findall(r"\$labels\.(\w+)", said)) <= allowed, rule["alert"]


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_a_rule_has_the_shape_that_prometheus_reads(rule: dict[str, Any]) -> None:
    assert rule.keys() - {"for"} == {"alert", "expr", "labels", "annotations"}
    assert re.fullmatch(r"[A-Z]\w+", rule["alert"])
    assert re.fullmatch(DURATION, rule.get("for", "0s"))
    assert all(re.fullmatch(DURATION, each) for each in re.findall(r"\[([^\]]*)\]", rule["expr"]))
    for opening, closing in ("()", "[]", "{}"):
        assert rule["expr"].count(opening) == rule["expr"].count(closing)
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"].keys() == {"summary", "description"}


def test_no_two_rules_have_one_name() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


def test_what_must_be_alerted_on_is() -> None:
    spoken = " ".join(rule["expr"] for rule in RULES)
    wanted = {
        "tw_alarm", "tw_budget_used", "tw_upstream_errors_total", "tw_decision_log_lines_lost",
        "tw_ledger_unavailable_total", "tw_policy_failures_total",
    }  # fmt: skip
    assert {name for name in wanted if name not in spoken} == set()


def test_prometheus_is_told_of_the_rules() -> None:
    assert yaml.safe_load((FOLDER / "prometheus.yml").read_text())["rule_files"] == ["rules.yml"]
    compose = yaml.safe_load((FOLDER.parent / "compose.yaml").read_text())
    mounted = [volume.split(":")[0] for volume in compose["services"]["prometheus"]["volumes"]]
    assert mounted == ["./prometheus/prometheus.yml", "./prometheus/rules.yml"]
