"""A running job that goes over to another offer: taken by a new one, and handed over by hand."""

import errno
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from compute_market import metrics
from compute_market.courier import courier
from compute_market.courier.courier import Bundle
from compute_market.errors import BusyError
from compute_market.jobs import jobs, preempt
from compute_market.offers.standing import record_outcome
from compute_market.store.schema import BUNDLE_RECEIPTS, BUNDLES_PENDING
from compute_market.store.txn import Txn
from tb_cli.network import handoffs
from tests.support.cli import HELLO, Cli, Done, Prepared

pytest_plugins = ("tests.support.cli",)

POST = ("compute", "offer", "post", "--provider", "other", "--units", "9", "--price")
RIVAL = (*POST, "4", "--offer-id", "better", "--bond", "4")
PREEMPT = ("compute", "preempt", "j1", "better")
BILL = """\
handed job j1 over to offer better
other, who has earned 12 points: 8 CT for 2 units at 4, a bond of 4 CT locked
prov, who has earned 0 points: 5 CT for 1 unit proven, 10 CT lost, its bond of 3 CT released
alice, the buyer: 2 CT back, nothing more locked
"""


def earn(cli: Cli, provider: str, by: int) -> None:
    sign = 1 if by > 0 else -1
    cli.update(lambda txn: [record_outcome(txn, provider, sign) for _ in range(abs(by))])


@pytest.fixture(scope="module")
def one_runs(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("one_runs"), let_one_run)


def let_one_run(cli: Cli) -> None:
    cli.real()
    cli.ok("key", "new", "node")
    cli.ok("wallet", "deposit", "other", "--ct", "100")
    cli.post("--offer-id", "present", "--bond", "3")
    cli.submit("j1", slices=[cli.slice(f"{number}.slice") for number in range(3)])
    cli.ok("compute", "prove", "j1", "1", HELLO)
    earn(cli, "other", 12)


