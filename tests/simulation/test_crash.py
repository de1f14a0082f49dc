"""Real `tb-cli` processes, killed at any instant: nothing is lost, and nothing happens twice.

A campaign runs one workload again and again on one home, killing it each time, until it comes
through; then everything in the store, and the log, must be what a run left behind that nobody
disturbed. After every kill the audit must be clean, and whatever the dead process had printed must
be true.
"""

import contextlib
import fcntl
import itertools
import json
import math
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from msgspec import json as fast_json

from compute_market import chain, metrics
from compute_market.amounts import split
from compute_market.jobs import cancellations, jobs
from compute_market.jobs.documents import job_document
from compute_market.offers import offers
from compute_market.records import DEADLINE_MAX
from compute_market.settlement import ledger, receipts, settlement
from compute_market.store.schema import CANCELLATIONS, RECEIPT_CHAIN, TAPS
from compute_market.store.txn import Txn
from tests.simulation.changes import CHANGES
from tests.simulation.places import (
    Place,
    Reference,
    check_again,
    check_told,
    run_alone,
    started,
    template_in,
)
from tests.support.attacks import Attacks
from tests.support.effort import effort
from tests.support.faults import Outcome
from tests.support.market import slice_of
from tests.support.processes import (
    DEADLINE,
    ENDS_WITHIN_S,
    FEE_PCT_CT,
    PRICE,
    Command,
    Home,
    Running,
    Watch,
    differences,
    fund,
    ids,
    locked,
    needs_proc,
    random,
    slice_files,
    snapshot,
    submit_jobs,
    until,
)

# How many kills each campaign must land; a process that had ended by itself does not count.
QUOTAS = {
    "submit": effort(14, 120),
    "cancel by the client": effort(15, 140),
    "cancel by the provider": effort(12, 60),
    "execute": effort(14, 120),
    "batch": effort(16, 120),
    "crowd": effort(15, 140),
}
# After so many kills a run may come through.
SERIES_KILLS = 8
# How often a process is killed while it makes a home, after each of the files it makes.
CREATION_KILLS = effort(3, 30)
CREATED = ("market/lock.mdb", "market/data.mdb", "market/write.lock")
# How often a process is killed at each of the places where it can be held up on purpose.
BARRIER_KILLS = effort(4, 20)
# How many ways to change a market are killed at any instant, and how often each.
CHANGES_KILLED = effort(4, len(CHANGES))
CHANGE_KILLS = effort(3, 40)


def test_every_workload_is_killed_more_than_a_hundred_times_in_all() -> None:
    creations = (1 + len(CREATED)) * CREATION_KILLS
    others = creations + len(BARRIERS) * BARRIER_KILLS + CHANGES_KILLED * CHANGE_KILLS
    assert sum(QUOTAS.values()) + others >= 130
    assert set(QUOTAS) == {workload.name for workload in WORKLOADS}


# The workloads. Each is put on a fresh home, and each line it prints has to be true.


class Said(NamedTuple):
    """A line on stdout, and the state of the home after the process has died."""

    txn: Txn
    log: Counter[str]
    number: int  # of the line, from 0
    line: str

    def assert_cancelled(self, job_id: str, by: str = "client") -> None:
        assert jobs.get(self.txn, job_id).state == "cancelled"
        assert self.log[f"{job_id} {by}"] == 1, "told before it was in the log"


class Workload(NamedTuple):
    name: str
    prepare: Callable[[Home], None]
    commands: Callable[[Home], list[Command]]
    # For each command: checks a line, and returns what was changed, which may happen only once.
    truths: list[Callable[[Said], str | None]]
    slots: int = 100_000
    skips: bool = False  # what is done already is passed over without a commit


def true_submission(said: Said) -> str | None:
    told = json.loads(said.line)
    changed = told.pop("changed")
    job = jobs.get(said.txn, told["job_id"])
    assert told == fast_json.decode(fast_json.encode(job_document(said.txn, job)))
    return f"submit {job.job_id}" if changed else None


