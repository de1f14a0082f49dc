"""Help: a page for every command and every topic, with lines that can be copied and run."""

import json
import re
import shlex
from pathlib import Path

import pytest

from compute_market import __version__
from compute_market.config.rows import SETTINGS
from compute_market.errors import EXIT_CODES
from tb_cli.frame.help_page import description, help_of, page
from tb_cli.frame.topics import TOPICS
from tb_cli.frame.values import metavar_of
from tb_cli.frame.verbs import examples_of, parameters_of
from tests.support.cli import Cli, Prepared
from tests.support.verbs import (
    EACH,
    FRIEND,
    OPENED,
    RECEIPTS,
    SCENARIO,
    SCORES,
    SEALED,
    STICK,
    TRUST,
    VERBS,
    Path_,
)

pytest_plugins = ("tests.support.cli",)


@pytest.mark.parametrize("path", [("compute",), ("compute", "offer"), *VERBS], ids=" ".join)
def test_help_of_a_command_is_its_page(cli: Cli, path: Path_) -> None:
    assert cli.ok("help", *path) == cli.ok(*path, "--help")
    assert not cli.home.exists()


def test_help_alone_is_that_of_the_program(cli: Cli) -> None:
    shown = cli.ok("help")
    assert shown == cli.ok("--help") == cli.ok("-h")
    assert cli() == (2, shown, "")
    for name, topic in TOPICS.items():
        assert f"  help {name}" in shown
        assert topic.help in shown


@pytest.mark.parametrize("topic", TOPICS)
def test_topic_fits_a_terminal_and_is_there_as_json(cli: Cli, topic: str) -> None:
    shown = cli.ok("help", topic)
    assert max(map(len, shown.splitlines())) <= 100
    assert cli.document("help", topic) == {"help": topic, "text": shown}


def test_topics_tell_everything_of_their_kind(cli: Cli) -> None:
    codes = cli.ok("help", "exit-codes")
    assert all(f"  {row.code} {row.token}" in codes and row.meaning in codes for row in EXIT_CODES)
    variables = cli.ok("help", "environment")
    assert all(f"  {each.variable}" in variables for each in SETTINGS)
    assert "TB_BUYER" in variables
    formats = cli.ok("help", "formats")
    assert all(f"    {name} " in formats for name in ("job_id", "max_price_per_unit", "gpu_count"))
    assert "market/data.mdb" in cli.ok("help", "files")
    assert "1h30m" in cli.ok("help", "units")
    assert "2h ago" in cli.ok("help", "times")


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (("exit-code",), "No such command or topic 'exit-code'.", "did you mean exit-codes?"),
        (("compute", "cancel", "j1"), "unexpected argument 'j1'", ""),
        (("compute", "nonsense"), "No such command 'nonsense'.", "see `tb-cli compute --help`"),
    ],
)
def test_help_of_what_there_is_not_is_refused(
    cli: Cli, words: Path_, error: str, hint: str
) -> None:
    done = cli("help", *words)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"error[usage]: {error}\n" + (f"hint: {hint}\n" if hint else "")


def test_version_has_a_short_form(cli: Cli) -> None:
    assert cli.ok("-V") == cli.ok("--version") == f"tb-cli {__version__}\n"


@pytest.mark.parametrize("width", [40, 80, 100])
@EACH
def test_page_keeps_to_its_width_but_for_what_is_copied(path: Path_, width: int) -> None:
    examples = examples_of(VERBS[path].function())
    for line in page(path, VERBS[path], width=width).splitlines()[1:]:
        assert len(line) <= max(width, 60) or "`" in line or line.strip() in examples


