"""A server under systemd: sockets are handed over, and it is told how the server is."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from compute_market.errors import UsageError
from tb_cli.network import service_manager
from tb_cli.network.service_manager import ServiceManager, handed_over
from tests.support.cli import Cli, without
from tests.support.processes import until
from tests.support.serving import Far, Process

pytest_plugins = ("tests.support.cli",)


class Manager:
    """The socket that a service tells its state to."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(20)
        self._socket.bind(address)

    def __enter__(self) -> "Manager":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def told(self, but: str = "WATCHDOG=1") -> str:
        """The next state."""
        while (found := self._socket.recv(4096).decode()) == but:
            pass
        return found


def handing_over(*sockets: socket.socket) -> dict[str, Any]:
    """What makes Popen start a command that gets these sockets, as systemd does it."""

    def become() -> None:
        # Copies out of the way first, so that none is written over before it was handed over.
        copies = [fcntl.fcntl(each, fcntl.F_DUPFD, 100) for each in sockets]
        for number, each in enumerate(copies, 3):
            os.dup2(each, number)
            os.close(each)
        os.environ["LISTEN_FDS"] = str(len(sockets))
        os.environ["LISTEN_PID"] = str(os.getpid())

    return {"afresh": True, "preexec_fn": become, "close_fds": False}


@contextmanager
def started(cli: Cli, *options: str, sockets: list[socket.socket]) -> Iterator[Process]:
    cli.ok("state", "init")
    serve = Process(cli, *options, port="", **handing_over(*sockets))
    try:
        yield serve
    finally:
        serve.process.kill()
        serve.process.wait()


def test_sockets_that_are_handed_over_are_all_listened_to_and_the_manager_is_told(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "serve.sock")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    with ExitStack() as stack:
        manager = stack.enter_context(Manager(str(tmp_path / "notify")))
        tcp = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(path)
        unix.listen()
        serve = stack.enter_context(started(cli, sockets=[*tcp, unix]))
        ports = [each.getsockname()[1] for each in tcp]
        assert serve.urls == [
            *(f"http://127.0.0.1:{port}" for port in ports),
            f"http+unix:{path}",
        ]
        assert manager.told() == "READY=1"
        assert manager.told(but="") == "WATCHDOG=1"
        for port in ports:
            assert Far(port).ask("GET", "/healthz").status == 200
        connection = HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(path)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
        # Whoever handed them over listens still: nobody is refused while it starts anew.
        serve.process.send_signal(signal.SIGTERM)
        assert manager.told() == "STOPPING=1"
        _, err = serve.process.communicate(timeout=20)
        assert serve.process.returncode == 0
        socket.create_connection(("127.0.0.1", ports[0])).close()
    lines = map(json.loads, err.decode().splitlines())
    clients = [line["client"] for line in lines if "client" in line]
    assert [client.partition(":")[0] for client in clients] == ["127.0.0.1", "127.0.0.1", "-"]


def test_hangup_is_told_as_a_reload_and_ends_nothing(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.ok("state", "init")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@tb-{os.getpid()}")  # An address of no file.
    with Manager(f"\0tb-{os.getpid()}") as manager:
        serve = Process(cli)
        assert manager.told() == "READY=1"
        serve.process.send_signal(signal.SIGHUP)
        name, _, since = manager.told().partition("\nMONOTONIC_USEC=")
        assert (name, since.isdecimal()) == ("RELOADING=1", True)
        assert manager.told() == "READY=1"
        assert serve.far.ask("GET", "/healthz").status == 200
        code, err = serve.end(signal.SIGTERM)
    assert code == 0
    assert "there is no certificate to read anew" in err


def test_hangup_ends_no_server_before_it_answers_nor_while_it_ends(cli: Cli) -> None:
    cli.ok("state", "init")
    process = cli.start("serve", "--port", "0")
    until(lambda: ignores_hangups(process.pid))
    process.send_signal(signal.SIGHUP)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"serving on ")
    process.send_signal(signal.SIGTERM)
    while process.poll() is None:
        process.send_signal(signal.SIGHUP)
    assert process.returncode == 0, process.communicate()
    process.communicate()


def test_signal_to_end_ends_a_server_that_does_not_answer_yet_with_0(cli: Cli) -> None:
    cli.ok("state", "init")
    process = cli.start("serve", "--port", "0")
    until(lambda: ignores_hangups(process.pid))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, b"")


def ignores_hangups(pid: int) -> bool:
    """Whether a server has come so far: the first thing that it does."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    ignored = next(line for line in lines if line.startswith("SigIgn:"))
    return bool(int(ignored.split()[1], 16) & 1 << signal.SIGHUP - 1)


def test_sockets_of_another_process_are_left_alone() -> None:
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x", "HOME": "/"}
    assert handed_over(environment) == []
    assert environment == {"HOME": "/"}
    for count in ("x", "-1", "1000", ""):
        assert handed_over({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count}) == []


def test_nobody_is_told_where_nobody_listens(tmp_path: Path) -> None:
    ServiceManager({}).ready()
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nothing")}).ready()
    ServiceManager({"NOTIFY_SOCKET": "x" * 200}).ready()


def test_watchdog_of_another_process_is_not_fed(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with Manager(address) as manager:
        variables = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1"}
        ServiceManager(variables | {"WATCHDOG_PID": "1"}).alive()
        found = ServiceManager(variables | {"WATCHDOG_PID": str(os.getpid())})
        found.alive()
        found.ready()
        assert [manager.told(but="") for _ in range(2)] == ["WATCHDOG=1", "READY=1"]


def test_what_is_no_socket_that_listens_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hand_over(descriptor: int) -> None:
        monkeypatch.setattr(service_manager, "_FIRST_DESCRIPTOR", descriptor)
        handed_over({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})

    with socket.socket() as silent, pytest.raises(UsageError, match="no socket that listens"):
        hand_over(os.dup(silent.fileno()))  # It is closed with the socket that is made of it.
    with (tmp_path / "file").open("w") as file, pytest.raises(UsageError, match="is no socket"):
        hand_over(file.fileno())
    with pytest.raises(UsageError, match="is no socket"):
        hand_over(1_000_000)


def test_socket_that_others_reach_needs_what_an_address_needs(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.ok("state", "init")
    monkeypatch.setattr(
        service_manager, "handed_over", lambda: [socket.create_server(("0.0.0.0", 0))]
    )
    done = cli("serve", "--check")
    assert (done.code, done.out) == (2, "")
    assert "a socket that was handed over can be reached from other machines" in done.err
    assert "could serve on http://0.0.0.0:" in cli.ok("serve", "--check", "--insecure")
    done = cli("serve", "--check", "--host", "127.0.0.1")
    assert (done.code, done.out) == (2, "")
    assert "--host and --port say nothing where sockets are handed over" in done.err


def test_systemd_itself_hands_over_a_socket(cli: Cli) -> None:
    program = "systemd-socket-activate"
    if missing := without(program):
        pytest.skip(missing)
    cli.ok("state", "init")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = [f"-E{name}" for name in ("TB_HOME", "PYTHONPATH", "HOME")]
    process = subprocess.Popen(
        [program, f"-l127.0.0.1:{port}", *variables, sys.executable, "-m", "tb_cli", "serve"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        # It begins with who comes first, who is answered.
        assert process.stderr is not None
        assert b"Listening on" in process.stderr.readline()
        assert Far(port).ask("GET", "/healthz").status == 200
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
        assert (process.returncode, out) == (0, f"serving on http://127.0.0.1:{port}\n".encode())
    finally:
        process.kill()
        process.wait()
