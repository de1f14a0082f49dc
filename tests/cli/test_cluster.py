"""`--executor dask://HOST:PORT`, on a scheduler and workers that are processes of their own.

One cluster serves all tests. Its processes, and the commands, are forked from one that has imported
what they need, but for those that a test gives an environment of their own. Tests may kill any part
of it: `cluster.up()` puts it together again. Its workers have a workload `held`, the BLAKE3 digest
of a slice, which notes that it began and waits as long as the test says, and `deadly`, which kills
its worker.
"""

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from tests.support.cli import HELLO, MIB, NOT_PAID, Cli, Done, without
from tests.support.effort import effort
from tests.support.forked import Forked, Server

pytest_plugins = ("tests.support.cli",)

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = """
import os, signal, time
from blake3 import blake3
marks = os.environ.get("TEST_MARKS")  # Only workers have it.
def held(path, descriptor, length):
    content = os.read(descriptor, length)
    if marks:
        name = os.path.basename(path)
        open(f"{marks}/began-{name}-{os.getpid()}", "w").close()
        while os.path.exists(f"{marks}/hold-all") or os.path.exists(f"{marks}/hold-{name}"):
            time.sleep(0.01)
    return blake3(content).digest()
def deadly(path, descriptor, length):
    if marks:
        os.kill(os.getpid(), signal.SIGKILL)
    return held(path, descriptor, length)
"""
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "compute_market":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""
# A number that no process uses for a file of its own.
DESCRIPTOR = 200
SECONDS = 30


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_until(is_so: Callable[[], Any]) -> None:
    until = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


# A process of a cluster.
Part = subprocess.Popen[bytes] | Forked


