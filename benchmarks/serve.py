"""Claims: on one core `tb-cli serve` answers 1500 `job_status` a second, or cancels 300 jobs, each
durable before it is answered. With a loop of commands beside, 99 % take less than 50 ms.

Peer: a bare Starlette route that reads one key of LMDB, under the same configuration of uvicorn.
The load comes from `wrk`, or without it from a smaller generator here, in another process on the
other core. The server logs each request to a file.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import lmdb
import measure
from load import Load, Rate, address_of, rate_of

STATUS_BOUND = 1500
CANCEL_BOUND = 300
P99_BOUND_MS = 50.0
PEER_BOUND = 2.5  # × the time of a request to the peer
SLOW_CLIENTS = 200
CANCELS_MAX = 1_500  # that are prepared for a second
TOOL = Path(sys.executable).parent / "tb-cli"
SERVER_CORE = {min(os.sched_getaffinity(0))}


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--peer", metavar="DIRECTORY", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peer:
        serve_peer(given.peer)
    else:
        compare(quick=given.quick)


def compare(*, quick: bool) -> None:
    seconds, rounds = (1, 3) if quick else (3, 5)
    jobs = rounds * len(BESIDE) * seconds * CANCELS_MAX
    if shutil.which("wrk") is None:
        print("wrk is not there (Debian's package of that name): the load is that of this script")
    with measure.scratch(on_disk=True) as directory:
        home = directory / "home"
        job_ids = measure.funded_jobs(home, jobs)
        os.sync()
        env = measure.environment(home) | {"TB_SCHEDULER_SLOTS": str(jobs)}
        with peer(directory) as peer_url, serving(env, directory / "log") as url:
            token = token_of(env)
            bench = Bench(directory, seconds, iter(job_ids), token)
            reads = bench.reads(job_ids[-1])
            for beside in BESIDE:
                with beside(env, url) as what:
                    found = bench.rounds(rounds, reads, url, peer_url)
                    report(what, found)
        check_cancelled(env, bench.cancelled)
    measure.finish()


class Bench:
    """What is asked, and how often it was answered."""

    def __init__(self, directory: Path, seconds: int, job_ids: Iterator[str], token: str) -> None:
        self._directory = directory
        self._seconds = seconds
        self._job_ids = job_ids
        self._token = token
        self.cancelled = 0

    def reads(self, job_id: str) -> list[Load]:
        call = {"jsonrpc": "2.0", "id": 1, "method": "compute.job_status"}
        text = json.dumps(call | {"params": {"job_id": job_id}})
        return [
            Load("job_status by its path", f"/compute.job_status?job_id={job_id}"),
            Load("job_status by JSON-RPC", "/", [text]),
            Load("/metrics", "/metrics"),
            Load("the page /", "/"),
        ]

    def cancels(self) -> Load:
        """Of other jobs each time."""
        call = {"jsonrpc": "2.0", "id": 1, "method": "compute.job_cancel"}
        bodies = [
            json.dumps(call | {"params": {"job_id": next(self._job_ids)}})
            for _ in range(CANCELS_MAX * self._seconds)
        ]
        return Load("job_cancel", "/", bodies, self._token)

    def rounds(
        self, count: int, reads: list[Load], url: str, peer_url: str
    ) -> dict[str, list[Rate]]:
        """The rates of each kind; in a round each has its turn."""
        found: dict[str, list[Rate]] = {}
        for _ in range(count):
            loads = [(peer_url, Load("peer", "/")), *((url, each) for each in reads)]
            loads.append((url, self.cancels()))
            for where, load in loads:
                if load.path == "/" and not load.bodies and where == url and not is_there(url):
                    continue
                rate = rate_of(self._directory, where, load, self._seconds)
                found.setdefault(load.name, []).append(rate)
                if load.token:
                    self.cancelled += min(rate.requests, len(load.bodies))
        return found


def report(beside: str, found: dict[str, list[Rate]]) -> None:
    print(f"\n{beside}\n{'':24} {'requests/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'× peer':>7}")
    medians = {
        name: Rate(*map(statistics.median, zip(*each, strict=True))) for name, each in found.items()
    }
    for name, rate in medians.items():
        shown = f"{rate.per_second:10.0f} {rate.p50_ms:8.1f} {rate.p99_ms:8.1f}"
        print(f"{name:24} {shown} {ratio(found, name):7.2f}")
    print()
    if beside == NOTHING:
        for name in ("job_status by its path", "job_status by JSON-RPC"):
            measure.claim_at_least(name, medians[name].per_second, STATUS_BOUND, "a second")
            measure.claim(f"{name}, a request", ratio(found, name), PEER_BOUND, "× the peer")
        cancels = medians["job_cancel"].per_second
        measure.claim_at_least("job_cancel, durable", cancels, CANCEL_BOUND, "a second")
    elif beside == COMMANDS:
        for name in ("job_status by its path", "job_cancel"):
            measure.claim(f"{name}, {beside}, p99", medians[name].p99_ms, P99_BOUND_MS, "ms")


def ratio(found: dict[str, list[Rate]], name: str) -> float:
    """The time of a request by that of one to the peer, in the same round."""
    return measure.ratio(
        [1 / each.per_second for each in found[name]],
        [1 / each.per_second for each in found["peer"]],
    )


def check_cancelled(env: dict[str, str], answered: int) -> None:
    """What was answered was done: nothing of it was lost, or answered by an error."""
    words: list[str | Path] = [TOOL, "compute", "list", "--state", "cancelled", "--jsonl"]
    done = subprocess.run(words, env=env, capture_output=True, check=True)
    measure.claim_at_least("jobs that are cancelled", done.stdout.count(b"\n"), answered, "answers")


# What goes on beside.

NOTHING = "with nothing beside"
COMMANDS = "with a loop of commands beside"


@contextmanager
def nothing(env: dict[str, str], url: str) -> Iterator[str]:
    yield NOTHING


@contextmanager
def commands(env: dict[str, str], url: str) -> Iterator[str]:
    """Commands that change the market, one after another."""
    ended = Event()

    def loop() -> None:
        while not ended.is_set():
            measure.command([TOOL, "wallet", "deposit", "somebody", "--ct", "1"], env)

    thread = Thread(target=loop)
    thread.start()
    try:
        yield COMMANDS
    finally:
        ended.set()
        thread.join()


@contextmanager
def slow_clients(env: dict[str, str], url: str) -> Iterator[str]:
    """Clients that send a byte of a request now and then, and come again when they are let go."""
    ended = Event()
    address = address_of(url)

    def loop() -> None:
        clients: list[socket.socket | None] = [None] * SLOW_CLIENTS
        while not ended.wait(0.2):
            for number, client in enumerate(clients):
                try:
                    clients[number] = client = client or socket.create_connection(address, 5)
                    client.send(b"G")
                except OSError:
                    clients[number] = None
        for client in filter(None, clients):
            client.close()

    thread = Thread(target=loop)
    thread.start()
    try:
        yield f"with {SLOW_CLIENTS} slow clients"
    finally:
        ended.set()
        thread.join()


BESIDE = (nothing, commands, slow_clients)

# Servers.


@contextmanager
def serving(env: dict[str, str], log: Path) -> Iterator[str]:
    with (
        open(log, "wb") as stderr,
        running([TOOL, "serve", "--port", "0", "--json"], env, stderr) as process,
    ):
        assert process.stdout is not None
        text = b"".join(iter(process.stdout.readline, b"}\n")) + b"}"
        yield json.loads(text)["url"]


@contextmanager
def peer(directory: Path) -> Iterator[str]:
    words = [sys.executable, __file__, "--peer", str(directory)]
    with running(words, dict(os.environ), subprocess.DEVNULL) as process:
        assert process.stdout is not None
        yield process.stdout.readline().decode().strip()


@contextmanager
def running(
    words: Sequence[str | Path], env: dict[str, str], stderr: Any
) -> "Iterator[subprocess.Popen[bytes]]":
    """A server on its core, until it is told to end."""
    process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=stderr)
    os.sched_setaffinity(process.pid, SERVER_CORE)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def serve_peer(directory: str) -> None:
    """A route that reads one key, and nothing else."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    path = os.path.join(directory, "peer")
    os.mkdir(path)
    with lmdb.open(path, map_size=2**20) as env:
        with env.begin(write=True) as txn:
            txn.put(b"key", bytes(800))

        async def read(request: Request) -> Response:
            with env.begin() as txn:
                return Response(txn.get(b"key"), media_type="application/json")

        config = uvicorn.Config(
            Starlette(routes=[Route("/", read)]),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        # With its protocol, by which asyncio sees that it may send without waiting (TCP_NODELAY).
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        print("http://{}:{}".format(*listening.getsockname()), flush=True)
        uvicorn.Server(config).run([listening])


def is_there(url: str) -> bool:
    """Whether the server has a page."""
    with socket.create_connection(address_of(url), 5) as client:
        host = url.removeprefix("http://")
        client.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return client.recv(16).startswith(b"HTTP/1.1 200")


def token_of(env: dict[str, str]) -> str:
    words: list[str | Path] = [TOOL, "serve", "token", "--json"]
    done = subprocess.run(words, env=env, capture_output=True, check=True)
    found: str = json.loads(done.stdout)["token"]
    return found


if __name__ == "__main__":
    main()
