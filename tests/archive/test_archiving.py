"""Archives that are written while others are, and those that are only tried."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compute_market.archive import archives, archiving
from compute_market.errors import ConflictError, IntegrityError
from compute_market.store.txn import Txn
from tests.support.market import Market


def ended(market: Market, count: int) -> None:
    market.post(units=100)
    for number in range(count):
        market.submit(f"j{number}")
        market.prove(f"j{number}")
    market.advance(60)


def runner(market: Market, update: Callable[[Callable[[Txn], Any]], Any]) -> archiving.Runner:
    return archiving.Runner(market.view, update, lambda: market.now_ms, lambda: None)


def ids_in(path: Path) -> list[str]:
    lines = map(json.loads, path.read_bytes().splitlines())
    return [line["job"]["job_id"] for line in lines if "job" in line]


def test_what_another_archive_took_first_is_in_that_one_alone(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "PIECE_JOBS", 3)
    ended(market, 8)
    first, other = tmp_path / "first", tmp_path / "other"
    changes = 0

    def update(change: Callable[[Txn], Any]) -> Any:
        nonlocal changes
        changes += 1
        if changes == 3:  # Its second piece has been read, and is in its file.
            archiving.archive(
                runner(market, market.update), str(other), market.now_ms // 1000, bytes(16)
            )
        return market.update(change)

    told = archiving.archive(
        runner(market, update), str(first), market.now_ms // 1000, bytes(range(16))
    )
    assert told["jobs"] == 3
    assert ids_in(first) == ["j0", "j1", "j2"]
    assert ids_in(other) == ["j3", "j4", "j5", "j6", "j7"]
    assert market.violations() == []


def test_copies_of_one_archive_do_not_go_on_at_once(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would lack what the other has: who is overtaken ends, with nothing let go."""
    monkeypatch.setattr(archives, "PIECE_JOBS", 2)
    ended(market, 7)
    first, copy = tmp_path / "first", tmp_path / "copy"
    before, changes = market.now_ms // 1000, 0

    def begun(change: Callable[[Txn], Any]) -> Any:
        nonlocal changes
        changes += 1
        if changes == 3:
            raise KeyboardInterrupt
        return market.update(change)

    with pytest.raises(KeyboardInterrupt):
        archiving.archive(runner(market, begun), str(first), before, bytes(16))
    copy.write_bytes(first.read_bytes())

    def overtaken(change: Callable[[Txn], Any]) -> Any:
        nonlocal changes
        changes += 1
        if changes == 5:  # It has let go of one piece more, and the copy has it as well.
            copy.write_bytes(first.read_bytes())
            archiving.archive(runner(market, market.update), str(copy), before, bytes(16))
        return market.update(change)

    with pytest.raises(ConflictError, match=f"another process goes on with it in {copy}$"):
        archiving.archive(runner(market, overtaken), str(first), before, bytes(16))
    assert ids_in(copy) == [f"j{number}" for number in range(7)]
    with pytest.raises(IntegrityError, match=f"^{first} is damaged: "):
        archiving.archive(runner(market, market.update), str(first), before, bytes(16))
    told = archiving.archive(runner(market, market.update), str(copy), before, bytes(16))
    assert told == {"path": str(copy), "changed": False}
    assert market.violations() == []


def test_trial_of_an_archive_that_was_cut_short_counts_what_is_left_of_it(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "PIECE_JOBS", 2)
    ended(market, 5)
    path, changes = tmp_path / "ended", 0

    def update(change: Callable[[Txn], Any]) -> Any:
        nonlocal changes
        changes += 1
        if changes == 3:
            raise KeyboardInterrupt
        return market.update(change)

    before = market.now_ms // 1000
    with pytest.raises(KeyboardInterrupt):
        archiving.archive(runner(market, update), str(path), before, bytes(16))
    written = path.read_bytes()
    # It goes on with the time that it began with, whatever another one says.
    told = archiving.attempt(runner(market, update), str(path), before - 3600)
    assert (told["before"], told["jobs"]) == (before, 3)
    assert path.read_bytes() == written
    told = archiving.archive(runner(market, market.update), str(path), before - 3600, bytes(16))
    assert (told["jobs"], told["total"]["jobs"]) == (3, 5)
    assert ids_in(path) == [f"j{number}" for number in range(5)]
