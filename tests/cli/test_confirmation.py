"""What is dangerous is asked for on a terminal, and nowhere else."""

import subprocess

import pytest

from tests.support.cli import REAL, Cli, Prepared
from tests.support.terminal import answered

pytest_plugins = ("tests.support.cli",)

WITHDRAW = ("wallet", "withdraw", "alice", "--ct", "5")
ARM = ("compute-market", "settle", "arm", "--delay-blocks", "7")
DRY_RUN = ("compute-market", "settle", "dry-run", "--reason", "night")
QUESTIONS = {
    WITHDRAW: "take 5 CT 0 IT out of the wallet of alice? [y/N] ",
    ARM: "let money move, 7 blocks from now? [y/N] ",
    DRY_RUN: "stop moving money, and let receipts wait? [y/N] ",
}
NOT_CONFIRMED = (
    "error[refused]: not confirmed, nothing was changed\nhint: answer y, or give --yes\n"
)
CTRL_C, CTRL_D = "\x03", "\x04"


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(
        tmp_path_factory.mktemp("rich"),
        lambda cli: cli.ok("wallet", "deposit", "alice", "--ct", "9"),
    )


@pytest.fixture
def market(cli: Cli, rich: Prepared, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("NO_COLOR", "1")
    rich.copy_to(cli)
    return cli


@pytest.mark.parametrize("command", QUESTIONS, ids=lambda command: command[-3])
def test_dangerous_verb_asks_on_a_terminal_and_takes_no_for_an_answer(
    market: Cli, command: tuple[str, ...]
) -> None:
    before = market.files()
    done = answered(market, (*command, "--no-color"), "n\n")
    assert done.code == 5
    assert done.text == f"{QUESTIONS[command]}n\n{NOT_CONFIRMED}"
    assert market.files() == before


@pytest.mark.parametrize("command", QUESTIONS, ids=lambda command: command[-3])
def test_dangerous_verb_goes_on_where_it_is_confirmed(
    market: Cli, command: tuple[str, ...]
) -> None:
    if command is DRY_RUN:
        market.ok("compute-market", "settle", "arm", "--delay-blocks", "0")
        market.ok("tick", due=REAL)
    before = market.files()
    done = answered(market, command, "y\n")
    assert done.code == 0
    assert done.text.startswith(f"{QUESTIONS[command]}y\n")
    assert market.files() != before


@pytest.mark.parametrize("keys", ["\n", "yess\n", "ja\n", CTRL_D])
def test_whatever_is_not_yes_is_no(market: Cli, keys: str) -> None:
    assert answered(market, WITHDRAW, keys).code == 5
    assert market.wallet("alice") == (9, 0)


@pytest.mark.parametrize("keys", ["YES\n", " y \n"])
def test_yes_may_be_written_in_any_way(market: Cli, keys: str) -> None:
    assert answered(market, WITHDRAW, keys).code == 0
    assert market.wallet("alice") == (4, 0)


def test_interrupt_at_the_question_changes_nothing(market: Cli) -> None:
    done = answered(market, WITHDRAW, CTRL_C)
    assert done.code == 130
    assert "error" not in done.text
    assert market.wallet("alice") == (9, 0)


def test_answer_is_told_on_stderr_where_stdout_is_a_pipe(market: Cli) -> None:
    done = answered(market, (*WITHDRAW, "--json"), "y\n", to_pipe=True)
    assert done.code == 0
    assert done.text == f"{QUESTIONS[WITHDRAW]}y\n"
    assert '"changed": true' in done.out


@pytest.mark.parametrize(("keys", "code", "ct"), [("n\n", 5, 9), ("y\n", 0, 4), (CTRL_C, 130, 9)])
def test_question_is_asked_on_the_terminal_where_stderr_is_elsewhere(
    market: Cli, keys: str, code: int, ct: int
) -> None:
    done = answered(market, WITHDRAW, keys, errors=subprocess.DEVNULL)
    assert (done.code, market.wallet("alice")) == (code, (ct, 0))
    assert done.text.startswith(QUESTIONS[WITHDRAW])


@pytest.mark.parametrize("word", ["--yes", "-n"])
@pytest.mark.parametrize("command", QUESTIONS, ids=lambda command: command[-3])
def test_nothing_is_asked_with_yes_or_in_a_dry_run(
    market: Cli, command: tuple[str, ...], word: str
) -> None:
    done = answered(market, (*command, word))
    assert (done.code, "[y/N]" in done.text) == (0, False)


@pytest.mark.parametrize("command", QUESTIONS, ids=lambda command: command[-3])
def test_nothing_is_asked_in_a_pipe(market: Cli, command: tuple[str, ...]) -> None:
    assert "[y/N]" not in market.ok(*command, stdin="n\n")


def test_line_of_a_batch_is_not_asked_about(market: Cli) -> None:
    done = answered(market, ("batch", "-"), f"{' '.join(WITHDRAW)}\n{CTRL_D}", after="")
    assert (done.code, "[y/N]" in done.text) == (0, False)
    assert market.wallet("alice") == (4, 0)
