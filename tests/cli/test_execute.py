"""`compute execute|prove|run`."""

import json
import os
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from blake3 import blake3

from tests.support.cli import HELLO, JOB_FIELDS, MIB, WRONG, Cli

pytest_plugins = ("tests.support.cli",)

EMPTY = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
SMALL = ("s0", "s1", "s2")


def three_slices(cli: Cli) -> list[str]:
    """An active job of three slices; returns their outputs."""
    cli.post()
    paths = [cli.slice(name, name.encode()) for name in SMALL]
    assert cli.submit("j1", slices=paths)["slices"] == 3
    return [line[:64] for line in cli.ok("compute", "run", *SMALL).splitlines()]


def test_execute_completes_a_job(cli: Cli) -> None:
    cli.real()
    cli.post("--fee-pct-ct", "25", price=20)
    cli.submit("j1", slices=[cli.slice(), cli.slice("b", bytes(MIB + 1))])
    out = cli.ok("compute", "execute", "j1")
    assert out == "executed job j1: 2 of 2 slices proven, completed\n"
    job = cli.job()
    assert (job["state"], job["cause"], job["units_proven"]) == (
        "completed",
        "all slices proven",
        3,
    )
    assert (job["paid"], job["escrow"]) == ({"ct": 15, "it": 45}, {"ct": 0, "it": 0})
    assert cli.wallet("alice") == (985, 955)
    assert cli.wallet("prov") == (115, 45)
    assert cli.score() == 1
    offer = cli.offer()
    assert (offer["units_reserved"], offer["units_proven"]) == (0, 3)
    assert len(cli.document("compute-market", "receipts", "list")) == 1


def test_execute_json_is_the_job(cli: Cli) -> None:
    cli.active()
    document = cli.document("compute", "execute", "j1")
    assert list(document) == [*JOB_FIELDS, "changed"]
    assert document == cli.job() | {"changed": True}


def test_execute_of_a_completed_job_changes_nothing(cli: Cli) -> None:
    cli.active()
    cli.ok("compute", "execute", "j1")
    out = cli.ok("compute", "execute", "j1")
    assert out == "job j1 exists, unchanged: 1 of 1 slices proven, completed\n"
    assert cli.document("compute", "execute", "j1")["changed"] is False
    assert cli.score() == 1


