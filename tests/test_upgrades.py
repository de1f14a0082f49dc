"""A home that the last release with schema 1 wrote: read, upgraded once, never half."""

import json
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

from compute_market import chain, events, exposition
from compute_market.errors import BusyError, IntegrityError
from compute_market.jobs import demand, jobs
from compute_market.market import Market
from compute_market.offers import offers, standing
from compute_market.records import Job, replace
from compute_market.reputation import reputation
from compute_market.scheduler import outcomes, queue
from compute_market.settlement import ledger, modes, receipts, settlement
from compute_market.store import schema
from compute_market.store.environment import MAX_TABLES
from compute_market.store.rewriting import stored_entries
from compute_market.store.schema import JOBS, SCHEMA_VERSION, TABLES, pack_u64, unpack_u64
from compute_market.store.table import Table
from compute_market.store.txn import Txn
from compute_market.subsidy import subsidy
from tests.support.laws import busy_market
from tests.support.stores import ROOT, contents, in_a_mount, raw

ARCHIVE = ROOT / "tests" / "data" / "home-schema-1.tar.gz"

# Names of causes, as they were and as they are.
CAUSES = {
    "all slices proven": "all_proven",
    "cancelled by the client": "cancelled_by_client",
    "cancelled by the provider": "cancelled_by_provider",
    "deadline missed": "deadline_missed",
    "deadline passed before a start": "never_started",
}
OWNERS = ("alice", "bob", "carol", "prov", "leaving", "late", "rich", "poor")


def printed(name: str) -> Any:
    """What the release that wrote the home printed about it."""
    with tarfile.open(ARCHIVE) as archive:
        file = archive.extractfile(f"printed/{name}")
        assert file is not None
        content = file.read().decode()
    return json.loads(content) if name.endswith(".json") else content


# When it told the height of the chain, the last but the metrics; it was moved by two blocks once.
NOW_MS = printed("chain.json")["genesis_ms"] + 1000 * (printed("chain.json")["height"] - 2)
HEIGHT = {"height": printed("chain.json")["height"]}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home as that release left it, but for the lock files of a live one."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "home"


@pytest.fixture
def live(home: Path) -> Path:
    """The same with its lock files, as they are beside a store that was written to."""
    (home / "market" / "write.lock").touch()
    with lmdb.open(str(home / "market"), max_readers=512, max_dbs=64):
        pass
    with (home / "market" / "lock.mdb").open("ab") as file:
        file.truncate(64 * 514)
    return home


def opened(home: Path, **options: Any) -> Market:
    return Market.open(str(home), **({"clock": lambda: NOW_MS, "sleep": time.sleep} | options))


def schema_in(home: Path) -> int:
    """The number of the schema as it is stored: the first one has no checksum."""
    with (
        lmdb.open(str(home / "market"), max_dbs=64, readonly=True, lock=False) as environment,
        environment.begin() as txn,
    ):
        value = txn.get(b"schema", db=environment.open_db(b"meta", txn=txn, create=False))
    return unpack_u64(value[:-4] or value)


def upgrade(home: Path) -> None:
    with opened(home) as market:
        market.update(lambda _: None)
    assert schema_in(home) == SCHEMA_VERSION


# What it reads.


def jobs_of(market: Market) -> list[dict[str, Any]]:
    return list(market.jobs())


def offers_of(market: Market) -> list[dict[str, Any]]:
    return market.view(lambda txn: list(map(offers.document, offers.listed(txn))))


def receipts_of(market: Market) -> list[dict[str, Any]]:
    def look(txn: Txn) -> list[dict[str, Any]]:
        found = []
        for _, key, receipt in receipts.page(txn, 0, 100):
            settled = settlement.of(txn, key)
            assert receipt is not None
            assert settled is not None
            found.append(receipts.document(receipt, settled))
        return found

    return market.view(look)


