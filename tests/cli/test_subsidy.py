"""`compute-market subsidy`."""

import json

import pytest

from tests.support.cli import HELLO, Cli

pytest_plugins = ("tests.support.cli",)


@pytest.fixture
def worked(cli: Cli) -> Cli:
    """A market in real mode in whose first epoch one of two units is proven."""
    cli.real()
    cli.post()
    cli.submit(slices=[cli.slice("a"), cli.slice("b")])
    cli.ok("compute", "prove", "j1", "0", HELLO)
    return cli


def test_subsidy_shows_the_epoch_of_a_height_and_what_it_pays(worked: Cli) -> None:
    worked.ok("chain", "advance", "60")
    text = worked.ok("compute-market", "subsidy", "--height", "59")
    assert text == (
        "epoch: 0\n"
        "height: 59\n"
        "from_height: 0\n"
        "to_height: 59\n"
        "ended: true\n"
        "due: true\n"
        "multiplier: 115\n"
        "backlog: 1\n"
        "utilization_pct: 0\n"
        "units: 1\n"
        "payouts: storage=0 read=0 compute=1\n"
        "paid: false\n"
    )
    assert worked.wallet("prov")[1] == 0
    assert worked.document("compute-market", "subsidy")["due"] is True
    # The next change closes it and pays, and says so.
    worked.ok("tick", due="1 IT of subsidies paid")
    paid = worked.ok("compute-market", "subsidy", "--height", "59")
    assert paid == text.replace("due: true", "due: false").replace("paid: false", "paid: true")
    assert worked.wallet("prov")[1] == 1
    assert worked.document("compute-market", "subsidy")["due"] is False
    history = worked.ok("wallet", "history", "prov").splitlines()[-1].split("\t")
    assert history[2:] == ["IT", "1", "supply", "wallet/prov", "subsidy", "0"]
    (told,) = [each for each in worked.document("log") if each["event"] == "subsidy_paid"]
    assert (told["owner"], told["detail"]["it"]) == ("prov", 1)


def test_subsidy_shows_the_running_epoch(worked: Cli) -> None:
    worked.advance(59)
    assert worked.document("compute-market", "subsidy") == {
        "epoch": 0,
        "height": 59,
        "from_height": 0,
        "to_height": 59,
        "ended": False,
        "due": False,
        "multiplier": 100,
        "backlog": 1,
        "utilization_pct": 0,
        "units": 1,
        "payouts": {"storage": 0, "read": 0, "compute": 1},
        "paid": False,
    }


def test_subsidy_says_why_a_payout_was_not_paid(worked: Cli) -> None:
    worked.ok("compute-market", "settle", "dry-run", "--reason", "r")
    worked.ok("chain", "advance", "60")
    assert worked.ok("compute-market", "subsidy", "--height", "0").endswith(
        "payouts: storage=0 read=0 compute=1\npaid: false\nunpaid: mode\n"
    )


def test_subsidy_of_a_height_ahead_is_not_found(cli: Cli) -> None:
    cli.ok("state", "init")
    done = cli("compute-market", "subsidy", "--height", "4000")
    assert done.code == 3
    assert "height 4000 is in no epoch that is known" in done.err
    assert cli("compute-market", "subsidy", "--height", "-1").code == 2


def test_stats_keep_their_form(worked: Cli) -> None:
    assert list(json.loads(worked.ok("compute-market", "stats"))) == [
        "industrial_backlog",
        "industrial_utilization",
        "industrial_units_total",
        "industrial_price_per_unit",
    ]
