"""What goes wrong around a server that runs: it goes on, and nothing that it answered is lost.

One process serves one market for all of these tests but those that end it; each has jobs of its
own in it.
"""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from http.client import HTTPException
from itertools import count
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import NamedTuple

import lmdb
import pytest
from starlette.requests import Request
from starlette.responses import Response

from compute_market.jobs import jobs
from compute_market.jobs.submit import submit
from compute_market.store.lock import holder_of
from compute_market.store.schema import META, SCHEMA_VERSION
from compute_market.store.txn import Txn
from tb_cli.network import server
from tb_cli.network.request_log import RequestLog
from tests.support.cli import Cli, operating
from tests.support.effort import effort
from tests.support.market import job_request, slice_of
from tests.support.processes import locked, until
from tests.support.serving import HOSTS, Answer, Process, answering, serving

pytest_plugins = ("tests.support.cli",)

_JOBS = effort(400, 8000)
# Holds the write lock in a process of its own.
_HOLDING = """
import fcntl, signal, sys
file = open(sys.argv[1], "r+")
fcntl.flock(file, fcntl.LOCK_EX)
print(flush=True)
signal.pause()
"""


class Served(NamedTuple):
    """A market of active jobs, the process that serves it, and its token."""

    cli: Cli
    serve: Process
    token: str
    numbers: Iterator[int]
    log: Path

    def job(self) -> str:
        """One that no test has had."""
        return f"j{next(self.numbers)}"

    def cancel(self, job_id: str) -> Answer:
        body = json.dumps({"method": "compute.job_cancel", "params": {"job_id": job_id}, "id": 1})
        authorization = {"Authorization": f"Bearer {self.token}"}
        return self.serve.far.ask("POST", "/", body.encode(), **authorization)

    def state(self, job_id: str) -> str:
        """What anyone may read."""
        answer = self.serve.far.ask("GET", f"/compute.job_status?job_id={job_id}")
        assert answer.status == 200, answer
        return str(answer.json["state"])

    def ready(self, status: int) -> Answer:
        """The answer of this status, which comes once it is found out anew."""
        found: list[Answer] = []

        def has_status() -> bool:
            found.append(self.serve.far.ask("GET", "/readyz"))
            return found[-1].status == status

        until(has_status)
        return found[-1]

    def logged(self) -> str:
        return self.log.read_text()


def is_done(answer: Answer) -> bool:
    return answer.status == 200 and "result" in answer.json


def submit_jobs(cli: Cli, jobs: int) -> None:
    cli.post(units=1_000_000)
    inputs = [slice_of(10)]

    def act(txn: Txn) -> None:
        for number in range(jobs):
            submit(txn, job_request(f"j{number}", inputs), inputs)

    cli.update(act)


@contextmanager
def process(cli: Cli, directory: Path) -> Iterator[Served]:
    log = directory / f"log-{time.monotonic_ns()}"
    with log.open("wb") as err:
        serve = Process(cli, stderr=err)
    try:
        token = cli.ok("serve", "token").strip()
        yield Served(cli, serve, token, count(), log)
    finally:
        serve.process.kill()
        serve.process.communicate()


@pytest.fixture(scope="module")
def cli_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    with pytest.MonkeyPatch.context() as patch:
        directory = tmp_path_factory.mktemp("served")
        with operating(directory, patch) as cli:
            patch.setenv("TB_LOCK_TIMEOUT_SECS", "1")
            patch.setenv("TB_COURIER_TIMEOUT_SECS", "1")
            submit_jobs(cli, _JOBS)
            yield cli


@pytest.fixture(scope="module")
def served(cli_of_all: Cli) -> Iterator[Served]:
    with process(cli_of_all, cli_of_all.directory) as found:
        yield found


# Clients.


def test_many_idle_connections_are_bounded_and_others_answered(served: Served) -> None:
    """Those beyond the limit are closed, whatever the rest of them does."""
    many = effort(300, 10_000)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, many + 1000), hard))
    files = 32 + 4 * (many // 10)  # of the server, which so keeps a tenth of them
    pid = served.serve.process.pid
    allowed = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (files, allowed[1]))
    idle = []
    try:
        for number in range(many):
            idle.append(socket.create_connection(("127.0.0.1", served.serve.far.port), timeout=20))
            if number % (many // 10) == 0:
                assert is_up(served)
        assert len(os.listdir(f"/proc/{pid}/fd")) < files
        until(lambda: is_up(served))
    finally:
        for each in idle:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, allowed)
    assert served.serve.far.ask("GET", "/healthz").status == 200


