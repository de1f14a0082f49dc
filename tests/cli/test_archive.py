"""`state archive`, `state compact`: the life of the data, as an operator sees it."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compute_market.archive import archives, selection
from compute_market.archive_records import Archive
from compute_market.jobs.cancel import cancel
from compute_market.market import Market
from compute_market.records import replace
from compute_market.store.schema import ARCHIVES
from compute_market.store.txn import Txn
from tests.support.cli import Cli, Done
from tests.support.market import open_store
from tests.support.processes import COMMAND

pytest_plugins = ("tests.support.cli",)


def with_ended_jobs(cli: Cli) -> None:
    """Three jobs, of which two have ended more than a second ago."""
    cli.real()
    cli.active("j1", "j2", "j3")
    cli.ok("compute", "cancel", "j1", "j2")
    cli.advance(1)


def archive(cli: Cli, *words: str) -> str:
    return cli.ok("state", "archive", "--before", "0", *words)


def test_archive_moves_ended_jobs_once(cli: Cli) -> None:
    with_ended_jobs(cli)
    said = archive(cli, "out.jsonl")
    assert said.startswith("archived 2 jobs, 0 receipts and ")
    assert said.endswith(" postings to out.jsonl\n")
    file = cli.directory / "out.jsonl"
    assert file.stat().st_mode & 0o777 == 0o600
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [each["job"]["job_id"] for each in lines if "job" in each] == ["j1", "j2"]
    before = file.read_bytes()
    assert archive(cli, "out.jsonl") == "nothing to archive\n"
    assert archive(cli, "another.jsonl") == "nothing to archive\n"
    assert file.read_bytes() == before
    assert not (cli.directory / "another.jsonl").exists()
    assert cli.ok("state", "check") == "receipts 0 invalid 0\n"
    assert [line.split("\t")[0] for line in cli.ok("compute", "list").splitlines()] == ["j3"]


def test_archived_id_says_so_and_stays_taken(cli: Cli) -> None:
    with_ended_jobs(cli)
    archive(cli, "out.jsonl")
    status = cli("compute", "status", "j1")
    assert status.code == 3
    assert status.err.startswith("error[not_found]: job j1 was cancelled, and has been archived\n")
    assert cli("compute", "explain", "j1") == status
    again = cli("compute", "cancel", "j1")
    assert (again.code, again.out) == (0, "job already cancelled\n")
    info = json.loads(cli.ok("state", "info", "--json"))
    assert info["archives"] == [str(cli.directory / "out.jsonl")]
    assert info["archives_unfinished"] == []
    assert info["oldest_ended"] is None
    assert info["oldest_live"]["job_id"] == "j3"


def test_wait_knows_how_an_archived_job_ended(cli: Cli) -> None:
    with_ended_jobs(cli)
    cli.ok("compute", "execute", "j3")
    cli.advance(1)
    archive(cli, "out.jsonl")
    wait = ("compute", "wait", "j3", "j1")
    both = "job j3 completed\njob j1 cancelled\n"
    assert cli.ok(*wait, "--for", "ended") == both
    for goal in ("completed", "active"):
        error = "error[already_done]: 1 of 2 ended otherwise: j1 cancelled\n"
        assert cli(*wait, "--for", goal) == (4, both, error)
        assert cli.ok("compute", "wait", "j3", "--for", goal) == "job j3 completed\n"
    assert cli.document("compute", "wait", "j3") == [
        {"job_id": "j3", "state": "completed", "cause": None}
    ]
    unknown = cli("compute", "wait", "j3", "never")
    assert (unknown.code, unknown.err.splitlines()[0]) == (
        3,
        "error[not_found]: job never does not exist",
    )


def test_wait_goes_on_when_a_job_is_archived_meanwhile(cli: Cli) -> None:
    cli.active("j1", "j2")
    process = cli.start("compute", "wait", "j1", "j2", "--for", "ended")
    time.sleep(0.5)  # It has looked.
    with Market.open(str(cli.home), clock=lambda: cli.now_ms, sleep=time.sleep) as market:

        def act(txn: Txn) -> None:
            cancel(txn, "j1", "client")
            txn.now_ms += 1000
            ended, _ = selection.ended(txn, before=txn.now, after=None, limit=1)
            archives.begin(txn, bytes(16), begun := Archive("/a", txn.now, txn.now_ms, 0, b""))
            assert archives.let_go(txn, bytes(16), begun, ended, []) is not None

        market.update(act)  # There is no moment in which it has ended and is not archived.
    cli.ok("compute", "execute", "j2")
    out, err = process.communicate(timeout=20)
    assert (process.wait(20), out, err) == (0, b"job j1 cancelled\njob j2 completed\n", b"")


def test_history_of_an_archived_job_is_what_the_log_has(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.active("j1", "j2")
    cli.ok("compute", "execute", "j2")
    cli.ok("compute", "cancel", "j1")
    history = ("compute", "history", "j1")
    before = cli.document(*history)
    assert [each["event"] for each in before] == ["job_queued", "job_started", "job_cancelled"]
    cli.advance(1)
    archive(cli, "out.jsonl")
    assert cli.document(*history) == before == cli.document("log", "--job", "j1")
    assert cli.document(*history, "--limit", "1") == before[-1:]
    assert cli(*history, "--limit", "0") == (0, "", "")
    assert cli(*history, "--since", "0s") == (0, "", "")
    monkeypatch.setenv("TB_LOG_RETENTION_SECS", "3600")
    cli.advance(3700)
    cli.ok("tick")
    gone = cli(*history)
    assert (gone.code, gone.out) == (3, "")
    assert gone.err.startswith("error[not_found]: job j1 was cancelled, and has been archived\n")
    assert cli("compute", "history", "never").code == 3


def test_history_of_an_archived_job_ends_with_what_was_paid_later(cli: Cli) -> None:
    cli.real()
    cli.active("j1")
    cli.ok("compute-market", "settle", "dry-run", "--reason", "a look")
    cli.ok("compute", "execute", "j1")
    cli.advance(60)
    cli.ok("compute-market", "settle", "arm", "--delay-blocks", "0")
    cli("tick")
    before = cli.document("compute", "history", "j1")
    assert [each["event"] for each in before[-2:]] == ["job_completed", "job_paid"]
    cli.advance(60)
    cli.post(provider="later")
    archive(cli, "out.jsonl")
    assert cli.document("compute", "history", "j1") == before


def test_archive_that_moved_nothing_is_forgotten_with_its_file(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full before the first piece is on it leaves a file that has its head alone."""
    with_ended_jobs(cli)
    first = cli.directory / "first.jsonl"

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    def broken_off() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", full)
            assert cli("state", "archive", "--before", "0", first).code == 8

    def told() -> tuple[list[str], list[str]]:
        info = cli.document("state", "info")
        return info["archives"], info["archives_unfinished"]

    broken_off()
    assert told() == ([str(first)], [str(first)])
    first.unlink()
    assert told() == ([], [])
    cli.advance(1)
    broken_off()
    assert told() == ([str(first)], [str(first)])
    # Run again with the file it goes on; with another one the first is not missed.
    archive(cli, str(first))
    assert told() == ([str(first)], [])


