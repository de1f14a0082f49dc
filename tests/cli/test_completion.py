"""Shell completion of commands and of live ids."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.support.cli import Cli, without

pytest_plugins = ("tests.support.cli",)


def _needing(shell: str) -> pytest.MarkDecorator:
    reason = without(shell)
    return pytest.mark.skipif(reason is not None, reason=str(reason))


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
    assert complete(cli, "tb-cli comp") == (0, "compute\ncompute-market\ncompletion\n", "")
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


SHELLS = [pytest.param(shell, marks=_needing(shell)) for shell in ("bash", "zsh", "fish")]


@pytest.mark.parametrize("shell", SHELLS)
def test_script_is_one_that_the_shell_can_read(cli: Cli, shell: str) -> None:
    script = cli.ok("completion", shell)
    done = subprocess.run([shell, "-n"], input=script.encode(), capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert cli.document("completion", shell)["script"] == script


def test_script_of_no_shell_is_refused(cli: Cli) -> None:
    done = cli("completion", "bahs")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[1] == "hint: did you mean bash?"


@pytest.fixture
def market(cli: Cli) -> Cli:
    cli.post("--offer-id", "ns:gpu@home")
    for job_id in ("ns:alpha", "ns:beta@x", "x@one", "plain"):
        cli.submit(job_id, buyer="acme@eu")
    cli.submit("ended")
    cli.ok("wallet", "deposit", "acme@eu", "--ct", "5")
    cli.ok("compute", "cancel", "ended")
    program = cli.directory / "bin" / "tb-cli"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n{sys.executable} -m tb_cli.entry "$@"; touch {cli.directory}/asked\n'
    )
    program.chmod(0o755)
    return cli


def completed(cli: Cli, shell: str, line: str) -> str:
    """What stands on the line of an interactive shell after a tab."""
    words = {
        "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(tb-cli completion bash)"),
        "zsh": (
            ["zsh", "-f", "-i"],
            "autoload -U compinit; compinit -D; source <(tb-cli completion zsh)",
        ),
    }
    command, source = words[shell]
    path = f"{cli.directory / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {
        "PATH": path,
        "TERM": "dumb",
        "PS1": "$ ",
        "HISTFILE": "",
        "INPUTRC": "/dev/null",
    }
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        start_new_session=True,
    )
    os.close(slave)
    try:
        told = cli.directory / "told"
        _type(master, f"{source}; touch {told}.ready\n", told.with_suffix(".ready").exists)
        asked = cli.directory / "asked"
        asked.unlink()
        _type(master, f"{line}\t", asked.exists)
        # The line becomes the argument of a command, once it is completed.
        keys = f"\x01printf '<%s>' \"\x05\" > {told}; touch {told}.done\n"
        _type(master, keys, told.with_suffix(".done").exists)
        return told.read_text().strip("<>").rstrip()
    finally:
        process.kill()
        process.wait()
        os.close(master)


def _type(master: int, keys: str, done: Callable[[], bool]) -> None:
    """Type, and read what is shown until it is done and nothing comes any more."""
    os.write(master, keys.encode())
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        is_done = done()
        if select.select([master], [], [], 0.2 if is_done else 0.02)[0]:
            os.read(master, 65_536)
        elif is_done:
            return


@pytest.mark.parametrize(
    ("line", "whole"),
    [
        ("tb-cli compute cancel ns:a", "tb-cli compute cancel ns:alpha"),
        ("tb-cli compute cancel x@", "tb-cli compute cancel x@one"),
        ("tb-cli compute offer show ns:gpu@", "tb-cli compute offer show ns:gpu@home"),
        ("tb-cli compute list --sort -deadl", "tb-cli compute list --sort -deadline"),
        ("tb-cli wallet list --columns=owner,bond", "tb-cli wallet list --columns=owner,bonds"),
    ],
)
@pytest.mark.skipif(bool(without("bash")), reason=str(without("bash")))
def test_bash_completes_what_it_would_break_words_at(market: Cli, line: str, whole: str) -> None:
    assert completed(market, "bash", line) == whole


@pytest.mark.skipif(bool(without("zsh")), reason=str(without("zsh")))
def test_zsh_completes_them_too(market: Cli) -> None:
    found = completed(market, "zsh", "tb-cli compute cancel ns:a")
    assert found.replace("\\", "") == "tb-cli compute cancel ns:alpha"


@pytest.mark.skipif(bool(without("fish")), reason=str(without("fish")))
def test_fish_completes_them_too(market: Cli) -> None:
    path = f"{market.directory / 'bin'}{os.pathsep}{os.environ['PATH']}"
    asked = "tb-cli completion fish | source; complete -C 'tb-cli compute cancel ns:'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", asked], capture_output=True, env=os.environ | {"PATH": path}
    )
    assert done.stdout.decode().splitlines() == ["ns:alpha", "ns:beta@x"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("compute list --state ac", "active"),
        ("compute list --state active,qu", "active,queued"),
        ("compute list --lane industrial", "industrial"),
        ("compute-market receipts list --lane industrial,", "industrial,consumer"),
        ("compute list --provider pr", "prov"),
        ("compute list --buyer ac", "acme@eu"),
        ("compute submit --workload tr", "transcode"),
        ("compute status end", "ended"),
        ("compute-market receipts show end", "ended"),
        ("wallet balance ac", "acme@eu"),
        ("wallet statement pr", "prov"),
        ("wallet deposit pr", "prov"),
        ("net reputation show pr", "prov"),
        ("log --owner ac", "acme@eu"),
        ("compute cancel --by cl", "client"),
        ("help exi", "exit-codes"),
        ("completion b", "bash"),
    ],
)
def test_completes_values_of_options_and_arguments(
    market: Cli, words: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_TB_CLI_COMPLETE", "complete_fish")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"tb-cli {words}")
    done = market()
    monkeypatch.delenv("_TB_CLI_COMPLETE")
    assert (done.code, done.err) == (0, "")
    assert done.out.partition("\t")[0].strip() == found


def test_installed_script_is_the_one_that_is_printed(
    cli: Cli, from_bash: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.ok("--show-completion") == cli.ok("completion", "bash")