def is_up(served: Served) -> bool:
    with suppress(OSError, HTTPException):
        return served.serve.far.ask("GET", "/healthz").status == 200
    return False


def test_heads_and_bodies_that_drip_are_given_up(served: Served) -> None:
    """A byte now and then keeps no connection: what counts is when it is whole."""
    heads = b"POST / HTTP/1.1\r\nHost: localhost\r\nX: "
    bodies = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
    address = ("127.0.0.1", served.serve.far.port)
    with ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(40)
        ]
        for number, each in enumerate(slow):
            each.sendall(bodies if number % 2 else heads)
        began = time.monotonic()
        left = set(slow)
        while left:
            assert time.monotonic() - began < 15
            assert served.serve.far.ask("GET", "/healthz").status == 200
            for each in list(left):
                try:
                    each.sendall(b"x")
                    if each.recv(2**16, socket.MSG_DONTWAIT) != b"":
                        left.discard(each)  # It was told 408.
                except BlockingIOError:
                    pass
                except OSError:
                    left.discard(each)
            time.sleep(0.1)


def test_answers_that_nobody_reads_keep_no_connection() -> None:
    big = bytes(2**25)

    async def answer(request: Request) -> Response:
        return Response(big)

    with RequestLog() as log:
        app = server.application({"/": {"GET": answer}}, HOSTS, log)
        with answering(app, log, patience_s=1) as far, socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.settimeout(20)
            deaf.connect(("127.0.0.1", far.port))
            deaf.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
            # An answer that is read, however slowly, comes whole all the same.
            assert far.ask("GET", "/").body == big
            until(lambda: has_gone(deaf))


def has_gone(connection: socket.socket) -> bool:
    """Whether the other side has closed a connection, without reading what it had sent."""
    try:
        connection.send(b"x")
    except OSError:
        return True
    return False


def test_client_that_goes_while_its_change_is_under_way_has_it_made(served: Served) -> None:
    """The commit stands: whoever asks again is told that nothing is to be done."""
    job_id = served.job()
    call = json.dumps({"method": "compute.job_cancel", "params": {"job_id": job_id}})
    head = (
        f"POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {served.token}\r\n"
        f"Content-Length: {len(call)}\r\n\r\n"
    )
    with locked(served.cli.home / "market" / "write.lock"):
        with socket.create_connection(("127.0.0.1", served.serve.far.port)) as connection:
            connection.sendall((head + call).encode())
            until(lambda: waits_for_lock(served))
        assert served.state(job_id) != "cancelled"
    until(lambda: served.state(job_id) == "cancelled")
    assert is_done(served.cancel(job_id))


def waits_for_lock(served: Served) -> bool:
    """Whether the server is at the turnstile of the write lock, which is the directory."""
    return holder_of(str(served.cli.home / "market")) == served.serve.process.pid


# The market.


def test_disk_that_is_full_puts_off_changes_and_nothing_else(served: Served) -> None:
    first, second = served.job(), served.job()
    served.ready(200)
    pid = served.serve.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        answers = [served.cancel(first) for _ in range(3)]
        assert [each.status for each in answers] == [503] * 3
        assert all(each.headers["retry-after"].isdecimal() for each in answers)
        assert all(each.json["error"]["data"]["retryable"] for each in answers)
        assert served.state(first) != "cancelled"
        assert served.serve.far.ask("GET", "/healthz").status == 200
        answer = served.ready(503)
        assert (answer.status, answer.json["reason"]) == (503, "no_room")
        assert answer.headers["retry-after"].isdecimal()
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    assert all(is_done(served.cancel(job_id)) for job_id in (first, second))
    assert served.state(first) == "cancelled"
    assert served.ready(200).json == {"status": "ready"}


