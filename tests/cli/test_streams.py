"""Standard streams that are closed, full, gone or in another encoding: no code depends on them."""

import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from compute_market.errors import BusyError
from compute_market.store.store import Store
from tb_cli.entry import call
from tb_cli.frame.guard import guarded
from tests.cli.test_bulk import locked, waiting
from tests.support.cli import Cli, Done, Prepared
from tests.support.effort import effort
from tests.support.signals import kept_signals
from tests.support.verbs import EACH, VERBS, Path_, arguments_of

pytest_plugins = ("tests.support.cli",)

BROKEN = [(stream, how) for stream in ("stdout", "stderr") for how in ("gone", "full")]
GIVEN = {("batch", "-"): "wallet deposit alice --ct 1\ncompute status nope\n"}


@contextmanager
def broken(how: str) -> Iterator[Any]:
    """A stream that cannot be written, for a command in this process."""
    if how == "full":
        with open("/dev/full", "w", encoding="utf-8") as file:
            yield file
            file.flush()
        return
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as file:
        yield file
        file.flush()


def run(cli: Cli, words: Path_, stream: str | None = None, how: str = "", given: str = "") -> Done:
    """Run a command, with one of its streams broken."""
    if words == ("demo",):
        with pytest.MonkeyPatch.context() as patched:
            # It goes to another directory, with a home that is thrown away.
            patched.setenv("TB_HOME", str(cli.home))
            patched.chdir(cli.directory)
            return done_with(cli, words, stream, how, given)
    return done_with(cli, words, stream, how, given)


def done_with(cli: Cli, words: Path_, stream: str | None, how: str, given: str) -> Done:
    if stream is None:
        return cli(*words, stdin=given)
    with broken(how) as file:
        saved = sys.stdin, sys.stdout, sys.stderr
        texts = {"stdout": io.StringIO(), "stderr": io.StringIO()}
        try:
            sys.stdin = io.TextIOWrapper(io.BytesIO(given.encode()))
            for name, text in texts.items():
                setattr(sys, name, file if name == stream else text)
            with kept_signals():
                code = guarded(lambda: call(list(words)), list(words))
        finally:
            sys.stdin, sys.stdout, sys.stderr = saved
        return Done(code, texts["stdout"].getvalue(), texts["stderr"].getvalue())


def stored(cli: Cli) -> Any:
    """What a command may have changed, but for when it did."""
    events = [row | {"at_ms": 0, "pid": 0, "command": ""} for row in cli.document("log")]
    # How long a command took is counted as well.
    timed = ("meta", "counters")
    sizes = [row for row in cli.document("state", "stats") if row["table"] not in timed]
    return events, sizes, cli.wallet("alice")


def with_jobs(cli: Cli) -> None:
    cli.post()
    cli.submit("j0")
    cli.ok("compute", "execute", "j0")
    cli.submit("j1")
    cli.ok("wallet", "deposit", "alice", "--ct", "5")


def with_a_bid(cli: Cli) -> None:
    """A sealed bid, and the two files it is carried in."""
    job = {"job_id": "sealed", "buyer": "alice", "workload": "transcode", "max_price_per_unit": 9}
    Path("job.json").write_text(json.dumps(job | {"slices": ["a.slice"]}))
    cli.ok("key", "new", "alice")
    words = ("bid", "commit", "job.json", "--bidder", "alice")
    bid_id = cli.document(*words)["bid_id"]
    cli.ok("chain", "advance", "2")
    cli.ok("bid", "export", bid_id, "sealed.bid")
    cli.ok("bid", "reveal", bid_id, "--to", "open.bid")


def words_of(path: Path_) -> Path_:
    words = arguments_of(path)
    return (*words, "--timeout", "0") if path == ("compute", "wait") else words