def true_cancellation(said: Said, by: str = "client") -> str | None:
    told = json.loads(said.line)
    assert told["outcome"] in ("cancelled", "already_cancelled")
    assert told["changed"] == (told["outcome"] == "cancelled")
    said.assert_cancelled(told["job_id"], by)
    return f"cancel {told['job_id']}" if told["changed"] else None


def true_execution(said: Said) -> str | None:
    found = re.fullmatch(
        r"(executed )?job (\S+)(?: exists, unchanged)?: (\d+) of \3 slices proven, completed",
        said.line,
    )
    assert found, said.line
    job = jobs.get(said.txn, found[2])
    assert (job.state, job.slices_proven) == ("completed", job.slices)
    key = receipts.key_of_placement(job, job.placed)
    assert key is not None
    settled = settlement.of(said.txn, key)
    due = split(job.units * PRICE, FEE_PCT_CT)
    assert settled is not None
    assert (settled.status, settled.ct, settled.it) == ("applied", *due)
    assert (job.paid_ct, job.paid_it) == due
    # A job of several commits may have been completed by a run that had begun before: what counts
    # is that no run tells of a completion that was told before.
    return f"execute {job.job_id}" if found[1] else None


def true_batch_line(said: Said) -> str | None:
    """A line of `batch`, which prints one for each of BATCH."""
    command = BATCH[said.number]
    words = command.split()
    txn, line = said.txn, said.line
    if words[0] == "wallet":
        assert txn.read(TAPS, words[words.index("--key") + 1].encode()) is not None
    elif words[1] == "offer":
        offers.get(txn, words[words.index("--offer-id") + 1])
    elif words[1] == "cancel":
        said.assert_cancelled(words[2])
    elif words[1] == "prove":
        assert jobs.slice_at(txn, jobs.get(txn, words[2]), int(words[3])).proven_ms is not None
    else:
        jobs.get(txn, words[words.index("--job-id") + 1])
    if line.startswith(("deposited", "withdrew", "posted", "cancelled", "proved", "submitted")):
        return command
    assert re.search("unchanged|job already cancelled|proven before", line), line
    return None


def job_lines(home: Home, prefix: str, count: int) -> str:
    """Job files as JSON lines, without references: the slices have to be hashed."""
    paths = [entry.path for entry in slice_files(home.path.parent / "slices")]
    return "".join(
        json.dumps(
            {
                "job_id": f"{prefix}{number:03}",
                "buyer": "buyer",
                "workload": "transcode",
                "slices": [paths[(number + index) % 3] for index in range(1 + number % 4)],
                "max_price_per_unit": 10,
                "deadline": DEADLINE,
                "priority": ("low", "normal", "high")[number % 3],
            }
        )
        + "\n"
        for number in range(count)
    )


def with_jobs_to_cancel(home: Home) -> None:
    """Few slots, so that most jobs are queued; some of the running ones are partly proven."""
    fund(home)
    submit_jobs(home, {job_id: [slice_of(10)] * 4 for job_id in ids("job", 80)}, proven=2)


def to_cancel(home: Home) -> list[Command]:
    arguments = ("compute", "cancel", "-", "--chunk", "2", "--jsonl")
    return [Command(arguments, "# all of them\n" + "\n".join(ids("job", 80)))]


# Most jobs are small; of the long ones each takes two or three commits.
SIZES = (1, 3, 1010, 2, 4, 1, 2010, 2, 1, 5, 3, 1, 2)


def with_jobs_to_execute(home: Home, sizes: tuple[int, ...] = SIZES) -> None:
    fund(home)
    files = slice_files(home.path.parent / "slices")
    submit_jobs(
        home,
        {
            f"job{number:03}": [files[index % 3] for index in range(size)]
            for number, size in enumerate(sizes)
        },
    )


def batch_lines(reference: str) -> Iterator[str]:
    """Ten rounds of commands that a killed script may simply run again."""
    for number in range(10):
        yield f"wallet deposit party{number % 3} --ct {number + 5} --it 3 --key in{number}"
        yield f"compute prove many {number} {reference}"
        yield f"compute offer post --offer-id late{number} --provider p{number} --units 5 --price 9"
        yield f"wallet withdraw party{number % 3} --ct {number // 2 + 1} --key out{number}"
        yield (
            f"compute submit --job-id new{number} --buyer buyer --workload transcode --slice "
            f"SLICE --max-price 8 --deadline-secs {DEADLINE_MAX}"
        )
        yield f"compute cancel job{number:03}"
        if number % 3 == 0:
            yield f"compute cancel new{number}"