@pytest.fixture
def running(cli: Cli, one_runs: Prepared, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """An active job of three units with `prov`, one of them proven; `other` has earned more.

    The key that signs what goes out is there already.
    """
    monkeypatch.setenv("TB_ENABLE_PREEMPT", "true")
    monkeypatch.setenv("TB_COURIER_BACKOFF_MS", "0")
    monkeypatch.setenv("TB_COURIER_MAX_ATTEMPTS", "2")
    one_runs.copy_to(cli)
    return cli


@pytest.fixture
def offered(running: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The same with an offer that was posted while none took a job over."""
    monkeypatch.setenv("TB_ENABLE_PREEMPT", "false")
    running.ok(*RIVAL)
    monkeypatch.setenv("TB_ENABLE_PREEMPT", "true")
    return running


def counted(cli: Cli, reason: str) -> int:
    return cli.view(lambda txn: metrics.value(txn, "scheduler_preempt_total", reason))


def receipts(cli: Cli) -> list[tuple[str, str]]:
    """(state, kind) of every bundle."""
    found = cli.view(lambda txn: list(courier.receipts(txn)))
    return [(each.state, each.kind) for each in found]


def program(cli: Cli, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Let bundles go to a program that does what the lines say; `print(hash)` takes a bundle."""
    path = cli.directory / "far-end"
    source = ("import os, signal, subprocess, sys, time", "from blake3 import blake3")
    taken = "taken = blake3(sys.stdin.buffer.read()).hexdigest()"
    path.write_text("\n".join((f"#!{sys.executable}", *source, taken, *lines, "")))
    path.chmod(0o755)
    monkeypatch.setenv("TB_COURIER_DEST", f"exec:{path}")


def fail(monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException) -> None:
    """Let a step of what follows on a new offer fail."""

    def failing(*_: Any, **__: Any) -> Any:
        raise error

    if where == "proposed":
        real = preempt.proposed
        calls = count()
        monkeypatch.setattr(
            preempt, "proposed", lambda *given: failing() if next(calls) else real(*given)
        )
    else:
        monkeypatch.setattr(handoffs, where, failing)


def tb_cli(*arguments: str) -> str:
    """The line of such a program that runs a command on the same home."""
    words = [sys.executable, "-m", "tb_cli.entry", *arguments]
    return f"subprocess.run({words!r}, check=True, stdout=subprocess.DEVNULL)"


TAKE = "print(taken)"


# A new offer.


def test_new_offer_takes_a_job_over_and_says_so(running: Cli) -> None:
    assert running.ok(*RIVAL) == "posted offer better, took over job j1 of prov\n"
    job = running.job()
    assert (job["offer_id"], job["provider"], job["state"]) == ("better", "other", "active")
    assert running.log() == "j1 preempted\n"
    assert counted(running, "success") == 1
    assert receipts(running) == [("acknowledged", "handoff")]
    assert "from=prov to=other from_score=0 to_score=12 units=2" in running.ok(
        "compute", "history", "j1"
    )
    running.ok("compute", "execute", "j1")
    assert running.wallet("prov") == (105, 0)
    assert running.wallet("other") == (108, 0)
    assert running.wallet("alice") == (1000 - 13, 1000)


def test_document_of_a_new_offer_names_what_it_took_over(running: Cli) -> None:
    document = running.document(*RIVAL)
    assert (document["offer_id"], document["took_over"]) == ("better", "j1")
    again = running.document(*RIVAL)
    assert (again["changed"], again["took_over"]) == (False, None)


def test_new_offer_that_takes_nothing_sends_nothing(running: Cli) -> None:
    assert running.document(*POST, "6")["took_over"] is None
    assert receipts(running) == []
    assert counted(running, "handoff_failed") == 0


def test_no_offer_takes_a_job_over_unless_it_is_allowed(offered: Cli) -> None:
    assert offered.job()["offer_id"] == "present"
    assert receipts(offered) == []


def test_dry_run_of_a_new_offer_says_what_it_would_take_over(running: Cli) -> None:
    before = running.files()
    assert running.ok(*RIVAL, "-n") == "dry_run: posted offer better, took over job j1 of prov\n"
    assert running.files() == before


def test_offers_of_one_run_take_a_job_each(running: Cli) -> None:
    running.submit("j2")
    lines = "".join(
        f'{{"provider": "other", "units": 5, "price_per_unit": 4, "offer_id": "o{number}"}}\n'
        for number in range(3)
    )
    # In a dry run too, where all is rolled back in the end.
    for dry in (("-n",), ()):
        found = running("compute", "offer", "post", "-", "--jsonl", *dry, stdin=lines)
        assert found.code == 0
        assert [each["took_over"] for each in found.jsonl] == ["j1", "j2", None]


def test_offers_of_an_atomic_run_that_fails_take_nothing(running: Cli) -> None:
    lines = (
        '{"provider": "other", "units": 5, "price_per_unit": 4, "offer_id": "fine"}\n'
        '{"provider": "other", "units": 0, "price_per_unit": 4, "offer_id": "none"}\n'
    )
    assert running("compute", "offer", "post", "-", "--atomic", stdin=lines).code == 7
    assert running.job()["offer_id"] == "present"
    assert receipts(running) == []


def test_new_offer_stays_where_the_handoff_fails(
    running: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(running, monkeypatch, "sys.exit(3)")
    before = running.job(), running.wallet("alice"), running.wallet("prov")
    done = running(*RIVAL)
    assert (done.code, done.err) == (0, "")
    text = "posted offer better, did not take over job j1: the handoff of job j1 to offer better"
    assert done.out.startswith(f"{text} failed: ")
    assert (running.job(), running.wallet("alice"), running.wallet("prov")) == before
    assert running.offer("better")["state"] == "open"
    assert counted(running, "handoff_failed") == 1
    assert receipts(running) == [("refused", "handoff")]
    document = running.document(*POST, "4", "--offer-id", "next")
    assert document["took_over"] is None
    assert document["handoff_error"]["reason"] == "handoff_failed"


def spoil_spool(cli: Cli) -> None:
    (cli.directory / "elsewhere").mkdir()
    (Path(cli.home) / "spool").symlink_to(cli.directory / "elsewhere")


@pytest.mark.parametrize("by_hand", [False, True], ids=["a new offer", "by hand"])
def test_handoff_that_fails_before_its_receipt_is_counted_and_told_once(
    offered: Cli, by_hand: bool
) -> None:
    spoil_spool(offered)
    if by_hand:
        assert offered(*PREEMPT).code == 2
    else:
        done = offered(*POST, "4", "--offer-id", "next")
        assert done.code == 0
        assert done.out.startswith("posted offer next, did not take over job j1: ")
    assert receipts(offered) == []
    assert offered.job()["offer_id"] == "present"
    assert counted(offered, "handoff_failed") == 1
    told = offered("log", "--event", "handoff_failed", "--jsonl").jsonl
    assert [(each["job_id"], each["offer_id"]) for each in told] == [
        ("j1", "better" if by_hand else "next")
    ]


# Where a handoff may fail: what an offer says of itself is the same.


@pytest.mark.parametrize("where", ["proposed", "hand_over", "forward"])
@pytest.mark.parametrize(
    "error",
    [BusyError("no"), OSError(errno.EMFILE, "no"), ConnectionError("no")],
    ids=["market", "system", "connection"],
)
def test_what_goes_wrong_in_a_handoff_is_told_beside_its_offer(
    running: Cli, monkeypatch: pytest.MonkeyPatch, where: str, error: Exception
) -> None:
    fail(monkeypatch, where, error)
    document = running.document(*RIVAL)
    assert (document["changed"], document["took_over"]) == (True, None)
    assert document["handoff_error"]["error"]
    assert running.job()["offer_id"] == "present"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnicodeError("label empty or too long"), 1),
        (RuntimeError("can't start new thread"), 8),
        (MemoryError(), 8),
        (KeyboardInterrupt(), 130),
    ],
    ids=["bug", "no threads", "no memory", "interrupted"],
)
def test_what_stops_a_handoff_leaves_the_offers_told(
    running: Cli,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    error: BaseException,
    code: int,
) -> None:
    fail(monkeypatch, "forward", error)
    lines = "".join(
        f'{{"provider": "other", "units": 5, "price_per_unit": 4, "offer_id": "o{number}"}}\n'
        for number in range(3)
    )
    left = tmp_path / "left"
    post = ("compute", "offer", "post", "-", "--chunk", "2", "--failed-to", str(left))
    done = running(*post, stdin=lines)
    assert done.code == code
    assert done.out == "posted offer o0\nposted offer o1\n"
    assert left.read_text() == lines.splitlines(keepends=True)[2].replace(" ", "")


