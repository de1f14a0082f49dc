"""Homes that import each other's receipts, killed again and again: each receipt is applied once."""

import time
from pathlib import Path
from typing import Any

import pytest

from compute_market.settlement import ledger
from compute_market.settlement.imports import CHUNK
from tests.support.attacks import Attacks
from tests.support.effort import effort
from tests.support.importing import PRICE, file_of, links
from tests.support.processes import (
    PRICE as JOB_PRICE,
)
from tests.support.processes import (
    Command,
    Home,
    Watch,
    differences,
    fund,
    ids,
    random,
    slice_files,
    snapshot,
    submit_jobs,
    until,
)
from tests.support.receipt_file import KEY, receipt

IMPORT = ("compute-market", "receipts", "import")
ROUNDS = effort(2, 12)
KILLS = effort(2, 20)  # of each import of a round
JOBS = 3  # of each home in each round
LENGTH = 3 * CHUNK
POOR = CHUNK + CHUNK // 2  # the receipt that cannot be paid


def trust(home: Home, key_id: str) -> None:
    with (home.path / "config.toml").open("a") as config:
        config.write(f'[net]\ntrusted = ["{key_id}"]\n')


def counters(home: Home) -> dict[str, int]:
    lines = home.run("metrics")
    told = dict(line.rsplit(" ", 1) for line in lines if line[0] != "#")
    return {
        name: int(float(told[name]))
        for name in (
            *("settle_applied_total", 'matches_total{dry_run="true"}'),
            *('matches_total{dry_run="false"}', 'settle_mode_change_total{to="dry_run"}'),
        )
    }


def balance(home: Home, owner: str) -> int:
    return home.view(lambda txn: ledger.balance(txn, ledger.wallet(owner), "CT"))


@pytest.mark.slow
def test_receipts_of_two_homes_are_applied_once_across_kills_and_restarts(
    tmp_path: Path, attacks: Attacks
) -> None:
    rng = random("settlement cluster")
    homes = {name: Home.make(tmp_path / name) for name in ("a", "b")}
    slices = slice_files(tmp_path / "slices")[:1]
    for name, home in homes.items():
        home.run("key", "new", name)
        fund(home)
    kills = 0
    for of, to in (("a", "b"), ("b", "a")):
        told = homes[of].run("key", "show", of, "--json")
        (key_id,) = (line.split('"')[3] for line in told if '"key_id"' in line)
        trust(homes[to], key_id)
    for turn in range(1, ROUNDS + 1):
        for name, home in homes.items():
            jobs = ids(f"{name}{turn}-", JOBS)
            submit_jobs(home, dict.fromkeys(jobs, slices))
            home.run("compute", "execute", *jobs)
            home.run("compute-market", "receipts", "export", file(tmp_path, name), "--key", name)
        began = time.perf_counter()
        homes["b"].run(*IMPORT, file(tmp_path, "a"), "--dry-run")
        took_s = time.perf_counter() - began
        for of, to in (("a", "b"), ("b", "a")):
            for _ in range(KILLS):
                running = homes[to].start(*IMPORT, file(tmp_path, of))
                time.sleep(rng.uniform(0.4, 1.1) * took_s)
                kills += running.kill()
            homes[to].run(*IMPORT, file(tmp_path, of))
        for home in homes.values():
            assert counters(home) == {
                "settle_applied_total": 2 * JOBS * turn,
                'matches_total{dry_run="true"}': 0,
                'matches_total{dry_run="false"}': 2 * JOBS * turn,
                'settle_mode_change_total{to="dry_run"}': 0,
            }
            assert home.violations() == []
    theirs = JOBS * ROUNDS * JOB_PRICE  # what the other home's jobs cost, all of it in CT
    paid = {name: balance(home, "prov") for name, home in homes.items()}
    assert paid["a"] == paid["b"]
    for home in homes.values():
        posted = home.run("wallet", "history", "prov")
        moved = [int(row.split("\t")[3]) for row in posted if "\timport:settle\t" in row]
        assert (len(moved), sum(moved)) == (JOBS * ROUNDS, theirs)
    attacks("an import of receipts killed at any instant", kills)


def file(directory: Path, name: str) -> str:
    return str(directory / f"{name}.jsonl")


@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Receipts of several transactions, one of which cannot be paid."""
    path = tmp_path_factory.mktemp("long") / "theirs.jsonl"
    path.write_bytes(b"".join(file_of(links(*map(owed, range(1, LENGTH + 1))))))
    return path


def owed(seq: int) -> Any:
    return receipt(seq, buyer="poor") if seq == POOR else receipt(seq)


def home_for_it(directory: Path) -> Home:
    home = Home.make(directory)
    trust(home, KEY.key_id.hex())
    fund(home)
    return home


def state(home: Home) -> dict[str, list[str]]:
    """What is in the store but for the log, which tells of each transaction."""
    return {name: entries for name, entries in snapshot(home).items() if name != "events"}


@pytest.mark.slow
def test_import_killed_between_any_two_commits_comes_to_the_same_end(
    tmp_path: Path, long_file: Path, attacks: Attacks
) -> None:
    """Also between the one that keeps what was paid, and the one that archives the failure."""
    template = home_for_it(tmp_path / "template")
    whole = template.copy(tmp_path / "whole")
    whole.run(*IMPORT, str(long_file), code=7)
    expected = state(whole)
    kills = 0
    for commits in random("import").sample(range(1, 5), effort(2, 4)):
        home = template.copy(tmp_path / f"killed-{commits}")
        with Watch(home) as watch:
            before = watch.commits()
            running = home.start(*IMPORT, str(long_file))
            until(lambda: watch.commits() >= before + commits or running.ended)  # noqa: B023 - called at once
            kills += running.kill()
        assert home.violations() == []
        again = home.start(*IMPORT, str(long_file))
        assert again.end() in (0, 7)  # What failed before the kill is recorded by now.
        assert differences(expected, state(home)) == []
        home.remove()
    assert balance(whole, "prov") - balance(template, "prov") == (POOR - 1) * PRICE
    attacks("an import of receipts killed between two commits", kills)


@pytest.mark.slow
def test_importers_at_once_apply_everything_once(tmp_path: Path, long_file: Path) -> None:
    home = home_for_it(tmp_path / "home")
    before = balance(home, "prov")
    started = home.run_at_once([Command((*IMPORT, str(long_file)))] * effort(2, 6))
    codes = [running.process.returncode for running in started]
    assert codes.count(7) == 1
    assert set(codes) <= {0, 7}
    assert balance(home, "prov") - before == (POOR - 1) * PRICE
    assert counters(home) == {
        "settle_applied_total": POOR - 1,
        'matches_total{dry_run="true"}': LENGTH - POOR,
        'matches_total{dry_run="false"}': POOR,
        'settle_mode_change_total{to="dry_run"}': 1,
    }
    assert home.violations() == []
