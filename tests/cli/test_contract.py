"""What holds for every command alike: help, JSON, dry runs, exit codes, errors, start-up."""

import ast
import inspect
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from compute_market import __version__
from compute_market.errors import EXIT_CODES, MarketError
from compute_market.store.schema import SCHEMA_VERSION
from tb_cli.frame import help_page
from tb_cli.frame.verbs import NOT_GIVEN, Group, Verb, parameters_of
from tb_cli.tree import TREE
from tests.support.cli import REAL, Cli, Prepared
from tests.support.verbs import ARGUMENTS, EACH, TRUST, VERBS, Path_, arguments_of

pytest_plugins = ("tests.support.cli",)

ROOT = Path(__file__).resolve().parents[2]


def groups(group: Group = TREE, path: Path_ = ()) -> Iterator[Path_]:
    yield path
    for name, node in group.commands.items():
        if isinstance(node, Group):
            yield from groups(node, (*path, name))


@pytest.fixture(autouse=True)
def trust(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*TRUST)


CREATING = [path for path, verb in VERBS.items() if verb.market == "created"]
NEEDING = [path for path, verb in VERBS.items() if verb.market == "needed"]
APART = [path for path, verb in VERBS.items() if verb.market in ("unused", "optional")]
# It writes what it measures, which is not the same twice, and nothing of the market.
MEASURING = ("compute", "calibrate")
# What it writes are settings, and nothing of the market.
SETTING = ("config", "init")
# It makes a home, and these tests have one.
RESTORING = ("state", "restore")
# What it tells is a list, and what it changes is elsewhere: `test_reputation_sync` has its trial.
TELLING = ("net", "reputation", "sync")
# They act on a bid that has another id in every market: `test_bid` has what holds for them.
OF_A_BID = (("bid", "import"), ("bid", "reveal"), ("bid", "import-reveal"))
# What an argument names that ids complete.
IDS = ("job", "offer", "bid", "bundle", "proposal")
WRITING = [
    path
    for path, verb in VERBS.items()
    if verb.writes and path not in (MEASURING, RESTORING, TELLING, *OF_A_BID)
]


def test_every_verb_is_listed_here() -> None:
    assert {" ".join(path) for path in VERBS} == ARGUMENTS.keys()


def test_verbs_take_what_they_declare() -> None:
    for path, verb in VERBS.items():
        function = verb.function()
        taken = inspect.signature(function).parameters
        declared = parameters_of(function)
        assert set(taken) == {"session", *(each.group or each.name for each in declared)}, path
        assert len({each.name for each in declared}) == len(declared), path
        # Nothing has a default but what is declared, and mappings of options that are rarely
        # given. No argument can come after one that takes all.
        allowed = (inspect.Parameter.empty, NOT_GIVEN)
        assert all(each.default in allowed for each in taken.values()), path
        arguments = [each for each in declared if not each.spellings]
        assert all(not each.many for each in arguments[:-1]), path


def test_verb_that_changes_what_ids_name_takes_many() -> None:
    checked = []
    for path, verb in VERBS.items():
        declared = parameters_of(verb.function())
        arguments = [each for each in declared if not each.spellings]
        if not verb.writes or len(arguments) != 1 or arguments[0].complete not in IDS:
            continue
        assert arguments[0].many, path
        if path != ("compute", "execute"):  # Each job is a transaction of its own.
            assert {"chunk", "atomic", "failed_to"} <= {each.name for each in declared}, path
        checked.append(path)
    assert ("compute", "cancel") in checked
    assert len(checked) >= 7


def test_verbs_know_neither_each_other_nor_the_parser() -> None:
    package = ROOT / "cli" / "tb_cli"
    for path in package.rglob("*.py"):
        imported = {
            name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [])
            + [alias.name for alias in node.names if isinstance(node, ast.Import)]
        }
        if path.name != "app.py":
            assert not any(name.split(".")[0] == "typer" for name in imported), path
        if path.parent == package and path.stem not in ("app", "entry", "tree", "__main__"):
            own = {name for name in imported if name.startswith("tb_cli.")}
            # A line of a batch, or of the demo, is a whole command line.
            above = {"tb_cli.entry"} if path.stem in ("batch", "demo") else set()
            # What tells of all commands knows their tree.
            above |= {"tb_cli.tree"} if path.stem == "help" else set()
            below = ("tb_cli.frame", "tb_cli.network")
            assert {name for name in own if not name.startswith(below)} == above, path


