"""`config show`, and where settings come from."""

import pytest

from compute_market.config.rows import SETTINGS
from tests.support.cli import Cli

pytest_plugins = ("tests.support.cli",)


def configure(cli: Cli, text: str) -> str:
    cli.home.mkdir(exist_ok=True)
    path = cli.home / "config.toml"
    path.write_text(text)
    return str(path)


def test_show_lists_every_setting_and_its_default(cli: Cli) -> None:
    rows = cli("config", "show").rows
    assert [row[0] for row in rows] == [setting.name for setting in SETTINGS]
    assert {row[2] for row in rows} == {"default"}
    assert ["settle_mode", '"dry_run"', "default"] in rows
    assert ["scheduler.slots", "64", "default"] in rows
    assert not cli.home.exists()


def test_show_says_where_each_value_came_from(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    path = configure(
        cli,
        "# mine\nmin_capacity = 5\nepoch_blocks = 7\n\n[compute_market]\nburst_quota = 1.5\n"
        "[scheduler]\nslots = 2\n",
    )
    monkeypatch.setenv("TB_EPOCH_BLOCKS", "9")
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "3")
    rows = {row[0]: row[1:] for row in cli("config", "show", "--lock-timeout", "2").rows}
    assert rows["min_capacity"] == ["5", f"{path}:2"]
    assert rows["burst_quota"] == ["1.5", f"{path}:6"]
    assert rows["epoch_blocks"] == ["9", "TB_EPOCH_BLOCKS"]
    assert rows["scheduler.slots"] == ["3", "TB_SCHEDULER_SLOTS"]
    assert rows["lock_timeout_secs"][1] == "--lock-timeout"
    assert rows["initial_capacity"] == ["100", "default"]


def test_show_json_is_a_list_of_settings(cli: Cli) -> None:
    documents = cli.document("config", "show")
    assert documents[0] == {"name": "low_priority_cap_pct", "value": "50", "origin": "default"}
    assert [document["name"] for document in documents] == [s.name for s in SETTINGS]


def test_values_of_the_file_are_in_force(cli: Cli) -> None:
    configure(cli, "[scheduler]\nslots = 1\n")
    cli.active("j1")
    assert cli.submit("j2")["state"] == "queued"


def test_fraction_of_a_second_for_the_lock_is_an_option_only(cli: Cli) -> None:
    cli.ok("state", "init")
    assert cli.ok("compute", "list", "--lock-timeout", "0.5") == ""
    done = cli("compute", "list", "--lock-timeout", "-1")
    assert (done.code, done.err) == (2, "error[usage]: --lock-timeout -1 is not 0…86400 seconds\n")
    for value in ("nan", "inf"):
        done = cli("compute", "list", "--lock-timeout", value)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith(f"error[usage]: --lock-timeout: {value!r} is no duration\n")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("min_capcity = 5\n", "1: unknown key min_capcity", "did you mean min_capacity?"),
        ("\nmin_capacity = 'x'\n", "2: min_capacity: expected a whole number, ", None),
        ("min_capacity = 0\n", "1: min_capacity: 0 is not 1…10000 units per second", None),
        ("slots = 3\n", "1: unknown key slots", "did you mean scheduler.slots?"),
        ("[market]\nx = 1\n", "1: unknown section [market]", None),
        ("min_capacity = \n", "1: not valid TOML: ", "the line is 'min_capacity ='"),
        ("settle_mode = 'armed'\n", '1: settle_mode: "armed" cannot be configured, ', None),
        ("min_capacity = 5\nmin_capacity = 6\n", "2: not valid TOML: ", None),
        (
            "min_capacity = 5\n[compute_market]\nmin_capacity = 6\n",
            "3: ",
            None,
        ),
    ],
)
def test_bad_file_is_named_by_line_and_key(
    cli: Cli, text: str, message: str, hint: str | None
) -> None:
    path = configure(cli, text)
    for command in (("config", "show"), ("compute", "list"), ("compute-market", "params")):
        done = cli(*command)
        assert (done.code, done.out) == (2, "")
        lines = done.err.splitlines()
        assert lines[0].startswith(f"error[usage]: {path}:{message}"), lines
        if hint is not None:
            assert lines[1] == f"hint: {hint}"
    assert (cli.home / "config.toml").read_text() == text
    assert sorted(path.name for path in cli.home.iterdir()) == ["config.toml"]


def test_bad_variable_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TB_MIN_CAPACITY", "lots")
    done = cli("compute-market", "params")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[usage]: TB_MIN_CAPACITY: min_capacity: expected a whole ")
