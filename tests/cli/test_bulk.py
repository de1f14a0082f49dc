"""Many ids at once, shell loops, locks, signals and closed pipes."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import JOB_FIELDS, Cli, Done, without
from tests.support.terminal import answered

pytest_plugins = ("tests.support.cli",)


def bash(cli: Cli, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in which `tb-cli` is this command."""
    tools = cli.directory / "bin"
    tools.mkdir(exist_ok=True)
    program = tools / "tb-cli"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tb_cli.entry "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=60, env=environment
    )


@contextmanager
def locked(cli: Cli) -> Iterator[None]:
    """Hold the write lock, as another process at work does."""
    with open(cli.home / "market" / "write.lock", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def waiting(process: "subprocess.Popen[bytes]") -> None:
    """Return once the process tries to get the lock."""
    give_up = time.monotonic() + 20
    while time.monotonic() < give_up:
        assert process.poll() is None
        files = []
        with suppress(FileNotFoundError):  # It opens and closes some meanwhile.
            files = [os.readlink(path) for path in Path(f"/proc/{process.pid}/fd").iterdir()]
        if any(path.endswith("/write.lock") for path in files):
            return
        time.sleep(0.01)
    raise AssertionError("the process never waited for the lock")


def test_the_seeds_loop_works_as_written(cli: Cli) -> None:
    cli.active("j1", "j2", "done")
    cli.ok("compute", "execute", "done")
    (cli.directory / "jobs.txt").write_text("j1\nnope\ndone\nj2\nj1\n")
    done = bash(cli, 'for id in $(cat jobs.txt); do tb-cli compute cancel "$id" || true; done')
    assert done.returncode == 0
    assert done.stdout == (
        "cancelled job j1\n"
        "job not found\n"
        "job already completed\n"
        "cancelled job j2\n"
        "job already cancelled\n"
    )
    assert [line for line in done.stderr.splitlines() if line.startswith("error")] == [
        "error[not_found]: job nope does not exist",
        "error[already_done]: job already completed",
    ]
    assert cli.states() == {"j1": "cancelled", "j2": "cancelled", "done": "completed"}


def test_xargs_with_eight_processes_cancels_each_once(cli: Cli) -> None:
    missing = without("xargs")
    if missing:
        pytest.skip(missing)
    cli.real()
    ids = [f"j{number:02}" for number in range(24)]
    cli.active(*ids)
    (cli.directory / "jobs.txt").write_text("\n".join([*ids, *ids[:8]]) + "\n")
    done = bash(cli, "xargs -P8 -n2 tb-cli compute cancel < jobs.txt")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert sorted(line for line in lines if line.startswith("cancelled")) == [
        f"cancelled job {job_id}" for job_id in ids
    ]
    assert sum(line.endswith("already cancelled") for line in lines) == 8
    assert sorted(cli.log().splitlines()) == [f"{job_id} client" for job_id in ids]
    assert cli.wallet("alice") == (1000, 1000)


def test_documented_pipe_cancels_what_is_listed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = without("jq")
    if missing:
        pytest.skip(missing)
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "1")
    cli.active("runs")
    cli.submit("q1")
    cli.submit("q2")
    done = bash(
        cli,
        "tb-cli compute list --state queued -q | tb-cli compute cancel -",
    )
    assert (done.returncode, done.stdout) == (0, "cancelled job q1\ncancelled job q2\n")
    assert cli.states() == {"runs": "active", "q1": "cancelled", "q2": "cancelled"}


def test_stdin_skips_comments_blanks_and_duplicates_and_keeps_the_order(cli: Cli) -> None:
    cli.active("a", "b", "c", "d")
    given = "# these go\nc\n\n  a  \nc\n\t\n#b\r\nd\r\na"
    out = cli.ok("compute", "cancel", "b", "-", "c", stdin=given)
    assert out == "".join(f"cancelled job {job_id}\n" for job_id in "bcad")
    assert cli.log() == "".join(f"{job_id} client\n" for job_id in "bcad")


