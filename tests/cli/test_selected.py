"""Acting on jobs and offers that options select."""

import json
from collections import Counter
from typing import Any

import pytest

from compute_market import events
from compute_market.jobs import jobs
from compute_market.store.schema import EVENTS
from compute_market.store.txn import Txn
from tb_cli import execute
from tb_cli.frame import bulk, selected
from tb_cli.frame.session import Session
from tests.support.cli import Cli, Prepared
from tests.support.terminal import answered

pytest_plugins = ("tests.support.cli",)

ALL = dict.fromkeys("ab", "active") | dict.fromkeys("cde", "queued") | {"done": "completed"}


def prepare(cli: Cli) -> None:
    """Two slots, which `a` and `b` have; `c`, `d` of `carol` and `e` wait; `done` is done."""
    cli.post("--offer-id", "o-1")
    (cli.home / "config.toml").write_text("[scheduler]\nslots = 2\n")
    cli.post("--offer-id", "o-2", provider="far", price=9)
    cli.submit("done")
    cli.ok("compute", "execute", "done")
    for job_id in "abcde":
        cli.submit(job_id, buyer="carol" if job_id in "bcd" else "alice")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("selected"), prepare)


@pytest.fixture
def busy(cli: Cli, prepared: Prepared) -> Cli:
    prepared.copy_to(cli)
    return cli


def cancelled(*job_ids: str) -> str:
    return "".join(f"cancelled job {job_id}\n" for job_id in job_ids)


@pytest.mark.parametrize(
    ("arguments", "job_ids"),
    [
        (("--state", "queued"), "cde"),
        (("--state", "queued", "--buyer", "carol"), "cd"),
        (("--buyer", "carol"), "bcd"),
        (("--provider", "prov"), "abcde"),
        (("--offer", "o-1", "--state", "active,queued"), "abcde"),
        (("--all",), "abcde"),
        (("--all", "--buyer", "alice"), "ae"),
    ],
)
def test_cancel_of_a_selection_cancels_it_in_one_transaction(
    busy: Cli, arguments: tuple[str, ...], job_ids: str
) -> None:
    entries = busy.view(lambda txn: txn.size(EVENTS))
    done = busy("compute", "cancel", *arguments)
    assert done == (0, cancelled(*job_ids), f"{len(job_ids)} jobs selected\n")
    states = busy.states()
    assert {job_id for job_id, state in states.items() if state == "cancelled"} == {*job_ids}
    assert busy.view(lambda txn: txn.size(EVENTS)) == entries + 1
    assert busy.violations() == []


def test_time_of_a_selection_may_be_copied_from_a_list(busy: Cli) -> None:
    busy.now_ms += 60_000
    busy.submit("late", buyer="carol")
    at = busy("compute", "list", "--columns", "submitted_at", "--limit", "1").out.strip()
    done = busy("compute", "cancel", "--since", at, "--yes")
    assert done == (0, cancelled("late"), "1 job selected\n")


def test_selection_in_a_dry_run_changes_nothing(busy: Cli) -> None:
    before = busy.files()
    for arguments in (("--buyer", "carol"), ("--buyer", "carol", "--chunk", "1")):
        done = busy("compute", "cancel", *arguments, "-n")
        out = "".join(f"dry_run: {line}\n" for line in cancelled("b", "c", "d").splitlines())
        assert done == (0, out, "3 jobs selected\n")
    assert busy.files() == before


@pytest.mark.parametrize("verb", ["cancel", "hold", "release", "execute", "wait"])
def test_selection_of_nothing_says_so_and_is_told_by_its_code(busy: Cli, verb: str) -> None:
    done = busy("compute", verb, "--buyer", "nobody")
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines()[0] == "no job selected"
    assert busy("compute", verb, "--buyer", "nobody", "--json").out == "[]\n"
    done = busy("compute", verb, "--buyer", "nobody", "--fail-empty")
    assert done == (3, "", "error[not_found]: no job selected\n")
    done = busy("compute", verb, "--buyer", "nobody", "--fail-empty", "--json")
    assert (done.code, done.out, done.error["reason"]) == (3, "[]\n", "empty")
    assert busy.states() == ALL