def test_process_that_holds_the_lock_and_is_stopped_is_told_and_waited_for(
    served: Served,
) -> None:
    job_id = served.job()
    lock = served.cli.home / "market" / "write.lock"
    holder = subprocess.Popen([sys.executable, "-c", _HOLDING, lock], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.send_signal(signal.SIGSTOP)
        answer = served.cancel(job_id)
        assert (answer.status, answer.json["error"]["data"]["error"]) == (503, "busy")
        assert served.state(job_id) != "cancelled"
        answer = served.ready(503)
        assert (answer.status, answer.json["reason"]) == (503, "busy")
        assert str(holder.pid) not in answer.body.decode()  # That is the operator's to know.
        assert f"held by process {holder.pid} and is stopped" in served.logged()
    finally:
        holder.kill()
        holder.communicate()
    assert is_done(served.cancel(job_id))
    served.ready(200)


def test_commands_beside_it_and_requests_both_get_on(served: Served) -> None:
    mine = [served.job() for _ in range(effort(3, 50))]
    theirs: list[str] = []
    failed: list[str] = []
    over = Event()

    def ask() -> None:
        while not over.is_set():
            job_id = served.job()
            answer = served.cancel(job_id)
            (theirs if is_done(answer) else failed).append(job_id)

    asking = Thread(target=ask)
    asking.start()
    try:
        for job_id in mine:
            done = served.cli.process("compute", "cancel", job_id)
            assert done.code == 0, done
    finally:
        over.set()
        asking.join()
    assert failed == []
    assert len(theirs) >= len(mine)
    assert {served.state(job_id) for job_id in (*mine, *theirs)} == {"cancelled"}


def test_market_of_a_newer_release_is_not_changed(served: Served) -> None:
    """It came while the server ran, which has to be started anew from that release."""
    job_id = served.job()

    newer = META.sealed(b"schema", bytes((SCHEMA_VERSION + 1,)))
    before = exchanged_schema(served.cli, newer)
    try:
        assert served.cancel(job_id).status == 500
        answer = served.ready(503)
        assert (answer.status, answer.json["reason"]) == (503, "market")
        assert "was written with schema" in served.logged()
    finally:
        exchanged_schema(served.cli, before)
    served.ready(200)


def exchanged_schema(cli: Cli, value: bytes) -> bytes:
    """What a market that is in use says of its schema, which says something else from now on."""
    with (
        lmdb.open(str(cli.home / "market"), max_dbs=256) as environment,
        environment.begin(write=True) as txn,
    ):
        table = environment.open_db(META.name.encode(), txn=txn)
        found: bytes = txn.get(b"schema", db=table)
        txn.put(b"schema", value, db=table)
        return found


# What ends it.


def test_killed_server_leaves_a_market_in_which_all_that_it_answered_is_done(
    cli: Cli, tmp_path: Path
) -> None:
    rng = Random(12)
    submit_jobs(cli, effort(100, 2000))
    numbers = count()
    for _ in range(effort(1, 20)):
        with process(cli, tmp_path) as found:
            done = cancelled_until_killed(found._replace(numbers=numbers), rng.randint(1, 20))
        assert all(cli.view(partial(is_cancelled, job_id)) for job_id in done)
        assert cli.violations() == []


def cancelled_until_killed(served: Served, least: int) -> list[str]:
    """The jobs that a server said it had cancelled, at least so many, before it was killed."""
    done: list[str] = []

    def ask() -> None:
        with suppress(OSError, HTTPException):
            while True:
                job_id = served.job()
                if is_done(served.cancel(job_id)):
                    done.append(job_id)

    asking = Thread(target=ask)
    asking.start()
    until(lambda: len(done) >= least)
    served.serve.process.kill()
    asking.join()
    return done


def is_cancelled(job_id: str, txn: Txn) -> bool:
    return jobs.get(txn, job_id).state == "cancelled"


def test_clock_that_is_not_believed_bars_neither_reading_nor_what_commands_may_do(
    cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.active("j1", "j2")
    cli.set_clock(-3600)
    by_command = cli("compute", "cancel", "j1")
    assert by_command.code == 0
    token = cli("serve", "token").out.strip()
    with serving() as far:
        for path in ("/healthz", "/readyz", "/compute.job_status?job_id=j1"):
            assert far.ask("GET", path).status == 200
        call = json.dumps({"method": "compute.job_cancel", "params": {"job_id": "j2"}})
        answer = far.ask("POST", "/", call.encode(), Authorization=f"Bearer {token}")
        assert (answer.status, answer.json["state"]) == (200, "cancelled")
        cli.set_clock(3600)
        assert far.ask("GET", "/healthz").status == 200
        cli.set_clock(-3600)
        assert far.ask("GET", "/healthz").status == 200
    # Once each time that it begins, and not with each request.
    assert capsys.readouterr().err.count(by_command.err.splitlines()[0]) == 2
    cli.set_clock(3600)
