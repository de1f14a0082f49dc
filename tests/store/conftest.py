"""A directory, a store in it, and other processes that have it open."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from compute_market.store.store import Store
from tests.support.stores import Child, Spawn, open_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "market"


@pytest.fixture
def spawn(path: Path) -> Iterator[Spawn]:
    """Start a process that runs `body` after `PRELUDE`; all are killed after the test."""
    children: list[Child] = []

    def start(body: str, *arguments: str) -> Child:
        children.append(Child(path, body, arguments))
        return children[-1]

    yield start
    for child in children:
        child.close()


@pytest.fixture
def holder(path: Path, spawn: Spawn) -> Child:
    """A process inside a write transaction, until it is told something."""
    child = spawn("open_store().update(hold, now_ms=0); say('released')")
    assert child.hear() == "holding"
    return child


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = open_store(path)
    yield opened
    opened.close()