@EACH
def test_verb_has_help_for_itself_and_for_all_it_takes(cli: Cli, path: Path_) -> None:
    verb = VERBS[path]
    assert verb.help
    assert verb.help[0].isupper()
    assert verb.help.endswith(".")
    out = cli.ok(*path, "-h")
    assert out == cli.ok(*path, "--help")
    assert out.startswith(f"Usage: tb-cli {' '.join(path)} [OPTIONS]")
    assert not cli.home.exists()
    for option in ("--json", "--home DIR", "--lock-timeout DURATION", "--no-color", "--debug"):
        assert re.search(rf"^  {option} ", out, re.MULTILINE), option
    dry = re.search(r"^  -n, --dry-run ", out, re.MULTILINE)
    assert bool(dry) == verb.writes
    out = out.partition("\nOptions:\n")[2]
    # Every option and argument says what it is.
    rows = re.findall(r"^  (?=-)(\S.*)$(?:\n^ {3,}(\S.*)$)?", out, re.MULTILINE)
    assert rows
    for row, below in rows:
        assert "  " in row or below, row


@pytest.mark.parametrize("path", list(groups()), ids=lambda path: " ".join(path) or "tb-cli")
def test_group_lists_its_commands(cli: Cli, path: Path_) -> None:
    out = cli.ok(*path, "-h")
    group = TREE
    for name in path:
        node = group.commands[name]
        assert isinstance(node, Group)
        group = node
    listed = re.findall(r"^  ([a-z][a-z-]*)  +[A-Z]", out.split("Commands:")[1], re.MULTILINE)
    assert listed == list(group.commands)
    if group.default is not None:
        assert cli(*path) == cli(*path, group.default)
        verb = group.commands[group.default]
        assert not isinstance(verb, Group)
        for option in parameters_of(verb.function()):
            assert option.spellings[0] in out.split("Options:")[0]
    else:  # There is nothing to do: the same help, but as a mistake.
        assert cli(*path) == (2, out, "")


@pytest.mark.parametrize("path", [*CREATING, *NEEDING, ("batch",)], ids=" ".join)
def test_verb_that_opens_the_store_fails_without_one(cli: Cli, path: Path_) -> None:
    cli.slice()
    cli.home.write_text("I am a file")
    done = cli(*arguments_of(path), stdin="compute list\n")
    first = done.err.splitlines()[0]
    assert done.code == 2
    assert first.startswith(f"error[usage]: {cli.home}")
    # Where items have lines of their own, the line of this one says the same.
    assert f"error[usage]: {done.out or first[14:]}".strip() == first
    done = cli(*arguments_of(path), "--json", stdin="compute list\n")
    error = json.loads(done.err.splitlines()[0])
    assert (done.code, done.out, error["error"]) == (2, "", "usage")
    assert str(cli.home) in error["message"]
    assert cli.home.read_text() == "I am a file"


def make_busy(cli: Cli) -> None:
    """A home in which each writing verb of `ARGUMENTS` has something to do."""
    cli.real()
    cli.ok("compute-market", "settle", "dry-run", "--reason", "first")
    fill(cli)


def make_paying(cli: Cli) -> None:
    """The same where money moves."""
    cli.real()
    for owner in ("b", "other"):
        cli.ok("wallet", "deposit", owner, "--ct", "100", "--it", "100")
    fill(cli)


def fill(cli: Cli) -> None:
    cli.post("--bond", "3")
    for job_id in ("j0", "j1", "j2"):
        cli.submit(job_id, "--deadline-secs", "62" if job_id == "j2" else "1000")
    cli.ok("compute", "cancel", "j0")
    cli.submit("p1", "--gpu", "H100", "--wait")
    job = {"job_id": "j5", "buyer": "alice", "workload": "transcode", "max_price_per_unit": 9}
    Path("job.json").write_text(json.dumps(job | {"slices": ["a.slice"]}))
    cli.ok("key", "new", "b")


@pytest.fixture(scope="module")
def busy_home(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("busy_home"), make_busy)


@pytest.fixture(scope="module")
def paying_home(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("paying_home"), make_paying)