def test_archive_that_is_tried_writes_nothing(cli: Cli) -> None:
    with_ended_jobs(cli)
    before = (cli.home / "market" / "data.mdb").read_bytes()
    tried = archive(cli, "out.jsonl", "--dry-run")
    assert not (cli.directory / "out.jsonl").exists()
    assert (cli.home / "market" / "data.mdb").read_bytes() == before
    assert tried == f"dry_run: {archive(cli, 'out.jsonl')}"


def test_second_archive_goes_on_behind_the_first(cli: Cli) -> None:
    with_ended_jobs(cli)
    archive(cli, "one.jsonl")
    cli.ok("compute", "cancel", "j3")
    cli.advance(1)
    whole = cli("state", "archive", "--before", "0", "one.jsonl")
    assert whole.code == 2
    assert whole.err.startswith("error[usage]: one.jsonl: file exists\n")
    assert archive(cli, "two.jsonl").startswith("archived 1 job, ")
    assert cli.ok("state", "check") == "receipts 0 invalid 0\n"


@pytest.mark.parametrize(
    ("target", "age", "problem"),
    [
        ("a.slice", "1h", "a.slice: file exists, and is no archive"),
        ("home", "1h", "home, which belongs to the market itself"),
        ("nowhere/out", "1h", "there is no directory nowhere\nhint: mkdir -p nowhere\n"),
        ("a.slice/out", "1h", "a.slice/out: a.slice is not a directory\n"),
        ("out/", "1h", "out/: there is no directory out\n"),
        ("-", "1h", "an archive does not go to stdout\nhint: ./- is a file called so\n"),
        ("", "1h", "FILE is empty"),
        ("link", "1h", "link: is a link, and no link is followed here"),
        ("fifo", "1h", "fifo: not a regular file"),
        ("empty", "1h", "empty: file exists, and is no archive"),
        ("theirs", "1h", "theirs: file exists, and is an archive of market 00000000"),
        ("newer", "1h", "newer is an archive of version 2, this release knows 1"),
        ("out", "1x", "--before: '1x' is no duration"),
        ("out", "", "--before: '' is no duration"),
        ("out", "-5", "--before: -5 is not 0…"),
        ("out", "9" * 40, "--before: 9999"),
    ],
)
def test_what_cannot_be_an_archive_is_refused(
    cli: Cli, target: str, age: str, problem: str
) -> None:
    with_ended_jobs(cli)
    (cli.directory / "link").symlink_to("out")
    (cli.directory / "empty").touch()
    os.mkfifo(cli.directory / "fifo")
    head = {"archive": 1, "id": "00" * 16, "market_id": "00" * 16, "before": 1, "begun_ms": 1}
    head |= {"receipts_before": 0, "link": "00" * 32}
    (cli.directory / "theirs").write_text(json.dumps(head) + "\n")
    (cli.directory / "newer").write_text(json.dumps(head | {"archive": 2}) + "\n")
    before = {path.name for path in cli.directory.iterdir()}
    done = cli("state", "archive", target, f"--before={age}")
    assert done.code == 2
    assert problem in done.err
    assert {path.name for path in cli.directory.iterdir()} == before
    assert cli.ok("compute", "list", "--all").count("\n") == 3


