"""TB_BUYER and TB_PROVIDER: who acts where a command needs a party and none is named."""

import json

import pytest

from tests.support.cli import Cli

pytest_plugins = ("tests.support.cli",)

OFFER = ("compute", "offer", "post", "--units", "9", "--price", "5")
JOB = ("compute", "submit", "--workload", "transcode", "--max-price", "9", "--slice", "a.slice")


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.setenv("TB_BUYER", "ann")
    monkeypatch.setenv("TB_PROVIDER", "farm")
    cli.slice()


def test_variables_name_who_is_needed(cli: Cli) -> None:
    assert cli.document(*OFFER)["provider"] == "farm"
    assert cli.document(*JOB, "--job-id", "j1")["buyer"] == "ann"
    # Its own offer cannot win a job of the same name.
    cli.ok(*OFFER, "--provider", "ann", "--offer-id", "own")
    asked = ("compute", "explain", "--max-price", "9", "--offer", "own")
    (verdict,) = cli.document(*asked)["offers"]
    assert not verdict["fits"]
    (verdict,) = cli.document(*asked, "--buyer", "bob")["offers"]
    assert verdict["fits"]


def test_options_and_files_win_over_variables(cli: Cli) -> None:
    assert cli.document(*OFFER, "--provider", "other")["provider"] == "other"
    assert cli.document(*JOB, "--job-id", "j1", "--buyer", "bob")["buyer"] == "bob"
    terms = {"workload": "transcode", "max_price_per_unit": 9, "slices": ["a.slice"]}
    jobs = [{"job_id": "j2", "buyer": "carol", **terms}, {"job_id": "j3", **terms}]
    path = cli.directory / "jobs.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in jobs))
    found = cli("compute", "submit", path, "--jsonl").jsonl
    assert [each["buyer"] for each in found] == ["carol", "ann"]
    offers = cli(
        "compute", "offer", "post", "-", "--jsonl", stdin='{"units": 1, "price_per_unit": 1}'
    )
    assert offers.jsonl[0]["provider"] == "farm"


def test_variables_filter_nothing_and_own_no_wallet(cli: Cli) -> None:
    cli.ok(*OFFER, "--provider", "other")
    cli.ok(*JOB, "--job-id", "j1", "--buyer", "bob")
    assert [row[0] for row in cli("compute", "list").rows] == ["j1"]
    assert [row[0] for row in cli("compute", "offer", "list").rows] == ["o-1"]
    assert cli("wallet", "balance").code == 2
    assert cli("wallet", "deposit", "--ct", "1").code == 2


@pytest.mark.parametrize(
    ("value", "problem"), [("", "is empty"), ("a b", "'a b' has the character ' '")]
)
def test_variable_that_names_nobody_is_usage_where_it_is_needed(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, value: str, problem: str
) -> None:
    monkeypatch.setenv("TB_BUYER", value)
    monkeypatch.setenv("TB_PROVIDER", value)
    for command, variable in ((OFFER, "TB_PROVIDER"), ((*JOB, "--job-id", "j"), "TB_BUYER")):
        done = cli(*command)
        assert done.code == 2
        assert done.err.startswith(f"error[usage]: {variable} {problem}\n")
    assert not cli.home.exists()
    cli.ok(*OFFER, "--provider", "other")
    cli.ok(*JOB, "--job-id", "j", "--buyer", "bob")
    assert cli.job("j")["buyer"] == "bob"


def test_variables_are_no_settings(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.ok("state", "init")
    told = cli.ok("config", "show")
    monkeypatch.delenv("TB_BUYER")
    monkeypatch.delenv("TB_PROVIDER")
    assert cli.ok("config", "show") == told