BATCH = list(batch_lines(slice_of(10).reference.hex()))


def with_jobs_for_a_batch(home: Home) -> None:
    fund(home)
    slice_files(home.path.parent / "slices")
    submit_jobs(home, {job_id: [slice_of(10)] * 2 for job_id in ids("job", 10)}, proven=1)
    submit_jobs(home, {"many": [slice_of(10)] * 10})


def to_batch(home: Home) -> list[Command]:
    path = home.path.parent / "slices" / "a.slice"
    return [Command(("batch", "-"), "\n".join(BATCH).replace("SLICE", str(path)))]


def with_jobs_for_a_crowd(home: Home) -> None:
    with_jobs_to_execute(home, SIZES[:6])
    submit_jobs(home, {job_id: [slice_of(10)] * 2 for job_id in ids("old", 40)}, proven=1)


def crowd(home: Home) -> list[Command]:
    """Processes that come in each other's way; two of them cancel the same jobs."""
    cancel = ("compute", "cancel", "-", "--jsonl", "--chunk")
    old = ids("old", 40)
    return [
        Command(("compute", "submit", "-", "--jsonl", "--chunk", "3"), job_lines(home, "new", 40)),
        Command((*cancel, "2"), "\n".join(old)),
        Command((*cancel, "3"), "\n".join(reversed(old))),
        Command(("compute", "execute", *ids("job", 6))),
    ]


WORKLOADS = [
    Workload(
        "submit",
        fund,
        lambda home: [
            Command(
                ("compute", "submit", "-", "--jsonl", "--chunk", "2"), job_lines(home, "new", 80)
            )
        ],
        [true_submission],
    ),
    Workload("cancel by the client", with_jobs_to_cancel, to_cancel, [true_cancellation], slots=30),
    Workload(
        "cancel by the provider",
        with_jobs_to_cancel,
        lambda home: [
            Command((*command.arguments, "--by", "provider"), command.stdin)
            for command in to_cancel(home)
        ],
        [lambda said: true_cancellation(said, "provider")],
        slots=30,
    ),
    Workload(
        "execute",
        with_jobs_to_execute,
        lambda home: [Command(("compute", "execute", *ids("job", len(SIZES))))],
        [true_execution],
        skips=True,
    ),
    Workload("batch", with_jobs_for_a_batch, to_batch, [true_batch_line]),
    Workload(
        "crowd",
        with_jobs_for_a_crowd,
        crowd,
        [true_submission, true_cancellation, true_cancellation, true_execution],
        skips=True,
    ),
]


# The campaign.


class Profile(NamedTuple):
    """How long the parts of an undisturbed run take, in seconds, and what it does."""

    first_commit_s: float
    end_s: float
    commits: int
    printed: int  # bytes
    logs: bool
    again: bool = False

    def less(self, commits: int) -> "Profile":
        """What a run has before it that need not make so many of the commits again."""
        left = max(1, self.commits - commits)
        work_s = (self.end_s - self.first_commit_s) * left / self.commits
        return self._replace(commits=left, end_s=self.first_commit_s + work_s, again=True)