def test_archive_of_another_history_is_kept(cli: Cli) -> None:
    """A market that was restored from before it knows nothing of it."""
    with_ended_jobs(cli)
    cli.ok("state", "backup", "saved")
    archive(cli, "out.jsonl")
    before = (cli.directory / "out.jsonl").read_bytes()
    cli.ok("--home", "other", "state", "restore", "saved")
    done = cli("--home", "other", "state", "archive", "--before", "0", "out.jsonl")
    assert done.code == 6
    assert "this market knows nothing of" in done.err
    assert (cli.directory / "out.jsonl").read_bytes() == before


def reopen(txn: Txn) -> None:
    """Let an archive be one that is not whole."""
    ((key, known),) = archives.listed(txn)
    txn.write(ARCHIVES, key, replace(known, closed_ms=None))


def let_be_unfinished(cli: Cli) -> None:
    """As if its command had been killed before the end."""
    store = open_store(cli.home / "market")
    store.update(reopen)
    store.close()


def refused_as_damage(cli: Cli, file: Path, problem: str) -> None:
    """Whether it is tried or not, it is an error of one line and a hint, and the file stays."""
    before = file.read_bytes() if file.exists() else None
    for dry in ((), ("-n",)):
        done = cli("state", "archive", "--before", "0", file.name, *dry)
        assert (done.code, done.out) == (9, ""), done
        first, hint = done.err.splitlines()
        assert first == f"error[integrity]: {file.name} {problem}"
        assert hint.startswith("hint: ")
        assert (file.read_bytes() if file.exists() else None) == before


def test_file_that_lost_what_the_market_let_go_is_damage(cli: Cli) -> None:
    with_ended_jobs(cli)
    archive(cli, "out.jsonl")
    let_be_unfinished(cli)
    file = cli.directory / "out.jsonl"
    length = json.loads(file.read_bytes().splitlines()[-1])["bytes"]
    file.write_bytes(file.read_bytes()[:-300])
    problem = f"is damaged: it has not the {length} bytes that were written to it"
    refused_as_damage(cli, file, problem)
    file.unlink()
    refused_as_damage(cli, file, "is gone, and what is in it is no longer in the market")