def test_stdin_without_ids_does_nothing(cli: Cli) -> None:
    said = "nothing given, nothing done\n"
    cli.ok("state", "init")
    for verb in (("compute", "cancel"), ("compute", "execute"), ("compute", "offer", "withdraw")):
        assert cli(*verb, "-", stdin="# nobody\n\n") == (0, "", said)
    for verb in (("compute", "submit"), ("compute", "offer", "post"), ("compute", "wait")):
        assert cli(*verb, "-", stdin="\n\n") == (0, "", said)
    done = cli("compute", "cancel", "-", "--json", stdin="")
    assert (done.code, done.json, done.err) == (0, [], said)


@pytest.mark.parametrize("bad", [b"no such", b"a/b", b"\xff", b"x" * 129, b"-x"])
def test_line_that_is_no_id_fails_alone_and_is_named(cli: Cli, bad: bytes) -> None:
    cli.active("a", "b")
    done = cli("compute", "cancel", "-", stdin=b"a\n" + bad + b"\nb\n")
    hint = "hint: usage: ids are "
    assert (done.code, done.err.startswith("1 of 3 failed: 1 usage\n")) == (7, True)
    assert (hint in done.err) == (bad != b"\xff")
    first, second, third = done.out.splitlines()
    assert (first, third) == ("cancelled job a", "cancelled job b")
    assert second.startswith("stdin line 2")
    before = cli.files()
    for given in (bad, bad + b"\n" + bad):
        done = cli("compute", "cancel", "-", stdin=given)
        assert done.code == 2
        assert "stdin line 1" in done.out
    # What comes to nothing opens no transaction, nor does it count as a command that ran.
    assert cli.files() == before


@pytest.mark.parametrize("bad", ["no such", "a/b", "x" * 129, ""])
def test_argument_that_is_no_id_stops_the_run_before_it_begins(cli: Cli, bad: str) -> None:
    cli.active("a", "b")
    before = cli.files()
    for verb in (("compute", "cancel"), ("compute", "execute"), ("compute", "offer", "withdraw")):
        done = cli(*verb, "--", "a", "-", bad, stdin="b\n")
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("error[usage]: ")
    assert cli.files() == before


def test_bad_lines_alone_create_no_home(cli: Cli) -> None:
    done = cli("compute", "offer", "post", "-", stdin="{}\n{}\n")
    hint = "hint: usage: it goes into the file, or is given with --provider\n"
    assert (done.code, done.err) == (2, f"2 of 2 failed: 2 usage\n{hint}")
    assert not cli.home.exists()


def test_ids_that_come_again_are_dropped_within_a_window(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tb_cli.frame import ids

    cli.active("a")
    given = "a\nb\nc\na\n"
    assert len(cli("compute", "cancel", "-", "-n", stdin=given).out.splitlines()) == 3
    monkeypatch.setattr(ids, "SEEN_MAX", 2)
    out = cli("compute", "cancel", "-", stdin=given).out
    assert out.splitlines() == [
        *("cancelled job a", "b: job not found", "c: job not found", "a: job already cancelled"),
    ]


def test_json_of_many_is_printed_as_it_comes(cli: Cli) -> None:
    cli.active("a", "b")
    process = cli.start("compute", "cancel", "-", "--chunk", "1", "--json", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"a\nb\nno such\n")
    process.stdin.flush()
    # One line of each, in one array.
    assert process.stdout.readline() == b"[\n"
    lines = [process.stdout.readline(), process.stdout.readline()]
    process.stdin.close()
    lines.append(process.stdout.readline())
    assert process.stdout.read() == b"]\n"
    assert process.wait(timeout=20) == 7
    found = json.loads(b"[" + b"".join(lines) + b"]")
    assert [document["job_id"] for document in found] == ["a", "b", "stdin line 3"]


def test_input_of_any_length_takes_the_same_memory(cli: Cli) -> None:
    """What is kept of each id is that it was seen; no outcome waits for another."""
    cli.ok("state", "init")
    script = (
        "import resource, sys\n"
        "from tb_cli.frame.guard import guarded\n"
        "from tb_cli.entry import call\n"
        "words = sys.argv[1:]\n"
        "code = guarded(lambda: call(words), words)\n"
        "print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
    )

    def peak_kib(count: int) -> int:
        given = "".join(f"n{number}\n" for number in range(count))
        command = [sys.executable, "-c", script, "compute", "cancel", "-", "--json"]
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60)
        code, peak = done.stderr.splitlines()[-1].split()
        assert (code, done.stdout.count("\n")) == ("3", count + 2)
        return int(peak)

    assert peak_kib(40_000) < peak_kib(4_000) + 16_384


