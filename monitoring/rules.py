"""The rules for Prometheus, and the tests of them that promtool runs, as plain data."""

from collections.abc import Iterable
from typing import Any

from monitoring.alerts import GROUPS, Alert
from monitoring.rule_cases import CASES, Case


def rules(groups: dict[str, tuple[Alert, ...]], runbooks: str) -> dict[str, Any]:
    """The file of rules; `runbooks` is where the page of runbooks is."""
    return {
        "groups": [
            {"name": f"compute_market_{name}", "rules": [_rule(each, runbooks) for each in alerts]}
            for name, alerts in groups.items()
        ]
    }


def rule_tests(runbooks: str) -> dict[str, Any]:
    """The file of tests: each alert firing, and each silent."""
    return {
        "rule_files": ["alerts.yml"],
        "evaluation_interval": "5m",
        "tests": [
            test
            for alerts in GROUPS.values()
            for alert in alerts
            for test in _tests(alert, CASES[alert.name], runbooks)
        ],
    }


def annotations(alert: Alert, runbooks: str) -> dict[str, str]:
    return {
        "summary": alert.summary,
        "description": f"{alert.means} Look first at `{alert.look}`.",
        "runbook_url": f"{runbooks}#{alert.anchor}",
    }


def _rule(alert: Alert, runbooks: str) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": alert.wait,
        "labels": {"severity": alert.severity},
        "annotations": annotations(alert, runbooks),
    }


def _tests(alert: Alert, case: Case, runbooks: str) -> Iterable[dict[str, Any]]:
    told = annotations(alert, runbooks)
    expected = [
        {
            "exp_labels": _given({"severity": alert.severity} | case.target | labels),
            "exp_annotations": told,
        }
        for labels in case.labels
    ]
    yield _test(alert, f"{alert.name} fires", case, case.fires, expected)
    yield _test(alert, f"{alert.name} is silent", case, case.quiet, [])


def _test(
    alert: Alert, name: str, case: Case, series: dict[str, str], expected: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "name": name,
        "interval": "1m",
        "input_series": [
            {"series": _of_target(each, case.target), "values": values}
            for each, values in series.items()
        ],
        "alert_rule_test": [
            {"eval_time": case.at, "alertname": alert.name, "exp_alerts": expected}
        ],
    }


def _of_target(series: str, target: dict[str, str]) -> str:
    """A series with the labels of its target."""
    name, _, labels = series.removesuffix("}").partition("{")
    given = [labels] if labels else []
    given += [f'{label}="{value}"' for label, value in target.items()]
    return f"{name}{{{', '.join(given)}}}"


def _given(labels: dict[str, str]) -> dict[str, str]:
    return {label: value for label, value in labels.items() if value}