NOT_WHOLE = "is damaged: it has not the {} bytes that were written to it"
NO_END = "is damaged: its last line is not the one that was written to it"
ANOTHER = "is damaged: it is not the archive that was written there"
JUNK = b"x" * 5000


@pytest.mark.parametrize("is_more", [False, True], ids=["nothing to go", "more to go"])
@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda text: text[:-300], NOT_WHOLE),
        (lambda text: text.replace(b"cancelled", b"completed"), NOT_WHOLE),
        (lambda text: text.replace(b'"market_id":"', b'"market_id":"00', 1), NOT_WHOLE),
        (lambda text: text[:-1], NO_END),
        (lambda text: text[: text[:-1].rindex(b"\n") + 1], NO_END),
        (lambda text: text + b"\n", NO_END),
        (lambda text: text.replace(b'"jobs":2', b'"jobs":3'), NO_END),
        (lambda text: text.replace(b'"id":"', b'"id":"00', 1), ANOTHER),
        (lambda text: text[:20], ANOTHER),
        (lambda _: JUNK, ANOTHER),
        (lambda _: b"", ANOTHER),
        (lambda _: None, "is gone, and what is in it is no longer in the market"),
    ],
)
def test_finished_archive_that_is_damaged_or_gone_is_told(
    cli: Cli, damage: Callable[[bytes], bytes | None], problem: str, is_more: bool
) -> None:
    with_ended_jobs(cli)
    archive(cli, "out.jsonl")
    file = cli.directory / "out.jsonl"
    whole = file.read_bytes()
    if is_more:
        cli.ok("compute", "cancel", "j3")
        cli.advance(1)
    damaged = damage(whole)
    assert damaged != whole
    if damaged is None:
        file.unlink()
    else:
        file.write_bytes(damaged)
    length = json.loads(whole.splitlines()[-1])["bytes"]
    refused_as_damage(cli, file, problem.format(length))
    # Once it is back all is well, and beside it others are made.
    file.write_bytes(whole)
    if is_more:
        assert archive(cli, "new.jsonl").startswith("archived 1 job, ")
    for name in ("out.jsonl", "other.jsonl"):
        assert archive(cli, name) == "nothing to archive\n"
    assert file.read_bytes() == whole


def test_archive_is_missed_by_every_name_of_its_place(cli: Cli) -> None:
    with_ended_jobs(cli)
    disk = cli.directory / "disk"
    disk.mkdir()
    (cli.directory / "link").symlink_to("disk")
    archive(cli, "link/out.jsonl")
    (disk / "out.jsonl").rename(disk / "moved.jsonl")
    for name in ("link/out.jsonl", "disk/out.jsonl", "link/../disk/out.jsonl"):
        done = cli("state", "archive", "--before", "0", name)
        assert (done.code, done.out) == (9, "")
        assert done.err.startswith(f"error[integrity]: {name} is gone, ")
    # Under another name it is known by its first line.
    assert archive(cli, "disk/moved.jsonl") == "nothing to archive\n"
    os.truncate(disk / "moved.jsonl", 400)
    done = cli("state", "archive", "--before", "0", "disk/moved.jsonl")
    assert done.code == 9
    assert "disk/moved.jsonl is damaged" in done.err
    # Its disk is not mounted.
    disk.rename(cli.directory / "aside")
    done = cli("state", "archive", "--before", "0", "disk/out.jsonl")
    assert done.code == 9


def test_archive_goes_to_a_file_called_like_stdout(cli: Cli) -> None:
    with_ended_jobs(cli)
    assert archive(cli, "./-").startswith("archived 2 jobs, ")
    assert (cli.directory / "-").exists()


# Archives that are interrupted, and gone on with.


def with_many_ended_jobs(cli: Cli) -> None:
    cli.real()
    cli.active(*(f"j{number}" for number in range(5)))
    cli.ok("compute", "cancel", *(f"j{number}" for number in range(4)))
    cli.advance(1)


def interrupted(cli: Cli, file: str, *, after: int, patch: pytest.MonkeyPatch) -> Done:
    """A run that breaks off when so many jobs have gone, with one more in the file."""
    let_go = archives.let_go
    left = after

    def or_break_off(*args: Any, **named: Any) -> Any:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        return let_go(*args, **named)

    with patch.context() as patched:
        patched.setattr(archives, "PIECE_JOBS", 1)
        patched.setattr(archives, "let_go", or_break_off)
        done = cli("state", "archive", "--before", "0", file)
    assert done.code == 130
    return done