def unpaced(text: str) -> str:
    """Without how fast a simulation went, which is another each time."""
    return re.sub(r"^\d+ steps in .*\n", "", text, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def jobs_there(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("jobs_there"), with_jobs)


@EACH
@pytest.mark.usefixtures("measured_little")
def test_broken_stream_changes_neither_the_code_nor_the_work(
    cli: Cli, path: Path_, jobs_there: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "urandom", bytes)  # What is drawn is the same each time.
    jobs_there.copy_to(cli)
    if path[0] == "bid":
        with_a_bid(cli)
    shutil.copytree(cli.home, cli.directory / "kept")
    words, given = words_of(path), GIVEN.get(words_of(path), "")

    def afresh() -> None:
        for name in ("home", "copy"):
            shutil.rmtree(cli.directory / name, ignore_errors=True)
        shutil.copytree(cli.directory / "kept", cli.home)

    afresh()
    expected = run(cli, words, given=given)
    assert expected.code in (0, 3, 5, 7, 10), expected
    after = stored(cli)
    # The demo runs verbs that write and verbs that do not, and may lose its words in either.
    few = len(BROKEN) if path == ("demo",) else 1
    for stream, how in random.Random(" ".join(path)).sample(BROKEN, effort(few, len(BROKEN))):
        afresh()
        done = run(cli, words, stream, how, given)
        lost = (stream, how) == ("stdout", "full") and expected.out != ""
        if lost and expected.code == 0 and not VERBS[path].writes:
            assert done.code == 8, (stream, how, done)
            error = "error[busy]: standard output: no space left on device\n"
            assert done.err in (error, expected.err + error), done
        else:
            assert done.code == expected.code, (stream, how, done)
            warned = "warning: standard output: no space left on device" in done.err
            assert warned == (lost and VERBS[path].writes)
        assert stored(cli) == after, (stream, how)


# What only reads as it is called here, though the verb can change something.
LOOKING = [
    *((*arguments_of(path), "--dry-run") for path in VERBS if VERBS[path].writes),
    *(path for path in VERBS if VERBS[path].reads_without is not None),
]


@pytest.mark.usefixtures("measured_little")
def test_lost_output_of_what_only_looked_is_told_by_the_code(cli: Cli) -> None:
    with_jobs(cli)
    told = 0
    for words in LOOKING:
        expected = run(cli, words, given=GIVEN.get(words[:-1], ""))
        done = run(cli, words, "stdout", "full", GIVEN.get(words[:-1], ""))
        lost = expected.code == 0 and expected.out != ""
        assert done.code == (8 if lost else expected.code), (words, done)
        assert "what was to be told is lost" not in done.err
        told += lost
    assert told > len(LOOKING) / 2


FAILING = [
    (2, ("compute", "list", "--limit", "x")),
    (2, ("nonsense",)),
    (3, ("compute", "status", "nope")),
    (3, ("compute", "cancel", "nope")),
    (3, ("compute", "execute", "nope", "never")),
    (4, ("compute", "cancel", "j0")),
    (5, ("wallet", "withdraw", "alice", "--ct", "6")),
    (
        5,
        (
            "compute",
            "submit",
            "--job-id",
            "g",
            *arguments_of(("compute", "submit"))[4:],
            "--gpu",
            "g",
        ),
    ),
    (
        6,
        (
            "compute",
            "offer",
            "post",
            "--offer-id",
            "o-1",
            *arguments_of(("compute", "offer", "post"))[3:],
        ),
    ),
    (7, ("compute", "cancel", "nope", "j1")),
    (10, ("compute", "wait", "j1", "--timeout", "0")),
]


@pytest.mark.parametrize(("code", "words"), FAILING)
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_failure_keeps_its_code_whatever_can_be_written(
    cli: Cli, code: int, words: Path_, form: Path_
) -> None:
    with_jobs(cli)
    words = (*words, *form, *(("-n",) if code == 7 else ()))
    for stream, how in BROKEN:
        assert run(cli, words, stream, how).code == code


def test_damage_is_told_by_the_code_whatever_can_be_written(cli: Cli) -> None:
    from compute_market.store.schema import JOBS

    with_jobs(cli)
    cli.audited = False
    cli.update(lambda txn: txn.delete(JOBS, b"j0"))
    for words in (("compute-market", "audit"), ("state", "check")):
        for stream, how in BROKEN:
            assert run(cli, words, stream, how).code == 9


SHELL = {
    "closed": "{0}>&-",
    "full": "{0}>/dev/full",
    "gone": "{0}> >(exec <&-)",
}


def in_shell(cli: Cli, words: Path_, redirections: str) -> int:
    quoted = " ".join(f"'{word}'" for word in words)
    line = f'sleep 0.05; "$0" -m tb_cli.entry {quoted} {redirections}'
    done = subprocess.run(
        ["bash", "-c", line, cli.command()[0]], input=b"", capture_output=True, timeout=60
    )
    return done.returncode


def test_process_ends_with_its_code_whatever_is_closed(cli: Cli) -> None:
    with_jobs(cli)
    cases = [
        (code, words, SHELL[how].format(stream))
        for code, words in [*FAILING[:-3], (0, ("tick",)), (10, FAILING[-1][1])]
        for how in ("closed", "full")
        for stream in (1, 2)
    ]
    for code, words, redirections in random.Random(8).sample(cases, effort(4, len(cases))):
        assert in_shell(cli, words, redirections) == code, (words, redirections)


def test_listing_stops_once_nobody_reads(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from compute_market.offers import offers

    names = tuple(f"o{number:03}" for number in range(300))
    cli.ok("compute", "offer", "post", "-", stdin=offer_lines(*names))
    looked: list[int] = []
    make = offers.document
    monkeypatch.setattr("tb_cli.frame.paging.PAGE", 10)
    monkeypatch.setattr(offers, "document", lambda offer: looked.append(1) or make(offer))
    assert run(cli, ("compute", "offer", "list", "--jsonl"), "stdout", "gone").code == 0
    assert len(looked) < 150


# Standard input.

READING_STDIN: list[Path_] = [
    ("compute", "cancel", "-"),
    ("compute", "execute", "-"),
    ("compute", "wait", "-"),
    ("compute", "submit", "-"),
    ("compute", "offer", "post", "-"),
    ("compute", "offer", "withdraw", "-"),
    ("compute", "run", "-"),
    ("batch", "-"),
]


@pytest.mark.parametrize("words", READING_STDIN, ids=" ".join)
def test_stdin_that_is_closed_or_unreadable_is_usage(
    cli: Cli, words: Path_, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.ok("state", "init")
    before = cli.files()

    def told(stdin: Any) -> str:
        with stdin, monkeypatch.context() as patched:
            out, err = io.StringIO(), io.StringIO()
            for name, stream in (("stdin", stdin), ("stdout", out), ("stderr", err)):
                patched.setattr(sys, name, stream)
            assert guarded(lambda: call(list(words)), list(words)) == 2
        return out.getvalue() + err.getvalue()

    assert "standard input is closed" in told(open(os.devnull))  # noqa: SIM115
    writable = os.open(cli.directory / "file", os.O_WRONLY | os.O_CREAT)
    assert "bad file descriptor" in told(open(writable))  # noqa: SIM115
    assert cli.files() == before


def test_line_that_is_too_long_fails_alone(cli: Cli) -> None:
    cli.active("a", "b")
    done = cli("compute", "cancel", "-", stdin="a\n" + "x" * 200_000 + "\nb\n")
    assert (done.code, done.out) == (
        7,
        "cancelled job a\nstdin line 2 has more than 65536 bytes\ncancelled job b\n",
    )


def test_line_without_an_end_is_not_read_for_ever(cli: Cli) -> None:
    cli.ok("state", "init")
    with open("/dev/zero", "rb") as zeros:
        done = subprocess.run(
            cli.command("compute", "cancel", "-"), stdin=zeros, capture_output=True, timeout=60
        )
    assert done.returncode == 2
    assert b"stdin line 1 does not end" in done.stdout + done.stderr


# What a bulk command leaves undone.


def job_lines(cli: Cli, *names: str) -> str:
    """Jobs whose slice is named as the directory of the file sees it."""
    cli.slice()
    job = {"buyer": "alice", "workload": "transcode", "slices": ["a.slice"]}
    terms: dict[str, Any] = job | {"max_price_per_unit": 100}
    return "".join(json.dumps({"job_id": name} | terms) + "\n" for name in names)


def offer_lines(*names: str) -> str:
    terms = {"provider": "p", "units": 1, "price_per_unit": 1}
    return "".join(json.dumps({"offer_id": name} | terms) + "\n" for name in names)


NAMES = tuple("abcdefgh")
# Of each bulk verb: its words, what it reads, and how many transactions two of its items take.
BULK: dict[str, tuple[Path_, Callable[[Cli], str], int]] = {
    "cancel": (("compute", "cancel", "-", "--chunk", "2"), lambda cli: lines_of(NAMES), 1),
    "withdraw": (
        ("compute", "offer", "withdraw", "-", "--chunk", "2"),
        lambda cli: lines_of(NAMES),
        1,
    ),
    "submit": (("compute", "submit", "-", "--chunk", "2"), lambda cli: job_lines(cli, *NAMES), 1),
    "post": (("compute", "offer", "post", "-", "--chunk", "2"), lambda cli: offer_lines(*NAMES), 1),
    "execute": (("compute", "execute", "-"), lambda cli: lines_of(NAMES), 2),
    # A list in the form of `--json`, and one on a single line.
    "submit list": (
        ("compute", "submit", "-", "--chunk", "2"),
        lambda cli: "[\n" + ",\n".join(job_lines(cli, *NAMES).splitlines(keepends=True)) + "]\n",
        1,
    ),
    "post list": (
        ("compute", "offer", "post", "-", "--chunk", "2"),
        lambda cli: f"[{', '.join(offer_lines(*NAMES).splitlines())}]",
        1,
    ),
}


def lines_of(names: Path_) -> str:
    return "".join(f"{name}\n" for name in names)


def done_by(cli: Cli, verb: str) -> set[str]:
    """The items that a verb is through with."""
    if verb in ("post", "withdraw"):
        offers = cli.document("compute", "offer", "list")
        return {
            o["offer_id"] for o in offers if (o["state"] == "withdrawn") == (verb == "withdraw")
        }
    wanted = {"cancel": "cancelled", "submit": "active", "execute": "completed"}[verb]
    return {name for name, state in cli.states().items() if state == wanted}


def failing_after(transactions: int, end: Any) -> Callable[..., Any]:
    """A `Store.update` that raises once it was called so many times."""
    calls: list[int] = []
    update = Store.update

    def failing(store: Store, fn: Any, **extra: Any) -> Any:
        calls.append(1)
        if len(calls) > transactions:
            raise end
        return update(store, fn, **extra)

    return failing


def prepare(cli: Cli, verb: str) -> None:
    """Have ready what a verb is to deal with."""
    if verb == "withdraw":
        cli.ok("compute", "offer", "post", "-", stdin=offer_lines(*NAMES))
    elif verb == "post":
        cli.ok("state", "init")
    else:
        cli.post()
    if verb in ("cancel", "execute"):
        cli.ok("compute", "submit", "-", stdin=job_lines(cli, *NAMES))


@pytest.mark.parametrize("form", [form for form in BULK if form != "execute"])
@pytest.mark.parametrize("commits", [1, 2])
def test_what_a_signal_finds_committed_is_not_left(
    cli: Cli, form: str, commits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, given, _ = BULK[form]
    verb = form.split()[0]
    prepare(cli, verb)
    left = cli.directory / "left"
    calls: list[int] = []
    update = Store.update

    def stopped(store: Store, fn: Any, **extra: Any) -> Any:
        result = update(store, fn, **extra)
        calls.append(1)
        if len(calls) == commits:
            signal.raise_signal(signal.SIGINT)
        return result

    text = given(cli)
    with monkeypatch.context() as patched:
        patched.setattr(Store, "update", stopped)
        done = cli(*words, "--failed-to", left, stdin=text)
    assert done.code == 130
    assert f"interrupted after {2 * commits} of 8" in done.err
    assert done_by(cli, verb) == set(NAMES[: 2 * commits])
    kept = left.read_text()
    assert [name for name in NAMES if f'"{name}"' in kept or f"{name}\n" in kept.split("{")[0]] == (
        list(NAMES[2 * commits :])
    )
    assert cli(*words, stdin=kept).code == 0
    assert done_by(cli, verb) == set(NAMES)


def test_run_that_breaks_off_behind_a_wrong_line_leaves_one_per_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(cli, "submit")
    left = cli.directory / "elsewhere" / "left"
    left.parent.mkdir()
    begins, ends = job_lines(cli, "a", "b", "e"), job_lines(cli, "c", "d")
    with monkeypatch.context() as patched:
        patched.setattr(Store, "update", failing_after(1, KeyboardInterrupt))
        words = ("compute", "submit", "-", "--chunk", "3", "--failed-to", left)
        done = cli(*words, stdin=f"{begins}bad1\nbad2\n{ends}[{ends.splitlines()[0]}]\n")
    assert done.code == 130
    assert "interrupted after 3 of 8; run it again\n" in done.err
    bad, worse, *kept = left.read_text().splitlines()
    assert (bad, worse) == ("bad1", "bad2")
    slice_path = str(cli.slice())
    assert [json.loads(line)["job_id"] for line in kept] == ["c", "d", "c"]
    assert all(json.loads(line)["slices"] == [slice_path] for line in kept)


@pytest.mark.parametrize(
    "broken",
    [
        "[{0},\n{1}] [{2},{3}]\n{4}\n",  # More stands behind the list.
        "[{0},\n{1},\n{2},{3},{4}\n",  # It has no end.
    ],
)
@pytest.mark.parametrize("chunk", ["1", "1000"])
def test_what_was_not_tried_of_one_of_several_files_can_be_handed_in(
    cli: Cli, broken: str, chunk: str
) -> None:
    prepare(cli, "submit")
    one, other, left = (cli.directory / name for name in ("one", "other", "left"))
    one.write_text(broken.format(*job_lines(cli, *"abcde").splitlines()))
    other.write_text(job_lines(cli, "f"))
    words = ("compute", "submit", "--chunk", chunk, "--failed-to", left)
    done = cli(*words, one, other)
    assert done.code == 7
    assert "f" in done_by(cli, "submit")
    kept = [json.loads(line)["job_id"] for line in left.read_text().splitlines()]
    assert sorted(kept) == sorted(set("abcdef") - done_by(cli, "submit"))
    assert cli("compute", "submit", left).code == 0
    assert done_by(cli, "submit") == set("abcdef")


def test_document_that_is_wrong_is_left_as_it_was_written(cli: Cli) -> None:
    """Of a key given twice, neither is taken for the one that was meant."""
    prepare(cli, "post")
    twice = '{"offer_id":"z","provider":"p","units":1,"price_per_unit":50,"price_per_unit":5}'
    left = cli.directory / "left"
    for text in (f"{offer_lines('a')}{twice}\n", f"[{offer_lines('a').strip()},{twice}]\n"):
        done = cli("compute", "offer", "post", "-", "--failed-to", left, stdin=text)
        assert done.code == 7
        assert left.read_text() == f"{twice}\n"


@pytest.mark.parametrize("form", BULK)
@pytest.mark.parametrize("end", [KeyboardInterrupt, BusyError("write lock: held by another")])
def test_failed_to_has_what_was_not_tried_however_a_run_ends(
    cli: Cli, form: str, end: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words, given, transactions = BULK[form]
    verb = form.split()[0]
    prepare(cli, verb)
    left = tmp_path / "elsewhere" / "left"
    left.parent.mkdir()
    left.write_text("old\n")
    text = given(cli)
    with monkeypatch.context() as patched:
        patched.setattr(Store, "update", failing_after(transactions, end))
        done = cli(*words, "--failed-to", left, stdin=text)
    interrupted = end is KeyboardInterrupt
    if verb == "execute" and not interrupted:  # Each of its jobs fails by itself.
        assert done.code == 7
    else:
        assert done.code == (130 if interrupted else 8)
        word = "interrupted" if interrupted else "stopped"
        assert f"{word} after 2 of 8; run it again\n" in done.err
    assert done_by(cli, verb) == {"a", "b"}
    assert len(left.read_text().splitlines()) == 6
    # What is in the file can be handed in as it is, wherever it lies.
    again = [str(left) if verb in ("submit", "post") and w == "-" else w for w in words]
    monkeypatch.chdir(left.parent)
    assert cli(*again, stdin=left.read_text()).code == 0
    assert done_by(cli, verb) == set(NAMES)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_leaves_what_was_read_and_what_was_not(cli: Cli, number: signal.Signals) -> None:
    cli.active("a", "b", "c", "d")
    left = cli.directory / "left"
    words = ("compute", "cancel", "-", "--chunk", "2", "--failed-to", left)
    process = cli.start(*words, stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"a\nb\n")
    process.stdin.flush()
    assert [process.stdout.readline() for _ in "ab"] == [b"cancelled job a\n", b"cancelled job b\n"]
    with locked(cli):
        process.stdin.write(b"c\nd\n")
        process.stdin.flush()
        waiting(process)
        process.send_signal(number)
        out, err = process.communicate(b"e\n# not\nf\n", timeout=20)
    assert (process.returncode, out) == (128 + number, b"")
    assert err == b"interrupted after 2 of 6; run it again\n"
    assert left.read_text() == "c\nd\ne\nf\n"


def test_interrupted_without_a_file_tells_how_far_it_came(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.active("a", "b", "c")
    monkeypatch.setattr(Store, "update", failing_after(1, KeyboardInterrupt))
    done = cli("compute", "cancel", "a", "b", "c", "--chunk", "2")
    assert done == (
        130,
        "cancelled job a\ncancelled job b\n",
        "interrupted after 2 of 3; run it again\n",
    )
    monkeypatch.undo()


def test_failed_to_that_cannot_be_written_at_the_end_is_a_warning(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.active("a")

    def fails(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    done = cli("compute", "cancel", "a", "nope", "--failed-to", "left")
    assert (done.code, cli.states()) == (7, {"a": "cancelled"})
    assert "warning: left: no space left on device: what failed is not in it\n" in done.err


def test_atomic_run_that_failed_leaves_all_of_it(cli: Cli) -> None:
    cli.active("a", "b")
    done = cli("compute", "cancel", "--atomic", "a", "nope", "b", "--failed-to", "left")
    assert done.code == 7
    assert (cli.directory / "left").read_text() == "a\nnope\nb\n"


# Encodings.


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_character_that_a_locale_lacks_is_escaped(
    cli: Cli, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.post()
    cli.submit("j1", slices=[cli.slice("a≠b.slice")])

    def listed(*form: str) -> bytes:
        out = io.BytesIO()
        words = ["compute", "slices", "j1", *form]
        stream = io.TextIOWrapper(out, encoding=encoding)
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", stream)
            assert guarded(lambda: call(words), words) == 0
        return out.getvalue()

    for form in ((), ("--json",)):
        text = listed(*form).decode(encoding)
        expected = "a≠b.slice"
        if form:
            assert expected in json.dumps(json.loads(text), ensure_ascii=False)
        assert (expected in text) == (encoding == "utf-8")
        assert ("a\\u2260b.slice" in text) == (encoding != "utf-8")


# Hostile text.

HOSTILE = "x\nsubmitted job pay-me: active\x1b[2J\x1b]0;pwn\x07\x9b1m\u202e.slice"


def is_clean(text: str) -> bool:
    """Whether it holds no control character but line breaks and the tabs of a listing."""
    return all(character in "\n\t" or character.isprintable() for character in text)


@pytest.mark.usefixtures("measured_little")
def test_no_verb_prints_what_commands_a_terminal(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    home = cli.directory / f"h{HOSTILE}"
    monkeypatch.setenv("TB_HOME", str(home))
    path = cli.slice(HOSTILE)
    empty = cli.slice(f"{HOSTILE}0", b"")
    said: list[tuple[Path_, Done]] = []

    def tell(*words: str | Path, stdin: str = "") -> Done:
        given = tuple(map(str, words))
        done = cli(*given, stdin=stdin)
        said.append((given, done))
        return done

    assert tell("state", "init").code == 0
    tell("state", "init")
    cli.post()
    cli.submit("j1", slices=[path])
    cli.submit("j2", slices=[path])
    tell("compute-market", "settle", "dry-run", "--reason", "x\nmode: real\x1b[2J")
    for form in ((), ("--json",)):
        for verb in VERBS:
            # The demo goes to another directory, and has a home of its own.
            if verb not in (("demo",), ("compute", "run")):
                timeout = ("--timeout", "0") if verb == ("compute", "wait") else ()
                options = ("-n",) if VERBS[verb].writes else ()
                tell(*arguments_of(verb), *timeout, *options, *form)
        for verb in ("status", "slices", "history", "explain", "cancel", "execute"):
            tell("compute", verb, HOSTILE, *form)
        tell("compute", "cancel", "-", *form, stdin=f"{HOSTILE}\nj\x1b[2J\n")
        tell("compute", "submit", HOSTILE, *form)
        tell("compute", "submit", f"no{HOSTILE}", *form)
        tell("compute", "offer", "post", f"no{HOSTILE}", *form)
        tell("compute", "run", f"no{HOSTILE}", *form)
        tell("compute", "run", "a\x1b[2J", f"no{HOSTILE}", *form)
        tell("compute", "cancel", "j1", "-n", "--failed-to", f"no/{HOSTILE}", *form)
        tell("batch", *form, stdin=f"compute status '{HOSTILE}'\n\x1b[2J\n")
        tell("wallet", "deposit", HOSTILE, "--ct", "1", *form)
        tell("compute", "list", "--state", HOSTILE, *form)
        tell("compute", HOSTILE, *form)
        tell("compute", "list", f"--{HOSTILE}", *form)
        tell("compute", "list", "--limit", HOSTILE, *form)
        tell("--home", f"{home}.no", "compute", "list", *form)
        tell("--home", path, "compute", "list", *form)
        tell(*cli.job_arguments("e", slices=[empty]), *form)
        tell(*cli.job_arguments("j1", slices=[empty]), *form)
        tell(*cli.job_arguments("j1", slices=[cli.slice()]), *form)
        tell(*cli.job_arguments("k", "--workload", HOSTILE, slices=[path]), *form)
        both = job_lines(cli, "e1").replace(
            "a.slice", f"{HOSTILE}0".encode("unicode_escape").decode()
        )
        tell("compute", "submit", "-", *form, stdin=both * 2)
    status = tell("compute-market", "settle", "status")
    assert [line for line in status.out.splitlines() if line.startswith("mode: ")] == [
        "mode: dry_run"
    ]
    path.write_bytes(b"HELLO")
    tell("compute", "execute", "j1")
    tell("compute", "execute", "j1", "j2")
    tell("compute", "status", "j1", "--home", f"{home}.no")
    tell("state", "backup", path)
    for words, done in said:
        assert is_clean(done.out), words
        assert is_clean(done.err), words
        assert done.code != 1, (words, done)


# What no check foresaw.


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (MemoryError(), 8, "out of memory"),
        (RecursionError("maximum recursion depth exceeded"), 2, "nested too deep"),
        (ValueError("embedded null byte"), 2, "NUL"),
        (RuntimeError("can't start new thread"), 8, "no more threads"),
        (
            type("PanicException", (BaseException,), {})("ThreadPoolBuildError"),
            8,
            "no more threads",
        ),
        (OverflowError("timestamp too large"), 2, "out of range"),
        (OSError(24, "Too many open files", "f"), 8, "f: too many open files"),
        (OSError(27, "File too large", "f"), 8, "`ulimit -f`"),
        (PermissionError(13, "Permission denied", "f"), 2, "f: permission denied"),
        (OSError(5, "Input/output error", "f"), 8, "f: input/output error"),
        (UnicodeEncodeError("ascii", "≠", 0, 1, "ordinal not in range"), 2, "encoding ascii"),
        (ZeroDivisionError("x"), 1, "a bug"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_fault_ends_with_a_documented_code(
    capsys: pytest.CaptureFixture[str], raised: BaseException, code: int, says: str
) -> None:
    def command() -> int:
        raise raised

    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert guarded(command, []) == code
    finally:
        signal.signal(signal.SIGTERM, handler)
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert "Traceback" not in err
    assert ("free some disk space" in err) is False


def test_directory_that_was_deleted_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = cli.directory / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    done = cli(*cli.job_arguments("j1", slices=["a.slice"]))
    assert (done.code, done.err) == (
        2,
        "error[usage]: the current directory: no such file or directory\n",
    )


@pytest.mark.usefixtures("from_bash")
def test_completion_that_cannot_be_installed_is_usage(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/dev/null")
    done = cli("--install-completion", "bash")
    assert (done.code, done.err[:13]) == (2, "error[usage]:")
    assert "/dev/null" in done.err


def test_slices_are_hashed_where_no_thread_can_be_started(cli: Cli) -> None:
    """As a user at the limit of processes, or in a container at its own."""
    cli.slice("long.slice", bytes(3 << 20))
    expected = cli.ok("compute", "run", "long.slice")
    script = (
        "import _thread, threading\n"
        'def none(*_, **__): raise RuntimeError("can\'t start new thread")\n'
        "_thread.start_new_thread = none\n"
        "threading._start_new_thread = none\n"
        "from tb_cli.entry import main\n"
        "main()\n"
    )
    for words in (("run", "long.slice"), ("run", "-"), ("run", "long.slice", "--workers", "2")):
        with open("long.slice", "rb") as file:
            done = subprocess.run(
                [sys.executable, "-c", script, "compute", *words],
                stdin=file,
                capture_output=True,
                text=True,
                timeout=60,
            )
        assert (done.returncode, done.stderr, done.stdout[:64]) == (0, "", expected[:64])