@pytest.mark.slow
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_killed_runs_add_up_to_an_undisturbed_one(
    workload: Workload, tmp_path: Path, attacks: Attacks
) -> None:
    rng = random(workload.name)
    ordered = len(workload.truths) == 1
    template = Home.make(tmp_path / "template", workload.slots)
    workload.prepare(template)
    reference = template.copy(tmp_path / "reference")
    profile = measured(reference, workload)
    expected = snapshot(reference, ordered=ordered)
    kills = at_work = unfinished_logs = series = 0
    while kills < QUOTAS[workload.name]:
        series += 1
        enough = min(kills + SERIES_KILLS, QUOTAS[workload.name])
        home = template.copy(tmp_path / f"home-{series}")
        told: Counter[str] = Counter()
        came_through = False
        ahead = profile
        while not came_through:
            before = home.view(work_done)
            running = start(home, workload)
            landed = strike(home, running, ahead, rng) if kills < enough else 0
            codes = [process.end() for process in running]
            came_through = landed == 0
            kills += landed
            at_work += landed > 0 and home.view(work_done) != before
            passed = commits_of(home) - commits_of(template) if workload.skips else 0
            ahead = profile.less(passed)
            unfinished_logs += check(home, workload, running, told, rng)
            assert codes.count(0) == len(codes) - landed, [r.errors() for r in running]
        assert home.violations() == []
        assert differences(expected, snapshot(home, ordered=ordered)) == []
        home.remove()
    print(
        f"{kills} kills in {series} series; {at_work} rounds had done some of the work, "
        f"{unfinished_logs} left the log behind"
    )
    attacks("killed at any instant", kills)
    # Kills that all fall on the start, or on a run with nothing left to do, would prove nothing.
    # How many do not depends on the machine.
    assert at_work > 0


def work_done(txn: Txn) -> tuple[int, int]:
    """Two numbers, one of which grows with everything the workloads do."""
    return txn.number("posting_seq"), metrics.value(txn, "industrial_units_total")


def start(home: Home, workload: Workload) -> list[Running]:
    return [
        home.start(*command.arguments, stdin=command.stdin) for command in workload.commands(home)
    ]


def measured(home: Home, workload: Workload) -> Profile:
    """Let a workload run undisturbed, and see how long its parts take."""
    with Watch(home) as watch:
        before = watch.commits()
        running = start(home, workload)
        began = running[0].started
        first_s = None
        while not all(process.ended for process in running):
            if first_s is None and watch.commits() > before:
                first_s = time.perf_counter() - began
            time.sleep(0.0002)
        end_s = time.perf_counter() - began
        commits = watch.commits() - before
    told: Counter[str] = Counter()
    check(home, workload, running, told)
    assert [process.end() for process in running] == [0] * len(running)
    assert home.violations() == []
    printed = min(process.printed() for process in running)
    return Profile(first_s or end_s, end_s, commits, printed, home.log() != b"")


class Moment(NamedTuple):
    """When to kill: so long after an event, the start of the process for the event `clock`."""

    event: str
    count: int
    delay_s: float


def strike(home: Home, running: list[Running], profile: Profile, rng: Random) -> int:
    """Kill every process at a moment of its own; how many were still running."""
    waiting = {process: moment(profile, rng) for process in running}
    due: dict[Running, float] = {}
    landed = 0
    log_length = log_size(home)
    with Watch(home) as watch:
        begins = watch.commits()

        def reached(process: Running, event: str, count: int) -> bool:
            if event == "commit":
                return watch.commits() - begins >= count
            if event == "print":
                return process.printed() >= count
            return event == "clock" or log_size(home) > log_length

        while waiting:
            for process, (event, count, delay_s) in list(waiting.items()):
                if process not in due and reached(process, event, count):
                    since = process.started if event == "clock" else time.perf_counter()
                    due[process] = since + delay_s
                if process.ended or time.perf_counter() >= due.get(process, math.inf):
                    landed += process.kill()
                    del waiting[process]
            # Often enough to come between a commit and its line in the log, but leaving the core
            # to those who are to be killed.
            time.sleep(0.00002)
    return landed


def moment(profile: Profile, rng: Random) -> Moment:
    """Any instant of a run, but more often those near a commit, where the damage would be."""
    first_s, end_s = profile.first_commit_s, profile.end_s
    step_s = (end_s - first_s) / max(10, profile.commits)
    events = ("start", "work", "commit", "print", "log")
    # What was done before takes less time again, so the time says little then.
    weights = (1, 1 if profile.again else 3, 5, 2, 2 if profile.logs else 0)
    event = rng.choices(events, weights)[0]
    if event == "start":
        return Moment("clock", 0, rng.uniform(0, first_s))
    if event == "work":
        return Moment("clock", 0, rng.uniform(first_s, end_s))
    # At once: between the commit and the log, or between the log and the line. Or a little later,
    # somewhere in the transactions that follow.
    delay_s = rng.choice((0, rng.uniform(0, step_s), rng.uniform(0, 3 * step_s)))
    most = profile.printed if event == "print" else profile.commits
    return Moment(event, max(1, round(most * rng.random() ** 2)), delay_s)