def told_of_archives(cli: Cli) -> dict[str, list[str]]:
    """What `state info` tells, by the word behind `archives`."""
    info = cli.document("state", "info")
    return {
        name.removeprefix("archives").lstrip("_"): [
            os.path.relpath(path, cli.directory) for path in paths
        ]
        for name, paths in info.items()
        if name.startswith("archives")
    }


def files_of(cli: Cli) -> dict[str, tuple[bytes, int]]:
    """All that is in the directory and in the home, with the times of their changes."""
    found = [path for path in cli.directory.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in found
        if path.name != "lock.mdb"
    }


def as_tried(cli: Cli, *words: str) -> str:
    """Archive, having seen that it says the same when it is tried, and changes nothing then."""
    before = files_of(cli)
    tried = archive(cli, *words, "-n")
    assert files_of(cli) == before
    said = archive(cli, *words)
    assert tried == f"dry_run: {said}"
    return said


@pytest.mark.parametrize("after", [0, 1, 3])
def test_archive_that_goes_on_under_another_name_is_known_by_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    with_many_ended_jobs(cli)
    interrupted(cli, "old.jsonl", after=after, patch=monkeypatch)
    (cli.directory / "old.jsonl").rename(cli.directory / "new.jsonl")
    # While it goes on, too.
    interrupted(cli, "new.jsonl", after=0, patch=monkeypatch)
    known = {"": ["new.jsonl"], "unfinished": ["new.jsonl"], "gone": [], "short": []}
    assert told_of_archives(cli) == known
    as_tried(cli, "new.jsonl")
    assert told_of_archives(cli) == known | {"unfinished": []}
    # The old name is free, the new one is missed.
    assert as_tried(cli, "old.jsonl") == "nothing to archive\n"
    (cli.directory / "new.jsonl").unlink()
    gone = "is gone, and what is in it is no longer in the market"
    refused_as_damage(cli, cli.directory / "new.jsonl", gone)


@pytest.mark.parametrize("left", [True, False], ids=["interrupted again", "finished"])
def test_copy_that_goes_on_is_the_archive_and_the_first_one_is_not(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, left: bool
) -> None:
    with_many_ended_jobs(cli)
    first, copy = cli.directory / "first.jsonl", cli.directory / "copy.jsonl"
    interrupted(cli, first.name, after=2, patch=monkeypatch)
    shutil.copy(first, copy)
    if left:
        # Both have the third job, for the first was in the middle of it.
        interrupted(cli, copy.name, after=2, patch=monkeypatch)
    else:
        as_tried(cli, copy.name)
    assert told_of_archives(cli)[""] == ["copy.jsonl"]
    for dry in ((), ("-n",)):
        done = cli("state", "archive", "--before", "0", first.name, *dry)
        assert (done.code, done.out) == (9, "")
        error, hint = done.err.splitlines()
        assert error.startswith("error[integrity]: first.jsonl is damaged: it has not the ")
        assert hint == f"hint: it is another copy of the archive, which lies in {copy}"
    if left:
        as_tried(cli, copy.name)
    assert as_tried(cli, copy.name) == "nothing to archive\n"
    jobs = [json.loads(line) for line in copy.read_text().splitlines()]
    assert sorted(each["job"]["job_id"] for each in jobs if "job" in each) == [
        *("j0", "j1", "j2", "j3")
    ]
    first.unlink()
    assert told_of_archives(cli) == {"": ["copy.jsonl"], "unfinished": [], "gone": [], "short": []}


def test_copy_that_only_lacks_its_end_is_not_the_archive(cli: Cli) -> None:
    with_ended_jobs(cli)
    archive(cli, "first.jsonl")
    let_be_unfinished(cli)
    first, copy = cli.directory / "first.jsonl", cli.directory / "copy.jsonl"
    *lines, _ = first.read_bytes().splitlines(keepends=True)
    first.write_bytes(b"".join(lines))
    shutil.copy(first, copy)
    as_tried(cli, "copy.jsonl")
    done = cli("state", "archive", "--before", "0", "first.jsonl")
    assert done == (
        9,
        "",
        "error[integrity]: first.jsonl is damaged: its last line is not the one that was written "
        f"to it\nhint: it is another copy of the archive, which lies in {copy}\n",
    )