def test_execute_goes_on_at_the_first_unproven_slice(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = three_slices(cli)
    cli.ok("compute", "prove", "j1", "0", outputs[0])
    # What is proven is not run again, so its file need not be there any more.
    (cli.directory / "s0").unlink()
    assert cli.ok("compute", "execute", "j1") == (
        "executed job j1: 3 of 3 slices proven, completed\n"
    )


def test_execute_keeps_the_proofs_made_before_a_failure(cli: Cli) -> None:
    three_slices(cli)
    (cli.directory / "s2").unlink()
    done = cli("compute", "execute", "j1")
    assert done.code == 2
    assert done.err == f"error[usage]: {cli.directory / 's2'}: no such file\n"
    assert cli.job()["slices_proven"] == 2


def test_execute_commits_as_it_goes(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from tb_cli import execute

    monkeypatch.setattr(execute, "_PROOFS_PER_COMMIT", 2)
    three_slices(cli)
    assert cli.document("compute", "execute", "j1", "--dry-run")["state"] == "completed"
    assert cli.job()["slices_proven"] == 0
    assert cli.document("compute", "execute", "j1")["state"] == "completed"


def with_workload(cli: Cli, job_id: str, workload: str, *contents: bytes) -> list[str]:
    """An active job whose slices bring their references; returns their paths."""
    paths = [str(cli.slice(f"{job_id}-{number}", each)) for number, each in enumerate(contents)]
    slices = [
        {"path": path, "reference": blake3(content).hexdigest()}
        for path, content in zip(paths, contents, strict=True)
    ]
    terms = {"job_id": job_id, "buyer": "alice", "workload": workload, "max_price_per_unit": 100}
    path = cli.directory / f"{job_id}.json"
    path.write_text(json.dumps(terms | {"slices": slices}))
    assert cli.document("compute", "submit", str(path))["state"] == "active"
    return paths


@pytest.mark.parametrize(
    ("workload", "what"),
    [
        ("faulty", "failed: ValueError: not this"),
        ("leaving", "failed: SystemExit: 3"),
        ("wordy", "returned a str, not 32 bytes"),
        ("short_proof", "returned 9 bytes, not 32 bytes"),
    ],
)
def test_workload_that_fails_ends_its_job_alone(
    workload: str, what: str, cli: Cli, plugin: ModuleType
) -> None:
    cli.post()
    paths = with_workload(cli, "bad", workload, b"one", b"two", b"three")
    with_workload(cli, "good", "transcode", b"one")
    failed = paths[1] if workload in ("faulty", "leaving") else paths[0]
    done = cli("compute", "execute", "bad", "good")
    assert (done.code, done.out) == (
        7,
        f"bad: {failed}: workload {workload} {what}\n"
        "executed job good: 1 of 1 slices proven, completed\n",
    )
    # What was proven before is kept, and told.
    proven = int(failed == paths[1])
    assert cli.job("bad")["slices_proven"] == proven
    done = cli("compute", "execute", "bad", "--jsonl")
    assert (done.json["changed"], done.json["error"]["reason"]) == (False, "broken_workload")


def test_execute_that_is_interrupted_keeps_the_proofs(cli: Cli, plugin: ModuleType) -> None:
    cli.post()
    with_workload(cli, "j1", "stopped", b"one", b"1", b"two", b"three")
    assert cli("compute", "execute", "j1", "--dry-run").code == 130
    assert cli.job()["slices_proven"] == 0
    assert cli("compute", "execute", "j1").code == 130
    assert cli.job()["slices_proven"] == 2


def test_execute_tells_that_a_job_that_failed_has_come_further(cli: Cli) -> None:
    three_slices(cli)
    (cli.directory / "s2").unlink()
    done = cli("compute", "execute", "j1", "--dry-run", "--jsonl")
    assert (done.code, done.json["changed"]) == (2, False)
    done = cli("compute", "execute", "j1", "--jsonl")
    assert (done.code, done.json["changed"]) == (2, True)
    assert cli("compute", "execute", "j1", "--jsonl").json["changed"] is False


def test_execute_commits_before_much_time_has_passed(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tb_cli import execute

    prove, commits = execute.lifecycle.prove, []

    def counted(*arguments: Any) -> Any:
        commits.append(len(arguments[3]))
        return prove(*arguments)

    monkeypatch.setattr(execute.lifecycle, "prove", counted)
    three_slices(cli)
    cli.ok("compute", "execute", "j1", "--dry-run")
    monkeypatch.setattr(execute, "_MS_PER_COMMIT", 0)
    cli.ok("compute", "execute", "j1")
    assert commits == [3, 1, 1, 1]


@pytest.mark.parametrize("content", [b"hellO", b"hello!", b""])
def test_slice_changed_since_submission_costs_nobody_a_point(cli: Cli, content: bytes) -> None:
    cli.active()
    path = cli.slice("a.slice", content)
    text = f"slice 0 of job j1 has changed since submission: {path}"
    hint = "hint: restore the file, or cancel the job"
    done = cli("compute", "execute", "j1")
    assert done == (9, f"{text}\n", f"error[integrity]: {text}\n{hint}\n")
    done = cli("compute", "execute", "j1", "--json")
    assert (done.code, done.out, done.error["reason"]) == (9, "", "slice_changed")
    assert (cli.job()["state"], cli.score()) == ("active", 0)
    cli.slice()
    assert cli.document("compute", "execute", "j1")["state"] == "completed"


def test_execute_of_jobs_that_do_not_run(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "1")
    cli.active("active")
    cli.submit("queued")
    cli.submit("pending", "--gpu", "H100", "--wait")
    text = "job queued is queued, only an active job can be run"
    hint = "hint: see `tb-cli compute queue`"
    assert cli("compute", "execute", "queued") == (
        5,
        f"{text}\n",
        f"error[refused]: {text}\n{hint}\n",
    )
    assert cli("compute", "execute", "pending", "--json").error["reason"] == "not_active"
    cli.ok("compute", "cancel", "pending")
    done = cli("compute", "execute", "pending")
    assert (done.code, done.err) == (4, "error[already_done]: job pending is cancelled\n")
    assert cli("compute", "execute", "nope").code == 3


def test_execute_of_many_tells_each(cli: Cli) -> None:
    cli.active("j1", "j2")
    done = cli("compute", "execute", "j1", "nope", "-", stdin="j2\n# not this one\n")
    assert done == (
        7,
        "executed job j1: 1 of 1 slices proven, completed\n"
        "job nope does not exist\n"
        "executed job j2: 1 of 1 slices proven, completed\n",
        "1 of 3 failed: 1 not_found\n",
    )
    assert cli.states() == {"j1": "completed", "j2": "completed"}


def test_execute_after_the_deadline_finds_the_job_failed(cli: Cli) -> None:
    cli.post()
    cli.submit("j1", "--deadline-secs", "1")
    cli.advance(2)
    done = cli("compute", "execute", "j1")
    assert (done.code, done.err) == (4, "error[already_done]: job j1 is failed\n")


def test_prove_takes_proofs_in_any_order(cli: Cli) -> None:
    outputs = three_slices(cli)
    said = [cli.ok("compute", "prove", "j1", str(n), outputs[n]) for n in (2, 0)]
    assert said == [
        "proved slice 2 of job j1: 1 of 3 slices proven, active\n",
        "proved slice 0 of job j1: 2 of 3 slices proven, active\n",
    ]
    last = cli.document("compute", "prove", "j1", "1", outputs[1].upper())
    assert list(last) == [*JOB_FIELDS, "changed"]
    assert (last["state"], last["changed"]) == ("completed", True)


def test_prove_again_changes_nothing(cli: Cli) -> None:
    outputs = three_slices(cli)
    cli.ok("compute", "prove", "j1", "1", outputs[1])
    out = cli.ok("compute", "prove", "j1", "1", outputs[1])
    assert out == "proven before: 1 of 3 slices proven, active\n"
    assert cli.document("compute", "prove", "j1", "1", outputs[1])["changed"] is False
    cli.ok("compute", "execute", "j1")
    assert cli.ok("compute", "prove", "j1", "1", outputs[1]) == (
        "proven before: 3 of 3 slices proven, completed\n"
    )
    assert json.loads(cli.ok("compute-market", "stats"))["industrial_units_total"] == 3


def test_wrong_proof_costs_a_point_and_leaves_the_slice_open(cli: Cli) -> None:
    cli.active()
    text = f"slice 0 of job j1 has the output {WRONG}, expected {HELLO}"
    assert cli("compute", "prove", "j1", "0", WRONG) == (9, "", f"error[integrity]: {text}\n")
    assert (cli.score(), cli.job()["slices_proven"]) == (-1, 0)
    done = cli("compute", "prove", "j1", "0", WRONG, "--json")
    assert (done.code, done.out, done.error["reason"]) == (9, "", "invalid_proof")
    assert cli.score() == -2
    assert cli("compute", "prove", "j1", "0", WRONG, "--dry-run").code == 9
    assert cli.score() == -2
    assert cli.document("compute", "prove", "j1", "0", HELLO)["state"] == "completed"


def test_other_output_of_a_proven_slice_is_a_conflict(cli: Cli) -> None:
    cli.active()
    cli.ok("compute", "prove", "j1", "0", HELLO)
    text = "slice 0 of job j1 is proven with another output"
    assert cli("compute", "prove", "j1", "0", WRONG) == (6, "", f"error[conflict]: {text}\n")
    assert cli.score() == 1


@pytest.mark.parametrize(
    ("job_id", "index", "digest", "code", "message"),
    [
        ("nope", "0", HELLO, 3, "job nope does not exist"),
        ("j1", "1", HELLO, 2, "job j1 has no slice 1"),
        ("j1", str(2**63 - 1), HELLO, 2, f"job j1 has no slice {2**63 - 1}"),
        ("j1", str(2**64), HELLO, 2, "'INDEX'"),
        ("j1", "0", HELLO[:-1], 2, f"'{HELLO[:-1]}' is not an output"),
        ("j1", "0", "é" * 64, 2, "is not an output"),
        ("j1", "0", " ".join([HELLO[:31], HELLO[:32]]), 2, "is not an output"),
        ("j1", "x", HELLO, 2, "'INDEX'"),
    ],
)
def test_prove_of_what_there_is_not(
    cli: Cli, job_id: str, index: str, digest: str, code: int, message: str
) -> None:
    cli.active()
    done = cli("compute", "prove", job_id, index, digest)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("error[")
    assert message in done.err.splitlines()[0]
    assert cli.job()["slices_proven"] == 0


def test_prove_of_a_negative_index_is_usage(cli: Cli) -> None:
    cli.active()
    for arguments in (("--", "j1", "-1", HELLO), ("j1", "-1", HELLO)):
        done = cli("compute", "prove", *arguments)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("error[usage]: ")
        assert "-1" in done.err.splitlines()[0]


def test_prove_of_a_job_that_is_not_active_is_refused(cli: Cli) -> None:
    cli.submit("j1", "--wait")
    text = "job j1 is pending, only an active job takes proofs"
    assert cli("compute", "prove", "j1", "0", HELLO) == (5, "", f"error[refused]: {text}\n")
    cli.ok("compute", "cancel", "j1")
    done = cli("compute", "prove", "j1", "0", HELLO)
    assert done == (4, "", "error[already_done]: job j1 is cancelled\n")


def test_the_deadline_second_is_still_in_time(cli: Cli) -> None:
    cli.post()
    cli.submit("j1", "--deadline-secs", "5")
    cli.submit("j2", "--deadline-secs", "5")
    cli.advance(5)
    assert cli.document("compute", "prove", "j1", "0", HELLO)["state"] == "completed"
    cli.advance(1)
    assert cli("compute", "prove", "j2", "0", HELLO).code == 4
    assert cli.states() == {"j1": "completed", "j2": "failed"}


def test_run_prints_what_b3sum_prints(cli: Cli) -> None:
    cli.slice()
    cli.slice("empty", b"")
    assert cli.ok("compute", "run", "a.slice", "empty") == f"{HELLO}  a.slice\n{EMPTY}  empty\n"
    assert not cli.home.exists()


def test_run_escapes_names_as_b3sum_does(cli: Cli) -> None:
    cli.slice("a\nb\\c")
    assert cli.ok("compute", "run", "a\nb\\c") == f"\\{HELLO}  a\\nb\\\\c\n"


def test_run_reads_stdin_in_its_turn(cli: Cli) -> None:
    cli.slice()
    out = cli.ok("compute", "run", "a.slice", "-", "a.slice", stdin=b"")
    assert out == f"{HELLO}  a.slice\n{EMPTY}  -\n{HELLO}  a.slice\n"


def test_run_takes_the_slices_of_a_job_file(cli: Cli) -> None:
    cli.slice()
    path = cli.directory / "job.json"
    path.write_text(json.dumps({"job_id": "x", "slices": ["a.slice", {"path": "a.slice"}]}))
    name = cli.directory / "a.slice"
    assert cli.ok("compute", "run", path) == f"{HELLO}  {name}\n" * 2


def test_run_as_json(cli: Cli) -> None:
    cli.slice()
    one = {"path": "a.slice", "digest": HELLO, "bytes": 5}
    assert cli.document("compute", "run", "a.slice") == one
    assert cli.document("compute", "run", "a.slice", "a.slice") == [one, one]
    assert cli("compute", "run", "a.slice", "a.slice", "--jsonl").jsonl == [one, one]


def test_run_goes_on_after_a_file_that_fails(cli: Cli) -> None:
    cli.slice()
    done = cli("compute", "run", "nope", "a.slice")
    assert done == (
        7,
        f"{HELLO}  a.slice\n",
        "error[usage]: nope: no such file\n1 of 2 failed: 1 usage\n",
    )
    assert cli("compute", "run", "nope") == (2, "", "error[usage]: nope: no such file\n")


@pytest.mark.parametrize("workload", ["transcode", "inference", "gpu_hash"])
@pytest.mark.parametrize("workers", ["1", "3"])
def test_run_hashes_alike_for_every_workload_and_any_workers(
    cli: Cli, workload: str, workers: str
) -> None:
    paths = [cli.slice(f"s{n}", bytes([n]) * n) for n in range(1, 20)]
    expected = cli.ok("compute", "run", *paths)
    options = ("--workload", workload, "--workers", workers)
    assert cli.ok("compute", "run", *paths, *options) == expected


def test_run_of_an_unknown_workload_is_usage(cli: Cli) -> None:
    cli.slice()
    done = cli("compute", "run", "a.slice", "--workload", "nope")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[usage]: unknown workload 'nope': known are ")


def test_run_prints_names_that_are_not_utf_8_as_they_are(cli: Cli) -> None:
    names = [b"a.slice", b"b\xff.slice", b"c.slice"]
    for name in names:
        with open(os.fsencode(cli.directory) + b"/" + name, "wb") as file:
            file.write(b"hello")
    command = [os.fsencode(word) for word in cli.command("compute", "run")]
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    for options in ([], [b"--workers", b"1"]):
        done = subprocess.run([*command, *names, *options], capture_output=True, env=strict)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == b"".join(HELLO.encode() + b"  " + name + b"\n" for name in names)
    done = subprocess.run([*command, *names, b"--jsonl"], capture_output=True, env=strict)
    assert [json.loads(line)["path"] for line in done.stdout.splitlines()] == [
        "a.slice",
        "b\\xff.slice",
        "c.slice",
    ]


def test_run_of_a_job_file_takes_a_slice_called_dash_for_a_file(cli: Cli) -> None:
    cli.slice("-", b"hello")
    cli.slice("job.json", json.dumps({"slices": ["-"]}).encode())
    assert cli.ok("compute", "run", "job.json", stdin=b"not this") == f"{HELLO}  ./-\n"


ZEROS = "00" * 32


def job_file(cli: Cli, name: str = "job.json", **fields: Any) -> str:
    cli.slice()
    cli.slice(name, json.dumps({"slices": ["a.slice"]} | fields).encode())
    return name


@pytest.mark.parametrize(
    ("own", "options", "digest"),
    [
        ({"workload": "zeros"}, (), ZEROS),
        ({"workload": "inference"}, (), HELLO),
        ({}, (), HELLO),
        ({"workload": "zeros"}, ("--workload", "inference"), HELLO),
        ({"workload": "inference"}, ("--workload", "zeros"), ZEROS),
        ({}, ("--workload", "zeros"), ZEROS),
        ({"workload": "nope"}, ("--workload", "zeros"), ZEROS),
        ({"workload": 5}, ("--workload", "zeros"), ZEROS),
    ],
)
def test_run_of_a_job_file_runs_its_workload_unless_told_otherwise(
    cli: Cli, plugin: ModuleType, own: dict[str, Any], options: tuple[str, ...], digest: str
) -> None:
    path = job_file(cli, **own)
    assert cli.ok("compute", "run", path, *options) == f"{digest}  a.slice\n"


def test_run_of_several_workloads_keeps_the_order(cli: Cli, plugin: ModuleType) -> None:
    slices = ["a.slice", "b.slice"]
    cli.slice("b.slice", b"")
    zeros = job_file(cli, "zeros.json", slices=slices, workload="zeros")
    hashed = job_file(cli, "hashed.json", slices=slices, workload="gpu_hash")
    words = (zeros, "a.slice", zeros, "-", zeros, "nope", hashed, "b.slice")
    done = cli("compute", "run", *words, stdin=b"hello")
    both_zeros = f"{ZEROS}  a.slice\n{ZEROS}  b.slice\n"
    both = f"{HELLO}  a.slice\n{EMPTY}  b.slice\n"
    assert done == (
        7,
        f"{both_zeros}{HELLO}  a.slice\n{both_zeros}{HELLO}  -\n{both_zeros}{both}"
        f"{EMPTY}  b.slice\n",
        "error[usage]: nope: no such file\n1 of 12 failed: 1 usage\n",
    )


@pytest.mark.parametrize("others", [(), ("a.slice",), ("-",)])
def test_run_of_a_job_file_with_an_unknown_workload_runs_nothing(
    cli: Cli, others: tuple[str, ...]
) -> None:
    done = cli("compute", "run", *others, job_file(cli, workload="nope"))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[usage]: unknown workload 'nope': known are ")
    done = cli("compute", "run", *others, "job.json", "--json")
    assert (done.code, done.out, done.error["reason"]) == (2, "", "unknown_workload")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"slices": []}, "lists no slices"),
        ({"slices": None}, "lists no slices"),
        ({"slices": ""}, "lists no slices"),
        ({"slices": "a.slice"}, "Expected `array`, got `str` - at `$.slices`"),
        ({"slices": {"a": "b"}}, "Expected `array`, got `object` - at `$.slices`"),
        ({"slices": [5]}, "Expected `str | object`, got `int` - at `$.slices[0]`"),
        ({"workload": 5}, "Expected `str`, got `int` - at `$.workload`"),
        ({"workload": None}, "Expected `str`, got `null` - at `$.workload`"),
    ],
)
def test_run_of_a_job_file_that_is_wrong_runs_nothing(
    cli: Cli, fields: dict[str, Any], says: str
) -> None:
    done = cli("compute", "run", "a.slice", job_file(cli, **fields))
    assert done == (2, "", f"error[usage]: job.json: {says}\n")