# The hint of each reason whose failures have the same.
LIST = "hint: not_found: see `tb-cli compute list`"
STATUS = "hint: already_done: see `tb-cli compute status done`"


@pytest.mark.parametrize(
    ("ids", "code", "counted"),
    [
        (("a", "b"), 0, None),
        (("a", "gone"), 0, None),
        (("nope", "never"), 3, f"2 of 2 failed: 2 not_found\n{LIST}"),
        (("done", "done2"), 4, "2 of 2 failed: 2 already_done"),
        (("a", "nope"), 7, f"1 of 2 failed: 1 not_found\n{LIST}"),
        (
            ("nope", "done", "never"),
            7,
            f"3 of 3 failed: 2 not_found, 1 already_done\n{LIST}\n{STATUS}",
        ),
    ],
)
def test_exit_code_of_many(cli: Cli, ids: tuple[str, ...], code: int, counted: str | None) -> None:
    cli.active("a", "b", "gone", "done", "done2")
    cli.ok("compute", "cancel", "gone")
    cli.ok("compute", "execute", "done", "done2")
    done = cli("compute", "cancel", *ids)
    assert (done.code, done.err) == (code, f"{counted}\n" if counted else "")
    lines = {
        "nope": "nope: job not found",
        "never": "never: job not found",
        "done": "done: job already completed",
        "done2": "done2: job already completed",
        "gone": "gone: job already cancelled",
    }
    assert done.out.splitlines() == [lines.get(name, f"cancelled job {name}") for name in ids]


def test_unknown_ids_may_be_no_failure(cli: Cli) -> None:
    cli.active("a", "done")
    cli.ok("compute", "execute", "done")
    options = ("compute", "cancel", "--ignore-not-found")
    assert cli(*options, "nope") == (0, "job not found\n", "")
    assert cli(*options, "nope", "a") == (0, "nope: job not found\ncancelled job a\n", "")
    assert cli(*options, "nope", "done").code == 7
    assert cli("compute", "cancel", "--atomic", *options[2:], "nope", "a").code == 0


def test_failed_ids_go_to_a_file_that_can_be_read_again(cli: Cli) -> None:
    cli.active("a", "b")
    failed = cli.directory / "failed.txt"
    command = ("compute", "cancel", "--failed-to", failed)
    assert cli(*command, "a", "nope", "never", "b").code == 7
    assert failed.read_text() == "nope\nnever\n"
    assert cli("compute", "cancel", "-", stdin=failed.read_bytes()).code == 3
    cli.ok(*command, "a")
    assert failed.read_text() == ""
    assert cli(*command, "nope", "--dry-run").code == 3
    assert failed.read_text() == ""
    assert sorted(path.name for path in cli.directory.glob("failed*")) == ["failed.txt"]


