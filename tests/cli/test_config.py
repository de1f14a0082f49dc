"""`config show`, `init` and `path`, and where settings come from."""

import json
import os
import subprocess
import sys

import pytest

from compute_market.config.files import render_default
from compute_market.config.rows import SETTINGS
from compute_market.errors import exit_code
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


def shown(cli: Cli, *words: str) -> object:
    """What is shown in JSON; ratios are decimals."""
    return json.loads(cli.ok("config", "show", *words, "--json"))


def test_show_json_is_a_list_of_settings_with_values_of_their_types(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_NET_PEERS", "http://a,http://b")
    documents = shown(cli)
    assert isinstance(documents, list)
    assert documents[0] == {"name": "low_priority_cap_pct", "value": 50, "origin": "default"}
    assert [document["name"] for document in documents] == [s.name for s in SETTINGS]
    values = {document["name"]: document["value"] for document in documents}
    assert values["settle_mode"] == "dry_run"
    assert values["enable_preempt"] is False
    assert values["fair_share_cap"] == 0.25
    assert values["net.peers"] == ["http://a", "http://b"]


def test_show_of_one_setting_says_all_about_it(cli: Cli) -> None:
    path = configure(cli, "[scheduler]\nslots = 7\n")
    text = cli.ok("config", "show", "scheduler.slots")
    assert text.startswith(f"name: scheduler.slots\nvalue: 7\norigin: {path}:2\ndefault: 64\n")
    document = shown(cli, "scheduler.slots")
    assert isinstance(document, dict)
    assert document["meaning"] == "How many jobs may be active at once."
    del document["meaning"]
    assert document == {
        "name": "scheduler.slots",
        "value": 7,
        "origin": f"{path}:2",
        "default": 64,
        "variable": "TB_SCHEDULER_SLOTS",
        "allowed": "1…1000000 jobs",
    }


@pytest.mark.parametrize(
    ("key", "hint"), [("slots", "did you mean scheduler.slots?"), ("", "`config show` lists every")]
)
def test_show_of_an_unknown_setting_names_the_nearest(cli: Cli, key: str, hint: str) -> None:
    done = cli("config", "show", key)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error[usage]: KEY: {key!r} is no setting\nhint: {hint}")


def test_variable_that_names_no_setting_is_warned_of_once(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.ok("state", "init")
    monkeypatch.setenv("TB_SLOTS", "3")
    monkeypatch.setenv("TB_ZZZ", "3")
    monkeypatch.setenv("TB_DEBUG", "1")
    monkeypatch.setenv("TB_EPOCH_BLOCKS", "9")
    warned = (
        "warning: TB_SLOTS names no setting; did you mean TB_SCHEDULER_SLOTS?\n"
        "warning: TB_ZZZ names no setting\n"
    )
    assert cli("compute", "list") == (0, "", warned)
    assert cli("config", "show").err == warned
    lines = "compute list\ncompute list\n"
    assert cli("batch", "-", stdin=lines).err.count("names no setting") == 2


def test_path_need_not_be_there(cli: Cli) -> None:
    path = str(cli.home / "config.toml")
    assert cli.ok("config", "path") == f"{path}\n"
    assert cli.document("config", "path") == {"path": path, "exists": False}
    assert not cli.home.exists()
    configure(cli, "")
    assert cli.document("config", "path") == {"path": path, "exists": True}


def test_init_writes_a_file_that_changes_nothing(cli: Cli) -> None:
    path = cli.home / "config.toml"
    assert cli.ok("config", "init", "-n") == f"dry_run: wrote {path}\n"
    assert not cli.home.exists()
    assert cli.ok("config", "init") == f"wrote {path}\n"
    assert path.read_text() == render_default(switched_off=True)
    assert [each.name for each in cli.home.iterdir()] == ["config.toml"]
    assert (cli.home.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
    assert {row[2] for row in cli("config", "show").rows} == {"default"}
    assert cli.document("config", "init") == {"path": str(path), "changed": False}


def test_init_prints_the_same_on_demand(cli: Cli) -> None:
    text = render_default(switched_off=True)
    assert cli.ok("config", "init", "-") == text
    assert cli.document("config", "init", "-") == {"text": text}
    with open("/dev/full", "w", encoding="utf-8") as full:
        process = subprocess.run(
            [sys.executable, "-m", "tb_cli", "config", "init", "-"], stdout=full, timeout=60
        )
    assert process.returncode == exit_code("busy")
    done = cli("config", "init", "elsewhere.toml")
    assert (done.code, done.out) == (2, "")
    assert not cli.home.exists()


@pytest.mark.parametrize("options", [(), ("-n",), ("--json",)], ids=" ".join)
def test_init_never_overwrites(cli: Cli, options: tuple[str, ...]) -> None:
    path = configure(cli, "epoch_blocks = 7\n")
    done = cli("config", "init", *options)
    assert (done.code, done.out) == (6, "")
    assert f"{path} exists, and is never overwritten" in done.err
    assert (cli.home / "config.toml").read_text() == "epoch_blocks = 7\n"


def test_init_leaves_alone_what_is_no_file(cli: Cli) -> None:
    cli.home.mkdir()
    path = cli.home / "config.toml"
    path.symlink_to("/dev/null")
    assert cli("config", "init").code == 6
    assert os.readlink(path) == "/dev/null"
    path.unlink()
    path.mkdir()
    assert cli("config", "init").code == 6
    assert sorted(cli.home.iterdir()) == [path]


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