@pytest.mark.parametrize("verb", ["cancel", "hold", "release", "execute", "wait"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a", "--buyer", "carol"), "job ids and options that select jobs are both given"),
        (("a", "--all"), "job ids and options that select jobs are both given"),
        ((), "JOB… is missing"),
        (("a", "--fail-empty"), "--fail-empty goes with options that select jobs"),
        (("--state", "nope"), "--state: 'nope' is none of pending, queued"),
        (("--buyer", "b ad"), "--buyer 'b ad' has the character ' '"),
        (("--since", "1h", "--until", "2h"), "--until is before --since"),
        (("--overdue-in", "soon"), "--overdue-in"),
    ],
)
def test_selection_that_cannot_be_is_a_usage_error(
    busy: Cli, verb: str, arguments: tuple[str, ...], said: str
) -> None:
    before = busy.files()
    done = busy("compute", verb, *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[usage]: ")
    assert said in done.err
    assert busy.files() == before


def test_selection_has_the_forms_of_a_bulk_verb(busy: Cli) -> None:
    found = busy("compute", "cancel", "--state", "queued,completed", "--jsonl")
    assert [each["job_id"] for each in found.jsonl] == ["done", "c", "d", "e"]
    assert (found.code, found.jsonl[0]["outcome"]) == (7, "already_done")
    documents = busy("compute", "hold", "--all", "--json")
    assert (documents.code, documents.json) == (0, [])
    left = busy.directory / "left"
    done = busy("compute", "cancel", "--state", "active,completed", "--failed-to", left)
    assert (done.code, left.read_text()) == (7, "done\n")


def test_selection_that_is_atomic_is_undone_by_one_that_fails(busy: Cli) -> None:
    done = busy("compute", "cancel", "--state", "queued,completed", "--atomic")
    assert done.code == 7
    assert "c: not changed, another item failed" in done.out
    assert busy.states() == ALL


def test_selection_in_chunks_leaves_what_is_not_selected_any_more(
    busy: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = busy.view(lambda txn: txn.size(EVENTS))
    done = busy("compute", "cancel", "--state", "active,queued", "--buyer", "alice", "--chunk", "1")
    assert done == (0, cancelled("a", "e"), "2 jobs selected\n")
    assert busy.view(lambda txn: txn.size(EVENTS)) == entries + 2
    commit = bulk.commit

    def meanwhile(*arguments: Any) -> list[bulk.Outcome]:
        found = commit(*arguments)
        assert busy.process("compute", "cancel", "c").code == 0
        return found

    monkeypatch.setattr(bulk, "commit", meanwhile)
    done = busy("compute", "cancel", "--state", "active", "--chunk", "1")
    assert done == (0, cancelled("b") + "job c is not selected any more\n", "2 jobs selected\n")


def test_hold_and_release_take_those_that_are_not_or_are_held(busy: Cli) -> None:
    held = busy("compute", "hold", "--buyer", "carol")
    assert held == (0, "held job c: queued\nheld job d: queued\n", "2 jobs selected\n")
    again = busy("compute", "hold", "--buyer", "carol")
    assert again == (0, "", "no job selected\n")
    assert busy("compute", "hold", "--all").out == "held job e: queued\n"
    released = busy("compute", "release", "--all")
    assert (released.code, released.out.count("released job")) == (0, 3)
    assert busy.states() == ALL


def test_wait_for_a_selection_waits_for_those_in_it(busy: Cli) -> None:
    done = busy("compute", "wait", "--state", "completed,active", "--for", "active")
    assert (done.code, done.err) == (0, "3 jobs selected\n")
    assert sorted(done.out.splitlines()) == ["job a active", "job b active", "job done completed"]
    late = busy("compute", "wait", "--all", "--timeout", "0")
    assert late.code == 10


def test_execute_of_a_selection_runs_it(busy: Cli) -> None:
    done = busy("compute", "execute", "--buyer", "carol", "--until-empty")
    assert (done.code, done.err.splitlines()[0]) == (0, "1 job selected")
    assert Counter(busy.states().values()) == {"completed": 4, "active": 2}


def test_withdraw_of_a_selection_leaves_others_and_those_that_are_withdrawn(busy: Cli) -> None:
    busy.post("--offer-id", "o-3", provider="far")
    busy.ok("compute", "offer", "withdraw", "o-3")
    done = busy("compute", "offer", "withdraw", "--provider", "far")
    assert done == (0, "withdrew offer o-2\n", "1 offer selected\n")
    assert busy.offer("o-1")["state"] == "open"
    nothing = busy("compute", "offer", "withdraw", "--provider", "far,nobody")
    assert nothing == (0, "", "no offer selected\n")
    words = ("compute", "offer", "withdraw", "--state", "exhausted", "--fail-empty")
    assert busy(*words) == (3, "", "error[not_found]: no offer selected\n")
    assert busy(*words, "--jsonl").error["message"] == "no offer selected"
    usage = busy("compute", "offer", "withdraw")
    assert (usage.code, usage.err.splitlines()[0]) == (2, "error[usage]: OFFER… is missing")
    assert busy("compute", "offer", "withdraw", "--all", "--chunk", "1").out == (
        "withdrew offer o-1\n"
    )


def stopped(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, *, after: int) -> None:
    """Let Ctrl-C come in the place of one more call of a function."""
    call, calls = getattr(place, name), iter(range(after))

    def called(*arguments: Any, **options: Any) -> Any:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return call(*arguments, **options)

    monkeypatch.setattr(place, name, called)


@pytest.mark.parametrize(
    ("arguments", "place", "name", "after", "told", "not_tried"),
    [
        (("cancel", "--all"), bulk, "commit", 0, "0 of 5; run it again", "abcde"),
        (("cancel", "--all", "--chunk", "1"), bulk, "commit", 0, "0 of 5; run it again", "abcde"),
        (("cancel", "--all", "--chunk", "2"), bulk, "commit", 1, "2 of 5; run it again", "cde"),
        (("cancel", "--all"), bulk.Report, "add", 2, "5 of 5, 2 of them told", ""),
        (("execute", "--all"), execute, "_execute_one", 0, "0 of 2; run it again", "ab"),
        (("execute", "--all"), execute, "_execute_one", 1, "1 of 2; run it again", "b"),
        (
            *(("execute", "--all", "--until-empty"), execute, "_execute_one", 1),
            *("1 of 3; run it again", "be"),
        ),
    ],
)
def test_selection_that_breaks_off_leaves_what_was_not_tried(
    busy: Cli,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    place: Any,
    name: str,
    after: int,
    told: str,
    not_tried: str,
) -> None:
    left = busy.directory / "left"
    stopped(monkeypatch, place, name, after=after)
    done = busy("compute", *arguments, "--failed-to", left)
    assert (done.code, done.err.splitlines()[-1]) == (130, f"interrupted after {told}")
    assert left.read_text() == "".join(f"{job_id}\n" for job_id in not_tried)


@pytest.mark.parametrize(("keys", "code", "ran"), [("n\n", 5, ""), ("y\n", 0, "b")])
def test_execute_of_a_selection_is_asked_for_once_before_it_begins(
    busy: Cli, keys: str, code: int, ran: str
) -> None:
    done = answered(busy, ("compute", "execute", "--buyer", "carol"), keys)
    assert done.code == code
    assert done.text.startswith(f"1 job selected\nexecute 1 job? [y/N] {keys}")
    assert done.text.count("selected") == 1
    completed = {job_id for job_id, state in busy.states().items() if state == "completed"}
    assert completed == {*ran, "done"}


def test_execute_and_wait_ask_nothing_with_yes_or_where_nothing_changes(busy: Cli) -> None:
    for arguments in (("execute", "--state", "active", "--yes"), ("wait", "--buyer", "nobody")):
        done = answered(busy, ("compute", *arguments), after="")
        assert (done.code, "?" in done.text) == (0, False)


@pytest.mark.parametrize(("keys", "code", "left"), [("n\n", 5, 3), ("y\n", 0, 0)])
def test_selection_is_asked_for_on_a_terminal(busy: Cli, keys: str, code: int, left: int) -> None:
    done = answered(busy, ("compute", "cancel", "--state", "queued"), keys)
    assert done.code == code
    assert done.text.startswith(f"3 jobs selected\ncancel 3 jobs? [y/N] {keys}")
    assert Counter(busy.states().values())["queued"] == left


def test_selection_is_not_asked_for_with_yes_or_where_it_is_empty(busy: Cli) -> None:
    for arguments in (("--state", "pending"), ("--state", "queued", "--yes")):
        done = answered(busy, ("compute", "cancel", *arguments), after="")
        assert (done.code, "?" in done.text) == (0, False)
    assert Counter(busy.states().values())["cancelled"] == 3


def test_what_comes_after_the_question_is_left(busy: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was confirmed is what is done, less what is not selected any more."""

    def confirm(session: Session, question: str, *, yes: bool) -> None:
        assert question == "cancel 3 jobs?"
        assert busy.process("compute", "cancel", "d").code == 0
        assert busy.process(*busy.job_arguments("late")).code == 0

    monkeypatch.setattr(selected, "is_asked", lambda session, yes: True)
    monkeypatch.setattr(selected, "confirm", confirm)
    done = busy("compute", "cancel", "--state", "queued")
    assert done == (0, cancelled("c", "e"), "3 jobs selected\n2 jobs selected\n")
    assert busy.states()["late"] in ("active", "queued")


def test_two_processes_with_one_selection_cancel_each_job_once(busy: Cli) -> None:
    processes = [busy.start("compute", "cancel", "--all", "--jsonl") for _ in range(4)]
    found = []
    for process in processes:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        found += [json.loads(line) for line in out.splitlines()]
    changed = [each["job_id"] for each in found if each["changed"]]
    assert sorted(changed) == [*"abcde"]
    assert busy.violations() == []

    def ends(txn: Txn) -> list[int]:
        histories = [events.history(txn, jobs.get(txn, job_id)) for job_id in "abcde"]
        return [sum(each.event.event == "job_cancelled" for each in one) for one in histories]

    assert busy.view(ends) == [1] * 5
