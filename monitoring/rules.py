"""The rules for Prometheus, and the tests of them that promtool runs, as plain data."""

from collections.abc import Iterable
from typing import Any, Final

from monitoring.alerts import ALERTS, GROUPS, Alert
from monitoring.rule_cases import CASES, Case
from monitoring.series import EXPOSED, label_sets, metrics_in

# The labels of what is scraped of two markets: for one an alert fires, for the other it does not.
_FIRES: Final = {"instance": "fires:26658", "job": "compute-market"}
_QUIET: Final = {"instance": "quiet:26658", "job": "compute-market"}


def rules(groups: dict[str, tuple[Alert, ...]], runbooks: str) -> dict[str, Any]:
    """The file of rules; `runbooks` is where the page of runbooks is."""
    return {
        "groups": [
            {"name": f"compute_market_{name}", "rules": [_rule(each, runbooks) for each in alerts]}
            for name, alerts in groups.items()
        ]
    }


def rule_tests(runbooks: str) -> dict[str, Any]:
    """The file of tests: each alert fires, and is silent."""
    return {
        "rule_files": ["alerts.yml"],
        "evaluation_interval": "5m",
        "tests": [
            test
            for alerts in GROUPS.values()
            for alert in alerts
            for test in _tests(alert, CASES[alert.name], runbooks)
        ]
        + [_restored()],
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
    """Two markets beside each other, of which the alert is about one."""
    fires, quiet = _series(case.fires, _FIRES), _series(case.quiet, _QUIET)
    expected = [
        {
            "exp_labels": _given({"severity": alert.severity} | _FIRES | labels),
            "exp_annotations": annotations(alert, runbooks),
        }
        for labels in case.labels
    ]
    if case.is_apart:
        yield _test(alert, case, fires, expected)
        yield _test(alert, case, quiet, [])
    else:
        yield _test(alert, case, fires + quiet, expected)


def _test(
    alert: Alert, case: Case, series: list[dict[str, str]], expected: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "name": f"{alert.name} {'fires' if expected else 'is silent'}",
        "interval": "1m",
        "input_series": series,
        "alert_rule_test": [
            {"eval_time": case.at, "alertname": alert.name, "exp_alerts": expected}
        ],
    }


def _restored() -> dict[str, Any]:
    """A backup is restored: every counter drops, and no alert takes it for a rise."""
    counters = {
        f"{name}{{{labels}}}": "900x90 400x60"
        for name, metric in EXPOSED.items()
        if metric.kind == "counter"
        for labels in label_sets(metric)
    }
    return {
        "name": "nothing fires after a restore",
        "interval": "1m",
        "input_series": _series(counters, _QUIET),
        "alert_rule_test": [
            {"eval_time": f"{at}m", "alertname": alert.name, "exp_alerts": []}
            for alert in ALERTS
            if any(metric.kind == "counter" for metric in metrics_in(alert.expr))
            for at in (91, 95, 110)
        ],
    }


def _series(found: dict[str, str], target: dict[str, str]) -> list[dict[str, str]]:
    """The series of a target, and their values."""
    told = []
    for series, values in found.items():
        name, _, labels = series.removesuffix("}").partition("{")
        given = [labels] if labels else []
        given += [f'{label}="{value}"' for label, value in target.items()]
        told.append({"series": f"{name}{{{', '.join(given)}}}", "values": values})
    return told


def _given(labels: dict[str, str]) -> dict[str, str]:
    return {label: value for label, value in labels.items() if value}