WAITS: Path_ = (
    *("compute", "submit", "--job-id", "waits", "--buyer", "b", "--workload", "transcode"),
    *("--slice", "a.slice", "--max-price", "9", "--gpu", "none has it", "--wait"),
)
PREPARE: dict[str, list[Path_]] = {
    "compute hold": [WAITS],
    "compute release": [WAITS, ("compute", "hold", "waits")],
    "compute courier flush": [
        ("compute", "courier", "send", "a.slice", "alice"),
        ("key", "new", "node"),
    ],
    "compute courier resend": [("compute", "courier", "send", "a.slice", "alice")],
    "compute preempt": [
        ("compute", "offer", "post", "--provider", "other", "--units", "9", "--price", "5"),
        ("net", "reputation", "adjust", "other", "+10", "--reason", "known elsewhere"),
        ("key", "new", "node"),
    ],
    "compute-market settle cancel-arm": [
        ("compute-market", "settle", "arm", "--delay-blocks", "9")
    ],
    "compute-market settle dry-run": [
        ("compute-market", "settle", "arm", "--delay-blocks", "0"),
        ("compute-market", "settle", "tick"),
    ],
    "compute-market settle tick": [("compute-market", "settle", "arm", "--delay-blocks", "0")],
    "tick": [("compute-market", "settle", "arm", "--delay-blocks", "0")],
    "compute-market params approve": [("compute-market", "params", "propose", "min_capacity", "5")],
    "compute-market params rollback": [
        ("compute-market", "params", "propose", "min_capacity", "5"),
        ("compute-market", "params", "approve", "1"),
        ("chain", "advance", "120"),
        ("compute-market", "match"),
    ],
}
# What the last of those commands say that was due.
TOLD = {"tick": REAL, "match": "min_capacity 5 in force"}
OVERDUE = ("compute-market sla sweep",)
# What the others do begins with a market in which no money moves.
OF_MONEY = [
    path
    for path in WRITING
    if path != ("tick",)
    and path[:2] not in (("compute-market", "receipts"), ("compute-market", "settle"))
]