def test_failed_to_an_impossible_file_cancels_nothing(cli: Cli) -> None:
    cli.active("a")
    path = cli.directory / "missing" / "failed.txt"
    done = cli("compute", "cancel", "a", "--failed-to", path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error[usage]: {path}: ")
    assert cli.states() == {"a": "active"}


def test_chunks_are_transactions(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from compute_market.engine import Engine

    ids = [f"j{number}" for number in range(5)]
    cli.active(*ids)
    sizes: list[int] = []
    update = Engine.update

    def counted(engine: Engine, fn: object, **extra: object) -> object:
        result = update(engine, fn, **extra)  # type: ignore[arg-type]
        sizes.append(len(result) if isinstance(result, list) else -1)
        return result

    monkeypatch.setattr(Engine, "update", counted)
    out = cli.ok("compute", "cancel", "--chunk", "2", *ids)
    assert out == "".join(f"cancelled job {job_id}\n" for job_id in ids)
    assert sizes == [2, 2, 1]


def test_lines_are_printed_once_their_chunk_is_committed(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:

    from tb_cli import cancel as cancel_verb

    ids = [f"j{number}" for number in range(5)]
    cli.active(*ids)
    cancel = cancel_verb.cancel_job

    def failing(txn: object, job_id: str, *rest: object) -> object:
        if job_id == "j3":
            raise ZeroDivisionError("a bug in the second chunk")
        return cancel(txn, job_id, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(cancel_verb, "cancel_job", failing)
    done = cli("compute", "cancel", "--chunk", "2", *ids)
    assert (done.code, done.out) == (1, "cancelled job j0\ncancelled job j1\n")
    done = cli("compute", "cancel", "--chunk", "2", *ids, "--json", "-n")
    assert (done.code, done.out) == (1, "[]\n")
    # A list that breaks off is a list all the same.
    done = cli("compute", "cancel", "--chunk", "1", *ids, "--json")
    assert (done.code, [document["job_id"] for document in done.json]) == (1, ["j0", "j1", "j2"])
    monkeypatch.undo()
    os.environ["TB_HOME"] = str(cli.home)
    states = cli.states()
    assert [name for name in ids if states[name] == "cancelled"] == ["j0", "j1", "j2"]
    assert cli.log() == "j0 client\nj1 client\nj2 client\n"
    # A run that was cut short is run again without harm.
    assert cli("compute", "cancel", *ids).code == 0
    assert cli.log() == "".join(f"{job_id} client\n" for job_id in ids)


def test_atomic_changes_all_or_nothing(cli: Cli) -> None:
    cli.active("a", "b", "c")
    done = cli("compute", "cancel", "--atomic", "--chunk", "1", "a", "nope", "c")
    assert done == (
        7,
        "a: not changed, another item failed\n"
        "nope: job not found\n"
        "c: not changed, another item failed\n",
        f"1 of 3 failed: 1 not_found\n{LIST}\n",
    )
    assert set(cli.states().values()) == {"active"}
    assert cli.log() == ""
    assert cli.ok("compute", "cancel", "--atomic", "a", "c") == (
        "cancelled job a\ncancelled job c\n"
    )


def test_atomic_outcomes_as_jsonl_name_the_job(cli: Cli) -> None:
    cli.active("a")
    done = cli("compute", "cancel", "--atomic", "a", "nope", "--jsonl")
    assert done.code == 7
    assert [document.get("job_id") for document in done.jsonl] == ["a", "nope"]
    assert [document["changed"] for document in done.jsonl] == [False, False]


def test_atomic_offers(cli: Cli) -> None:
    cli.ok("state", "init")
    good = {"provider": "p", "units": 1, "price_per_unit": 1}
    given = "".join(json.dumps(good | extra) + "\n" for extra in ({}, {"units": 0}, {}))
    done = cli("compute", "offer", "post", "-", "--atomic", stdin=given)
    assert done.code == 7
    assert cli.document("compute", "offer", "list") == []
    assert cli("compute", "offer", "post", "-", stdin=given).code == 7
    assert len(cli.document("compute", "offer", "list")) == 2


def test_cancel_jsonl_is_one_outcome_per_line(cli: Cli) -> None:
    cli.active("a", "gone", "done")
    cli.ok("compute", "cancel", "gone")
    cli.ok("compute", "execute", "done")
    cli.submit("p", "--gpu", "H100", "--wait")
    done = cli("compute", "cancel", "--jsonl", "--by", "provider", "a", "gone", "done", "nope", "p")
    found = [(d["job_id"], d["outcome"], d["changed"]) for d in done.jsonl]
    assert found == [
        ("a", "cancelled", True),
        ("gone", "already_cancelled", False),
        ("done", "already_done", False),
        ("nope", "not_found", False),
        ("p", "refused", False),
    ]
    assert [list(d) for d in done.jsonl[:2]] == [["job_id", "outcome", "changed"]] * 2
    assert [d.get("error", {}).get("error") for d in done.jsonl] == [
        *(None, None, "already_done", "not_found", "refused"),
    ]
    assert (done.code, done.err) == (
        7,
        "3 of 5 failed: 1 already_done, 1 not_found, 1 refused\n",
    )


def test_cancel_of_many_as_json_is_one_list(cli: Cli) -> None:
    cli.active("a", "b")
    done = cli("compute", "cancel", "a", "nope", "b", "--json")
    assert done.code == 7
    assert list(done.json[0]) == [*JOB_FIELDS, "outcome", "changed"]
    assert [(d["job_id"], d["outcome"]) for d in done.json] == [
        ("a", "cancelled"),
        ("nope", "not_found"),
        ("b", "cancelled"),
    ]


def test_dry_run_of_many_builds_on_itself(cli: Cli) -> None:
    terms = json.dumps({"provider": "p", "units": 1, "price_per_unit": 1}) + "\n"
    command = ("compute", "offer", "post", "-", "--chunk", "1")
    dry = cli.ok(*command, "--dry-run", stdin=terms * 3)
    assert dry == "".join(f"dry_run: posted offer o-{number}\n" for number in (1, 2, 3))
    assert cli.ok(*command, stdin=terms * 3) == dry.replace("dry_run: ", "")


def test_a_thousand_and_one_ids_need_two_chunks(cli: Cli) -> None:
    cli.ok("state", "init")
    ids = [f"n{number}" for number in range(1001)]
    done = cli("compute", "cancel", "-", "--jsonl", stdin="\n".join(ids))
    assert (done.code, len(done.jsonl)) == (3, 1001)
    assert [document["job_id"] for document in done.jsonl] == ids
    assert done.err == "1001 of 1001 failed: 1001 not_found\n"


def test_wait_for_the_lock_ends_with_8_and_the_holders_pid(cli: Cli) -> None:
    cli.active()
    before = cli.files()
    with locked(cli):
        done = cli("compute", "cancel", "j1", "--lock-timeout", "0.05")
        assert done == (
            8,
            "",
            f"error[busy]: the write lock of {cli.home}/market is held by process {os.getpid()}\n"
            "hint: try again, or wait longer with --lock-timeout\n",
        )
        done = cli("--lock-timeout", "9", "compute", "cancel", "j1", "--lock-timeout", "0")
        assert done.code == 8
        done = cli("--lock-timeout", "0", "compute", "cancel", "j1", "--json")
        assert (done.code, done.out) == (8, "")
        assert (done.error["error"], done.error["retryable"]) == ("busy", True)
        assert done.error["holder_pid"] == os.getpid()
        # That of a batch holds for its lines.
        done = cli("batch", "--lock-timeout", "0", stdin="compute cancel j1\n")
        assert (done.code, done.out) == (8, "")
    assert cli.files() == before
    assert cli.ok("compute", "cancel", "j1") == "cancelled job j1\n"


def test_lock_timeout_of_the_configuration(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.active()
    monkeypatch.setenv("TB_LOCK_TIMEOUT_SECS", "0")
    with locked(cli):
        assert cli("compute", "cancel", "j1").code == 8


def test_readers_do_not_wait_for_the_lock(cli: Cli) -> None:
    cli.active()
    cli.advance(86_401)  # There is something due, which is left to the writer.
    with locked(cli):
        began = time.monotonic()
        assert (cli.job()["state"], cli.job()["overdue"]) == ("active", True)
        assert cli("compute", "list").code == 0
        assert time.monotonic() - began < 5
    cli.ok("tick", due="1 overdue job failed, 1 without fault (the market was away)")
    assert cli.job()["state"] == "failed"


def test_command_gets_the_lock_once_it_is_free(cli: Cli) -> None:
    cli.active()
    with locked(cli):
        process = cli.start("compute", "cancel", "j1")
        waiting(process)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, b"cancelled job j1\n", b"")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
@pytest.mark.parametrize("extra", [(), ("--by", "client")], ids=["hot", "parsed"])
def test_signal_ends_the_wait_for_the_lock_at_once(
    cli: Cli, number: int, code: int, extra: tuple[str, ...]
) -> None:
    cli.active()
    before = cli.files()
    with locked(cli):
        process = cli.start("compute", "cancel", "j1", *extra)
        waiting(process)
        began = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        assert time.monotonic() - began < 2
    assert (process.returncode, out, err) == (code, b"", b"")
    assert cli.files() == before


def test_killed_bulk_run_is_run_again_without_harm(cli: Cli) -> None:
    ids = [f"j{number}" for number in range(8)]
    cli.active(*ids)
    with locked(cli):
        process = cli.start("compute", "cancel", "--chunk", "1", *ids)
        waiting(process)
        process.kill()
        process.communicate(timeout=20)
    assert cli.ok("compute", "cancel", *ids).count("cancelled job") == 8
    assert cli.log() == "".join(f"{job_id} client\n" for job_id in ids)


@pytest.mark.parametrize(
    "command",
    [
        "compute list --jsonl",
        "compute cancel -",
        "--help",
    ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_closed_pipe_ends_quietly(
    cli: Cli, command: str, unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With a buffer the pipe is found closed at the end, without one in the middle of the work.
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    ids = [f"j{number:04}" for number in range(3)]
    cli.active(*ids)
    # `true` reads nothing at all, so the very first write finds the pipe closed.
    script = f"printf '%s\\n' {' '.join(ids)} > ids; tb-cli {command} < ids | true; "
    done = bash(cli, script + 'echo "${PIPESTATUS[0]}"')
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_head_gets_its_line(cli: Cli) -> None:
    cli.active(*(f"j{number}" for number in range(4)))
    done = bash(cli, 'tb-cli compute list | head -1; echo "${PIPESTATUS[0]}"')
    assert done.stdout.splitlines()[0].startswith("j0\tactive\t")
    assert (done.stdout.splitlines()[1:], done.stderr) == (["0"], "")


def test_work_is_done_although_nobody_reads(cli: Cli) -> None:
    ids = [f"j{number}" for number in range(4)]
    cli.active(*ids)
    bash(cli, f"tb-cli compute cancel --chunk 1 {' '.join(ids)} | true")
    # Whatever was committed is whole: the audit after each test sees to that.
    states = cli.states()
    assert states["j0"] == "cancelled"
    assert cli.log() == "".join(f"{name} client\n" for name in ids if states[name] != "active")


def test_end_of_many_is_summed_up_for_somebody_who_looks(cli: Cli) -> None:
    cli.active("j1", "j2", "j3", "j4")
    assert cli("compute", "cancel", "j1", "j2").err == ""
    for ids, summary in (
        (("j2", "j3"), "all 2 done: 1 changed, 1 unchanged"),
        (("j2", "nope"), "1 of 2 failed: 1 not_found"),
        (("j2", "j3"), None),  # Nothing was done.
        (("j4",), None),
    ):
        shown = answered(cli, ("compute", "cancel", *ids), after="").text
        assert [line for line in shown.splitlines() if " of " in line or "done" in line] == (
            [] if summary is None else [summary]
        )


def test_hint_at_the_end_is_that_of_all_failures_of_its_reason(cli: Cli) -> None:
    cli.slice()
    whole = {"buyer": "b", "workload": "transcode", "slices": ["a.slice"], "max_price_per_unit": 9}
    mistyped = {"job_id": "a", "slice": [], **whole}
    nobody = {"job_id": "b", **{name: value for name, value in whole.items() if name != "buyer"}}

    def told(*jobs: dict[str, Any]) -> Done:
        lines = "".join(json.dumps(job) + "\n" for job in jobs)
        return cli("compute", "submit", "-", "--wait", stdin=lines)

    # The word that was meant is told with the line where it is.
    done = told(mistyped, nobody)
    assert done.out.splitlines()[0] == "stdin line 1: unknown field slice: did you mean slices?"
    assert done.err == "2 of 2 failed: 2 usage\n"
    assert told(mistyped, mistyped).err == "2 of 2 failed: 2 usage\n"
    assert "hint" not in told(nobody, {"job_id": "a b", **whole}).err
    hint = "hint: usage: it goes into the file, or is given with --buyer\n"
    assert told(nobody, nobody).err == f"2 of 2 failed: 2 usage\n{hint}"
    assert told(nobody, {**whole, "job_id": "d"}).err.endswith(f"1 of 2 failed: 1 usage\n{hint}")
