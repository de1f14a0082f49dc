"""Shell completion of commands and of live ids."""

import os

import pytest

from tests.support.cli import Cli

pytest_plugins = ("tests.support.cli",)


def complete(cli: Cli, words: str, shell: str = "bash", **environment: str) -> tuple[int, str, str]:
    """What the shell is told for the last word of a line."""
    typed = words.split(" ")
    variables = {
        "_TB_CLI_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(typed) - 1),
        "_TYPER_COMPLETE_ARGS": words,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    return tuple(cli.process(env=os.environ | variables | environment))  # type: ignore[return-value]


def test_completes_commands(cli: Cli) -> None:
    assert complete(cli, "tb-cli comp") == (0, "compute\ncompute-market\n", "")
    assert complete(cli, "tb-cli compute can") == (0, "cancel\n", "")


@pytest.mark.parametrize("verb", ["cancel", "status", "execute", "explain", "wait"])
def test_completes_job_ids(cli: Cli, verb: str) -> None:
    cli.active("alpha", "apple", "beta")
    assert complete(cli, f"tb-cli compute {verb} a") == (0, "alpha\napple\n", "")


def test_completes_nothing_where_a_name_is_not_utf_8(cli: Cli) -> None:
    cli.active("alpha")
    bad = os.fsdecode(b"\xff")
    assert complete(cli, f"tb-cli compute cancel {bad}") == (0, "\n", "")
    assert complete(cli, "tb-cli compute cancel a", TB_HOME=bad) == (0, "\n", "")


def test_completes_every_further_id(cli: Cli) -> None:
    cli.active("alpha", "beta")
    code, out, err = complete(cli, "tb-cli compute cancel alpha b")
    assert (code, out, err) == (0, "beta\n", "")


def test_completes_live_jobs_only(cli: Cli) -> None:
    cli.active("live", "lost")
    cli.ok("compute", "cancel", "lost")
    assert complete(cli, "tb-cli compute cancel l") == (0, "live\n", "")


def test_completes_ended_jobs_where_receipts_are_asked_for(cli: Cli) -> None:
    cli.active("done", "dull")
    cli.ok("compute", "execute", "done")
    words = "tb-cli compute-market receipts list --job d"
    assert complete(cli, words) == (0, "done\ndull\n", "")


def test_completes_offer_ids(cli: Cli) -> None:
    cli.post("--offer-id", "gpu-1")
    cli.post("--offer-id", "gpu-2")
    cli.post("--offer-id", "cpu")
    assert complete(cli, "tb-cli compute offer show g") == (0, "gpu-1\ngpu-2\n", "")
    assert complete(cli, "tb-cli compute offer withdraw c") == (0, "cpu\n", "")


def test_completes_parameters_and_proposals(cli: Cli) -> None:
    params = "tb-cli compute-market params"
    assert complete(cli, f"{params} propose b") == (0, "burst_refill_rate\n", "")
    assert complete(cli, f"{params} approve ") == (0, "\n", "")
    cli.ok("state", "init")
    for _ in range(10):
        cli.ok("compute-market", "params", "propose", "min_capacity", "5")
    cli.ok("compute-market", "params", "approve", "10")
    assert complete(cli, f"{params} approve 1") == (0, "1\n", "")
    assert complete(cli, f"{params} approve 2") == (0, "2\n", "")


def test_completes_for_other_shells(cli: Cli) -> None:
    cli.active("alpha")
    for shell in ("zsh", "fish"):
        code, out, err = complete(cli, "tb-cli compute status a", shell)
        assert (code, err) == (0, "")
        assert "alpha" in out


def test_is_silent_without_a_home(cli: Cli) -> None:
    code, out, err = complete(cli, "tb-cli compute status a")
    assert (code, out.strip(), err) == (0, "", "")
    assert not cli.home.exists()


@pytest.mark.parametrize("damage", ["file", "garbage", "config"])
def test_is_silent_on_any_error(cli: Cli, damage: str) -> None:
    cli.audited = False
    if damage == "file":
        cli.home.write_text("x")
    else:
        cli.active("alpha")
    if damage == "garbage":
        cli.data.write_bytes(b"x" * 9000)
    if damage == "config":
        (cli.home / "config.toml").write_text("nonsense = 1\n")
    code, out, err = complete(cli, "tb-cli compute status a")
    assert (code, out.strip(), err) == (0, "", "")
