"""Fixtures of every test: a market whose laws are checked afterwards, and caches of its own."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis

from tests.support.laws import busy_market
from tests.support.market import Market, shared_directory

# A busy machine makes no property false.
hypothesis.register_profile("market", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis.load_profile("market")


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What compilers keep is neither what an earlier run left nor left behind by this one."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(shared_directory(tmp_path_factory, "caches")))
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
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module of an installed package, as far as Python can tell, that registers workloads."""
    root = tmp_path / "site"
    (root / "plugin-1.0.dist-info").mkdir(parents=True)
    (root / "plugin-1.0.dist-info" / "METADATA").write_text("Name: plugin\nVersion: 1.0\n")
    (root / "plugin-1.0.dist-info" / "entry_points.txt").write_text(
        "[compute_market.workloads]\n"
        "count = workload_plugin:count\n"
        "transcode = workload_plugin:count\n"
        "short_proof = workload_plugin:short_proof\n"
        "meddle = workload_plugin:meddle\n"
        "zeros = workload_plugin:zeros\n"
        "slow = workload_plugin:slow\n"
        "meet = workload_plugin:meet\n"
        "faulty = workload_plugin:faulty\n"
        "leaving = workload_plugin:leaving\n"
        "stopped = workload_plugin:stopped\n"
        "wordy = workload_plugin:wordy\n"
        "text = workload_plugin:__name__\n"
        "absent = workload_plugin:absent\n"
        "unimportable = workload_plugin_gone:count\n"
    )
    (root / "workload_plugin.py").write_text(
        "import os, threading, time\n"
        "from blake3 import blake3\n"
        "two = threading.Barrier(2, timeout=10)\n"
        "calls = []\n"
        "def count(path, descriptor, length):\n"
        "    calls.append(path)\n"
        "    return os.read(descriptor, length).rjust(32)[-32:]\n"
        "def short_proof(path, descriptor, length):\n"
        "    return b'too short'\n"
        "def zeros(path, descriptor, length):\n"
        "    return bytes(32)\n"
        "def slow(path, descriptor, length):\n"
        "    time.sleep(1)\n"
        "    return bytes(32)\n"
        "def meet(path, descriptor, length):\n"
        "    two.wait()\n"
        "    return bytes(32)\n"
        "def unless(words, error, descriptor, length):\n"
        "    content = os.read(descriptor, length)\n"
        "    if content == words:\n"
        "        raise error\n"
        "    return blake3(content).digest()\n"
        "def faulty(path, descriptor, length):\n"
        "    return unless(b'two', ValueError('not\\n  this'), descriptor, length)\n"
        "def leaving(path, descriptor, length):\n"
        "    return unless(b'two', SystemExit(3), descriptor, length)\n"
        "def stopped(path, descriptor, length):\n"
        "    return unless(b'two', KeyboardInterrupt(), descriptor, length)\n"
        "def wordy(path, descriptor, length):\n"
        "    return 'x' * 32\n"
        "def meddle(path, descriptor, length):\n"
        "    with open(path, 'ab') as file:\n"
        "        file.write(b'more')\n"
        "    return bytes(32)\n"
    )
    monkeypatch.syspath_prepend(str(root))
    import workload_plugin  # type: ignore[import-not-found]

    yield workload_plugin
    del sys.modules["workload_plugin"]
