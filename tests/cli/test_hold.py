"""`compute hold|release|set`."""

import pytest

from tb_cli.frame.times import local, utc_text
from tests.support.cli import JOB_FIELDS, Cli

pytest_plugins = ("tests.support.cli",)


@pytest.fixture
def full(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """One slot, which `j1` has, and `j2` and `j3` that wait for it."""
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "1")
    cli.post()
    for job_id in ("j1", "j2", "j3"):
        cli.ok(*cli.job_arguments(job_id))
    return cli


def test_held_job_is_shown_and_passed_over(full: Cli) -> None:
    assert full.ok("compute", "hold", "j2", "-n") == "dry_run: held job j2: queued\n"
    assert not full.job("j2")["held"]
    document = full.document("compute", "hold", "j2")
    assert list(document) == [*JOB_FIELDS, "changed"]
    assert (document["held"], document["changed"]) == (True, True)
    assert full.ok("compute", "hold", "j2") == "job j2 already held\n"
    rows = [row.split("\t") for row in full.ok("compute", "queue").splitlines()]
    assert [(row[1], row[5]) for row in rows] == [("j2", "hold"), ("j3", "slots")]
    assert "held: true\n" in full.ok("compute", "status", "j2")
    full.ok("compute", "cancel", "j1")
    assert (full.job("j2")["state"], full.job("j3")["state"]) == ("queued", "active")
    full.ok("compute", "cancel", "j3")
    assert full.ok("compute", "release", "j2") == "released job j2: active\n"
    assert full.ok("compute", "release", "j2") == "job j2 is not held\n"


def test_hold_of_many_tells_each(full: Cli) -> None:
    left = full.directory / "left"
    done = full("compute", "hold", "-", "--failed-to", left, stdin="j1\nj2\n# no\nnope\nb ad\n")
    assert done.code == 7
    assert done.out.splitlines()[:2] == [
        "job j1 is active, only one that waits can be held",
        "held job j2: queued",
    ]
    assert left.read_text().splitlines()[:2] == ["j1", "nope"]
    assert full("compute", "hold", "j1").code == 5
    assert full("compute", "hold", "j3", "j1", "--atomic").code == 7
    assert not full.job("j3")["held"]


@pytest.mark.parametrize("text", ["tomorrow", "", "9" * 20, "9" * 5000, "25:00", "10s", "2h ago"])
def test_deadline_that_is_no_time_hints_at_what_is_taken(full: Cli, text: str) -> None:
    done = full("compute", "set", "j3", "--deadline", text)
    assert done.code == 2
    hint = "hint: --deadline-secs takes a duration; a time is 03:00 (today), 2026-11-27T03:00"
    assert done.err.splitlines()[1].startswith(hint)


def test_set_takes_a_deadline_as_a_time(full: Cli) -> None:
    at = full.job("j3")["deadline"] + 3600
    for words in ([local(at * 1000)], [str(at * 1000)], [utc_text(at * 1000)]):
        at_first = full.job("j3")["deadline"]
        told = full.ok("compute", "set", "j3", "--deadline", *words)
        assert full.job("j3")["deadline"] == at
        changed = f"changed job j3: deadline {at_first} -> {at}\n"
        assert told == (changed if at_first != at else "job j3 unchanged: queued\n")


def test_set_says_what_became_other(full: Cli) -> None:
    at = full.job("j3")["deadline"]
    asked = ("compute", "set", "j3", "--deadline", str(at + 60), "--priority", "high")
    told = f"changed job j3: deadline {at} -> {at + 60}, priority normal -> high\n"
    assert full.ok(*asked, "-n") == f"dry_run: {told}"
    assert full.job("j3")["deadline"] == at
    assert full.ok(*asked) == told
    assert full.ok(*asked) == "job j3 unchanged: queued\n"
    rows = [row.split("\t") for row in full.ok("compute", "queue").splitlines()]
    assert [row[1] for row in rows] == ["j3", "j2"]
    again = full.ok(*full.job_arguments("j3"))
    assert again.startswith("job j3 exists, unchanged")
    done = full("compute", "set", "j3", "--deadline-secs", "60")
    assert (done.code, done.err.splitlines()[-1]) == (5, "hint: a deadline only moves later")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "nothing is to be changed"),
        (("--deadline", "9", "--deadline-secs", "9"), "--deadline and --deadline-secs are both"),
        (("--deadline", "2h"), "--deadline: '2h' is a duration and no time"),
        (("--deadline", "9"), "--deadline: '9' is a duration and no time"),
        (("--deadline", "soon"), "--deadline: 'soon' is no time"),
        (("--priority", "urgent"), "--priority: "),
        (("--deadline-secs", "-1"), "--deadline-secs: "),
    ],
)
def test_set_of_what_no_job_can_be_is_a_usage_error(
    full: Cli, options: tuple[str, ...], message: str
) -> None:
    before = full.data.read_bytes()
    done = full("compute", "set", "j2", *options)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert full.data.read_bytes() == before