@pytest.mark.parametrize("path", WRITING, ids=" ".join)
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_dry_run_tells_what_would_happen_and_changes_no_byte(
    cli: Cli, path: Path_, form: Path_, busy_home: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy_home.copy_to(cli)
    _check_dry_run(cli, path, form, monkeypatch)


@pytest.mark.parametrize("path", OF_MONEY, ids=" ".join)
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_dry_run_tells_what_would_happen_where_money_moves(
    cli: Cli, path: Path_, form: Path_, paying_home: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    paying_home.copy_to(cli)
    _check_dry_run(cli, path, form, monkeypatch)


def _check_dry_run(cli: Cli, path: Path_, form: Path_, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TB_ENABLE_PREEMPT", "true")
    monkeypatch.setattr(os, "urandom", bytes)  # What is drawn is the same each time.
    name = " ".join(path)
    for command in PREPARE.get(name, []):
        cli.ok(*command, due=TOLD.get(command[-1], ""))
    if name in OVERDUE:
        cli.advance(63)
    if name == "state archive":
        cli.advance(1)  # A job that has ended is older than none by then.
    # What the last command left undone is not to be done by a dry run either.
    (cli.home / "cancellations.log").write_text("j0 ")
    stdin = "wallet deposit alice --ct 1\n" if name == "batch" else ""
    command = (*arguments_of(path), *form)
    before = cli.files()
    dry = cli(*command, "--dry-run", stdin=stdin)
    short = cli(*command, "-n", stdin=stdin)
    assert cli.files() == before
    real = cli(*command, stdin=stdin)
    assert (real.code, real.err) == (0, f"{REAL}\n" if "tick" in path else "")
    assert cli.files() != before
    assert dry == short
    told = f"dry_run: {real.err}" if real.err else ""
    if path == ("compute", "submit") and not form:
        told += "a highest price of 9 is above the industrial band 5…5, median 5 of 3 prices\n"
    assert (dry.code, dry.err) == (0, told)
    if form:
        assert dry.json == real.json | {"dry_run": True}
        assert list(dry.json) == [*real.json, "dry_run"]
    else:
        assert dry.out.splitlines() == [f"dry_run: {line}" for line in real.out.splitlines()]


@pytest.mark.parametrize("path", WRITING, ids=" ".join)
def test_dry_run_creates_no_home(cli: Cli, path: Path_) -> None:
    cli.slice()
    before = sorted(cli.directory.rglob("*"))
    done = cli(*arguments_of(path), "-n", stdin="wallet deposit alice --ct 1\n")
    if VERBS[path].market == "needed":
        assert (done.code, done.out, done.err.splitlines()[0]) == (3, "", no_market(cli))
    else:
        assert done.code in (0, 5)
        assert "created" not in done.err
    assert sorted(cli.directory.rglob("*")) == before


def no_market(cli: Cli) -> str:
    return f"error[not_found]: no market in {cli.home}"


def test_verbs_that_create_a_market_are_those_that_bring_something_new() -> None:
    assert {" ".join(path) for path in CREATING} == {
        *("compute offer post", "compute submit", "compute-market settle arm"),
        *("compute-market capacity record", "wallet deposit", "state init"),
        *("key new", "key import-public", "compute-market receipts import"),
        *("compute courier send", "mempool submit"),
    }


@pytest.mark.parametrize("path", NEEDING, ids=" ".join)
def test_verb_without_a_market_says_so_and_makes_nothing(cli: Cli, path: Path_) -> None:
    before = sorted(cli.directory.rglob("*"))
    done = cli(*arguments_of(path))
    assert (done.code, done.out, done.err.splitlines()[0]) == (3, "", no_market(cli))
    done = cli(*arguments_of(path), "--json")
    assert (done.code, done.out, done.error["error"]) == (3, "", "not_found")
    assert sorted(cli.directory.rglob("*")) == before


@pytest.mark.parametrize("path", CREATING, ids=" ".join)
def test_verb_that_brings_something_new_creates_a_market_and_says_so(cli: Cli, path: Path_) -> None:
    cli.slice()
    done = cli(*arguments_of(path))
    told = f"created a market in {cli.home}\n"
    if path == ("state", "init"):
        assert (done.out, done.err) == (f"created {cli.home}\n", "")
    else:
        assert done.err.startswith(told)
    assert cli.data.exists()
    assert "created" not in cli(*arguments_of(path)).err


@pytest.mark.parametrize("path", [path for path in APART if path != RESTORING], ids=" ".join)
def test_verb_that_needs_no_market_makes_none(cli: Cli, path: Path_) -> None:
    cli.slice()
    done = cli.process(*arguments_of(path), afresh=True)
    assert done.code == 0
    assert not cli.data.exists()
    # What is measured is kept for the next time, and settings; nothing else is.
    assert cli.home.exists() == (path in (MEASURING, SETTING))


def test_dry_run_leaves_metrics_alone(cli: Cli, busy_home: Prepared) -> None:
    busy_home.copy_to(cli)
    before = cli.ok("metrics")
    for path in WRITING:
        cli(*arguments_of(path), "-n")
    assert cli.ok("metrics") == before


def test_exit_codes_are_one_table() -> None:
    assert [row.code for row in EXIT_CODES] == list(range(11))
    tokens = {row.code: row.token for row in EXIT_CODES}
    found = set(MarketError.__subclasses__()) | {MarketError}
    assert all(tokens[error.exit_code] == error.token for error in found)
    assert {error.exit_code for error in found} == set(tokens) - {0, 7}


def test_help_shows_the_exit_codes(cli: Cli) -> None:
    shown = " ".join(cli.ok("--help").split("Exit codes:")[1].split())
    assert shown == ", ".join(f"{row.code} {row.token}" for row in EXIT_CODES) + "."


def test_readme_shows_the_exit_codes() -> None:
    text = (ROOT / "README.md").read_text()
    table = re.search(r"^\| code \| token \| meaning \|\n\|[-| ]+\|\n((?:\|.*\|\n)+)", text, re.M)
    assert table is not None
    assert table.group(1).splitlines() == [
        f"| {row.code} | {row.token} | {row.meaning} |" for row in EXIT_CODES
    ]


def test_version(cli: Cli) -> None:
    assert cli.ok("--version") == f"tb-cli {__version__}\n"
    assert cli.process("--version", afresh=True) == (0, f"tb-cli {__version__}\n", "")


def test_version_under_json_names_what_it_runs_on(cli: Cli) -> None:
    document = cli.document("--version")
    signing = ["signing_backend", "verifying_backend"]
    assert list(document) == ["version", *signing, "schema", "python", "lmdb"]
    assert document["schema"] == SCHEMA_VERSION
    assert document["python"] == platform.python_version()
    assert document["lmdb"] == ".".join(map(str, lmdb.version()))
    assert (document["version"], document["signing_backend"]) == (__version__, "cryptography")
    assert document["verifying_backend"] in ("cryptography", "liboqs")
    assert not cli.home.exists()


def test_json_may_stand_before_the_command(cli: Cli) -> None:
    cli.ok("state", "init")
    assert cli.ok("--json", "compute", "list") == "[]\n"
    done = cli("--json", "compute", "status", "nope")
    assert (done.code, done.error["error"]) == (3, "not_found")


@pytest.mark.parametrize(
    ("arguments", "named", "see"),
    [
        (("compute", "cancel", "j1", "--by", "nobody"), "--by", "compute cancel"),
        (("compute", "cancel", "j1", "--chunk", "0"), "--chunk", "compute cancel"),
        (("compute", "cancel", "j1", "--nope"), "--nope", "compute cancel"),
        (("compute", "set"), "JOB…", "compute set"),
        (("compute", "list", "--limit", "-1"), "--limit", "compute list"),
        (("compute", "list", "--limit"), "--limit", "compute list"),
        (("compute", "list", "--priority", "urgent"), "--priority", "compute list"),
        (("compute", "list", "extra"), "extra", "compute list"),
        (("wallet", "deposit", "alice", "--ct", "1.5"), "--ct", "digits 0-9 alone"),
        (("wallet", "deposit", "alice", "--ct", "-1"), "--ct", "wallet deposit"),
        (("wallet", "deposit", "alice", "--ct", str(2**63)), "--ct", "wallet deposit"),
        (("compute", "execute", "j1", "--workers", "0"), "--workers", "compute execute"),
        (("compute", "wait", "j1", "--timeout", "soon"), "--timeout", "90s, 15m, 2h, 3d or 1h30m"),
        (
            ("--lock-timeout", "soon", "compute", "list"),
            "--lock-timeout",
            "90s, 15m, 2h, 3d or 1h30m",
        ),
        (("nonsense",), "'nonsense'", ""),
        (("compute", "nonsense"), "'nonsense'", "compute"),
    ],
)
def test_usage_error_names_the_option(cli: Cli, arguments: Path_, named: str, see: str) -> None:
    done = cli(*arguments)
    assert (done.code, done.out) == (2, "")
    first, second = done.err.splitlines()
    assert first.startswith("error[usage]: ")
    assert named in first
    assert second.startswith("hint: ")
    assert (f"`tb-cli {see}{' ' if see else ''}--help`" in second) or see in second.split("; ")[0]
    assert not cli.home.exists()


TERMS = ("--provider", "p", "--units", "1", "--price", "1")


@pytest.mark.parametrize(
    "words",
    [
        ("wallet", "deposit", "alice", "--ct"),
        ("compute", "list", "--limit"),
        ("compute", "wait", "j1", "--timeout"),
        ("chain", "advance"),
        ("compute", "list", "--lock-timeout"),
    ],
    ids=" ".join,
)
def test_number_is_of_ascii_digits(cli: Cli, words: Path_) -> None:
    for number in ("٥", " 5", "5 ", "1_000", "+5", "５", "1e3", "nan", "inf", ""):
        for spelled in ((*words, number), (*words[:-1], f"{words[-1]}={number}")):
            if words[-1][:2] == "--" or spelled[-1] == number:
                done = cli(*spelled)
                assert (done.code, done.out, done.err[:13]) == (2, "", "error[usage]:"), spelled


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("compute", "offer", "post", "--units", "1", "--price", "1"), "--provider is missing"),
        (("compute", "offer", "post", *TERMS, "--gpu", ""), "error[usage]: --gpu is empty\n"),
        (("compute", "offer", "post", *TERMS, "--accelerator", ""), "--accelerator is empty\n"),
        (("compute", "offer", "post", *TERMS, "--offer-id", ""), "--offer-id is empty"),
        (("compute", "offer", "post", *TERMS, "--job", "a b"), "--job 'a b' has the character ' '"),
        (
            ("compute", "offer", "post", *TERMS, "--gpu", "A", "--gpu", "B"),
            "--gpu is given twice",
        ),
        (("compute", "submit", "--job-id", "j"), "--buyer is missing"),
        (("compute", "submit", "--slice", ""), "--slice is empty"),
        (("compute", "submit", ""), "error[usage]: FILE is empty\nhint: name a file\n"),
        (("compute", "submit", "a.json", ""), "FILE is empty"),
        (("compute", "offer", "post", ""), "FILE is empty"),
        (("compute", "run", ""), "FILE is empty"),
        (("compute", "courier", "receive", ""), "PATH is empty"),
        (("compute", "courier", "send", "", "alice"), "FILE is empty"),
        (("compute", "cancel", "j", "--failed-to", ""), "--failed-to is empty"),
        (("compute-market", "receipts", "verify", ""), "FILE is empty"),
        (("compute-market", "simulate", ""), "SCENARIO is empty"),
        (("net", "reputation", "import", ""), "FILE is empty"),
        (("bid", "import", ""), "FILE is empty"),
        (("key", "import-public", "k", ""), "FILE is empty"),
        (("state", "backup", ""), "error[usage]: DIR is empty\nhint: name a directory\n"),
        (("state", "restore", ""), "DIR is empty"),
        (("compute", "list", "--state", "activ"), "--state: 'activ' is none of "),
        (("compute", "list", "--buyer", ""), "--buyer is empty"),
        (("compute", "list", "--limit", str(2**31 + 1)), "--limit: "),
        (("compute", "offer", "list", "--provider", "a/b"), "--provider 'a/b' has the character "),
        (("compute", "explain", ""), "'' is no file, and the job id is empty"),
        (("compute", "explain", "j1", "--offer", ""), "--offer is empty"),
        (("compute", "explain", "x" * 600), "is no file, and the job id has 600 characters"),
        (("compute-market", "receipts", "show", ""), "job id or key is empty"),
        (("compute-market", "receipts", "list", "--job", ""), "--job is empty"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, tuple) else "",
)
def test_wrong_value_is_told_by_its_option(cli: Cli, words: Path_, says: str) -> None:
    cli.ok("state", "init")
    done = cli(*words)
    assert done.code == 2
    assert says in done.err
    assert len(done.err) < 600
    if "activ" in words:
        assert "hint: did you mean active?\n" in done.err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("compute", "cance", "j1"), "did you mean `tb-cli compute cancel`?"),
        (("comptue", "list"), "did you mean `tb-cli compute`?"),
        (("compute-market", "setle", "status"), "did you mean `tb-cli compute-market settle`?"),
        (("balance", "alice"), "did you mean `tb-cli wallet balance`?"),
        (("wallet", "cancel"), "did you mean `tb-cli compute cancel`?"),
        (("audit", "--json"), "did you mean `tb-cli compute-market audit`?"),
        (("compute", "frobnicate"), "see `tb-cli compute --help`"),
        (("compute", "list", "--limt", "3"), "did you mean --limit?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_word_that_is_no_command_is_told_the_nearest(cli: Cli, words: Path_, hint: str) -> None:
    done = cli(*words)
    assert (done.code, done.out) == (2, "")
    assert hint in done.err


def test_every_verb_is_found_by_a_slip_of_the_hand(cli: Cli) -> None:
    for *above, name in VERBS:
        done = cli(*above, f"{name}{name[-1]}")
        assert done.code == 2
        assert f"did you mean `tb-cli {' '.join((*above, name))}`?" in done.err


@pytest.mark.parametrize("path", [(), ("compute",), ("compute", "cancel")])
def test_heads_of_help_stand_out_where_they_may(path: Path_) -> None:
    node: Verb | Group = TREE
    for name in path:
        assert isinstance(node, Group)
        node = node.commands[name]
    plain, bold = (help_page.page(path, node, bold=each) for each in (False, True))
    assert re.sub(r"\x1b\[[01]m", "", bold) == plain
    assert "\x1b[1mOptions:\x1b[0m\n" in bold


def test_help_is_plain_where_no_colour_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert not help_page.is_bold([])
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert help_page.is_bold([])
    assert not help_page.is_bold(["--no-color"])
    monkeypatch.setenv("NO_COLOR", "1")
    assert not help_page.is_bold([])


@pytest.mark.parametrize(
    ("arguments", "code", "token"),
    [
        (("compute", "status", "nope", "--json"), 3, "not_found"),
        (("compute", "cancel", "nope", "--jsonl"), 3, "not_found"),
        (("compute", "cancel", "no such id", "--json"), 2, "usage"),
        (("compute", "list", "--json", "--limit", "x"), 2, "usage"),
        (("compute", "list", "--json", "--nope"), 2, "usage"),
        (("wallet", "withdraw", "alice", "--ct", "1", "--json"), 5, "refused"),
        (("compute", "wait", "--json", "nope"), 3, "not_found"),
    ],
)
def test_error_under_json_is_one_object_on_stderr(
    cli: Cli, arguments: Path_, code: int, token: str
) -> None:
    cli.ok("state", "init")
    done = cli(*arguments)
    assert done.code == code
    error = done.error
    assert error["error"] == token
    assert error.keys() >= {"error", "message", "hint", "retryable"}
    assert isinstance(error["message"], str)
    assert error["retryable"] is False


def test_bug_is_one_line_and_a_traceback_only_for_debug(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compute_market.jobs import documents

    def broken(*_: object) -> None:
        raise ZeroDivisionError("by\nnought")

    cli.active()
    monkeypatch.setattr(documents, "job_document", broken)
    done = cli("compute", "status", "j1")
    error = "error[internal]: ZeroDivisionError: by nought\nhint: a bug; --debug shows where\n"
    assert done == (1, "", error)
    done = cli("compute", "status", "j1", "--debug")
    assert done.code == 1
    assert "Traceback (most recent call last)" in done.err
    assert done.err.endswith(error)


HEAVY = {
    *("rich", "prometheus_client", "pydantic", "cryptography", "numpy", "cupy", "asyncio"),
    *("importlib.metadata", "ssl", "http", "concurrent", "multiprocessing"),
    *("oqs", "ctypes", "compute_market.signatures.signatures", "compute_market.governance"),
}


def loaded(cli: Cli, *arguments: str) -> set[str]:
    """The modules that a fresh process has loaded by the time the command has ended."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tb_cli.entry", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-500:]
    return {
        line.rpartition("|")[2].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ("compute", "cancel", "j1"),
        ("compute", "cancel", "j1", "--by", "client"),
        ("compute", "status", "j1"),
        ("compute-market", "params"),
        ("wallet", "balance", "alice"),
        ("--version",),
    ],
    ids=" ".join,
)
def test_hot_verb_loads_nothing_heavy(cli: Cli, arguments: Path_) -> None:
    cli.active()
    modules = loaded(cli, *arguments)
    assert "tb_cli.frame.guard" in modules  # The list is that of a command.
    names = {name for module in modules for name in (module, module.partition(".")[0])}
    assert names & HEAVY == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ("compute", "cancel", "j1"),
        ("compute", "cancel", "--by", "client", "-n", "j1"),
        ("compute", "status", "j1"),
        ("compute", "submit", "job.json", "--max-price", "9", "--atomic", "--jsonl"),
        ("compute-market", "params"),
        ("compute", "run", "a.slice", "-", "b.slice"),
        ("wallet", "deposit", "alice", "--ct", "1"),
    ],
    ids=" ".join,
)
def test_plain_spelling_leaves_the_option_parser_out(cli: Cli, arguments: Path_) -> None:
    cli.active()
    cli.slice("b.slice")
    job = {"job_id": "j2", "buyer": "alice", "workload": "transcode", "slices": ["a.slice"]}
    (cli.directory / "job.json").write_text(json.dumps(job))
    modules = loaded(cli, *arguments)
    assert {"typer", "tb_cli.app"} & modules == set()
    # Of the verbs the one that is called.
    nouns = {path.stem for path in (ROOT / "cli" / "tb_cli").glob("*.py")} - {"entry", "tree"}
    assert len({f"tb_cli.{noun}" for noun in nouns} & modules) == 1


def test_plain_run_loads_neither_store_nor_records(cli: Cli) -> None:
    cli.slice()
    modules = loaded(cli, "compute", "run", "a.slice")
    assert {"tb_cli.run", "compute_market.workloads.runner"} <= modules
    unused = {
        "lmdb",
        "msgspec",
        "compute_market.store.store",
        "compute_market.records",
        "tb_cli.frame.bulk",
        "threading",
        "mmap",
        "inspect",
    }
    assert unused & modules == set()
    assert not cli.home.exists()


def test_amounts_in_json_are_integers(cli: Cli) -> None:
    huge = 2**62 + 1  # No float holds it.
    cli.ok("wallet", "deposit", "alice", "--ct", str(huge))
    assert f'"ct": {huge},' in cli.ok("wallet", "balance", "alice", "--json")
    assert cli.document("wallet", "history", "alice")[0]["amount"] == huge
    cli.post(units=huge, price=huge)
    offer = json.loads(cli.ok("compute", "offer", "show", "o-1", "--json"))
    assert (offer["units"], offer["price_per_unit"]) == (huge, huge)
    assert (offer["units_left"], offer["effective_price"]) == (huge, huge)