def log_size(home: Home) -> int:
    try:
        return os.stat(home.log_path).st_size
    except FileNotFoundError:
        return 0


def commits_of(home: Home) -> int:
    with Watch(home) as watch:
        return watch.commits()


def check(
    home: Home,
    workload: Workload,
    running: list[Running],
    told: Counter[str],
    rng: Random | None = None,
) -> bool:
    """Hold what the dead have printed against what they left. Returns whether the log is behind.

    `told` counts the changes that were told of in the whole series.
    """
    log = home.log()
    lines = Counter(log.decode().splitlines())

    def claims(txn: Txn) -> bytes:
        for truth, process in zip(workload.truths, running, strict=True):
            for number, line in enumerate(process.lines()):
                changed = truth(Said(txn, lines, number, line))
                if changed is not None:
                    told[changed] += 1
        return cancellations.text_from(txn, 0)

    text = home.view(claims)
    assert [change for change, count in told.items() if count > 1] == []
    assert text.startswith(log), "the log says what the table does not"
    assert home.violations(log=False) == []
    is_behind = log != text
    # The next change makes the log whole. Mostly that is the next run, which may be killed too.
    if rng is not None and rng.random() < 0.1:
        home.run("tick")
        receipts_count = home.view(lambda txn: txn.size(RECEIPT_CHAIN))
        audited = home.run("compute-market", "audit")
        assert audited == [f"receipts {receipts_count} invalid 0"]
        assert home.log() == text
    return is_behind


# The creation of a home.


@needs_proc
@pytest.mark.parametrize("name", ["market", *CREATED])
def test_killed_creation_is_finished_by_the_next_writer(
    name: str, tmp_path: Path, attacks: Attacks
) -> None:
    """`name` is the file whose appearance the kill follows, at once or a moment later."""
    rng = random(name)
    kills = 0
    for number in itertools.count():
        home = Home(tmp_path / f"home-{number}")
        running = home.start("wallet", "deposit", "owner", "--ct", "7", "--key", "key")
        path = home.path / name
        delay_s = rng.choice((0, rng.uniform(0, 0.01)))
        while not running.ended and not path.exists():
            pass
        time.sleep(delay_s)
        kills += running.kill()
        # Nothing of the market may be told before all of it is there.
        told = running.lines()
        assert told in ([], ["deposited 7 CT 0 IT; owner has 7 CT 0 IT"])
        # A look finds a market or none, never half of one, and makes none.
        assert home.start("chain", "status").end() in ((0,) if told else (0, 3))
        home.run("wallet", "deposit", "owner", "--ct", "7", "--key", "key")
        status = json.loads("".join(home.run("chain", "status", "--json")))
        assert status["market_id"] == home.view(chain.market_id).hex()
        assert home.view(lambda txn: ledger.balance(txn, ledger.wallet("owner"), "CT")) == 7
        assert home.violations() == []
        if kills == CREATION_KILLS:
            break
    attacks("killed while it makes a home", kills)


# Every way to change a market.


@pytest.mark.slow
def test_killed_change_is_done_whole_or_not_at_all(tmp_path: Path, attacks: Attacks) -> None:
    rng = random("changes")
    template = template_in(run_alone, tmp_path / "template")
    place = Place(run_alone, tmp_path / "work")
    kills = 0
    for change in rng.sample(CHANGES, CHANGES_KILLED):
        reference = Reference(place, template, change)
        words, stdin = change.command()
        for _ in range(CHANGE_KILLS):
            reference.begin()
            began = time.perf_counter()
            process = started(words, place.work)
            wait_s = reference.took_s * rng.uniform(0, 1.1)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(stdin.encode(), timeout=wait_s)
            process.kill()
            out, err = process.communicate()
            assert time.perf_counter() - began < ENDS_WITHIN_S
            outcome = Outcome(process.wait(), out.decode(), err.decode(), [])
            kills += outcome.killed
            try:
                check_told(place, reference, outcome)
                check_again(place, reference)
            except AssertionError as error:
                raise AssertionError(f"{change.name}, {outcome}: {error}") from error
    attacks("killed at any instant", kills)