def make_shop(cli: Cli) -> None:
    """Whatever the examples are about."""
    cli.real()
    for owner in ("acme", "alice", "bob"):
        cli.ok("wallet", "deposit", owner, "--ct", "10000", "--it", "10000")
    for number, provider in enumerate(("farm", "acme"), 1):
        cli.post("--offer-id", f"o-{number}", provider=provider)
    cli.post("--offer-id", "o-7")
    for number in (1, 2, 42, 43):
        cli.submit(f"j-{number}", "--deadline-secs", "1h")
    cli.slice("b.slice")
    Path("SUMS").write_text(cli.ok("compute", "run", "a.slice"))
    cli.ok("key", "new", "node")
    cli.ok("compute", "courier", "send", cli.slice("bundle.bin"), "alice")
    job = {"job_id": "j-9", "buyer": "alice", "workload": "transcode", "max_price_per_unit": 9}
    Path("job.json").write_text(json.dumps(job | {"slices": ["a.slice"]}))
    Path("jobs.jsonl").write_text(json.dumps(job | {"job_id": "j-8", "slices": ["a.slice"]}))
    offer = {"provider": "farm", "units": 5, "price_per_unit": 4}
    Path("offer.json").write_text(json.dumps(offer))
    for source, name in (
        (FRIEND, "friend.pub"),
        (SCORES, "scores.jsonl"),
        (SCENARIO, "week.toml"),
        (SEALED, "b-1.bid"),
        (OPENED, "b-1.open"),
        (RECEIPTS, "receipts.jsonl"),
    ):
        Path(name).write_bytes(Path(source).read_bytes())


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("shop"), make_shop)


EXAMPLES = [(path, line) for path in VERBS for line in examples_of(VERBS[path].function())]


# What takes long, or waits for what others do.
LONG = (("demo",), ("compute", "calibrate"), ("compute-market", "simulate"), ("compute", "wait"))
# What the market of these tests answers where it is not asked for what there is.
ANSWERS: dict[Path_, int] = {
    ("compute", "prove"): 9,
    ("compute", "status"): 3,  # --at
    ("compute", "hold"): 5,
    ("compute", "courier", "show"): 3,
    ("compute", "courier", "resend"): 3,
    ("compute-market", "params", "approve"): 3,
    ("compute-market", "params", "rollback"): 5,
    ("compute-market", "prices", "suggest"): 5,
    ("compute-market", "subsidy"): 3,
    ("compute-market", "settle", "arm"): 5,
    ("compute-market", "settle", "cancel-arm"): 5,
    ("compute-market", "receipts", "show"): 3,
    ("compute-market", "receipts", "import"): 7,
    ("state", "restore"): 3,
    ("bid", "export"): 3,
    ("bid", "import"): 5,
    ("bid", "import-reveal"): 5,
    ("bid", "reveal"): 3,
    ("bid", "show"): 3,
}


def test_every_verb_has_an_example() -> None:
    assert {path for path, _ in EXAMPLES} == set(VERBS)


@pytest.mark.parametrize(("path", "line"), EXAMPLES, ids=lambda value: str(value)[7:60])
def test_example_can_be_copied(
    cli: Cli, shop: Prepared, path: Path_, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*TRUST)
    monkeypatch.setenv("TB_ENABLE_PREEMPT", "true")
    shop.copy_to(cli)
    if path not in LONG and "--follow" not in line and "--watch" not in line:
        out = ""
        for part in line.replace("/backup/", "").replace("/media/stick", STICK).split(" | "):
            done = cli(*shlex.split(part)[1:], stdin=out)
            out = done.out
        assert done.code in (0, ANSWERS.get(path, 0)), done


@EACH
def test_help_says_a_thing_once(path: Path_) -> None:
    sentences = [
        each.strip(" .").lower() for each in re.split(r"(?<=[.:;])\s+", description(VERBS[path]))
    ]
    for number, each in enumerate(sentences):
        assert not [other for other in sentences[:number] if other.endswith(each)], each


@EACH
def test_help_has_bounds_that_a_person_can_read(path: Path_) -> None:
    for each in parameters_of(VERBS[path].function()):
        shown = help_of(each)
        assert not re.search(r"[0-9]{8}", shown), shown
        if each.unit in ("seconds", "milliseconds"):
            assert not re.search(r"…[0-9]+( seconds)?[];]|default: [0-9]+[];]", shown), shown


@EACH
def test_help_calls_a_time_the_same_everywhere(path: Path_) -> None:
    for each in parameters_of(VERBS[path].function()):
        if each.spellings and each.spellings[0] in ("--since", "--until", "--at", "--deadline"):
            assert metavar_of(each) == "WHEN"
