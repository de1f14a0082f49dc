"""What the runs of a sweep came to, side by side: each figure with its spread over the seeds."""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from compute_market.amounts import half_up

# What is compared: the name of a column, and the way to the figure in the document of a run.
FIGURES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("submitted", ("jobs", "submitted")),
    ("admitted", ("jobs", "admitted")),
    ("refused", ("jobs", "refused")),
    ("completed", ("jobs", "completed")),
    ("failed", ("jobs", "failed")),
    ("utilization", ("utilization",)),
    ("fairness", ("fairness",)),
    ("wait_p95_ms", ("wait_ms", "p95")),
    ("paid_ct", ("money", "paid", "ct")),
    ("burned_ct", ("money", "burned", "ct")),
)
_PLACES = 10_000


class Spread(Struct, frozen=True, gc=False):
    """One figure over several runs."""

    mean: float | int
    least: float | int
    most: float | int

    @property
    def text(self) -> str:
        """The mean, and in brackets the least and the most where they differ."""
        if self.least == self.most:
            return f"{self.mean}"
        return f"{self.mean} ({self.least}–{self.most})"

    def document(self) -> dict[str, float | int]:
        return {"mean": self.mean, "min": self.least, "max": self.most}


def spreads(documents: Iterable[dict[str, Any]]) -> dict[str, Spread]:
    """The spread of each figure over the documents of at least one run."""
    found = list(documents)
    return {
        name: _spread([_figure(document, path) for document in found]) for name, path in FIGURES
    }


def _figure(document: dict[str, Any], path: tuple[str, ...]) -> float | int:
    value: Any = document
    for name in path:
        value = value[name]
    return sum(value.values()) if isinstance(value, dict) else value


def _spread(values: list[float | int]) -> Spread:
    """The mean is rounded half up: of whole numbers to one, else to four places."""
    if any(isinstance(value, float) for value in values):
        total = sum(round(value * _PLACES) for value in values)
        return Spread(half_up(total, len(values)) / _PLACES, min(values), max(values))
    return Spread(half_up(sum(map(int, values)), len(values)), min(values), max(values))