class Cluster:
    def __init__(self, directory: Path, forks: Server) -> None:
        self.directory = directory
        self.forks = forks
        self.marks = directory / "marks"
        self.marks.mkdir()
        self.packages = directory / "packages"
        (self.packages / "plugin-1.0.dist-info").mkdir(parents=True)
        (self.packages / "plugin-1.0.dist-info" / "METADATA").write_text(
            "Name: plugin\nVersion: 1.0\n"
        )
        (self.packages / "plugin-1.0.dist-info" / "entry_points.txt").write_text(
            "[compute_market.workloads]\nheld = held_plugin:held\ndeadly = held_plugin:deadly\n"
        )
        (self.packages / "held_plugin.py").write_text(PLUGIN)
        self.blocked = directory / "blocked"
        self.blocked.mkdir()
        (self.blocked / "sitecustomize.py").write_text(BLOCKER)
        decoy = directory / "decoy"
        decoy.write_bytes(b"HELLO")
        self.decoy = os.open(decoy, os.O_RDONLY)
        self.port = free_port()
        self.scheduler: Part | None = None
        self.workers: list[Part] = []
        self.logs: dict[int, Path] = {}

    @property
    def where(self) -> str:
        return f"dask://127.0.0.1:{self.port}"

    @property
    def python_path(self) -> str:
        return os.pathsep.join((str(self.packages), str(ROOT)))

    def up(self, workers: int = 2) -> None:
        """A scheduler, so many workers, nothing held."""
        for mark in self.marks.iterdir():
            mark.unlink()
        if self.scheduler is None or self.scheduler.poll() is not None:
            self.kill(*self.workers)
            self.port = free_port()
            self.scheduler = self.start(
                *("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--no-show"),
                *("--port", str(self.port)),
            )
        alive = [worker for worker in self.workers if worker.poll() is None]
        self.kill(*alive[workers:])
        self.workers = alive[:workers]
        for _ in range(workers - len(self.workers)):
            self.workers.append(self.worker())
        # Workers that come first wait for the scheduler.
        self.wait_for("Scheduler at", self.scheduler)
        for worker in self.workers:
            self.wait_for("Starting established connection", worker)

    def worker(self, python_path: str | None = None) -> Part:
        """A worker whose descriptor 200 is open on a file that nobody asked it to run."""
        limits = ("--no-nanny", "--nthreads", "1", "--memory-limit", "0", "--host", "127.0.0.1")
        return self.start(
            *("distributed.cli.dask_worker", f"tcp://127.0.0.1:{self.port}", *limits),
            *("--local-directory", str(self.directory)),
            python_path=python_path,
        )

    def start(self, module: str, *words: str, python_path: str | None = None) -> Part:
        """Start a part of the cluster; with other packages than the rest has, afresh."""
        os.dup2(self.decoy, DESCRIPTOR)
        path = self.directory / f"{len(self.logs)}.log"
        environment = os.environ | {
            "PYTHONPATH": python_path or self.python_path,
            "TEST_MARKS": str(self.marks),
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "2",
        }
        words = (*words, "--no-dashboard")
        process: Part
        try:
            with open(path, "wb") as log, open(os.devnull, "rb") as nothing:
                if python_path is None:
                    process = self.forks.start(
                        module,
                        *words,
                        environment=environment,
                        stdin=nothing.fileno(),
                        stdout=log.fileno(),
                        stderr=log.fileno(),
                        pass_fds=(DESCRIPTOR,),
                    )
                else:
                    process = subprocess.Popen(
                        [sys.executable, "-m", module, *words],
                        stdin=nothing,
                        stdout=log,
                        stderr=log,
                        pass_fds=(DESCRIPTOR,),
                        env=environment,
                    )
        finally:
            os.close(DESCRIPTOR)
        self.logs[process.pid] = path
        return process

    def wait_for(self, words: str, process: Part) -> None:
        log = self.logs[process.pid]
        wait_until(lambda: words in log.read_text())

    def kill(self, *processes: Part | None) -> None:
        found = [process for process in processes if process is not None]
        for process in found:
            process.send_signal(signal.SIGKILL)
        for process in found:
            process.wait(SECONDS)

    def hold(self, name: str = "all") -> None:
        (self.marks / f"hold-{name}").touch()

    def let_go(self) -> None:
        for mark in self.marks.glob("hold-*"):
            mark.unlink()

    def began(self, name: str = "*") -> list[int]:
        """The ids of the workers that began slices of that name."""
        return [int(mark.name.split("-")[-1]) for mark in self.marks.glob(f"began-{name}-*")]


@pytest.fixture(scope="module")
def dask() -> None:
    if missing := without("python:distributed"):
        pytest.skip(missing)


@pytest.fixture(scope="module")
def forks(dask: None) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        # It is read when `distributed` is imported.
        patch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "2")
        server = Server(
            *("distributed", "distributed.cli", "tb_cli.tree", "tb_cli.frame.guard"),
            *("compute_market.engine", "compute_market.workloads.runner"),
        )
    yield server
    server.close()


