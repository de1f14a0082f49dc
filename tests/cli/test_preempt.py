"""A running job that goes over to another offer: by a new offer, and by hand."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from compute_market.courier import courier
from compute_market.offers.standing import record_outcome
from compute_market.store.schema import BUNDLE_RECEIPTS
from compute_market.store.txn import Txn
from tests.support.cli import Cli

pytest_plugins = ("tests.support.cli",)

NODE_KEY = "made the key node"


def earn(cli: Cli, provider: str, by: int) -> None:
    sign = 1 if by > 0 else -1
    cli.update(lambda txn: [record_outcome(txn, provider, sign) for _ in range(abs(by))])


@pytest.fixture
def running(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """An active job of three units with `prov`, one of them proven, and `other`, who has earned."""
    monkeypatch.setenv("TB_ENABLE_PREEMPT", "true")
    monkeypatch.setenv("TB_COURIER_BACKOFF_MS", "0")
    cli.real()
    cli.ok("wallet", "deposit", "other", "--ct", "100")
    cli.post("--offer-id", "present", "--bond", "3")
    slices = [cli.slice(f"{number}.slice") for number in range(3)]
    cli.submit("j1", slices=slices)
    cli.ok("compute", "prove", "j1", "1", HELLO)
    earn(cli, "other", 12)
    cli.ok("compute-market", "audit")
    return cli


HELLO = "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f"
RIVAL = ("--offer-id", "better", "--bond", "4")


def rival(cli: Cli, *extra: str) -> Any:
    return cli("compute", "offer", "post", "--provider", "other", "--units", "9", "--price", "4",
               *RIVAL, *extra)


def counters(cli: Cli) -> dict[str, int]:
    lines = cli.ok("metrics").splitlines()
    return {
        line.split('"')[1]: int(line.split()[-1])
        for line in lines
        if line.startswith("scheduler_preempt_total{")
    }


def test_new_offer_says_what_it_took_over(running: Cli) -> None:
    done = rival(running)
    print(done)
    assert done.code == 0
    assert done.out == "posted offer better, took over job j1 of prov\n"
    assert running.job()["offer_id"] == "better"
    assert running.log() == "j1 preempted\n"
    print(running.ok("compute", "history", "j1"))
    print(running.ok("compute", "courier", "list"))
    print(counters(running))
    assert 0


def test_preempt_shows_the_bill(running: Cli) -> None:
    os.environ["TB_ENABLE_PREEMPT"] = "false"
    print(rival(running))
    os.environ["TB_ENABLE_PREEMPT"] = "true"
    print(running("compute", "preempt", "j1", "better", "-n"))
    print(running("compute", "preempt", "j1", "better"))
    print(running("compute", "preempt", "j1", "better"))
    assert 0
