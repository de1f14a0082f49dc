"""Dashboards for Grafana of what `panels` says."""

import json
from typing import Any, Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueTextMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    FieldColorModeId,
    GridPos,
    Threshold,
    ThresholdsMode,
    VariableHide,
    VariableRefresh,
    VariableSort,
)

from monitoring.alerts import ALERTS
from monitoring.panels import Board, Panel
from monitoring.series import metrics_in, narrowed

_SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
_SELECTOR: Final = 'instance=~"$instance"'
# Ends each legend: several markets can be looked at together.
_MARKET: Final = "{{instance}}"
_GOOD, _BAD, _PLAIN = "green", "red", "text"
_PLOTS: Final = ("lines", "stack")
_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 3


def render(board: Board) -> dict[str, Any]:
    """A dashboard as Grafana imports it."""
    built = (
        dashboard.Dashboard(f"Compute market: {board.title}")
        .uid(f"compute-market-{board.name}")
        .description(board.about)
        .tags(["compute-market"])
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .with_variable(
            dashboard.DatasourceVariable("datasource")
            .label("Data source")
            .type("prometheus")
            .hide(VariableHide.DONT_HIDE)
        )
        .with_variable(
            dashboard.QueryVariable("instance")
            .label("Market")
            .datasource(_SOURCE)
            .query("label_values(tb_build_info, instance)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
        )
        .link(
            dashboard.DashboardLink("Compute market")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["compute-market"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
    )
    for number, panel in enumerate(board.panels):
        built = built.with_panel(_panel(number, panel))
    found: dict[str, Any] = json.loads(JSONEncoder(sort_keys=True).encode(built.build()))
    return found


def _panel(number: int, panel: Panel) -> "timeseries.Panel | stat.Panel":
    built = _lines(panel) if panel.kind in _PLOTS else _stat(panel)
    row, column = divmod(number, _COLUMNS)
    built = (
        built.id(number + 1)
        .title(panel.title)
        .description(_about(panel))
        .datasource(_SOURCE)
        .unit(panel.unit)
        .grid_pos(GridPos(h=_HEIGHT, w=_WIDTH, x=column * _WIDTH, y=row * _HEIGHT))
    )
    for ref, (legend, expr) in enumerate(panel.queries.items()):
        query = (
            prometheus.Dataquery()
            .datasource(_SOURCE)
            .expr(narrowed(expr, _SELECTOR))
            .legend_format(f"{legend} {_MARKET}")
            .ref_id(chr(ord("A") + ref))
        )
        built = built.with_target(query.range() if panel.kind in _PLOTS else query.instant())
    return built


def _lines(panel: Panel) -> timeseries.Panel:
    built = (
        timeseries.Panel()
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs([])
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .fill_opacity(10)
    )
    if panel.kind == "stack":
        built = built.stacking(common.StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(30)
    return built


def _stat(panel: Panel) -> stat.Panel:
    is_state = panel.kind == "state"
    steps = [Threshold(value=None, color=_PLAIN)]
    for alert in ALERTS:
        if alert.name == panel.alert:
            steps = [Threshold(None, _GOOD), Threshold(alert.threshold, _BAD)]
    return (
        stat.Panel()
        .color_mode(BigValueColorMode.VALUE if panel.alert else BigValueColorMode.NONE)
        # Without any, Grafana has some of its own: all is red from 80 on.
        .thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .no_value(panel.empty or "-")
        .text_mode(BigValueTextMode.NAME if is_state else BigValueTextMode.AUTO)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    )


def _about(panel: Panel) -> str:
    """What the metrics of a panel mean, by the table of metrics."""
    found = dict.fromkeys(each for expr in panel.queries.values() for each in metrics_in(expr))
    return "\n\n".join(f"`{metric.name}`: {metric.help}" for metric in found)