def test_archive_that_goes_on_tells_what_this_run_did(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_many_ended_jobs(cli)
    done = interrupted(cli, "out.jsonl", after=1, patch=monkeypatch)
    assert done.err == "interrupted after 1 job; run it again with out.jsonl\n"
    done = interrupted(cli, "out.jsonl", after=2, patch=monkeypatch)
    assert done.err == "interrupted after 2 jobs; run it again with out.jsonl\n"
    tried = cli.document("state", "archive", "--before", "0", "out.jsonl", "-n")
    end = archive(cli, "out.jsonl", "-n")
    assert end.startswith("dry_run: archived 1 job, 0 receipts and ")
    assert ", which has 4 jobs, 0 receipts and " in end
    done = cli.document("state", "archive", "--before", "0", "out.jsonl")
    assert tried == done | {"dry_run": True}
    assert (done["jobs"], done["total"]["jobs"]) == (1, 4)
    last = json.loads((cli.directory / "out.jsonl").read_text().splitlines()[-1])
    assert done["total"] == {name: last[name] for name in ("jobs", "receipts", "postings")}


def test_archive_that_lacks_no_more_than_its_end_says_so(cli: Cli) -> None:
    with_ended_jobs(cli)
    said = archive(cli, "out.jsonl").removeprefix("archived ")
    let_be_unfinished(cli)
    has = said.replace(" to out.jsonl\n", "")
    assert as_tried(cli, "out.jsonl") == (
        f"archived 0 jobs, 0 receipts and 0 postings to out.jsonl, which has {has}\n"
    )


def test_trial_of_an_archive_that_the_market_does_not_know_yet_touches_nothing(cli: Cli) -> None:
    """Who made it was killed before the market had noted it."""
    with_ended_jobs(cli)
    market_id = cli.document("state", "info")["market_id"]
    head = {"archive": 1, "id": "07" * 16, "market_id": market_id, "before": cli.now, "begun_ms": 1}
    head |= {"receipts_before": 0, "link": "00" * 32}
    (cli.directory / "out.jsonl").write_text(json.dumps(head) + "\n")
    assert as_tried(cli, "out.jsonl").startswith("archived 2 jobs, ")


def test_archive_behind_a_link_is_remembered_where_it_lies(cli: Cli) -> None:
    """What `..` means behind a link is not what it seems to mean."""
    with_ended_jobs(cli)
    (cli.directory / "disk" / "deep").mkdir(parents=True)
    (cli.directory / "link").symlink_to("disk/deep")
    archive(cli, "link/../out.jsonl")
    known = {"": ["disk/out.jsonl"], "unfinished": [], "gone": [], "short": []}
    assert told_of_archives(cli) == known


def test_info_marks_archives_that_are_gone_or_short(cli: Cli) -> None:
    with_ended_jobs(cli)
    archive(cli, "one.jsonl")
    cli.ok("compute", "cancel", "j3")
    cli.advance(1)
    archive(cli, "two.jsonl")
    one, two = cli.directory / "one.jsonl", cli.directory / "two.jsonl"
    whole = two.read_bytes()
    known = {"": ["one.jsonl", "two.jsonl"], "unfinished": [], "gone": [], "short": []}
    assert {name: sorted(paths) for name, paths in told_of_archives(cli).items()} == known
    last = len(whole.splitlines(keepends=True)[-1])
    for kept in (0, 100, len(whole) - last - 1, len(whole) - last):
        two.write_bytes(whole[:kept])
        assert told_of_archives(cli)["short"] == ["two.jsonl"]
    one.rename(cli.directory / "aside.jsonl")
    told = told_of_archives(cli)
    assert (told["gone"], told["short"]) == (["one.jsonl"], ["two.jsonl"])
    lines = cli.ok("state", "info").splitlines()
    assert {f"archives_gone: {one}", f"archives_short: {two}"} < {*lines}
    one.mkdir()  # No file is there either.
    assert told_of_archives(cli)["gone"] == ["one.jsonl"]
    # It is there by a link.
    one.rmdir()
    one.symlink_to("aside.jsonl")
    two.write_bytes(whole)
    told = told_of_archives(cli)
    assert (told["gone"], told["short"]) == ([], [])


# Compacting.


def test_compact_gives_space_back_and_changes_nothing_else(cli: Cli) -> None:
    with_ended_jobs(cli)
    archive(cli, "out.jsonl")
    tables = cli.ok("state", "stats")
    before = json.loads(cli.ok("state", "compact", "--json"))
    size = (cli.home / "market" / "data.mdb").stat().st_size
    assert before["bytes_before"] > before["bytes_after"]
    assert size >= before["bytes_after"]
    after = cli.ok("state", "stats")
    changed = {a for a, b in zip(tables.splitlines(), after.splitlines(), strict=True) if a != b}
    assert {line.split("\t")[0] for line in changed} <= {"events", "meta"}
    assert cli.ok("state", "check") == "receipts 0 invalid 0\n"
    assert (cli.home / "market" / "data.mdb").stat().st_mode & 0o777 == 0o600


def test_compact_that_is_tried_changes_no_byte(cli: Cli) -> None:
    cli.active("j1")
    before = (cli.home / "market" / "data.mdb").read_bytes()
    assert cli.ok("state", "compact", "-n").startswith("dry_run: compacted ")
    assert (cli.home / "market" / "data.mdb").read_bytes() == before


def test_process_that_has_the_old_file_goes_on_with_the_new_one(cli: Cli) -> None:
    """A batch looks, and changes something, before and after others have compacted it."""
    cli.active("j1", "j2")
    batch = subprocess.Popen(
        [*COMMAND, "--home", str(cli.home), "batch", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        cwd=cli.directory,
    )
    lines, answers = batch.stdin, batch.stdout
    assert lines is not None
    assert answers is not None

    def say(line: str) -> str:
        lines.write(line + "\n")
        lines.flush()
        return answers.readline()

    assert say("wallet deposit bob --ct 1 --key a") == "deposited 1 CT 0 IT; bob has 1 CT 0 IT\n"
    for number in range(3):
        cli.ok("state", "compact")
        cli.ok("wallet", "deposit", "bob", "--ct", "10")
        has = 11 * number + 11
        assert say("wallet balance bob --json") == "{\n"
        shown = "".join(batch.stdout.readline() for _ in range(11))
        assert f'"ct": {has},' in shown
        assert say("wallet deposit bob --ct 1").endswith(f"bob has {has + 1} CT 0 IT\n")
        cli.ok("state", "compact")
        assert say("wallet withdraw bob --ct 1").endswith(f"bob has {has} CT 0 IT\n")
        assert say("wallet deposit bob --ct 1").endswith(f"bob has {has + 1} CT 0 IT\n")
    batch.stdin.close()
    assert batch.wait(20) == 0
    batch.stdout.close()
    assert cli.ok("state", "check") == "receipts 0 invalid 0\n"


def test_market_that_was_replaced_is_not_taken_for_a_compacted_one(cli: Cli) -> None:
    cli.active("j1")
    cli.ok("state", "compact")
    subprocess.run(["cp", "-a", str(cli.home), str(cli.directory / "copy")], check=True)
    batch = subprocess.Popen(
        [*COMMAND, "--home", str(cli.home), "batch", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cli.directory,
    )
    assert batch.stdin is not None
    assert batch.stdout is not None
    batch.stdin.write("wallet deposit bob --ct 1 --key a\n")
    batch.stdin.flush()
    assert batch.stdout.readline()
    os.rename(cli.home, cli.directory / "aside")
    os.rename(cli.directory / "copy", cli.home)
    _, err = batch.communicate("wallet deposit bob --ct 1 --key b\n", timeout=20)
    assert batch.returncode == 7  # One of two lines.
    assert "moved away or replaced meanwhile" in err


def test_unfinished_copy_of_a_killed_compact_is_overwritten(cli: Cli) -> None:
    cli.active("j1")
    left: Path = cli.home / "market" / "data.mdb.compact"
    left.write_bytes(b"half")
    cli.ok("state", "compact")
    assert not left.exists()
    assert cli.ok("state", "check") == "receipts 0 invalid 0\n"
