"""A production trace through the market: every task goes where a plain search would send it."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.effort import TRACES

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TASKS = 1_500


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark of the same name, which knows how a trace becomes offers and jobs."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("trace_benchmark", BENCHMARKS / "trace.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("measure", None)


def folder() -> Path:
    if not TRACES:
        pytest.skip("TB_TRACES does not name a folder with the trace")
    return Path(TRACES)


@pytest.mark.parametrize("mode", ["dry_run", "real"])
def test_trace_sends_every_task_where_a_plain_search_does(trace: Any, mode: str) -> None:
    nodes, tasks = trace.read(folder())
    # Some from all over it: those of one hour are much alike.
    sample = tasks[:: len(tasks) // TASKS + 1]
    assert trace.through_market(mode, nodes, sample).offer_ids == trace.search(nodes, sample)


@pytest.mark.parametrize("mode", ["dry_run", "real"])
def test_trace_of_named_models_goes_where_a_plain_search_sends_it(trace: Any, mode: str) -> None:
    """A small market in which units, cores and GPUs run out, and tasks name several models."""
    nodes = [
        trace.Node(f"n{n}", 4 + n % 3 * 4, n % 4 * (n % 5 > 0), "ABC"[n % 3], 1 + n * 7 % 5)
        for n in range(30)
    ]
    tasks = [
        trace.Task(
            f"t{n}",
            1 + n % 11,
            n % 3,
            ((), ("A",), ("A", "B"), ("B", "C", "D"), ("D",))[n % 5] if n % 3 else (),
            ("high", "normal", "low")[n % 7 % 3],
        )
        for n in range(250)
    ]
    found = trace.through_market(mode, nodes, tasks).offer_ids
    assert found == trace.search(nodes, tasks)
    assert None in found
    assert len(set(found)) > 20