# By hand.


def test_bill_says_who_gains_and_who_loses(offered: Cli) -> None:
    before = offered.files()
    dry = "".join(f"dry_run: {line}\n" for line in BILL.splitlines())
    assert offered.ok(*PREEMPT, "-n") == dry
    assert offered.files() == before
    planned = offered.document(*PREEMPT, "-n")
    assert planned.pop("dry_run")
    assert planned == {
        "job_id": "j1",
        "offer_id": "better",
        "units": 2,
        "units_proven": 1,
        "funded": True,
        "from": {
            "provider": "prov",
            "offer_id": "present",
            "score": 0,
            "price_per_unit": 5,
            "kept": {"ct": 5, "it": 0},
            "lost": {"ct": 10, "it": 0},
            "bond_released_ct": 3,
        },
        "to": {
            "provider": "other",
            "offer_id": "better",
            "score": 12,
            "price_per_unit": 4,
            "offered": {"ct": 8, "it": 0},
            "bond_locked_ct": 4,
        },
        "buyer": {
            "buyer": "alice",
            "refunded": {"ct": 2, "it": 0},
            "locked": {"ct": 0, "it": 0},
        },
        "changed": True,
    }
    assert offered.document(*PREEMPT) == planned


def test_preempt_moves_what_its_bill_says(offered: Cli) -> None:
    before = {name: offered.wallet(name)[0] for name in ("alice", "prov", "other")}
    assert offered.ok(*PREEMPT) == BILL
    moved = {name: offered.wallet(name)[0] - had for name, had in before.items()}
    assert moved == {"alice": 2, "prov": 3, "other": -4}
    assert offered.job()["offer_id"] == "better"
    assert offered.log() == "j1 preempted\n"


def test_preempt_again_changes_nothing(offered: Cli) -> None:
    offered.ok(*PREEMPT)
    found = offered.document(*PREEMPT)
    assert found == {"job_id": "j1", "offer_id": "better", "changed": False}
    assert offered.ok(*PREEMPT) == "job j1 is with offer better already, unchanged\n"
    assert receipts(offered) == [("acknowledged", "handoff")]


