"""Looking changes nothing: what reading verbs leave as it was, and what none of them tells."""

import json
import shutil
from pathlib import Path

import pytest

from tb_cli.frame.completion import completions
from tests.support.cli import WRONG, Cli, Done, Prepared
from tests.support.verbs import ARGUMENTS, VERBS, Path_, arguments_of

pytest_plugins = ("tests.support.cli",)

READING = [path for path, verb in VERBS.items() if not verb.writes]
EACH_READING = pytest.mark.parametrize("path", READING, ids=" ".join)
FORMS: tuple[Path_, ...] = ((), ("--json",))

# Path, bytes and time of the last change of each file; LMDB's table of readers is not the market.
Files = dict[str, tuple[int, bytes]]


def files_of(home: Path) -> Files:
    found = {}
    for path in sorted(home.rglob("*")):
        if path.name == "lock.mdb":
            found[str(path)] = 0, b""
        elif path.is_file():
            found[str(path)] = path.stat().st_mtime_ns, path.read_bytes()
        else:
            found[str(path)] = 0, b"a directory"
    return found


def make_much_due(cli: Cli) -> None:
    """A home in which everything waits that a command might be tempted to do."""
    cli.real()
    cli.post("--bond", "3")
    for job_id in ("j0", "j1", "j2"):
        cli.submit(job_id, "--deadline-secs", "62" if job_id == "j2" else "1000")
    cli.ok("compute", "cancel", "j0")
    # A bid whose time to be revealed will have passed.
    job = {"job_id": "b", "buyer": "alice", "workload": "transcode", "max_price_per_unit": 9}
    Path("job.json").write_text(json.dumps(job | {"slices": ["a.slice"]}))
    (cli.home / "config.toml").write_text("bid_reveal_window = 60")
    cli.ok("key", "new", "k1")
    cli.ok("bid", "commit", "job.json", "--bidder", "k1", "--owner", "alice")
    (cli.home / "config.toml").unlink()
    cli.ok("compute", "courier", "send", "a.slice", "alice")
    # A receipt waits for the mode, and the mode for a height.
    cli.ok("compute-market", "settle", "dry-run", "--reason", "to wait")
    cli.ok("compute", "execute", "j1")
    cli.ok("compute-market", "settle", "arm", "--delay-blocks", "5")
    cli.submit("p1", "--gpu", "H100", "--wait")
    (cli.home / "cancellations.log").write_text("j0 ")
    cli.advance(70)


@pytest.fixture(scope="module")
def much_due(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("much_due"), make_much_due)


@pytest.fixture
def due(cli: Cli, much_due: Prepared) -> Cli:
    """Commands over that home, where nothing was done yet."""
    much_due.copy_to(cli)
    return cli


def is_all_due(cli: Cli, *home: str) -> bool:
    status = cli.document(*home, "compute-market", "settle", "status")
    job = cli.document(*home, "compute", "status", "j2")
    (bid,) = cli.document(*home, "bid", "list")
    return (status["due"], status["pending"], job["overdue"], bid["overdue"]) == (
        True,
        1,
        True,
        True,
    )


def words_of(cli: Cli, path: Path_) -> list[str]:
    """The command line of a verb, with the ids of the bid and the bundle that there are."""
    (bid,) = cli.document("bid", "list")
    (bundle,) = cli.document("compute", "courier", "list")
    there = {"b-1": bid["bid_id"], "0" * 16: bundle["id"]}
    return [there.get(word, word) for word in arguments_of(path)]


def run(cli: Cli, path: Path_, *arguments: str | Path) -> Done:
    """The demo goes to another directory, and so needs a process of its own."""
    return (cli.process if path == ("demo",) else cli)(*arguments)


@EACH_READING
def test_reading_verb_leaves_a_live_home_as_it_was(due: Cli, path: Path_) -> None:
    before = files_of(due.home)
    words = words_of(due, path)
    for form in FORMS:
        done = run(due, path, *words, *form)
        assert done.code == 0, done
        assert files_of(due.home) == before, form
    assert is_all_due(due)


@EACH_READING
def test_reading_verb_leaves_a_backup_as_it_was(due: Cli, path: Path_, tmp_path: Path) -> None:
    copy = tmp_path / "backup"
    due.ok("state", "backup", copy)
    before = files_of(copy)
    (bundle,) = due.document("compute", "courier", "list")
    names = [
        "cancellations.log",
        "data.mdb",
        "market",
        "spool",
        "state",
        "price_board.v2.bin",
        bundle["bundle_hash"],
    ]
    assert {Path(name).name for name in before} == set(names)
    assert is_all_due(due, "--home", str(copy))
    shutil.copytree(due.home / "keys", copy / "keys")  # Secrets are in no backup.
    before = files_of(copy)
    words = words_of(due, path)
    for form in FORMS:
        done = run(due, path, "--home", copy, *words, *form)
        assert done.code == 0, done
        assert files_of(copy) == before, form


