"""Fixtures of every test: a market whose laws are checked afterwards, and caches of its own."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis

from tests.support.attacks import attacks, pytest_terminal_summary
from tests.support.effort import TORTURE, VARIABLES, effort
from tests.support.laws import busy_market
from tests.support.market import Market, shared_directory
from tests.support.memory import shared_memory
from tests.support.signals import kept_signals

# They are imported by test modules before pytest would look at them.
pytest.register_assert_rewrite(
    *("tests.support.cli", "tests.support.peer"),
    *("tests.support.gpu.fake_cupy", "tests.support.gpu.fake_gpus"),
)

# What is found here by its name.
__all__ = ["attacks", "pytest_terminal_summary"]

# A busy machine makes no property false.
hypothesis.register_profile(
    "market",
    max_examples=effort(36, 1000),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
hypothesis.load_profile("market")

TESTS = Path(__file__).parent

# Much more than a run has at any time: what a test leaves is removed once it has passed.
ROOM_BYTES = 2**32


def pytest_configure() -> None:
    """Files lie in memory, where there is room; those of the torture lie on a disk."""
    if not TORTURE and (directory := shared_memory(ROOM_BYTES)) is not None:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", directory)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Of three workers one reads the modules of a whole run from the last to the first, and one
    from the second third on.

    In a new checkout each of them has to be rewritten by pytest, and is then kept for whoever comes
    to it later: so each worker does a third of that, and not all of it.
    """
    whole = [Path(argument).resolve() for argument in session.config.args] == [TESTS]
    paths = sorted(TESTS.rglob("test_*.py")) if whole else []
    third = len(paths) // 3
    shares = {"gw1": paths[: third - 1 : -1], "gw2": paths[third:]}
    for path in shares.get(os.environ.get("PYTEST_XDIST_WORKER", ""), []):
        name = ".".join(path.relative_to(TESTS.parent).with_suffix("").parts)
        with suppress(ImportError, SyntaxError):  # They are told where they are collected.
            import_module(name)


def pytest_collection_finish() -> None:
    """What was collected stays: to look through it for garbage takes a tenth of a run."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The torture takes as long as it takes."""
    if TORTURE:
        for item in items:
            item.add_marker(pytest.mark.timeout(0), append=False)


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """A command that is called in this process is no longer to answer for the tests that follow."""
    with kept_signals():
        yield


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What compilers keep is neither what an earlier run left nor left behind by this one."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(shared_directory(tmp_path_factory, "caches")))
        for name in VARIABLES:  # They have been read.
            environment.delenv(name, raising=False)
        yield


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    """A fresh market in dry_run mode; the audit must find nothing after the test."""
    found = Market(tmp_path / "market")
    yield found
    violations = found.violations()
    found.store.close()
    assert violations == []


@pytest.fixture
def real(market: Market) -> Market:
    """The same in real mode, with funds for `buyer` and `prov`."""
    market.configure(settle_mode="real")
    market.deposit("buyer", ct=10_000, it=10_000)
    market.deposit("prov", ct=1_000)
    return market


@pytest.fixture(scope="session")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """A market in which everything has happened, for tests that roll back what they do."""
    found = busy_market(tmp_path_factory.mktemp("busy") / "market")
    yield found
    found.store.close()


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module of an installed package, as far as Python can tell, that registers workloads."""
    root = Path(__file__).parent / "support" / "workload_plugin"
    monkeypatch.syspath_prepend(str(root))
    import workload_plugin  # type: ignore[import-not-found]

    yield workload_plugin
    del sys.modules["workload_plugin"]
