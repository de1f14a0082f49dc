"""Every alert fires and resolves: a real Prometheus scrapes a real server, and it all happens.

Ranges of the rules are shortened to seconds. What needs an hour in the market is done at an earlier
time of the market.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import pytest

from compute_market import metrics
from compute_market.store.schema import QUARANTINE
from monitoring.alerts import ALERTS, GROUPS, shortened
from monitoring.generate import RUNBOOKS, yaml_of
from monitoring.rules import rules
from tests.support.cli import Cli, without
from tests.support.importing import file_of, links
from tests.support.prometheus import Prometheus, free_port, prometheus
from tests.support.receipt_file import KEY, receipt

pytest_plugins = ("tests.support.cli",)

RANGE = "2s"
HOURS = 3 * 3600
# One job at a time, a minute's capacity of 120 units, and a window of three prices.
SETTINGS = f"""\
initial_capacity = 2
min_capacity = 1
fair_share_cap = 1.0
price_board_window = 3
courier_max_attempts = 1
outage_secs = 86400
map_size_gib = 1
[scheduler]
slots = 1
[net]
trusted = ["{KEY.key_id.hex()}"]
"""
# A map of 64 GiB is not filled here; a hundredth of a small one is.
THRESHOLDS = {
    "StoreNearlyFull": ("> 0.8", "> 0.01"),
    # What waits here has done so for a moment.
    "ReceiptsWait": ("> 3600", "> 0"),
    "BundlesWait": ("> 7200", "> 0"),
}


def shortened_rules() -> str:
    groups = {
        name: tuple(
            alert._replace(expr=alert.expr.replace(*THRESHOLDS.get(alert.name, ("", ""))))
            for alert in (shortened(each, RANGE, "0s") for each in alerts)
        )
        for name, alerts in GROUPS.items()
    }
    return yaml_of(rules(groups, RUNBOOKS))


@contextmanager
def served(cli: Cli, port: int) -> Iterator[None]:
    with (cli.directory / "serve.log").open("wb") as log:
        server = cli.start("serve", "--port", str(port), stdout=log, stderr=log)
    try:
        yield
    finally:
        server.terminate()
        assert server.wait(20) == 0, (cli.directory / "serve.log").read_text()


def do(cli: Cli, *words: str | Path, code: int = 0) -> None:
    done = cli(*words)
    assert done.code == code, done


def settle(cli: Cli) -> None:
    do(cli, "compute-market", "settle", "arm", "--delay-blocks", "0")
    do(cli, "tick")


def pay(cli: Cli, fee: int, sender: str) -> None:
    words = ("--lane", "consumer", "--sender", sender, "--fee", str(fee), "--bytes", "100")
    do(cli, "mempool", "submit", *words)


def submit_many(cli: Cli, name: str, **terms: Any) -> None:
    """A dozen jobs at once, none of which is taken."""
    job = {"buyer": "alice", "workload": "transcode", **terms}
    lines = [json.dumps({"job_id": f"{name}-{number}", **job}) for number in range(12)]
    path = cli.directory / f"{name}.jsonl"
    path.write_text("\n".join(lines))
    do(cli, "compute", "submit", path, code=5)


def damage(cli: Cli, job_id: str) -> None:
    """Let the receipt of a job be other bytes than were stored."""
    document = cli.document("compute-market", "receipts", "show", job_id)
    env = lmdb.open(str(cli.home / "market"), max_dbs=64, map_size=2**30)
    with env.begin(write=True, db=env.open_db(b"receipts", create=False)) as txn:
        txn.put(bytes.fromhex(document["idempotency_key"]), b"\xc1garbage")
    env.close()


def units(cli: Cli, number: int) -> list[Path]:
    return [Path(cli.sparse(number)["path"])]


def begin_hours_ago(cli: Cli) -> None:
    """A job that is late by now, one that waits for its slot, one that waits for an offer."""
    cli.home.mkdir()
    (cli.home / "config.toml").write_text(SETTINGS)
    cli.advance(-HOURS)
    cli.real()
    cli.post("--bond", "10")
    cli.submit("late", "--deadline-secs", "60")
    cli.submit("waits", "--deadline-secs", "100000")
    do(cli, *cli.job_arguments("pends", "--accelerator", "TPU", "--wait"), code=0)
    cli.advance(HOURS)


def be_late(cli: Cli) -> None:
    do(cli, "tick")


def work(cli: Cli) -> None:
    """What waited is done, and paid; the next job is placed."""
    do(cli, "compute", "execute", "waits")
    do(cli, "compute", "cancel", "pends")
    cli.submit("owed")
    do(cli, "compute", "offer", "withdraw", "o-1")


def go_wrong(cli: Cli, found: Prometheus) -> None:
    # A receipt of another market whose buyer has nothing: the mode falls, and others wait.
    file = cli.directory / "receipts.jsonl"
    file.write_bytes(b"".join(file_of(links(receipt(1, buyer="poor")))))
    do(cli, "compute-market", "receipts", "import", file, code=5)
    do(cli, "compute", "execute", "owed")
    # Ten times the price, and all of the capacity, of which there is half by then.
    cli.post(provider="dear", price=50)
    cli.submit("heavy", slices=units(cli, 100))
    cli.submit("behind")
    do(cli, "compute-market", "capacity", "record", "0")
    submit_many(cli, "big", max_price_per_unit=100, slices=[cli.sparse(10)])
    found.wait_until_fired("PricesJumped")  # Before there are no prices any more.
    (cli.home / "state" / "price_board.v2.bin").write_bytes(b"garbage")
    submit_many(cli, "cheap", max_price_per_unit=1, slices=[{"path": str(cli.slice())}])
    pay(cli, 2501, "rich")
    # Where the directory should be is a file.
    (cli.directory / "stick").write_text("")
    bundle = cli.slice("bundle")
    to = f"dir:{cli.directory / 'stick'}"
    do(cli, "compute", "courier", "send", bundle, "alice", "--to", to)
    do(cli, "compute", "courier", "flush", code=10)
    cli.update(lambda txn: txn.put(QUARANTINE, b"large", bytes(16 * 2**20)))
    # Of a disk that was full; what counts it is tested with the engine.
    cli.update(lambda txn: metrics.count(txn, "receipt_persist_fail_total"))


def put_right(cli: Cli) -> None:
    cli.update(lambda txn: txn.delete(QUARANTINE, b"large"))
    (cli.directory / "stick").unlink()
    (cli.directory / "stick").mkdir()
    do(cli, "compute", "courier", "flush")
    for number in range(50):
        pay(cli, 1, f"sender-{number}")
    do(cli, "compute", "cancel", "heavy", "behind")
    do(cli, "compute-market", "capacity", "record", "100")
    do(cli, "state", "backup", cli.directory / "backup")
    damage(cli, "owed")
    settle(cli)


@pytest.mark.slow
def test_every_alert_fires_and_resolves(cli: Cli) -> None:
    missing = without("prometheus", "python:starlette", "python:uvicorn")
    if missing:
        pytest.skip(missing)
    cli.audited = False  # A receipt is damaged on purpose.
    port = free_port()
    with prometheus(cli.directory / "prometheus", shortened_rules(), port) as found:
        begin_hours_ago(cli)
        found.wait_until_fired("MarketUnseen")
        with served(cli, port):
            found.wait_until_silent("MarketUnseen")
            begun = ("NothingRuns", "BackupOld", "QueueStands", "JobsWaitLong", "SlotsFull")
            found.wait_until_fired(*begun, "JobsFindNoOffer")
            be_late(cli)
            late = ("DeadlinesMissed", "SlaSlashesRising", "ProvidersFail", "ProvidersBarred")
            found.wait_until_fired(*late, "PriorityJobsLate")
            work(cli)
            found.wait_until_fired("NothingToBuy")
            go_wrong(cli, found)
            set_right_later = {"ReceiptsCorrupt", "ClockHeld"}
            found.wait_until_fired(*{alert.name for alert in ALERTS} - set_right_later)
            put_right(cli)
            found.wait_until_fired("ReceiptsCorrupt")
            # The clock is ahead for one command.
            cli.set_clock(1000)
            do(cli, "compute-market", "clock", "accept")
            cli.set_clock(-1000)
            found.wait_until_fired("ClockHeld")
            do(cli, "compute-market", "clock", "accept")
            found.wait_until_silent()
        assert found.fired() == {alert.name for alert in ALERTS}
        assert {name: each["runbook_url"] for name, each in found.annotations().items()} == {
            alert.name: f"{RUNBOOKS}#{alert.anchor}" for alert in ALERTS
        }