def test_batch_of_reading_lines_leaves_the_home_as_it_was(due: Cli) -> None:
    lines = [" ".join(words_of(due, path)) for path in READING if path != ("demo",)]
    before = files_of(due.home)
    assert due("batch", stdin="\n".join(lines)).code == 0
    assert files_of(due.home) == before


def test_completion_leaves_the_home_as_it_was(due: Cli) -> None:
    before = files_of(due.home)
    assert completions("job", "j") == ["j2"]
    assert completions("any job", "") == ["j0", "j1", "j2", "p1"]
    assert completions("offer", "o") == ["o-1"]
    assert completions("bid", "b-") == [due.document("bid", "list")[0]["bid_id"]]
    assert files_of(due.home) == before


def test_what_was_only_shown_is_done_by_the_next_change(due: Cli) -> None:
    due.ok(
        *("wallet", "deposit", "bob", "--ct", "1"),
        due="the settlement mode turned real, 1 receipt that had waited paid, "
        "1 overdue job failed, 3 CT of bonds burned, 1 IT of subsidies paid, "
        "1 bid expired, 1 CT of bonds burned",
    )
    assert not is_all_due(due)
    assert due.log() == "j0 client\n"


def test_home_that_cannot_be_written_is_read(due: Cli, tmp_path: Path) -> None:
    """As a backup on a read-only medium is: nothing but the data file is there."""
    copy = tmp_path / "copy"
    (copy / "market").mkdir(parents=True)
    shutil.copyfile(due.data, copy / "market" / "data.mdb")
    before = files_of(copy)
    listed = due.ok("--home", copy, "compute", "list")
    assert listed == due.ok("compute", "list")
    assert files_of(copy) == before


# What a job must give is the buyer's to know: who is told it can prove without work.
SECRETS = [b"one", b"two", b"three"]


def test_no_verb_tells_a_reference_but_the_buyers_own_view(cli: Cli) -> None:
    cli.real()
    cli.post("--bond", "3")
    slices = [cli.slice(f"s{number}", content) for number, content in enumerate(SECRETS)]
    references = [line[:64] for line in cli.ok("compute", "run", *slices).splitlines()]
    cli.submit("j1", slices=slices)
    cli.submit("j9", "--deadline-secs", "62", slices=slices)
    said: list[str] = []

    def tell(*arguments: str | Path, stdin: str = "") -> None:
        for form in ((), ("--json",)):
            done = cli(*arguments, *form, stdin=stdin)
            assert done.code != 1, done
            said.extend((done.out, done.err))

    def tell_all() -> None:
        for path in VERBS:
            # A hash of a file that one has is no secret; the demo has a market of its own.
            if path not in {("compute", "run"), ("demo",), ("compute", "calibrate"), ("batch",)}:
                options = ("-n",) if VERBS[path].writes else ()
                options += ("--timeout", "0") if path == ("compute", "wait") else ()
                tell(*path, *ARGUMENTS[" ".join(path)], *options)

    tell_all()
    tell("compute", "prove", "j1", "0", WRONG)
    tell("compute", "prove", "j1", "2", references[0])  # of another slice
    said = [text.replace(references[0], "") for text in said]  # what was typed
    tell("compute", "slices", "j1", "--unproven")
    tell("compute", "slices", "j1", "--jsonl")
    said.append(cli.ok("compute", "slices", "j1", "--b3sum"))
    # The same job with other slices: the conflict names what differs.
    tell(*cli.job_arguments("j1", slices=[slices[1], slices[0], slices[2]]))
    given = '{"job_id": "j1", "buyer": "alice", "workload": "transcode", "max_price_per_unit": 100'
    other = ", ".join(f'{{"path": "{path}", "reference": "{WRONG}"}}' for path in slices)
    tell("compute", "submit", "-", stdin=f'{given}, "slices": [{other}]}}')
    (cli.directory / "s1").write_bytes(b"TWO")
    tell("compute", "execute", "j9")
    tell("compute", "cancel", "j1", "--by", "provider")
    cli.advance(70)
    tell("tick")
    tell_all()
    # The line that tried another slice's proof is kept in the log as it was typed.
    text = "".join(said).replace(f"compute prove j1 2 {references[0]}", "")
    assert "j1" in text
    proven = {
        entry["digest"] for entry in cli.document("compute", "slices", "j9") if "digest" in entry
    }
    for reference in references:
        assert reference in proven or reference not in text
    assert references[1] not in proven
    shown = cli.document("compute", "slices", "j1", "--references")
    assert [entry["reference"] for entry in shown] == references
