"""The units for systemd: it takes them as they are, and the commands in them exist."""

import ctypes
import signal
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest

from tb_cli.network import door
from tb_cli.serve import PORT, SECOND_PORT
from tests.support.cli import Cli, without
from tests.support.serving import Process

pytest_plugins = ("tests.support.cli",)

UNITS = Path(__file__).parents[2] / "monitoring" / "systemd"
COMMAND = "/usr/local/bin/tb-cli"
SERVICES = sorted(path.stem for path in UNITS.glob("*.service"))
# In tenths: 0 is shut in altogether, 100 is not at all. A service of nobody's care has 96.
EXPOSED_MAX = 20
PR_SET_MDWE = 65


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Copies whose command is there on any machine."""
    if missing := without("systemd-analyze"):
        pytest.skip(missing)
    for path in UNITS.rglob("*.*"):
        if path.is_file():
            copy = tmp_path / path.relative_to(UNITS)
            copy.parent.mkdir(exist_ok=True)
            copy.write_text(path.read_text().replace(COMMAND, "/bin/true"))
    return tmp_path


def analyzed(*words: str) -> tuple[int, str]:
    done = subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_units_are_taken_by_systemd_without_a_word(units: Path) -> None:
    paths = [str(path) for path in units.iterdir() if path.is_file()]
    assert len(paths) == 8
    assert analyzed("verify", "--man=no", *paths) == (0, "")


@pytest.mark.parametrize("name", SERVICES)
def test_service_may_do_little(units: Path, name: str) -> None:
    path = str(units / f"{name}.service")
    code, said = analyzed("security", "--offline=true", f"--threshold={EXPOSED_MAX}", path)
    assert code == 0, said


def unit(name: str) -> RawConfigParser:
    found = RawConfigParser(strict=False, delimiters=("=",))
    found.optionxform = str  # type: ignore[method-assign,assignment]
    found.read_string((UNITS / name).read_text())
    return found


@pytest.mark.parametrize("name", SERVICES)
def test_command_of_a_service_does_what_it_is_there_for(
    cli: Cli, tmp_path: Path, name: str
) -> None:
    cli.ok("state", "init")
    service = unit(f"{name}.service")["Service"]
    program, *words = service["ExecStart"].split()
    assert program == COMMAND
    words = [str(tmp_path / "file") if word.startswith("/") else word for word in words]
    if name == "tb-serve":
        words += ["--check", "--port", "0"]
    fine = {0, int(service.get("SuccessExitStatus", "0"))}
    assert cli(*words).code in fine


def test_each_timer_has_a_service() -> None:
    timers = [path.stem for path in UNITS.glob("*.timer")]
    assert sorted((*timers, "tb-serve")) == SERVICES


def test_sockets_are_those_of_a_server_without_systemd() -> None:
    text = (UNITS / "tb-serve.socket").read_text()
    found = [line.partition("=")[2] for line in text.splitlines() if line.startswith("Listen")]
    assert found == [f"127.0.0.1:{port}" for port in (PORT, SECOND_PORT)]


def test_server_may_have_as_many_files_open_as_it_has_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = int(unit("tb-serve.service")["Service"]["LimitNOFILE"])
    monkeypatch.setattr("resource.getrlimit", lambda _: (files, files))
    assert door.connections_max() == door.CONNECTIONS_MAX


def test_server_needs_no_memory_that_becomes_code(cli: Cli) -> None:
    """As MemoryDenyWriteExecute has it."""
    libc = ctypes.CDLL(None)
    refuse_exec_gain = (PR_SET_MDWE, 1, 0, 0, 0)
    probe = "import ctypes, sys; sys.exit(ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) != 0)"
    if subprocess.run([sys.executable, "-c", probe], check=False).returncode:
        pytest.skip("this kernel cannot keep a process from making memory executable")
    cli.active("j1")
    serve = Process(cli, afresh=True, preexec_fn=lambda: libc.prctl(*refuse_exec_gain))
    assert serve.far.ask("GET", "/readyz").status == 200
    assert serve.far.ask("GET", "/compute.job_status?job_id=j1").status == 200
    assert serve.end(signal.SIGTERM)[0] == 0
