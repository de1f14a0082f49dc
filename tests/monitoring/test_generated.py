"""What `monitoring/` holds is what is generated, and all of it speaks of metrics that there are."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compute_market.metrics import METRICS
from monitoring import generate
from monitoring.alerts import ALERTS, FOREIGN, GROUPS, Alert
from monitoring.panels import BOARDS
from monitoring.rule_cases import CASES
from monitoring.series import EXPOSED, metrics_in, narrowed
from tests.support.cli import without

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "monitoring"
PANELS = [(board, panel) for board in BOARDS for panel in board.panels]
EXPRESSIONS = {alert.name: alert.expr for alert in ALERTS} | {
    f"{board.name}, {panel.title}, {legend}": expr
    for board, panel in PANELS
    for legend, expr in panel.queries.items()
}
_TEXTS = re.compile(r'"[^"]*"|\[[^\]]*\]|(?<=offset )\w+')
_WORDS = {
    *("sum", "without", "by", "ignoring", "on", "and", "or", "offset", "absent", "time"),
    *("rate", "increase", "histogram_quantile", "topk", "bottomk"),
    *("changes", "resets", "unless", "instance"),
}


def promtool(*arguments: str | Path, stdin: str = "") -> str:
    missing = without("promtool")
    if missing:
        pytest.skip(missing)
    done = subprocess.run(
        ["promtool", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=HERE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_files_are_as_generated() -> None:
    for name, text in generate.generated().items():
        assert (ROOT / name).read_text() == text, f"{name} is old: make monitoring"
    boards = {path.stem for path in (HERE / "dashboards").iterdir()}
    assert boards == {board.name for board in BOARDS}


def test_generate_writes_elsewhere_with_links_to_another_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "https://wiki.example/runbooks"
    argv = ["generate.py", "--to", str(tmp_path), "--runbooks", address]
    monkeypatch.setattr(sys, "argv", argv)
    generate.main()
    rules = (tmp_path / "monitoring/alerts.yml").read_text()
    assert f"{address}#clockheld" in rules
    assert "docs/" not in rules
    assert len(list((tmp_path / "monitoring/dashboards").iterdir())) == len(BOARDS)


# Rules.


def test_promtool_accepts_the_rules() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", "alerts.yml")


def test_promtool_accepts_the_example_of_a_configuration() -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")


def test_rule_tests_pass() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")


def test_every_alert_has_its_cases() -> None:
    assert list(CASES) == [alert.name for alert in ALERTS]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_cases_are_about_series_that_there_are(alert: Alert) -> None:
    case = CASES[alert.name]
    assert case.fires != case.quiet
    # Both tell of the series that the alert asks for.
    for told in (case.fires, case.quiet):
        names = {series.partition("{")[0] for series in told}
        assert names <= EXPOSED.keys() | FOREIGN


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_alert_is_worded_for_people(alert: Alert) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z]+", alert.name)
    assert all(text.endswith(".") for text in (alert.summary, alert.means))
    assert alert.look.startswith("tb-cli ")
    assert re.fullmatch(r"\d+[mh]", alert.wait)


def test_names_are_unique() -> None:
    assert len({alert.name.lower() for alert in ALERTS}) == len(ALERTS)
    assert sum(map(len, GROUPS.values())) == len(ALERTS)


# Metrics.


def test_expressions_name_metrics_and_labels_that_there_are() -> None:
    for where, expr in EXPRESSIONS.items():
        assert metrics_in(expr), where
        labels = {label for metric in metrics_in(expr) for label, _ in metric.labels} | {
            "job",
            "le",
        }
        words = set(re.findall(r"[a-zA-Z_]\w*", _TEXTS.sub("", expr)))
        assert words <= EXPOSED.keys() | FOREIGN | _WORDS | labels | {"job", "le"}, where
        for name, selector in re.findall(r"(\w+)\{([^}]*)\}", expr):
            if name in FOREIGN:
                continue
            allowed = dict(EXPOSED[name].labels)
            for label, match, value in re.findall(r'(\w+)([=!~]+)"([^"]*)"', selector):
                assert label in allowed, f"{where}: {name} has no label {label}"
                values = value.split("|") if "~" in match else [value]
                assert {*values} <= {*allowed[label]} or not allowed[label], (
                    f"{where}: {name}: {value}"
                )


def test_every_metric_is_on_a_dashboard() -> None:
    shown = {m.name for _, panel in PANELS for e in panel.queries.values() for m in metrics_in(e)}
    assert shown == {metric.name for metric in METRICS}


def test_series_are_narrowed_to_a_market() -> None:
    expr = 'rate(compute_market_fee_split_total{token="ct"}[5m]) + offers / offers_barred'
    assert narrowed(expr, 'i="x"') == (
        'rate(compute_market_fee_split_total{token="ct", i="x"}[5m]) '
        '+ offers{i="x"} / offers_barred{i="x"}'
    )


# Dashboards.


def documents() -> list[Any]:
    return [json.loads(path.read_text()) for path in sorted((HERE / "dashboards").iterdir())]


def test_dashboards_have_what_grafana_asks_for() -> None:
    found = documents()
    assert len({board["uid"] for board in found}) == len({b["title"] for b in found}) == len(BOARDS)
    for board in found:
        assert board["schemaVersion"] >= 36
        assert len(board["uid"]) <= 40
        assert "id" not in board  # Grafana gives one of its own.
        assert board["time"] == {"from": "now-6h", "to": "now"}
        variables = {each["name"]: each for each in board["templating"]["list"]}
        assert list(variables) == ["datasource", "instance"]
        assert (variables["datasource"]["type"], variables["datasource"]["query"]) == (
            "datasource",
            "prometheus",
        )
        assert variables["instance"]["datasource"] == SOURCE
        ids = [panel["id"] for panel in board["panels"]]
        assert len(set(ids)) == len(ids)


SOURCE = {"type": "prometheus", "uid": "${datasource}"}
UNITS = {"none", "short", "ops", "s", "bytes", "percent", "percentunit", "bool_yes_no"}


def test_panels_have_what_grafana_asks_for() -> None:
    for board in documents():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            assert panel["type"] in ("timeseries", "stat")
            assert panel["datasource"] == SOURCE
            assert panel["title"]
            assert all(line for line in panel["description"].split("\n\n"))
            assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
            refs = [target["refId"] for target in panel["targets"]]
            assert refs
            assert len(set(refs)) == len(refs)
            if panel["type"] == "stat":
                # What is left out Grafana fills in: red from 80 on.
                steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
                assert steps[0]["value"] is None
                is_coloured = panel["options"]["colorMode"] != "none"
                assert is_coloured == ("red" in {step["color"] for step in steps})
                assert {step["color"] for step in steps} in ({"text"}, {"green", "red"})
            for target in panel["targets"]:
                assert target["datasource"] == SOURCE
                assert target["expr"].count('instance=~"$instance"') == len(
                    re.findall(r"\{[^}]*\}", target["expr"])
                )
                # Several markets can be shown together: each is told apart, and never added up.
                assert re.fullmatch(r".+ \{\{instance\}\}", target["legendFormat"])
                for labels in re.findall(r"\bby \(([^)]*)\)", target["expr"]):
                    assert "instance" in labels.split(", ")
                assert "sum(" not in target["expr"]
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, f"{panel['title']} lies over another panel"
            assert max(x for x, _ in cells) < 24
            taken |= cells


def test_numbers_turn_red_where_their_alert_fires() -> None:
    operation = next(b for b in documents() if b["uid"] == "compute-market-operation")
    red = {
        panel["title"]: step["value"]
        for panel in operation["panels"]
        if panel["type"] == "stat"
        for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        if step["color"] == "red"
    }
    assert red == {"Last change": 600, "Last backup": 129_600, "Clock held": 1}


def test_dashboards_hold_the_same_expressions_for_promtool(tmp_path: Path) -> None:
    """Each is valid PromQL, with the variables of Grafana filled in."""
    lines = ["groups:", "  - name: panels", "    rules:"]
    for board in documents():
        for panel in board["panels"]:
            for target in panel["targets"]:
                expr = target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
                lines.append(f"      - {{record: 'r{len(lines)}', expr: {json.dumps(expr)}}}")
    path = tmp_path / "panels.yml"
    path.write_text("\n".join(lines))
    assert f"{len(lines) - 3} rules found" in promtool("check", "rules", path)


def test_dashboards_read_back_as_the_models_of_grafana() -> None:
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    for document in documents():
        board = Dashboard.from_json(document)
        assert board.uid == document["uid"]
        assert board.panels is not None
        assert len(board.panels) == len(document["panels"])