def histories_of(market: Market) -> dict[str, list[dict[str, Any]]]:
    def look(txn: Txn) -> dict[str, list[dict[str, Any]]]:
        return {
            owner: list(map(ledger.posting_document, ledger.history(txn, owner, 0, 1000)))
            for owner in OWNERS
        }

    return market.view(look)


def chain_of(market: Market) -> dict[str, Any]:
    def look(txn: Txn) -> dict[str, Any]:
        genesis = txn.get(schema.META, b"genesis_ms")
        identity = txn.get(schema.META, b"market_id")
        assert genesis is not None
        assert identity is not None
        return {
            "market_id": identity.hex(),
            "genesis_ms": unpack_u64(genesis),
            "height": chain.height(txn),
        }

    return market.view(look)


def queue_of(market: Market) -> list[str]:
    return market.view(lambda txn: list(queue.in_order(txn)))


def as_of_today(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Documents of jobs with causes by their present names, and nobody who ended what was done."""
    early = (None if each["state"] == "completed" else each["ended_by"] for each in documents)
    return [
        each | {"cause": CAUSES.get(each["cause"]), "ended_by": by}
        for each, by in zip(documents, early, strict=True)
    ]


def samples(text: str) -> dict[str, float]:
    """The lines of an exposition as series and value."""
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {series: float(value) for series, value in lines}


def assert_holds(found: Any, old: Any, place: str = "") -> None:
    """Everything the old release printed is the same; fields may only have been added."""
    if isinstance(old, dict):
        assert isinstance(found, dict), place
        for key, value in old.items():
            assert key in found, f"{place}.{key}"
            assert_holds(found[key], value, f"{place}.{key}")
    elif isinstance(old, list):
        assert isinstance(found, list), place
        assert len(found) == len(old), place
        for number, (value, old_value) in enumerate(zip(found, old, strict=True)):
            assert_holds(value, old_value, f"{place}[{number}]")
    else:
        assert found == old, place


def assert_reads_as_before(market: Market) -> None:
    assert_holds(jobs_of(market), as_of_today(printed("jobs.json")), "job")
    assert_holds(offers_of(market), printed("offers.json"), "offer")
    assert_holds(receipts_of(market), printed("receipts.json"), "receipt")
    assert_holds(market.view(modes.document), printed("settle.json") | HEIGHT, "settle")
    assert_holds(market.view(demand.document), printed("stats.json"), "stats")
    assert market.view(outcomes.last_effective_price) == printed("effective.json")
    for owner in OWNERS:
        assert_holds(market.balance(owner), printed(f"balance-{owner}.json"), owner)
        assert_holds(histories_of(market)[owner], printed(f"history-{owner}.json"), owner)
    assert_holds(chain_of(market), {k: v for k, v in printed("chain.json").items() if k != "epoch"})
    queued = [each["job_id"] for each in printed("queue.json") if each["state"] == "queued"]
    assert queue_of(market) == queued


def test_the_home_holds_what_an_upgrade_may_meet() -> None:
    """Whoever writes it anew keeps what this is about."""
    of = {each["job_id"]: each for each in printed("jobs.json")}
    assert {each["state"] for each in of.values()} == {
        *("pending", "queued", "active", "completed", "failed", "cancelled")
    }
    assert {(each["state"], each["funded"]) for each in of.values()} >= {
        (state, funded)
        for state in ("active", "completed", "cancelled")
        for funded in (True, False)
    }
    assert {each["cause"] for each in of.values()} == {None, *CAUSES}
    assert of["active"]["slices_proven"] == 1
    assert of["active"]["escrow"]["ct"] > 0
    assert {each["state"] for each in printed("offers.json")} == {"open", "exhausted", "withdrawn"}
    assert {each["status"] for each in printed("receipts.json")} == {
        *("recorded", "applied", "pending")
    }
    assert printed("settle.json")["mode"] == "armed"
    assert any(each["job_id"] == "chosen" for each in printed("offers.json"))
    assert 'active_burst_quota{identity="bob",role="buyer"} 0.5' in printed("metrics.txt")
    assert "slashing_burn_ct_total 13.0" in printed("metrics.txt")


def test_every_document_reads_as_the_old_release_printed_it(home: Path) -> None:
    with opened(home) as market:
        assert_reads_as_before(market)
    upgrade(home)
    with opened(home) as market:
        assert_reads_as_before(market)


def test_metrics_are_those_of_the_old_release(home: Path) -> None:
    upgrade(home)
    with opened(home) as market:
        found = samples(market.view(exposition.render))
    old = samples(printed("metrics.txt"))
    # Which run was the last is another thing.
    del old["tb_last_run_timestamp_seconds"]
    # Pending jobs are told by what they wait for now.
    pending = [n for name, n in found.items() if name.startswith("scheduler_pending_jobs{")]
    assert sum(pending) == old.pop("scheduler_pending_jobs")
    assert {series: found.get(series) for series in old} == old


def test_the_log_tells_what_was_decided_before(home: Path) -> None:
    upgrade(home)
    with opened(home) as market:
        found = market.view(lambda txn: [logged.event for logged in events.forward(txn)])
    decided = {(event.job_id, event.event, event.detail.get("reason")) for event in found}
    assert decided >= {
        ("greedy", "job_refused", "burst_exhausted"),
        ("nobody", "job_refused", "capability_mismatch"),
        ("waits", "job_pending", "capability_mismatch"),
    }
    assert [event.job_id for event in found if event.event == "job_queued"].count("active") == 1


# The upgrade.


def test_views_leave_an_old_home_byte_for_byte(home: Path, live: Path) -> None:
    before = contents(home)
    for _ in range(2):
        with opened(live) as market:
            assert_reads_as_before(market)
            assert market.audit() == []
    after = contents(home)
    assert after.keys() == before.keys()
    # LMDB notes readers and writers in its lock file.
    del after["market/lock.mdb"], before["market/lock.mdb"]
    assert after == before


def test_views_and_dry_runs_of_an_old_backup_make_no_file(home: Path) -> None:
    before = contents(home)
    with opened(home) as market:
        assert_reads_as_before(market)
        assert market.audit() == []
        market.update(
            lambda txn: ledger.tap(txn, "deposit", "new", {"CT": 7, "IT": 0}, None), dry_run=True
        )
        assert market.balance("new")["ct"] == 0
    assert contents(home) == before
    assert schema_in(home) == 1


def test_a_dry_run_leaves_an_old_home_as_it_was(live: Path) -> None:
    before = (live / "market" / "data.mdb").read_bytes()
    with opened(live) as market:
        market.update(lambda _: None, dry_run=True)
        assert market.update(lambda txn: txn.size(schema.EVENTS), dry_run=True) > 0
    assert (live / "market" / "data.mdb").read_bytes() == before


def test_the_first_writer_upgrades_and_acts_in_one_transaction(home: Path) -> None:
    with opened(home) as market:
        market.deposit("new", ct=7)
        assert market.balance("new")["ct"] == 7
        assert market.audit() == []
        before = market.view(lambda txn: list(stored_entries(txn, JOBS)))
    assert schema_in(home) == SCHEMA_VERSION
    with lmdb.open(str(home / "market"), max_dbs=MAX_TABLES, readonly=True) as environment:
        assert {name.decode() for name in environment.dbs()} == {table.name for table in TABLES}
    # The next one finds nothing to do.
    with opened(home) as market:
        market.deposit("new", ct=7)
        assert market.view(lambda txn: list(stored_entries(txn, JOBS))) == before
        assert_reads_as_before(market)
        assert market.audit() == []


def test_an_action_that_fails_leaves_the_old_schema(home: Path) -> None:
    before = (home / "market" / "data.mdb").read_bytes()
    with opened(home) as market:
        with pytest.raises(ZeroDivisionError):
            market.update(lambda _: 1 // 0)
        assert (home / "market" / "data.mdb").read_bytes() == before
        market.deposit("new", ct=7)
    assert schema_in(home) == SCHEMA_VERSION


def test_an_old_home_begins_its_first_epoch_where_it_is(home: Path) -> None:
    """What was proven before earns nothing."""
    with opened(home) as market:
        height = market.view(lambda txn: txn.number("height_seen"))
        assert 0 < height <= HEIGHT["height"]
        begun = market.view(lambda txn: subsidy.document(txn, None))
        assert (begun["from_height"], begun["units"]) == (height, 0)
        assert begun["to_height"] == height // 60 * 60 + 59
        market.update(modes.cancel_arm)
        market.arm(0)
        assert market.prove("active", 1, proof_of(market, "active", 1))
        market.advance(60)
        market.tick()
        ended = market.view(lambda txn: subsidy.document(txn, height))
        assert (ended["from_height"], ended["units"], ended["paid"]) == (height, 1, True)
        assert market.audit() == []


def test_an_upgraded_home_goes_on_where_it_was(home: Path, tmp_path: Path) -> None:
    """What was under way ends as it would have: jobs, the receipt that waited, the queue."""
    shutil.copy(home / "cancellations.log", tmp_path / "log")
    with opened(home) as market:
        before = market.balance("prov")["ct"]
        assert market.prove("active", 1, proof_of(market, "active", 1))
        assert market.job("active")["state"] == "completed"
        assert market.job("queued")["state"] == "active"
        assert market.cancel("bursts") == "cancelled"
        assert market.balance("bob")["escrow"]["ct"] == 0
        market.update(modes.cancel_arm)
        market.arm(1)
        market.advance(1)
        due = market.tick()
        assert due.activated
        market.advance(1)
        market.tick()
        settled = {each["job_id"]: each for each in receipts_of(market)}
        assert settled["owed"]["status"] == settled["active"]["status"] == "applied"
        assert settled["dry-completed"]["status"] == "recorded"
        # 10 each for their units, and the bond of the one that ended now.
        assert market.balance("prov")["ct"] == before + 21
        market.post_offer(
            offer_id="new", provider="prov", units=5, price_per_unit=3, capability={"gpu": "MI300"}
        )
        assert market.job("waits")["offer_id"] == "new"
        market.follow_log(str(tmp_path / "log"))
        assert (tmp_path / "log").read_bytes() == (
            (home / "cancellations.log").read_bytes() + b"bursts client\n"
        )
        assert market.audit() == []


def proof_of(market: Market, job_id: str, index: int) -> bytes:
    return market.view(lambda txn: jobs.slice_at(txn, jobs.get(txn, job_id), index)).reference


def forget_epochs(txn: Txn) -> None:
    """Nor had any older release a subsidy."""
    paid = [posting for posting in txn.records(schema.POSTINGS) if posting.event == "subsidy"]
    assert paid
    for posting in paid:
        txn.write(schema.POSTINGS, pack_u64(posting.seq), replace(posting, event="deposit", ref=""))
    for table in (schema.EPOCHS, schema.EPOCH_UNITS.table):
        txn.clear(table)
    for name in (schema.EPOCH_FROM, schema.MULTIPLIER):
        txn.delete(schema.META, name.encode())


def test_ended_jobs_of_schema_6_are_listed(tmp_path: Path) -> None:
    market = busy_market(tmp_path / "market")
    ended = market.view(lambda txn: [key for key, _ in txn.scan(schema.ENDED)])

    def lose(txn: Txn) -> None:
        txn.clear(schema.ENDED)
        txn.put(schema.META, b"schema", bytes((6,)))

    market.alone(lose)
    market.reopen()
    assert market.view(lambda txn: [key for key, _ in txn.scan(schema.ENDED)]) == ended != []
    market.submit("new")
    assert market.violations() == []
    market.store.close()
    assert schema_in(tmp_path) == SCHEMA_VERSION


LISTINGS = (schema.SUBMITTED, schema.PARTY_JOBS)


def listings(txn: Txn) -> list[list[tuple[bytes, bytes]]]:
    return [list(txn.scan(table)) for table in LISTINGS]


def lose_listings(txn: Txn) -> None:
    for table in LISTINGS:
        txn.clear(table)
    txn.put(schema.META, b"schema", bytes((7,)))


def test_jobs_of_schema_7_are_listed_by_submission_and_party(tmp_path: Path) -> None:
    market = busy_market(tmp_path / "market")
    listed = market.view(listings)
    assert all(listed)
    market.alone(lose_listings)
    market.reopen()
    assert market.view(listings) == listed
    market.submit("new")
    assert market.violations() == []
    assert market.view(listings)[0][:-1] == listed[0]
    market.store.close()
    assert schema_in(tmp_path) == SCHEMA_VERSION


def test_home_of_schema_2_gets_what_it_lacks(tmp_path: Path) -> None:
    market = busy_market(tmp_path / "market")

    def lose(txn: Txn) -> None:
        lacking = (schema.BOOK, schema.HEADS, schema.QUEUE_PAIRS, schema.SLOTS_HELD.table)
        for table in lacking:
            txn.clear(table)
        forget_epochs(txn)
        txn.put(schema.META, b"schema", bytes((2,)))

    market.alone(lose)
    market.reopen()
    assert market.job("run").state == "active"
    market.submit("new")
    assert market.violations() == []
    market.store.close()
    assert schema_in(tmp_path) == SCHEMA_VERSION


def test_home_of_schema_3_is_taken_as_it_is(tmp_path: Path) -> None:
    """An older release would not read what comes into it from now on, and refuses it."""
    market = busy_market(tmp_path / "market")

    def lose(txn: Txn) -> None:
        forget_epochs(txn)
        txn.put(schema.META, b"schema", bytes((3,)))

    market.alone(lose)
    market.reopen()
    market.submit("new")
    assert market.violations() == []
    market.store.close()
    assert schema_in(tmp_path) == SCHEMA_VERSION == 8


def test_scores_of_schema_4_fall_due(tmp_path: Path) -> None:
    market = busy_market(tmp_path / "market")
    market.update(lambda txn: standing.record_outcome(txn, "poor", -1))
    market.post("boasts", reputation=900)

    def lose(txn: Txn) -> None:
        boast = txn.must_read(schema.REPUTATION, b"boasts")
        txn.write(schema.REPUTATION, b"boasts", replace(boast, epoch=txn.now))
        txn.clear(schema.SCORES_DUE)
        for name in (schema.SCORE_TERMS, schema.SCORES_DUE_FROM):
            txn.delete(schema.META, name.encode())
        forget_epochs(txn)
        txn.put(schema.META, b"schema", bytes((4,)))

    market.alone(lose)
    market.reopen()
    market.submit("new")
    assert market.violations() == []
    scores = dict(market.view(lambda txn: list(reputation.entries(txn))))
    assert (scores["boasts"].epoch, scores["poor"].epoch > 0) == (0, True)
    assert market.offer("unpaid").shelf == "barred"
    market.advance(14 * 86_400)
    market.update(lambda txn: None)
    assert market.offer("unpaid").shelf == "unfunded"
    assert market.violations() == []
    market.store.close()


def test_jobs_of_schema_5_that_wait_are_counted_by_lane(tmp_path: Path) -> None:
    market = busy_market(tmp_path / "market")
    market.submit("eats", lane="consumer")
    market.submit("hopes", lane="consumer", wait=True, capability={"gpu": "none has it"})

    def lose(txn: Txn) -> None:
        txn.clear(schema.LANE_JOBS.table)
        forget_epochs(txn)
        txn.put(schema.META, b"schema", bytes((5,)))

    before = market.view(lambda txn: txn.sums(schema.LANE_JOBS))
    assert before == {b"pending\0consumer": 1, b"queued\0consumer": 1}
    market.alone(lose)
    market.reopen()
    market.update(lambda txn: None)
    assert market.view(lambda txn: txn.sums(schema.LANE_JOBS)) == before
    assert market.violations() == []
    market.store.close()


# What dies, waits or comes at once.

PROGRAM = """
import sys, time
from compute_market import market, upgrades
from compute_market.market import Market

def say(*words):
    print(*words, flush=True)

def open_market():
    return Market.open(sys.argv[1], clock=lambda: int(sys.argv[2]), sleep=time.sleep)
"""


def start(home: Path, body: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM + textwrap.dedent(body), str(home), str(NOW_MS)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def heard(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_kill_before_the_commit_leaves_the_old_schema(home: Path) -> None:
    before = (home / "market" / "data.mdb").read_bytes()
    with start(
        home,
        """
        def action(txn):
            say("upgraded, not committed")
            sys.stdin.read()
        open_market().update(action)
        """,
    ) as process:
        assert heard(process) == "upgraded, not committed"
        process.kill()
    assert (home / "market" / "data.mdb").read_bytes() == before
    upgrade(home)
    with opened(home) as market:
        assert_reads_as_before(market)
        assert market.audit() == []


def test_a_kill_at_any_time_leaves_one_schema_or_the_other(home: Path, tmp_path: Path) -> None:
    body = """
        market = open_market()
        say("open")
        sys.stdin.readline()
        market.deposit("new", ct=7, key="once")
        say("done")
    """
    found = set()
    for attempt in range(8):
        place = tmp_path / f"home-{attempt}"
        shutil.copytree(home, place)
        with start(place, body) as process:
            assert heard(process) == "open"
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            time.sleep(0.02 * attempt)
            process.send_signal(signal.SIGKILL)
            ended = "done" in process.stdout.read() if process.stdout else False
        found.add(schema_in(place))
        assert schema_in(place) in ({SCHEMA_VERSION} if ended else {1, SCHEMA_VERSION})
        with opened(place) as market:
            market.deposit("new", ct=7, key="once")
            assert market.balance("new")["ct"] == 7
            assert_reads_as_before(market)
            assert market.audit() == []
    assert 1 in found  # The first kill comes at once.


def test_two_commands_at_once_upgrade_once(home: Path) -> None:
    body = """
        step = upgrades.bring_up_to_date
        def counted(txn, schema):
            say("upgrading from", schema)
            step(txn, schema)
        upgrades.bring_up_to_date = counted
        market = open_market()
        say("open")
        sys.stdin.readline()
        market.deposit("new", ct=7)
        say("done")
    """
    with start(home, body) as one, start(home, body) as other:
        for process in (one, other):
            assert heard(process) == "open"
        for process in (one, other):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.stdout.read().split("\n") for process in (one, other) if process.stdout]
    assert sorted(said) == [["done", ""], ["upgrading from 1", "done", ""]]
    with opened(home) as market:
        assert market.balance("new")["ct"] == 14
        assert market.audit() == []


def test_who_has_an_old_home_open_sees_that_another_command_upgraded_it(live: Path) -> None:
    with opened(live) as market:
        assert_reads_as_before(market)
        with start(live, "open_market().deposit('new', ct=7)") as process:
            pass
        assert process.returncode == 0
        assert market.balance("new")["ct"] == 7
        assert_reads_as_before(market)
        market.deposit("new", ct=7)
        assert market.balance("new")["ct"] == 14
        assert market.audit() == []


def test_a_view_of_an_old_home_waits_for_who_writes(live: Path) -> None:
    """It runs as a writer does, and is rolled back."""
    with start(live, "open_market().update(lambda _: (say('in'), sys.stdin.read()))") as process:
        assert heard(process) == "in"
        with opened(live) as market, pytest.raises(BusyError, match="held by process"):
            market.engine.update(lambda _: None, dry_run=True, lock_timeout_ms=5)
        process.kill()


def test_an_old_home_that_cannot_be_written_is_a_usage_error(home: Path, tmp_path: Path) -> None:
    said = in_a_mount(
        tmp_path / "mount",
        "size=1m",
        f"""
        import shutil, subprocess
        from compute_market.market import Market
        mount = os.path.dirname(sys.argv[1])
        shutil.copytree({str(home / "market")!r}, mount + "/market")
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        attempt("open", lambda: Market.open(mount, clock=lambda: {NOW_MS}, sleep=time.sleep))
        """,
    )
    assert re.match(
        r"usage \S+/market was written with schema 1, and is read-only \|", said["open"]
    )
    assert "copy it" in said["open"]


# Damage that was there before.


def spoil(change: Callable[[Any], object], table: str) -> Callable[[Path], None]:
    def act(home: Path) -> None:
        with raw(home / "market") as stored:
            cursor = stored(Table(table, bytes, key="", writer=""))
            assert cursor.first()
            change(cursor)

    return act


def _with_cause(cause: str) -> Callable[[Any], object]:
    def change(cursor: Any) -> None:
        while b"all slices proven" not in cursor.value():
            assert cursor.next()
        cursor.put(cursor.key(), cursor.value().replace(b"all slices proven", cause.encode()))

    return change


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("jobs", lambda cursor: cursor.put(cursor.key(), b"\xc1")),
        ("jobs", lambda cursor: cursor.put(cursor.key(), b"")),
        ("jobs", _with_cause("all slices proveN")),
        ("settlements", lambda cursor: cursor.put(cursor.key(), b"\x90")),
        ("settlements", lambda cursor: cursor.put(b"k" * 32, cursor.value())),
        ("reputation", lambda cursor: cursor.put(cursor.key(), b"\xc1")),
        ("offers", lambda cursor: cursor.put(cursor.key(), b"\xc1")),
        ("usage", lambda cursor: cursor.put(cursor.key(), b"\xc1")),
        ("decisions", lambda cursor: cursor.put(cursor.key(), b"\xc1")),
        (
            "decisions",
            lambda cursor: cursor.put(cursor.key(), cursor.value().replace(b"adm", b"mad")),
        ),
    ],
)
def test_damage_in_an_old_home_is_named_and_nothing_is_written(
    home: Path, table: str, change: Callable[[Any], object]
) -> None:
    spoil(change, table)(home)
    before = contents(home)
    with opened(home) as market:
        for act in (market.audit, lambda: market.deposit("new", ct=7)):
            with pytest.raises(IntegrityError, match=f"table {table}, key "):
                act()
    assert contents(home)["market/data.mdb"] == before["market/data.mdb"]


def test_a_damaged_receipt_of_an_old_home_is_upgraded_and_named_by_the_audit(home: Path) -> None:
    spoil(lambda cursor: cursor.put(cursor.key(), b"\xc1"), "receipts")(home)
    upgrade(home)
    with opened(home) as market:
        assert [found.table for found in market.audit()] == ["receipts"]


def test_jobs_have_the_placement_they_had(home: Path) -> None:
    upgrade(home)

    def look(txn: Txn) -> dict[str, Job]:
        return {job.job_id: job for job in txn.records(JOBS)}

    with opened(home) as market:
        found = market.view(look)
    assert found["waits"].placement is None
    assert found["waited"].placement is None
    placed = found["half-cancelled"].placed
    assert (placed.offer_id, placed.provider, placed.price_per_unit) == ("open", "prov", 5)
    assert (placed.funded, placed.provider_bond, placed.units_proven) == (True, 1, 1)


def test_history_of_a_job_goes_back_to_the_old_decisions(live: Path) -> None:
    with Market.open(str(live), clock=lambda: NOW_MS, sleep=time.sleep) as market:
        market.deposit("alice", ct=1)

        def told(txn: Txn) -> dict[str, list[int]]:
            found = {}
            for job in txn.records(JOBS):
                history = [logged.seq for logged in events.history(txn, job)]
                log = [each.seq for each in events.forward(txn) if each.event.job_id == job.job_id]
                assert history == log
                found[job.job_id] = history
            return found

        assert any(market.view(told).values())