def test_run_of_a_job_file_with_slices_given_twice_runs_nothing(cli: Cli) -> None:
    cli.slice("job.json", b'{"slices": ["a"], "slices": ["b"]}')
    done = cli("compute", "run", "job.json")
    assert done == (2, "", "error[usage]: job.json: the key 'slices' is given twice\n")


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b'{"slices": ["a.slice"]', b"{}", b"[]", b'["slices"]', b'"slices"', b"5"),
        *(b"null", b'{"slice": ["a.slice"]}', b'{"a": {"slices": []}}', b"\xff", b"\0"),
        *(b"[" * 100_000, b'{"_slices": ["a.slice"]}', b"9" * 5000),
    ],
    ids=lambda content: content.decode(errors="replace")[:30],
)
def test_run_hashes_a_json_file_that_is_no_job_as_any_other(cli: Cli, content: bytes) -> None:
    cli.slice("a.slice", content)
    cli.slice("other.json", content)
    expected = cli.ok("compute", "run", "a.slice")[:64]
    assert cli.ok("compute", "run", "other.json") == f"{expected}  other.json\n"


def test_run_hashes_a_job_file_that_is_too_long_as_any_other(cli: Cli) -> None:
    content = json.dumps({"slices": ["a.slice"]}).encode().ljust(64 * MIB + 1)
    cli.slice("long.json", content)
    expected = cli.ok("compute", "run", "-", stdin=content)[:64]
    assert cli.ok("compute", "run", "long.json") == f"{expected}  long.json\n"


