"""`compute-market params|stats|capacity record|show`."""

import json

import pytest

from tests.support.cli import MIB, Cli

pytest_plugins = ("tests.support.cli",)

PARAMS = (
    "{\n"
    '  "min_capacity": 10,\n'
    '  "fair_share_cap": 0.25,\n'
    '  "burst_quota": 30.0,\n'
    '  "burst_refill_rate": 0.5\n'
    "}\n"
)


@pytest.mark.parametrize("extra", [(), ("--json",)])
def test_params_prints_the_seeds_bytes(cli: Cli, extra: tuple[str, ...]) -> None:
    assert cli.ok("compute-market", "params", *extra) == PARAMS


def test_params_follows_the_configuration(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.home.mkdir()
    (cli.home / "config.toml").write_text("min_capacity = 3\nfair_share_cap = 1\n")
    monkeypatch.setenv("TB_BURST_QUOTA", "0")
    monkeypatch.setenv("TB_BURST_REFILL_RATE", "0.125")
    assert cli.ok("compute-market", "params") == (
        "{\n"
        '  "min_capacity": 3,\n'
        '  "fair_share_cap": 1.0,\n'
        '  "burst_quota": 0.0,\n'
        '  "burst_refill_rate": 0.125\n'
        "}\n"
    )


def test_stats_of_a_market_at_work(cli: Cli) -> None:
    cli.ok("state", "init")
    empty = (
        "{\n"
        '  "industrial_backlog": 0,\n'
        '  "industrial_utilization": 0.0,\n'
        '  "industrial_units_total": 0,\n'
        '  "industrial_price_per_unit": 0\n'
        "}\n"
    )
    assert cli.ok("compute-market", "stats") == empty
    assert cli.ok("compute-market", "stats", "--json") == empty
    cli.post("--multiplier", "0.5", price=11)
    big = cli.slice("big", bytes(90 * MIB))
    cli.submit("j1", slices=[big, cli.slice()])
    assert json.loads(cli.ok("compute-market", "stats")) == {
        "industrial_backlog": 91,
        "industrial_utilization": 0.0,
        "industrial_units_total": 0,
        "industrial_price_per_unit": 6,
    }
    cli.ok("compute", "execute", "j1")
    at_work = json.loads(cli.ok("compute-market", "stats"))
    # 91 units of the 6000 that 100 units a second make in a minute.
    assert (at_work["industrial_backlog"], at_work["industrial_utilization"]) == (0, 0.02)
    assert at_work["industrial_units_total"] == 91
    cli.advance(60)
    assert json.loads(cli.ok("compute-market", "stats"))["industrial_utilization"] == 0.0


def test_capacity_record_averages_the_last_eight(cli: Cli) -> None:
    assert cli.ok("compute-market", "capacity", "record", "51") == (
        "recorded 51 units/s, the estimate is 75 units/s\n"
    )
    for _ in range(6):
        cli.ok("compute-market", "capacity", "record", "0")
    assert cli.document("compute-market", "capacity", "record", "10") == {
        "recorded": 10,
        "estimate": (51 + 10) // 8,
        "changed": True,
    }


@pytest.mark.parametrize("value", ["-1", "1.5", "many", str(10**15 + 1)])
def test_capacity_record_of_no_capacity_is_usage(cli: Cli, value: str) -> None:
    done = cli("compute-market", "capacity", "record", "--", value)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[usage]: N: ")
    assert not cli.home.exists()


def test_capacity_show_of_a_new_market(cli: Cli) -> None:
    cli.ok("state", "init")
    text = (
        "estimate: 100\nsamples: 100\nheadroom: 6000\nwindow_secs: 60\nshare: 1500\nburst: 30\n"
        "parties: 0\n"
    )
    assert cli.ok("compute-market", "capacity", "show") == text
    assert cli.document("compute-market", "capacity", "show") == {
        "estimate": 100,
        "samples": [100],
        "headroom": 6000,
        "window_secs": 60,
        "share": 1500,
        "burst": 30,
        "parties": [],
    }


def test_capacity_show_tells_what_is_used_and_left(cli: Cli) -> None:
    cli.ok("compute-market", "capacity", "record", "20")
    cli.post()
    cli.submit("j1", slices=[cli.slice("big", bytes(60 * MIB))])
    assert cli.ok("compute-market", "capacity", "show") == (
        "estimate: 60\nsamples: 100 20\nheadroom: 3540\nwindow_secs: 60\nshare: 900\nburst: 30\n"
        "parties: 2\n"
        "role=provider identity=prov used=60 burst_left=30 share_left=840\n"
        "role=buyer identity=alice used=60 burst_left=30 share_left=840\n"
    )
    # Usage decays within a minute, and with it what may be admitted grows.
    cli.advance(30)
    found = cli.document("compute-market", "capacity", "show")
    assert found["headroom"] == 3570
    assert [(party["identity"], party["used"]) for party in found["parties"]] == [
        *(("prov", 30), ("alice", 30)),
    ]
    cli.advance(30)
    assert cli.document("compute-market", "capacity", "show")["headroom"] == 3600


def test_capacity_record_is_in_the_log(cli: Cli) -> None:
    cli.ok("compute-market", "capacity", "record", "20")
    (event,) = cli.document("log", "--event", "capacity_recorded")
    assert event["detail"] == {"units_per_second": 20, "estimate": 60}
