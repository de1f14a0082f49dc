"""Eight real `tb-cli` processes at once on one home: sums hold, and nobody waits for ever."""

import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from compute_market.amounts import split
from compute_market.market import Market
from compute_market.settlement import ledger
from compute_market.store.schema import CANCELLATIONS
from compute_market.store.txn import Txn
from tests.support.effort import effort
from tests.support.market import slice_of
from tests.support.processes import (
    COMMAND,
    ENDS_WITHIN_S,
    FEE_PCT_CT,
    FUNDS,
    PRICE,
    ROOT,
    Command,
    Home,
    Running,
    fund,
    ids,
    locked,
    needs_proc,
    random,
    slice_files,
    submit_jobs,
    until,
)

PROCESSES = 8
PAY_ONE = Command(("wallet", "deposit", "owner", "--ct", "1"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A funded home. Each test looks at its audit in the end."""
    home = Home.make(tmp_path / "home")
    fund(home)
    return home


def supply(txn: Txn) -> tuple[int, int]:
    return -ledger.balance(txn, ledger.SUPPLY, "CT"), -ledger.balance(txn, ledger.SUPPLY, "IT")


# Everything at once.


def scripts(rng: Any, path: str) -> list[list[str]]:
    """A list of commands for each process. Some are given to several; jobs of `race` are cancelled
    by one and executed by another."""
    shared = [
        *(f"compute cancel {job_id}" for job_id in ids("old", 16)),
        *(f"compute execute {job_id}" for job_id in ids("run", 4)),
        *(f"wallet deposit payer --ct {n + 1} --it 2 --key shared{n}" for n in range(8)),
        *(
            f"compute submit --job-id new{n} --buyer buyer --workload transcode --slice {path} "
            "--max-price 8 --deadline-secs 86400"
            for n in range(8)
        ),
        *(f"compute offer post --offer-id o{n} --provider p{n} --units 5 --price 9" for n in "abc"),
    ]
    own: list[list[str]] = [[] for _ in range(PROCESSES)]
    for line in shared:
        for process in rng.sample(range(PROCESSES), 3):
            own[process].append(line)
    for job_id in ids("race", 8):
        canceller, executor = rng.sample(range(PROCESSES), 2)
        own[canceller].append(f"compute cancel {job_id}")
        own[executor].append(f"compute execute {job_id}")
    for number, lines in enumerate(own):
        lines += [f"wallet deposit payer --ct {number + 1}"] * 2
        lines += ["compute-market match", "wallet withdraw buyer --it 1"]
        rng.shuffle(lines)
        lines.append("compute-market settle tick")
    return own


@needs_proc
def test_eight_processes_at_once_keep_every_sum(home: Home) -> None:
    rng = random("hammer")
    files = slice_files(home.path.parent / "slices")
    submit_jobs(home, {job_id: [slice_of(10)] * 3 for job_id in ids("old", 16)}, proven=1)
    submit_jobs(home, dict.fromkeys([*ids("run", 4), *ids("race", 8)], files), proven=1)
    before = home.view(supply)
    commands = [Command(("batch", "-"), "\n".join(lines)) for lines in scripts(rng, files[0].path)]
    processes = home.run_at_once(commands)

    for process in processes:
        assert process.end() in (0, 4, 7), process.errors()
        # Only a job that another process has ended first may be a failure.
        errors = re.findall(r"error\[(\w+)\]: (?:job )?(.*)", process.errors())
        assert {token for token, _ in errors} <= {"already_done"}, process.errors()
        assert all("race" in text or "completed" in text for _, text in errors), errors
    said = Counter(line for process in processes for line in process.lines())
    cancelled = {line.split()[-1] for line in said if line.startswith("cancelled job ")}
    assert {said[f"cancelled job {job_id}"] for job_id in cancelled} == {1}
    assert cancelled >= set(ids("old", 16))
    logged = Counter(home.log().decode().splitlines())
    assert logged == Counter(f"{job_id} client" for job_id in cancelled)
    assert home.violations() == []
    keyed = sum(n + 1 for n in range(8))
    free = sum(2 * (number + 1) for number in range(PROCESSES))
    assert home.view(supply) == (before[0] + keyed + free, before[1] + 8 * 2 - PROCESSES)
    assert home.view(lambda txn: ledger.balance(txn, ledger.wallet("payer"), "CT")) == keyed + free
    listed = [json.loads(line) for line in home.run("compute", "list", "--all", "--jsonl")]
    states = {job["job_id"]: job["state"] for job in listed}
    assert {states[job_id] for job_id in ids("run", 4)} == {"completed"}
    for job_id in ids("race", 8):
        assert states[job_id] == ("cancelled" if job_id in cancelled else "completed")
    assert home.run("compute-market", "audit")[-1].endswith("invalid 0")


@pytest.mark.skipif(shutil.which("xargs") is None, reason="needs xargs")
def test_xargs_cancels_each_job_once(home: Home) -> None:
    jobs = ids("job", 12)
    submit_jobs(home, {job_id: [slice_of(10)] * 2 for job_id in jobs}, proven=1)
    found = subprocess.run(
        ["xargs", f"-P{PROCESSES}", "-n1", *COMMAND, "compute", "cancel"],
        input="\n".join([*jobs, *reversed(jobs)]),
        cwd=ROOT,
        env=home.environment(),
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN_S,
        check=True,
    )
    assert found.stderr == ""
    expected = Counter(f"cancelled job {job_id}" for job_id in jobs)
    assert Counter(found.stdout.splitlines()) == expected + Counter({"job already cancelled": 12})
    assert sorted(home.log().decode().splitlines()) == [f"{job_id} client" for job_id in jobs]
    assert home.violations() == []


# The same from all sides.


@needs_proc
def test_an_id_cancelled_from_eight_sides_is_cancelled_once(home: Home) -> None:
    submit_jobs(home, {"job": [slice_of(10)] * 3}, proven=1)
    command = Command(("compute", "cancel", "job", "--jsonl"))
    processes = home.run_at_once([command] * PROCESSES)
    assert [process.end() for process in processes] == [0] * PROCESSES
    told = [json.loads(line) for process in processes for line in process.lines()]
    outcomes = Counter((each["job_id"], each["outcome"], each["changed"]) for each in told)
    assert outcomes == {
        ("job", "cancelled", True): 1,
        ("job", "already_cancelled", False): PROCESSES - 1,
    }
    assert home.log() == b"job client\n"
    assert home.violations() == []


@needs_proc
def test_many_ids_cancelled_from_eight_sides_are_cancelled_once(home: Home) -> None:
    jobs = ids("job", 50)
    submit_jobs(home, {job_id: [slice_of(10)] * 3 for job_id in jobs}, proven=1)
    arguments = ("compute", "cancel", "-", "--jsonl", "--chunk", "1")
    rng = random("many")
    processes = home.run_at_once(
        [Command(arguments, "\n".join(rng.sample(jobs, len(jobs)))) for _ in range(PROCESSES)]
    )
    assert [process.end() for process in processes] == [0] * PROCESSES
    told = [json.loads(line) for process in processes for line in process.lines()]
    outcomes = Counter((each["job_id"], each["outcome"]) for each in told)
    for job_id in jobs:
        assert outcomes[job_id, "cancelled"] == 1
        assert outcomes[job_id, "already_cancelled"] == PROCESSES - 1
    logged = home.log().decode().splitlines()
    assert sorted(logged) == [f"{job_id} client" for job_id in jobs]
    assert home.violations() == []


@needs_proc
def test_a_job_submitted_from_eight_sides_is_paid_for_once(home: Home) -> None:
    path = slice_files(home.path.parent / "slices")[0].path
    command = Command(
        (
            *("compute", "submit", "--job-id", "job", "--buyer", "buyer", "--max-price", "8"),
            *("--workload", "transcode", "--slice", path, "--slice", path, "--json"),
        )
    )
    processes = home.run_at_once([command] * PROCESSES)
    assert [process.end() for process in processes] == [0] * PROCESSES
    changed = [json.loads("".join(process.lines()))["changed"] for process in processes]
    assert sorted(changed) == [False] * (PROCESSES - 1) + [True]
    ct, it = split(2 * PRICE, FEE_PCT_CT)
    buyer = json.loads("".join(home.run("wallet", "balance", "buyer", "--json")))
    assert buyer["escrow"] == {"ct": ct, "it": it}
    assert (buyer["ct"], buyer["it"]) == (FUNDS - ct - 1, FUNDS - it)
    assert home.violations() == []


@needs_proc
def test_a_job_executed_from_eight_sides_is_paid_once(home: Home) -> None:
    files = slice_files(home.path.parent / "slices")
    submit_jobs(home, {"job": [files[number % 3] for number in range(1500)]})
    processes = home.run_at_once([Command(("compute", "execute", "job"))] * PROCESSES)
    assert [process.end() for process in processes] == [0] * PROCESSES
    for process in processes:
        assert process.lines()[0].endswith("1500 of 1500 slices proven, completed")
    prov = json.loads("".join(home.run("wallet", "balance", "prov", "--json")))
    ct, it = split(1500 * PRICE, FEE_PCT_CT)
    assert prov == {
        "owner": "prov",
        "ct": FUNDS + ct,
        "it": it,
        "escrow": {"ct": 0, "it": 0},
        "bonds": {"ct": 0},
    }
    assert home.violations() == []


# Idempotency keys.


def deposit(key: str, ct: int) -> Command:
    return Command(("wallet", "deposit", "owner", "--ct", str(ct), "--key", key, "--json"))


def told_by(process: Running) -> dict[str, Any]:
    told: dict[str, Any] = json.loads("".join(process.lines()))
    return told


def test_a_key_used_again_moves_nothing(home: Home) -> None:
    for attempt in range(3):
        told = json.loads("".join(home.run(*deposit("key", 50).arguments)))
        assert (told["ct"], told["changed"]) == (50, attempt == 0)
    assert home.run(*deposit("key", 51).arguments, code=6) == []
    assert home.run("wallet", "withdraw", "owner", "--ct", "50", "--key", "key", code=6) == []
    assert home.run("wallet", "deposit", "other", "--ct", "50", "--key", "key", code=6) == []
    # A call that was refused has not used its key up.
    asked = ("wallet", "withdraw", "owner", "--ct", "60", "--key", "later")
    assert home.run(*asked, code=5) == []
    home.run("wallet", "deposit", "owner", "--ct", "10")
    assert home.run(*asked) == ["withdrew 60 CT 0 IT; owner has 0 CT 0 IT"]
    assert home.run(*asked) == ["key later was used: unchanged; owner has 0 CT 0 IT"]
    assert home.violations() == []


@needs_proc
def test_a_key_raced_for_by_eight_moves_money_once(home: Home) -> None:
    before = home.view(supply)
    for key in ("first", "second"):
        processes = home.run_at_once([deposit(key, 50)] * PROCESSES)
        assert [process.end() for process in processes] == [0] * PROCESSES
        changed = sorted(told_by(process)["changed"] for process in processes)
        assert changed == [False] * (PROCESSES - 1) + [True]
    assert home.view(supply) == (before[0] + 100, before[1])
    assert home.run("wallet", "balance", "owner")[1] == "ct: 100"
    assert home.violations() == []


@needs_proc
def test_a_key_raced_for_with_different_amounts_goes_to_one(home: Home) -> None:
    before = home.view(supply)
    processes = home.run_at_once([deposit("key", 50 + n) for n in range(PROCESSES)])
    codes = [process.end() for process in processes]
    assert sorted(codes) == [0] + [6] * (PROCESSES - 1)
    amount = told_by(processes[codes.index(0)])["ct"]
    assert amount == 50 + codes.index(0)
    assert home.view(supply) == (before[0] + amount, before[1])
    assert home.violations() == []


# Who waits, and for how long.


def test_a_long_bulk_run_in_small_chunks_keeps_nobody_waiting(home: Home) -> None:
    jobs = ids("job", 600)
    submit_jobs(home, {job_id: [slice_of(10)] for job_id in jobs})
    bulk = home.start("compute", "cancel", "-", "--jsonl", "--chunk", "1", stdin="\n".join(jobs))
    until(lambda: bulk.printed() > 0)
    served = rounds = 0
    while not bulk.ended:
        singles = [
            home.start("wallet", "deposit", f"w{n}", "--ct", "1", "--lock-timeout", "5")
            for n in range(3)
        ]
        codes = [single.end() for single in singles]
        assert codes == [0] * 3, [single.errors() for single in singles]
        served += 3 * (not bulk.ended)
        rounds += 1
    assert bulk.end() == 0
    assert len(bulk.lines()) == 600
    assert served >= 3, "the bulk run was over before anybody was served"
    assert home.view(lambda txn: sum(ledger.balances(txn, "CT").values())) == 0
    assert home.violations() == []


@needs_proc
def test_eight_processes_make_one_market(tmp_path: Path) -> None:
    for number in range(2):
        home = Home(tmp_path / f"home-{number}")
        home.path.mkdir()  # `run_at_once` makes the directory of the market, and nothing in it.
        processes = home.run_at_once([PAY_ONE] * PROCESSES)
        assert [process.end() for process in processes] == [0] * PROCESSES
        assert home.run("wallet", "balance", "owner")[1] == f"ct: {PROCESSES}"
        assert home.violations() == []


def test_two_processes_make_a_home_that_is_not_there(tmp_path: Path) -> None:
    for number in range(3):
        home = Home(tmp_path / f"home-{number}")
        processes = [home.start(*PAY_ONE.arguments) for _ in range(2)]
        assert [process.end() for process in processes] == [0, 0]
        # Had each made one, what one of them paid in would be gone.
        assert home.run("wallet", "balance", "owner")[1] == "ct: 2"
        assert home.path.stat().st_mode & 0o777 == 0o700


# What readers see meanwhile.


def test_readers_see_whole_transactions(home: Home) -> None:
    """Jobs are cancelled five at a time, from all over the list: no reader ever sees some of five,
    and for each job the escrow, the payment and the refund always add up to its price."""
    jobs = ids("job", 900)
    fives = [jobs[first :: len(jobs) // 5] for first in range(len(jobs) // 5)]
    submit_jobs(home, {job_id: [slice_of(10)] * 3 for job_id in jobs}, proven=1)
    ct, it = split(3 * PRICE, FEE_PCT_CT)
    read, write = os.pipe()
    writer = home.start("batch", "-", stdin=read)
    os.close(read)
    feeder = threading.Thread(target=feed, args=(write, fives), daemon=True)
    amidst = 0
    with home.opened() as market:
        watcher = Watcher(market)
        watcher.start()
        feeder.start()
        while True:
            is_last = writer.ended
            listed = [json.loads(line) for line in home.run("compute", "list", "--all", "--jsonl")]
            assert [job["job_id"] for job in listed] == jobs
            cancelled = {job["job_id"] for job in listed if job["state"] == "cancelled"}
            assert cancelled == {job_id for five in fives[: len(cancelled) // 5] for job_id in five}
            for job in listed:
                sums = job["escrow"], job["paid"], job["refunded"]
                assert sum(part["ct"] for part in sums) == ct
                assert sum(part["it"] for part in sums) == it
            amidst += 0 < len(cancelled) < len(jobs)
            if is_last:
                break
        watcher.end()
    assert writer.end() == 0
    assert amidst > 0, "nobody listed while it happened"
    assert watcher.wrong == []
    # The number of cancelled jobs in each snapshot, in the order they were taken.
    assert watcher.seen == sorted(watcher.seen)
    assert all(number % 5 == 0 for number in watcher.seen)
    assert len(set(watcher.seen)) > 2, "nobody looked while it happened"
    assert home.violations() == []


def feed(stdin: int, fives: list[list[str]]) -> None:
    """Have five jobs cancelled every few milliseconds, so that it takes longer than a listing."""
    with open(stdin, "w") as lines:
        for five in fives:
            lines.write(f"compute cancel {' '.join(five)}\n")
            lines.flush()
            time.sleep(0.004)


class Watcher(threading.Thread):
    """Reads sums in one snapshot after another, as an exporter of metrics would."""

    def __init__(self, market: Market) -> None:
        super().__init__(daemon=True)
        self.seen: list[int] = []
        self.wrong: list[str] = []
        self._market = market
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            number, sums, negative = self._market.view(self._look)
            self.seen.append(number)
            if sums != [0, 0] or negative:
                self.wrong.append(f"with {number} cancelled: {sums} {negative}")
            time.sleep(0.01)

    def end(self) -> None:
        self._ended.set()
        self.join()

    @staticmethod
    def _look(txn: Txn) -> tuple[int, list[int], list[str]]:
        accounts = [ledger.balances(txn, token) for token in ledger.TOKENS]
        sums = [sum(balances.values()) for balances in accounts]
        negative = [
            account
            for balances in accounts
            for account, amount in balances.items()
            if amount < 0 and account != ledger.SUPPLY
        ]
        return txn.size(CANCELLATIONS), sums, negative


def test_audits_beside_a_writer_find_nothing(home: Home) -> None:
    """What is compared outside the store, the log, goes on while they look."""
    jobs = ids("job", effort(60, 3_000))
    submit_jobs(home, {job_id: [slice_of(10)] for job_id in jobs})
    read, write = os.pipe()
    writer = home.start("compute", "cancel", "-", "--chunk", "1", stdin=read)
    os.close(read)
    half = len(jobs) // 2
    with open(write, "w") as lines:
        lines.write("".join(f"{job_id}\n" for job_id in jobs[:half]))
        lines.flush()
        # However fast it is, it goes on as long as there may be more to cancel.
        for verb in (("compute-market", "audit"), ("state", "check")):
            assert home.run(*verb)[-1].endswith("invalid 0")
        assert not writer.ended
        lines.write("".join(f"{job_id}\n" for job_id in jobs[half:]))
    while not writer.ended:
        for verb in (("compute-market", "audit"), ("state", "check")):
            assert home.run(*verb)[-1].endswith("invalid 0")
    assert writer.end() == 0
    assert home.violations() == []


# The log, whoever dies or cuts it when.


def test_a_cut_log_is_made_whole_by_any_command_that_writes(home: Home) -> None:
    rng = random("log")
    jobs = ids("job", 30)
    submit_jobs(home, {job_id: [slice_of(10)] for job_id in [*jobs, "one", "two"]})
    home.run("compute", "cancel", "-", "--chunk", "7", stdin="\n".join(jobs))
    text = "".join(f"{job_id} client\n" for job_id in jobs).encode()
    assert home.log() == text
    commands = [
        ("compute", "cancel", "one"),
        ("wallet", "deposit", "owner", "--ct", "1"),
        ("compute", "cancel", "one"),
        ("compute-market", "settle", "tick"),
        ("compute", "cancel", "two", "no-such-job"),
    ]
    added = {0: b"one client\n", 4: b"two client\n"}
    for number, command in enumerate(commands):
        home.log_path.write_bytes(text[: rng.randrange(len(text))])
        home.run(*command, code=7 if "no-such-job" in command else 0)
        text += added.get(number, b"")
        assert home.log() == text, command
    home.log_path.unlink()
    # Whoever only looks writes nothing, not even what is missing.
    home.run("compute-market", "audit")
    assert not home.log_path.exists()
    home.run("compute-market", "match")
    assert home.log() == text
    assert home.violations() == []


@needs_proc
def test_a_log_that_several_find_short_is_written_once(home: Home) -> None:
    jobs = ids("job", 40)
    submit_jobs(home, {job_id: [slice_of(10)] for job_id in jobs})
    with locked(home.log_path):
        # Each commits one job, and waits for the log with its line.
        waiting = [home.start("compute", "cancel", job_id) for job_id in jobs[:PROCESSES]]
        for process in waiting:
            until(lambda process=process: process.has_open(home.log_path) or process.ended)
            assert not process.ended, process.errors()
        assert home.log() == b""
        # Half of them die there, after their commit.
        assert [process.kill() for process in waiting[::2]] == [True] * 4
        assert [process.lines() for process in waiting] == [[]] * PROCESSES
    for job_id, process in list(zip(jobs, waiting, strict=False))[1::2]:
        assert process.end() == 0
        assert process.lines() == [f"cancelled job {job_id}"]
    logged = home.log().decode().splitlines()
    assert sorted(logged) == [f"{job_id} client" for job_id in jobs[:PROCESSES]]
    home.run("compute", "cancel", "-", "--chunk", "3", stdin="\n".join(jobs))
    assert home.log().decode().splitlines()[:PROCESSES] == logged
    assert home.violations() == []