def test_bill_of_an_unfunded_job_says_that_no_money_moves(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_ENABLE_PREEMPT", "true")
    cli.active("j1")
    earn(cli, "other", 10)
    cli.update(lambda txn: None)
    monkeypatch.setenv("TB_ENABLE_PREEMPT", "false")
    cli.ok(*RIVAL)
    monkeypatch.setenv("TB_ENABLE_PREEMPT", "true")
    assert cli.ok(*PREEMPT, "-n").endswith("dry_run: the job holds no money: none moves\n")


def test_bill_names_what_providers_before_have_proven(offered: Cli) -> None:
    offered.ok(*PREEMPT)
    offered.ok("compute", "prove", "j1", "2", HELLO)
    earn(offered, "third", 30)
    offered.ok("wallet", "deposit", "third", "--ct", "100")
    done = offered.ok(
        "compute", "offer", "post", "--provider", "third", "--units", "1", "--price", "3"
    )
    assert done == "posted offer o-1, took over job j1 of other\n"
    assert "units_proven" in offered.ok("compute", "status", "j1")


REFUSALS: dict[str, tuple[tuple[str, ...], int, str]] = {
    "unknown job": (("nobody", "better"), 3, "not_found"),
    "unknown offer": (("j1", "nobody"), 3, "not_found"),
    "no id": (("-", "better"), 2, "usage"),
    "dear": (("j1", "dear"), 5, "price_mismatch"),
    "of its provider": (("j1", "present-too"), 5, "score_difference"),
}


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("dry", [(), ("-n",)], ids=["", "dry run"])
def test_preempt_of_what_must_stay_is_refused(offered: Cli, name: str, dry: tuple[str]) -> None:
    ids, code, reason = REFUSALS[name]
    offered.ok(*POST, "6", "--offer-id", "dear")
    offered.post("--offer-id", "present-too", price=4)
    before = offered.files()
    done = offered("compute", "preempt", *ids, "--json", *dry)
    assert (done.code, done.out) == (code, "")
    assert done.error.get("reason", done.error["error"]) == reason
    assert offered.files() == before


def test_preempt_is_refused_where_it_is_not_allowed(
    offered: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_ENABLE_PREEMPT", "false")
    assert offered(*PREEMPT) == Done(
        5,
        "",
        "error[refused]: no offer takes a running job over here\n"
        "hint: set enable_preempt = true in config.toml\n",
    )


def test_preempt_whose_bundle_is_not_taken_ends_with_10(
    offered: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(offered, monkeypatch, "sys.exit(3)")
    done = offered(*PREEMPT, "--json")
    assert (done.code, done.out) == (10, "")
    assert (done.error["reason"], done.error["retryable"]) == ("handoff_failed", True)
    assert offered.job()["offer_id"] == "present"
    assert counted(offered, "handoff_failed") == 1
    program(offered, monkeypatch, TAKE)
    assert offered.document(*PREEMPT)["changed"]


# What comes between the bundle and its acknowledgement.

BETWEEN: dict[str, tuple[str, str]] = {
    "cancelled": (tb_cli("compute", "cancel", "j1"), "not_active"),
    "completed": (tb_cli("compute", "execute", "j1"), "not_active"),
    "withdrawn": (tb_cli("compute", "offer", "withdraw", "better"), "capability_mismatch"),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_preempt_is_decided_again_when_its_bundle_is_acknowledged(
    offered: Cli, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    line, reason = BETWEEN[name]
    program(offered, monkeypatch, line, TAKE)
    done = offered(*PREEMPT, "--json")
    assert (done.code, done.out) == (5, "")
    assert done.error["reason"] == reason
    assert offered.job()["provider"] == "prov"
    assert counted(offered, "handoff_failed") == 1
    assert counted(offered, "success") == 0
    assert receipts(offered) == [("acknowledged", "handoff")]


def test_proof_in_between_makes_untrue_what_the_bundle_tells(
    offered: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(offered, monkeypatch, tb_cli("compute", "prove", "j1", "0", HELLO), TAKE)
    done = offered(*PREEMPT)
    assert done == Done(
        5,
        "",
        "error[refused]: the bundle tells of 2 units left of job j1, and by now 1 are\n"
        "hint: hand it over anew with `tb-cli compute preempt`\n",
    )
    program(offered, monkeypatch, TAKE)
    found = offered.document(*PREEMPT)
    assert (found["units"], found["from"]["kept"]["ct"]) == (1, 10)
    assert found["to"]["offered"]["ct"] == 4
    assert counted(offered, "handoff_failed") == 1


def test_handoff_that_has_ended_is_not_sent_again(offered: Cli) -> None:
    offered.ok(*PREEMPT)
    (bundle,) = offered.document("compute", "courier", "list")
    done = offered("compute", "courier", "resend", bundle["id"], "--json")
    assert (done.code, done.error["reason"]) == (5, "handoff_ended")
    assert done.error["hint"] == "try `tb-cli compute preempt j1 better`"
    assert receipts(offered) == [("acknowledged", "handoff")]


# Killed in between.


def wait_until(holds: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def begun(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the far end of a handoff hang, but the first time; the file that tells of it."""
    mark = cli.directory / "begun"
    program(
        cli,
        monkeypatch,
        f"first = not os.path.exists({str(mark)!r})",
        f"open({str(mark)!r}, 'w').close()",
        "if first: time.sleep(60)",
        TAKE,
    )
    return mark


def test_handoff_that_was_killed_is_taken_up_by_the_next_flush(
    running: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = begun(running, monkeypatch)
    monkeypatch.setenv("TB_COURIER_LEASE_SECS", "1")
    process = running.start(*RIVAL)
    wait_until(mark.exists)
    process.kill()
    process.communicate()
    assert running.offer("better")["state"] == "open"
    assert running.job()["offer_id"] == "present"
    assert receipts(running) == [("pending", "handoff")]
    running.advance(60)
    done = running("compute", "courier", "flush")
    assert (done.code, done.out) == (0, "acknowledged 1 of 1 bundles\n")
    assert running.job()["offer_id"] == "better"
    assert counted(running, "success") == 1


def test_handoff_that_is_interrupted_leaves_the_offer_told_and_the_job_as_it_was(
    running: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = begun(running, monkeypatch)
    process = running.start(*RIVAL)
    wait_until(mark.exists)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, b"posted offer better\n")
    assert running.job()["offer_id"] == "present"
    assert running.view(lambda txn: txn.size(BUNDLE_RECEIPTS)) == 1
    assert running.document(*PREEMPT)["changed"]
    assert running.view(lambda txn: txn.size(BUNDLES_PENDING)) <= 1
    assert counted(running, "success") == 1


def test_flush_counts_a_handoff_that_failed(offered: Cli) -> None:
    """It waits no more then: each bundle is acknowledged, refused or left."""
    path = offered.slice("bundle")
    sent = offered.document("compute", "courier", "send", path, "alice")
    left = offered.document("compute", "courier", "send", path, "alice", "--to", "exec:false")
    found = courier.parse_id(sent["id"])

    def handoff(txn: Txn) -> None:
        told = preempt.progress(jobs.get(txn, "j1"))
        sized = courier.get(txn, found).bundle_hash, sent["bytes"]
        bundle = Bundle(*sized, "prov", "exec:false", "handoff", "j1", "better", told)
        courier.send(txn, bundle, iter((1, 2)))

    offered.update(handoff)
    done = offered("compute", "courier", "flush", "--json")
    counts = {name: number for name, number in done.json.items() if name != "problems"}
    assert (done.code, counts) == (
        10,
        {
            "acknowledged": 1,
            "bundles": 3,
            "refused": 1,
            "failed": 1,
            "left": 1,
            "held": 0,
            "attempts": 5,
            "failures": 4,
        },
    )
    offered.update(handoff)
    offered.ok("compute", "cancel", "j1")  # Now it is refused without an attempt.
    offered.ok("compute", "courier", "resend", sent["id"])
    done = offered("compute", "courier", "flush")
    assert (done.code, done.out) == (10, "acknowledged 1 of 3 bundles\n")
    state = offered.document("compute", "courier", "show", left["id"])["state"]
    assert (state, counted(offered, "handoff_failed")) == ("pending", 2)