# Places where a process can be held up, so that it is certain where it dies.


class Held(NamedTuple):
    """What is true of a process that was killed while it was held up."""

    commits: int
    log_lines: int
    printed: int


def left_to_cancel(home: Home) -> Command:
    """The bulk cancel without the ids it is through with, so that each run is like the first."""
    arguments, stdin = to_cancel(home)[0]
    done = home.view(lambda txn: txn.size(CANCELLATIONS))
    return Command(arguments, "\n".join(stdin.splitlines()[1 + done :]))


def waiting_for(home: Home, path: Path) -> Running:
    """A bulk cancel that waits for the lock of a file, which is held."""
    with locked(path):
        command = left_to_cancel(home)
        running = home.start(*command.arguments, stdin=command.stdin)
        until(lambda: running.has_open(path) or running.ended)
        time.sleep(0.002)  # It has the file open and goes on to wait for its lock.
        assert running.kill(), running.errors()
    return running


def printing(home: Home) -> Running:
    """A bulk cancel that has told of nothing yet, because nobody takes what it prints."""
    read, write = os.pipe()
    try:
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
        os.write(write, b"x" * 4096)
        log_length = log_size(home)
        command = left_to_cancel(home)
        running = home.start(*command.arguments, stdin=command.stdin, stdout=write)
        until(lambda: log_size(home) > log_length or running.ended)
        time.sleep(0.002)
        assert running.kill(), running.errors()
        assert os.read(read, 8192) == b"x" * 4096
    finally:
        os.close(read)
        os.close(write)
    return running


def reading(home: Home) -> Running:
    """A bulk cancel that has read some ids and waits for more of them."""
    read, write = os.pipe()
    try:
        os.write(write, left_to_cancel(home).stdin.encode())
        running = home.start("compute", "cancel", "-", "--chunk", "1000", stdin=read)
        time.sleep(0.15)
        assert running.kill(), running.errors()
    finally:
        os.close(read)
        os.close(write)
    return running


BARRIERS: dict[str, tuple[Callable[[Home], Running], Held]] = {
    "reading its ids": (reading, Held(0, 0, 0)),
    "waiting at the turnstile": (lambda home: waiting_for(home, home.market), Held(0, 0, 0)),
    "waiting for the write lock": (
        lambda home: waiting_for(home, home.market / "write.lock"),
        Held(0, 0, 0),
    ),
    "between commit and log": (lambda home: waiting_for(home, home.log_path), Held(1, 0, 0)),
    "between log and line": (printing, Held(1, 2, 0)),
}


@needs_proc
@pytest.mark.parametrize("barrier", BARRIERS)
def test_kill_where_a_process_is_held_up(barrier: str, tmp_path: Path, attacks: Attacks) -> None:
    stop, held = BARRIERS[barrier]
    workload = WORKLOADS[1]
    template = Home.make(tmp_path / "template", workload.slots)
    workload.prepare(template)
    home = template.copy(tmp_path / "home")
    kills = 0
    for _ in range(BARRIER_KILLS):
        home.follow()
        begins, log_length = commits_of(home), len(home.log().splitlines())
        running = stop(home)
        kills += 1
        assert commits_of(home) - begins == held.commits
        assert len(home.log().splitlines()) - log_length == held.log_lines
        assert running.printed() == held.printed
        assert check(home, workload, [running], Counter()) == (held.commits > held.log_lines)
    assert kills == BARRIER_KILLS
    attacks("killed where it is held up", kills)
    reference = template.copy(tmp_path / "reference")
    for each in (home, reference):
        command = to_cancel(each)[0]
        assert len(each.run(*command.arguments, stdin=command.stdin)) == 80
        assert each.violations() == []
    assert differences(snapshot(reference), snapshot(home)) == []
