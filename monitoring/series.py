"""The metric table as Prometheus has it: under which names, and where an expression uses them."""

import re
from typing import Final

from compute_market.metrics import METRICS, Metric


def _names_of(metric: Metric) -> list[str]:
    if metric.kind == "histogram":
        return [f"{metric.name}{part}" for part in ("_bucket", "_count", "_sum")]
    is_bare = metric.kind == "counter" and not metric.name.endswith("_total")
    return [f"{metric.name}_total" if is_bare else metric.name]


# Every name that is scraped, and the metric behind it.
EXPOSED: Final = {name: metric for metric in METRICS for name in _names_of(metric)}
# One of them with its selector.
_SERIES: Final = re.compile(
    rf"\b({'|'.join(sorted(EXPOSED, key=len, reverse=True))})\b(?:\{{([^}}]*)\}})?"
)


def label_sets(metric: Metric) -> list[str]:
    """The labels of each series that a metric with bounded labels can have."""
    found = [""]
    for label, allowed in metric.labels:
        found = [
            f'{before}{", " if before else ""}{label}="{value}"'
            for before in found
            for value in allowed
        ]
    return found


def metrics_in(expr: str) -> list[Metric]:
    """The metrics that an expression asks for, each once, in its order."""
    return list(dict.fromkeys(EXPOSED[found[1]] for found in _SERIES.finditer(expr)))


def narrowed(expr: str, selector: str) -> str:
    """An expression of which every series is selected by one more label."""

    def with_selector(found: "re.Match[str]") -> str:
        labels = f"{found[2]}, {selector}" if found[2] else selector
        return f"{found[1]}{{{labels}}}"

    return _SERIES.sub(with_selector, expr)