@pytest.fixture
def commands(cli: Cli, forks: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of `cli.process` and `cli.start` are forked."""

    def start(
        *arguments: str | Path,
        stdin: bytes = b"",
        stderr: int = subprocess.PIPE,
        pass_fds: Sequence[int] = (),
    ) -> Forked:
        read, write = os.pipe()
        os.write(write, stdin)
        os.close(write)
        words = map(str, arguments)
        try:
            return forks.start(
                *("tb_cli.entry", *words),
                environment=os.environ,
                stdin=read,
                stderr=stderr,
                pass_fds=pass_fds,
            )
        finally:
            os.close(read)

    def process(*arguments: str | Path, **extra: Any) -> Done:
        return finished(start(*arguments, **extra))

    monkeypatch.setattr(cli, "start", start)
    monkeypatch.setattr(cli, "process", process)


@pytest.fixture(scope="module")
def started(forks: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), forks)
    yield cluster
    cluster.kill(*cluster.workers, cluster.scheduler)
    os.close(cluster.decoy)


@pytest.fixture
def cluster(started: Cluster, commands: None, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    started.up()
    monkeypatch.setenv("PYTHONPATH", started.python_path)
    return started


@pytest.fixture
def workerless(started: Cluster, commands: None, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    started.up(workers=0)
    monkeypatch.setenv("PYTHONPATH", started.python_path)
    return started


def submit(cli: Cli, workload: str = "held", count: int = 6) -> list[Path]:
    """An active job `j1` of so many short slices."""
    cli.post()
    slices = [cli.slice(f"s{number}", f"slice {number}".encode()) for number in range(count)]
    given = [text for path in slices for text in ("--slice", str(path))]
    terms = ("--job-id", "j1", "--buyer", "alice", "--workload", workload, "--max-price", "100")
    assert cli.process("compute", "submit", *terms, *given).code == 0
    return slices


def finished(process: Part) -> Done:
    out, err = process.communicate(timeout=SECONDS)
    return Done(process.returncode, out.decode(), err.decode())


def assert_busy(done: Done, where: str, message: str) -> None:
    """One line about the cluster, and a hint to run the command again."""
    assert done.code == 8
    error, hint = done.err.splitlines()
    assert error == f"error[busy]: {where}: {message}"
    assert hint.startswith("hint: ")
    assert "run the command again" in hint


def test_execute_completes_a_job_on_a_cluster(cli: Cli, cluster: Cluster) -> None:
    submit(cli)
    done = cli.process("compute", "execute", "j1", "--executor", cluster.where)
    assert done == (
        0,
        f"executed job j1: 6 of 6 slices proven, completed{NOT_PAID}\n",
        "",
    )
    assert cli.job()["state"] == "completed"
    assert set(cluster.began()) == {worker.pid for worker in cluster.workers}
    # Nothing is run twice, and a cluster is not even needed.
    done = cli.process("compute", "execute", "j1", "--executor", cluster.where, "--json")
    assert (done.code, done.json["changed"], len(cluster.began())) == (0, False, 6)


def test_execute_dry_run_on_a_cluster_changes_nothing(cli: Cli, cluster: Cluster) -> None:
    submit(cli)
    done = cli.process("compute", "execute", "j1", "-n", "--executor", cluster.where)
    assert done == (
        0,
        f"dry_run: executed job j1: 6 of 6 slices proven, completed{NOT_PAID}\n",
        "",
    )
    assert cli.job()["slices_proven"] == 0


def test_run_on_a_cluster_prints_the_same(cli: Cli, cluster: Cluster) -> None:
    names = [f"{number}" for number in range(1500)]
    for number, name in enumerate(names):
        cli.slice(name, name.encode() * (number * 97 % 3000))
    cli.slice("long", bytes(70 * MIB))
    paths = [*names, "-", "long", "nope", "0"]
    expected = cli.process("compute", "run", *paths, stdin=b"x")
    assert expected.code == 7
    assert cli.process("compute", "run", *paths, "--executor", "threads", stdin=b"x") == expected
    done = cli.process("compute", "run", *paths, "--executor", cluster.where, stdin=b"x")
    assert done == expected


def test_run_sends_the_bytes_of_files_that_workers_do_not_see(cli: Cli, cluster: Cluster) -> None:
    """A descriptor leads to a file here, to another there, or to none."""
    contents = [b"hello", b"", bytes(MIB), b"x" * (8 * MIB), bytes(64 * MIB + 1), *[b"y"] * 40]
    opened = []
    for number, content in enumerate(contents):
        file = os.open(cli.slice(f"s{number}", content), os.O_RDONLY)
        opened.append(os.dup2(file, DESCRIPTOR + number))
        os.close(file)
    paths = [f"/proc/self/fd/{descriptor}" for descriptor in opened]
    try:
        for workload in ("transcode", "held"):
            done = cli.process(
                *("compute", "run", *paths, "--workload", workload, "--executor", cluster.where),
                pass_fds=opened,
            )
            lines = zip(contents, paths, strict=True)
            expected = [f"{blake3(content).hexdigest()}  {path}\n" for content, path in lines]
            assert done == (0, "".join(expected), "")
            assert done.out.startswith(HELLO)
    finally:
        for descriptor in opened:
            os.close(descriptor)
    # One ran here, for it is too long to be sent.
    assert len(cluster.began()) == len(contents) - 1


def test_worker_killed_in_the_middle_is_made_up_for(cli: Cli, cluster: Cluster) -> None:
    submit(cli)
    cluster.hold()
    process = cli.start("compute", "execute", "j1", "--executor", cluster.where)
    wait_until(lambda: len(cluster.began()) == 2)
    cluster.kill(cluster.workers[0])
    cluster.let_go()
    assert finished(process) == (
        0,
        f"executed job j1: 6 of 6 slices proven, completed{NOT_PAID}\n",
        "",
    )


def test_execute_without_any_worker_left_keeps_what_is_proven(cli: Cli, cluster: Cluster) -> None:
    submit(cli)
    cluster.hold("s3")
    where = ("--executor", cluster.where, "--cluster-timeout", "1")
    process = cli.start("compute", "execute", "j1", *where)
    wait_until(lambda: len(cluster.began()) == 6)
    # Longer than the cluster is given: with live workers a slice may take as long as it wants.
    time.sleep(1.5)
    assert process.poll() is None
    cluster.kill(*cluster.workers)
    assert_busy(finished(process), cluster.where, "no worker within 1 s")
    assert (cli.job()["state"], cli.job()["slices_proven"]) == ("active", 3)
    cluster.up()
    done = cli.process("compute", "execute", "j1", *where)
    assert done == (
        0,
        f"executed job j1: 6 of 6 slices proven, completed{NOT_PAID}\n",
        "",
    )


WORKERS = (
    "hint: busy: start workers; then run the command again; `compute execute` goes on where it "
    "stopped\n"
)


def test_execute_of_many_waits_for_a_lost_cluster_only_once(cli: Cli, cluster: Cluster) -> None:
    submit(cli, count=1)
    cli.submit("j2")
    cluster.hold()
    where = ("--executor", cluster.where, "--cluster-timeout", "2")
    process = cli.start("compute", "execute", "j1", "j2", *where)
    wait_until(cluster.began)
    cluster.kill(*cluster.workers)
    text = f"{cluster.where}: no worker within 2 s"
    done = finished(process)
    assert done == (8, f"j1: {text}\nj2: {text}\n", f"2 of 2 failed: 2 busy\n{WORKERS}")


def test_execute_of_many_goes_on_after_a_job_that_failed(cli: Cli, cluster: Cluster) -> None:
    """What the first job had still under way is given up; the cluster is as good as before."""
    slices = submit(cli)
    cli.submit("j2")
    slices[1].unlink()
    cluster.hold("s3")
    done = cli.process("compute", "execute", "j1", "j2", "--executor", cluster.where)
    assert done.code == 7
    assert done.out == (
        f"j1: {slices[1]}: no such file\n"
        f"executed job j2: 1 of 1 slices proven, completed{NOT_PAID}\n"
    )
    assert cli.job()["slices_proven"] == 1
    cluster.let_go()


def test_scheduler_killed_in_the_middle_is_busy_at_once(cli: Cli, cluster: Cluster) -> None:
    submit(cli)
    cluster.hold()
    process = cli.start("compute", "execute", "j1", "--executor", cluster.where)
    wait_until(lambda: len(cluster.began()) == 2)
    cluster.kill(cluster.scheduler)
    began = time.monotonic()
    assert_busy(finished(process), cluster.where, "the scheduler went away")
    assert time.monotonic() - began < 15
    assert cli.job()["state"] == "active"


def test_scheduler_that_hangs_in_the_middle_is_busy_in_time(cli: Cli, cluster: Cluster) -> None:
    submit(cli)
    cluster.hold()
    assert cluster.scheduler is not None
    process = cli.start(
        *("compute", "execute", "j1", "--executor", cluster.where, "--cluster-timeout", "1")
    )
    wait_until(lambda: len(cluster.began()) == 2)
    cluster.scheduler.send_signal(signal.SIGSTOP)
    try:
        assert_busy(finished(process), cluster.where, "no scheduler within 1 s: no answer")
    finally:
        # Gone on, it would start the other slices while the next test runs.
        cluster.kill(cluster.scheduler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_the_wait_for_a_cluster(
    number: signal.Signals, code: int, cli: Cli, cluster: Cluster
) -> None:
    submit(cli)
    cluster.hold()
    process = cli.start("compute", "execute", "j1", "--executor", cluster.where)
    wait_until(lambda: len(cluster.began()) == 2)
    process.send_signal(number)
    assert finished(process) == (code, "", "")
    cluster.let_go()
    assert cli.job()["slices_proven"] == 0


def test_slice_that_kills_its_workers_is_busy(cli: Cli, cluster: Cluster) -> None:
    submit(cli, "deadly", 1)
    cluster.workers.append(cluster.worker())
    done = cli.process("compute", "execute", "j1", "--executor", cluster.where)
    message = "3 workers died, one after the other, while they ran the same slices"
    assert_busy(done, cluster.where, message)


def test_workers_without_the_library_or_the_workload_are_told(
    cli: Cli, workerless: Cluster
) -> None:
    submit(cli, count=1)
    where = ("--executor", workerless.where)
    for python_path, message in (
        (str(workerless.blocked), "a worker cannot run slices: No module named 'compute_market'"),
        (str(ROOT), "on a worker: unknown workload 'held'"),
    ):
        workerless.kill(*workerless.workers)
        workerless.workers = [workerless.worker(python_path)]
        done = cli.process("compute", "execute", "j1", *where)
        assert (done.code, done.err.count("\n")) == (2, 2)
        assert message in done.err
        assert "\nhint: install the same" in done.err
        # It was not the end of the worker.
        assert workerless.workers[0].poll() is None
    workerless.kill(*workerless.workers)


def test_cluster_without_workers_is_busy(cli: Cli, workerless: Cluster) -> None:
    cli.slice()
    where = ("--executor", workerless.where, "--cluster-timeout", "1")
    done = cli.process("compute", "run", "a.slice", *where)
    assert_busy(done, workerless.where, "no worker within 1 s")
    done = cli.process("compute", "run", "a.slice", *where, "--json")
    assert (done.code, done.out, done.error["retryable"]) == (8, "", True)


def test_port_where_nobody_listens_is_busy(commands: None, cli: Cli) -> None:
    cli.slice()
    where = f"dask://127.0.0.1:{free_port()}"
    arguments = ("compute", "run", "a.slice", "--executor", where, "--cluster-timeout", "4")
    message = "no scheduler within 4 s: connection refused"
    assert_busy(cli.process(*arguments), where, message)


def test_peer_that_never_answers_is_busy_in_time(commands: None, cli: Cli) -> None:
    cli.slice()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = f"dask://127.0.0.1:{listener.getsockname()[1]}"
        began = time.monotonic()
        done = cli.process(
            *("compute", "run", "a.slice", "--executor", where, "--cluster-timeout", "1")
        )
        assert time.monotonic() - began < 10
    assert_busy(done, where, "no scheduler within 1 s: no answer")


def test_peer_that_is_no_scheduler_is_one_line(commands: None, cli: Cli) -> None:
    cli.slice()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = f"dask://127.0.0.1:{listener.getsockname()[1]}"
        process = cli.start(
            *("compute", "run", "a.slice", "--executor", where, "--cluster-timeout", "2")
        )
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            done = finished(process)
    assert done.code == 8
    assert done.err.startswith(f"error[busy]: {where}: ")
    assert done.err.count("\n") == 2


def test_execute_connects_only_to_run_slices(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing to run, neither a cluster nor the extra is needed."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    cli.active("j1", "j2")
    assert cli("compute", "execute", "j1").code == 0
    cli.ok("compute", "cancel", "j2")
    where = ("--executor", "dask://127.0.0.1:1", "--cluster-timeout", "1")
    done = cli("compute", "execute", "j1", *where)
    assert done == (0, "job j1 exists, unchanged: 1 of 1 slices proven, completed\n", "")
    assert cli("compute", "execute", "nope", *where).code == 3
    assert cli("compute", "execute", "j2", *where).code == 4
    done = cli("compute", "run", "nope", "-", *where, stdin=b"hello")
    assert (done.code, done.out) == (7, f"{HELLO}  -\n")
    # Options that cannot hold are told all the same.
    assert cli("compute", "execute", "j1", *where, "--workers", "2").code == 2
    assert cli("compute", "execute", "j1", *where, "--backend", "cuda").code == 2


def test_cluster_that_cannot_be_had_is_waited_for_only_once(commands: None, cli: Cli) -> None:
    cli.active("j1", "j2")
    where = f"dask://127.0.0.1:{free_port()}"
    began = time.monotonic()
    arguments = ("compute", "execute", "nope", "j1", "j2", "--executor", where)
    done = cli.process(*arguments, "--cluster-timeout", "4")
    assert time.monotonic() - began < 8
    text = f"{where}: no scheduler within 4 s: connection refused"
    assert done == (
        7,
        f"job nope does not exist\nj1: {text}\nj2: {text}\n",
        "3 of 3 failed: 1 not_found, 2 busy\n"
        "hint: not_found: see `tb-cli compute list`\n"
        "hint: busy: check the address and that the scheduler runs; then run the command again; "
        "`compute execute` goes on where it stopped\n",
    )
    assert cli.states() == {"j1": "active", "j2": "active"}


def test_long_wait_is_told_once_on_a_terminal(commands: None, cli: Cli) -> None:
    cli.slice()
    master, slave = pty.openpty()
    where = f"dask://127.0.0.1:{free_port()}"
    terms = ("--executor", where, "--cluster-timeout", "3")
    process = cli.start("compute", "run", "a.slice", *terms, stderr=slave)
    assert process.wait(SECONDS) == 8
    os.close(slave)
    shown = os.read(master, 10_000).decode()
    os.close(master)
    shown = re.sub(r"\x1b\[[0-9]*m", "", shown)
    assert shown.startswith(f"waiting for a worker at {where}\r\nerror[busy]: ")
    assert shown.count("waiting for") == 1


def test_wait_for_workers_is_told_on_a_terminal(cli: Cli, workerless: Cluster) -> None:
    cli.slice()
    master, slave = pty.openpty()
    process = cli.start("compute", "run", "a.slice", "--executor", workerless.where, stderr=slave)
    os.close(slave)
    assert os.read(master, 10_000).decode() == f"waiting for a worker at {workerless.where}\r\n"
    workerless.up(workers=1)
    out, _ = process.communicate(timeout=SECONDS)
    assert (process.returncode, out.decode()) == (0, f"{HELLO}  a.slice\n")
    os.close(master)


def test_tls_file_that_is_missing_is_named(
    dask: None, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cli.slice()
    keys = ("ca-file", "client.cert", "client.key")
    hint = ", ".join(f"distributed.comm.tls.{key}" for key in keys)
    for present in (0, 3, 1, 2)[: effort(2, 4)]:
        for number, key in enumerate(keys):
            variable = f"distributed.comm.tls.{key}".replace(".", "__").replace("-", "_").upper()
            monkeypatch.setenv(f"DASK_{variable}", str(path if number < present else "/none/it"))
        done = cli.process("compute", "run", path, "--executor", "dask://127.0.0.1:1")
        assert (done.code, done.out) == (2, "")
        message, told = done.err.splitlines()
        assert message.startswith("error[usage]: Dask's own configuration: ")
        assert told == f"hint: {hint} name files in PEM format"
        if present < 3:
            named = f"distributed.comm.tls.{keys[present]}: /none/it: no such file or directory"
            assert message.endswith(named)


@pytest.mark.parametrize(
    "where",
    [
        "",
        "dask",
        "Threads",
        "threads:2",
        "dask:",
        "dask://",
        "dask://host",
        "dask://host:",
        "dask://:8786",
        "dask://host:0",
        "dask://host:65536",
        "dask://host:-1",
        "dask://host:+1",
        "dask://host:8786x",
        "dask://host:٣",
        "dask://host:8786/",
        "dask://host:8786/path",
        "dask://host:8786?x=1",
        "dask://host:8786#x",
        "dask://user@host:8786",
        "dask://user:word@host:8786",
        "dask://ho st:8786",
        "dask://host:8786\n",
        "dask://-host:8786",
        "dask://ho..st:8786",
        f"dask://{'a' * 64}:8786",
        "dask://höst:8786",
        "dask://::1:8786",
        "dask://[::1]",
        "dask://[]:8786",
        "dask://[::g]:8786",
        "dask://[host]:8786",
        "DASK://host:8786",
        "tcp://host:8786",
        "tls://host:8786",
        "http://host:8786",
        "host:8786",
    ],
)
def test_executor_of_another_form_is_usage(where: str, cli: Cli) -> None:
    cli.slice()
    hint = "hint: for example dask://scheduler.example:8786 or dask://[::1]:8786\n"
    text = f"error[usage]: --executor {where!a} is neither threads nor dask://HOST:PORT\n"
    assert cli("compute", "run", "a.slice", "--executor", where) == (2, "", text + hint)
    assert cli("compute", "execute", "j1", "--executor", where) == (2, "", text + hint)


@pytest.mark.parametrize(
    ("where", "address"),
    [
        ("dask://localhost:1", "localhost:1"),
        ("dask://scheduler_1.example.org.:65535", "scheduler_1.example.org.:65535"),
        ("dask://10.0.0.1:08786", "10.0.0.1:8786"),
        ("dask://[fe80::1%eth0]:8786", "[fe80::1%eth0]:8786"),
    ],
)
def test_scheduler_address_is_what_dask_is_given(where: str, address: str) -> None:
    from tb_cli.network.cluster import scheduler_address

    assert scheduler_address(where) == address


def test_workers_are_no_matter_of_a_cluster(cli: Cli) -> None:
    cli.slice()
    done = cli("compute", "run", "a.slice", "--executor", "dask://host:1", "--workers", "2")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[usage]: --workers 2 is about threads, and --executor dask://")


@pytest.mark.parametrize("timeout", ["0", "-1", "86401", "1.5", "x"])
def test_cluster_timeout_is_whole_seconds(timeout: str, cli: Cli) -> None:
    done = cli("compute", "run", "a.slice", "--cluster-timeout", timeout)
    assert (done.code, done.out) == (2, "")
    assert "--cluster-timeout" in done.err.splitlines()[0]


def test_cluster_without_the_extra_is_usage(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.slice()
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert cli("compute", "run", "a.slice", "--executor", "dask://host:1") == (
        2,
        "",
        "error[usage]: --executor dask://… needs a package that is not installed: distributed\n"
        "hint: pip install '.[cluster]' in the source directory of tb-cli\n",
    )


def test_commands_without_a_cluster_do_not_load_one(cli: Cli) -> None:
    cli.slice()
    words = ("compute", "run", "a.slice", "--executor", "threads")
    done = cli.process(*words, afresh=True, env=_showing_imports())
    assert done.code == 0
    loaded = {line.rpartition("|")[2].strip() for line in done.err.splitlines()}
    assert "compute_market.workloads.runner" in loaded
    assert loaded.isdisjoint(
        ("distributed", "dask", "tb_cli.network.cluster", "logging", "asyncio")
    )


def _showing_imports() -> dict[str, str]:
    return os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}