def missing(path: Path) -> str:
    return "no such file"


def directory(path: Path) -> str:
    path.mkdir()
    return "not a regular file but a directory"


def fifo(path: Path) -> str:
    os.mkfifo(path)
    return "not a regular file but a FIFO"


@pytest.mark.parametrize("bad", [missing, directory, fifo])
def test_run_goes_on_after_a_json_file_that_cannot_be_read(cli: Cli, bad: Any) -> None:
    text = f"error[usage]: bad.json: {bad(cli.directory / 'bad.json')}\n"
    assert cli("compute", "run", "bad.json") == (2, "", text)
    done = cli("compute", "run", job_file(cli), "bad.json", "a.slice")
    assert done == (7, f"{HELLO}  a.slice\n" * 2, f"{text}1 of 3 failed: 1 usage\n")


def test_run_of_another_workload_over_stdin_is_usage(cli: Cli, plugin: ModuleType) -> None:
    done = cli("compute", "run", "-", "--workload", "zeros", stdin=b"hello")
    text = "error[usage]: -: workload 'zeros' runs over files, not over standard input\n"
    assert done == (2, "", f"{text}hint: write it to a file first\n")


@pytest.mark.parametrize("options", ["", " --workers 1"])
def test_run_of_stdin_that_is_closed_is_usage(cli: Cli, options: str) -> None:
    cli.slice()

    def run(words: str) -> tuple[int, str, str]:
        line = f'"$0" -m tb_cli.entry compute run{options} {words} <&-'
        shell = ["bash", "-c", line, cli.command()[0]]
        done = subprocess.run(shell, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    text = "error[usage]: -: standard input is closed\n"
    assert run("-") == (2, "", text)
    assert run("- a.slice") == (7, f"{HELLO}  a.slice\n", f"{text}1 of 2 failed: 1 usage\n")
    code, out, err = run("- --json")
    assert (code, out, json.loads(err)["error"]) == (2, "", "usage")
    assert run("a.slice") == (0, f"{HELLO}  a.slice\n", "")
