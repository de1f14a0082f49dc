"""`compute calibrate`, and what `--backend` makes of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from compute_market.hashing.calibration import (
    Calibration,
    CpuRates,
    DeviceRates,
    decode,
    encode,
    machine,
)
from compute_market.records import replace
from tb_cli.calibrate import rows
from tests.support.cli import HELLO, MIB, Cli, Done, without_opencl

pytest_plugins = ("tests.support.cli",)

CPU = CpuRates(2, 10**9, 2 * 10**9, 10**9, 1000)
# A device that is faster at everything and takes no time to open.
DEVICE = DeviceRates(
    backend="opencl",
    devices=["pretended"],
    gflops=50,
    resident_bytes_per_s=10**12,
    resident_ns=10,
    copy_bytes_per_s=10**11,
    pinned_bytes_per_s=None,
    staged_first_bytes_per_s=10**11,
    staged_bytes_per_s=10**11,
    file_first_bytes_per_s=10**11,
    file_bytes_per_s=10**11,
    launch_ns=10,
    slice_ns=1,
    start_ns=0,
)


def store(cli: Cli, calibration: Calibration) -> Path:
    cli.home.mkdir(mode=0o700, exist_ok=True)
    path = cli.home / "calibration.json"
    path.write_bytes(encode(calibration))
    return path


def test_calibrate_measures_the_cpu_and_keeps_it(cli: Cli) -> None:
    """The only test here that measures as much as an operator's machine does."""
    document = cli.document("compute", "calibrate", "--backend", "cpu")
    assert document["machine"] == machine()
    assert document["measured_at"] == cli.now
    assert document["device"] is None
    assert all(value > 0 for value in document["cpu"].values())
    stored = cli.home / "calibration.json"
    assert json.loads(stored.read_bytes()) == document
    assert cli.home.stat().st_mode & 0o777 == 0o700


def test_calibrate_prints_a_table(cli: Cli, measured_little: None) -> None:
    done = cli("compute", "calibrate", "--backend", "cpu")
    assert (done.code, done.err) == (0, "")
    assert [row[0] for row in done.rows] == [
        "long slice",
        "long slice",
        "warm file",
        "1000-byte slices",
    ]
    assert [row[3] for row in done.rows] == ["GB/s", "GB/s", "GB/s", "million/s"]
    assert all(float(row[2]) > 0 for row in done.rows)


def test_calibrate_without_a_gpu_says_so(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OCL_ICD_VENDORS", str(cli.directory / "none"))
    done = cli.process("compute", "calibrate")
    assert (done.code, len(done.rows)) == (0, 4)
    assert done.err.count("\n") == 1
    assert done.err.startswith("only the CPU was calibrated: cuda: ")
    assert "; opencl: " in done.err


def test_calibrate_dry_run_keeps_nothing(cli: Cli, measured_little: None) -> None:
    document = cli.document("compute", "calibrate", "--backend", "cpu", "--dry-run")
    assert document["dry_run"] is True
    assert not cli.home.exists()


def test_calibrate_marks_a_dry_run(cli: Cli, measured_little: None) -> None:
    done = cli("compute", "calibrate", "--backend", "cpu", "-n")
    assert done.code == 0
    assert all(line.startswith("dry_run: ") for line in done.out.splitlines())


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a test that measures."""

    def measure(*_: object, **__: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr("compute_market.hashing.measure.measure", measure)


@pytest.mark.parametrize("dry", [(), ("-n",)])
@pytest.mark.parametrize(
    ("home", "message"),
    [
        ("file", "{home} is not a directory\nhint: give another --home"),
        ("file/below", "{home}: not a directory\nhint: choose another directory with --home"),
        ("link", "{home}: not a directory\nhint: choose another directory with --home"),
        ("taken", "{home}/calibration.json: is a directory\nhint: move it out of the way"),
    ],
)
def test_home_that_cannot_be_used_is_told_before_measuring(
    home: str, message: str, dry: tuple[str, ...], cli: Cli, unmeasured: None
) -> None:
    (cli.directory / "file").write_text("mine")
    (cli.directory / "link").symlink_to("nowhere/at/all")
    (cli.directory / "taken" / "calibration.json").mkdir(parents=True)
    path = cli.directory / home
    done = cli("compute", "calibrate", *dry, "--home", path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error[usage]: {message.format(home=path)}")
    if home != "taken":
        # Commands that keep a market there say the same.
        assert cli("wallet", "deposit", "a", "--ct", "1", *dry, "--home", path) == done
    assert cli("compute", "calibrate", *dry, "--home", path, "--json").error["error"] == "usage"


@pytest.mark.parametrize("home", ["there", "not/there"])
def test_home_that_cannot_be_written_is_told_before_measuring(
    home: str, cli: Cli, unmeasured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel says of a directory depends on who asks, and root may write everywhere."""
    (cli.directory / "there").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    path = cli.directory / home
    text = f"error[usage]: {path}: permission denied\n"
    hint = "hint: choose another directory with --home or TB_HOME\n"
    for dry in ((), ("-n",)):
        assert cli("compute", "calibrate", *dry, "--home", path) == (2, "", text + hint)
    assert not (cli.directory / "not").exists()


def test_calibrate_of_a_device_that_fails_keeps_the_cpu(
    cli: Cli, measured_little: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numpy")
    from compute_market.hashing.device import DeviceError

    def fail(*_: object, **__: object) -> None:
        raise DeviceError("launch failed")

    monkeypatch.setattr("tb_cli.calibrate._open_device", fail)
    done = cli("compute", "calibrate", "--json")
    assert (done.code, done.json["device"]) == (0, None)
    assert done.err == "only the CPU was calibrated: the device failed: launch failed\n"
    done = cli("compute", "calibrate", "--backend", "opencl")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[usage]: the device failed: launch failed\n")


def test_calibrate_replaces_what_was_there(cli: Cli, measured_little: None) -> None:
    path = store(cli, Calibration(1, "another", 1, CPU))
    cli.document("compute", "calibrate", "--backend", "cpu")
    assert json.loads(path.read_bytes())["machine"] == machine()
    assert [found.name for found in cli.home.iterdir()] == [path.name]


def test_calibrate_measures_an_opencl_device(cli: Cli, measured_little: None) -> None:
    if missing := without_opencl():
        pytest.skip(missing)
    done = cli("compute", "calibrate", "--backend", "opencl", "--json")
    assert done.code == 0
    device = done.json["device"]
    assert device["backend"] == "opencl"
    assert all(device[name] > 0 for name in device if name.endswith("_per_s") and device[name])
    assert device["gflops"] > 0
    assert done.err == (
        f"rated {device['gflops']} units/s; `tb-cli compute-market capacity record "
        f"{device['gflops']}` lets the market know\n"
    )
    # The table is made of what was kept.
    kept = cli.home / "calibration.json"
    table = rows(decode(kept.read_bytes(), str(kept), machine()))
    assert [row[0] for row in table if row[0].startswith("auto: ")] == [
        "auto: one file",
        "auto: each of many files",
        "auto: data on the device",
        "auto: 1000-byte slices",
    ]


def test_table_names_every_size_at_which_the_device_is_chosen() -> None:
    """From a MiB on, all threads of the CPU work a single file."""
    cpu = CpuRates(4, 8 * 10**9, 32 * 10**9, 25 * 10**9, 400)
    device = replace(
        DEVICE, file_first_bytes_per_s=14 * 10**9, file_bytes_per_s=45 * 10**9, launch_ns=20_000
    )
    found = [row for row in rows(Calibration(1, machine(), 1, cpu, device)) if "file" in row[0]]
    assert [tuple(row[2:]) for row in found if row[0] == "auto: one file"] == [
        ("from 512 to 1024", "KiB"),
        ("from 65536", "KiB"),
    ]


@pytest.mark.parametrize("verb", ["run", "calibrate"])
def test_backend_named_and_missing_says_what_is_missing(cli: Cli, verb: str) -> None:
    slices = (cli.slice(),) if verb == "run" else ()
    done = cli("compute", verb, *slices, "--backend", "cuda")
    if done.code == 0:
        pytest.skip("there is a CUDA device")
    first, hint = done.err.splitlines()
    assert (done.code, done.out) == (2, "")
    assert first.startswith("error[usage]: backend cuda: ")
    assert hint.startswith("hint: ")
    error = cli("compute", verb, *slices, "--backend", "cuda", "--json").error
    assert (error["error"], error["reason"]) == ("usage", "backend_missing")
    assert not cli.home.exists()


def test_execute_with_a_missing_backend_leaves_the_job_alone(cli: Cli) -> None:
    cli.active("j1")
    before = cli.files()
    done = cli("compute", "execute", "j1", "--backend", "cuda")
    if done.code == 0:
        pytest.skip("there is a CUDA device")
    assert done.code == 2
    assert cli.files() == before
    assert cli.document("compute", "execute", "j1")["state"] == "completed"


@pytest.mark.parametrize("value", ["gpu", "", "CUDA"])
def test_backend_is_one_of_four(cli: Cli, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.slice()
    done = cli("compute", "run", "a.slice", "--backend", value)
    assert (done.code, done.out) == (2, "")
    assert "--backend: " in done.err
    monkeypatch.setenv("TB_BACKEND", value)
    for form in (("compute", "run", "a.slice"), ("compute", "run", "a.slice", "--workers", "1")):
        done = cli.process(*form)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("error[usage]: TB_BACKEND: backend: ")


def test_option_wins_over_the_setting(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.slice()
    monkeypatch.setenv("TB_BACKEND", "cuda")
    expected = f"{HELLO}  a.slice\n"
    assert cli.ok("compute", "run", "a.slice", "--backend", "cpu") == expected
    short_way = cli.process("compute", "run", "a.slice")
    if short_way.code:
        assert (short_way.code, short_way.out) == (2, "")
        assert short_way.err.startswith("error[usage]: backend cuda: ")
    else:
        assert short_way.out == expected


def test_opencl_and_cpu_agree(cli: Cli, compiled_quickly: None) -> None:
    if missing := without_opencl():
        pytest.skip(missing)
    lengths = (0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 2049, 31_744, 100_000, MIB + 7)
    paths = [cli.slice(f"{length}.slice", bytes(range(251)) * (length // 251 + 1)) for length in ()]
    for length in lengths:
        paths.append(cli.slice(f"{length}.slice", (bytes(range(251)) * 5000)[:length]))
    paths.append(cli.slice("long.slice", bytes(range(256)) * 80_000))
    expected = cli.ok("compute", "run", *paths, "--backend", "cpu")
    assert cli.ok("compute", "run", *paths, "--backend", "opencl") == expected
    assert cli.ok("compute", "run", *paths, "-", "--backend", "opencl", stdin=b"hello") == (
        f"{expected}{HELLO}  -\n"
    )


def test_execute_on_opencl_completes_a_job(cli: Cli, compiled_quickly: None) -> None:
    if missing := without_opencl():
        pytest.skip(missing)
    cli.post()
    cli.submit("j1", slices=[cli.slice(), cli.slice("b", bytes(MIB + 1))])
    assert cli.document("compute", "execute", "j1", "--backend", "opencl")["state"] == "completed"


def test_bad_files_are_told_by_every_backend_alike(cli: Cli) -> None:
    if missing := without_opencl():
        pytest.skip(missing)
    os.mkfifo(cli.directory / "fifo")
    os.mkdir(cli.directory / "directory")
    paths = ("missing", "fifo", "directory", cli.slice("empty", b""), cli.slice())
    on_cpu = cli("compute", "run", *paths, "--backend", "cpu")
    assert on_cpu.code == 7
    assert cli("compute", "run", *paths, "--backend", "opencl") == on_cpu


DAMAGED = {
    "not JSON": (b"{", "not a calibration: "),
    "empty": (b"", "not a calibration: "),
    "not UTF-8": (b"\xff\xfe", "not a calibration: "),
    "of no rates": (b"{}", "not a calibration: "),
    "of another version": (encode(Calibration(2, machine(), 1, CPU)), "version 2, not 1"),
    "of another machine": (encode(Calibration(1, "a PDP-11", 1, CPU)), "made on another machine"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_calibration_that_cannot_be_used_is_ignored_with_one_line(cli: Cli, kind: str) -> None:
    content, why = DAMAGED[kind]
    cli.slice()
    path = store(cli, Calibration(1, machine(), 1, CPU))
    path.write_bytes(content)
    for done in (
        cli("compute", "run", "a.slice", "--workers", "1"),
        cli.process("compute", "run", "a.slice"),
    ):
        assert (done.code, done.out) == (0, f"{HELLO}  a.slice\n")
        assert done.err.startswith(f"warning: {path}: {why}")
        assert done.err.endswith(": ignored; `tb-cli compute calibrate` measures this machine\n")
        assert done.err.count("\n") == 1
    # A backend that was chosen has no use for it.
    assert cli.ok("compute", "run", "a.slice", "--backend", "cpu") == f"{HELLO}  a.slice\n"
    assert path.read_bytes() == content


def test_calibration_that_is_no_file_is_ignored_and_never_waited_for(cli: Cli) -> None:
    cli.slice()
    cli.home.mkdir(mode=0o700)
    path = cli.home / "calibration.json"
    for make, why in (
        (lambda: os.mkfifo(path), "not a regular file"),
        (lambda: path.symlink_to("/dev/zero"), "is a link, and no link is followed here"),
        (path.mkdir, "is a directory"),
    ):
        make()
        expected = (0, f"{HELLO}  a.slice\n", f"warning: {path}: {why}: ignored\n")
        assert cli("compute", "run", "a.slice", "--workers", "1") == expected
        assert cli.process("compute", "run", "a.slice") == expected
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()


@pytest.mark.parametrize("kind", ["fifo", "link"])
def test_calibrate_replaces_nothing_but_a_file(cli: Cli, unmeasured: None, kind: str) -> None:
    cli.home.mkdir(mode=0o700)
    path = cli.home / "calibration.json"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(cli.slice())
    before = path.lstat()
    done = cli("compute", "calibrate", "--backend", "cpu")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error[usage]: {path}: ")
    assert path.lstat() == before
    assert cli.slice().read_bytes() == b"hello"


def test_calibrated_device_that_is_gone_is_one_warning(cli: Cli) -> None:
    """The calibration promises a device; it is not there any more, and the digests are the same."""
    store(cli, Calibration(1, machine(), 1, CPU, DEVICE))
    names = [cli.slice(f"{number}.slice", bytes([number]) * 100_000) for number in range(5)]
    expected = cli.ok("compute", "run", *names, "--backend", "cpu")
    done = cli("compute", "run", *names)
    assert (done.code, done.out) == (0, expected)
    assert done.err.count("\n") == 1
    assert done.err.startswith("warning: ")


def test_calibration_of_a_cpu_alone_costs_no_device(cli: Cli) -> None:
    cli.slice()
    store(cli, Calibration(1, machine(), 1, CPU))
    assert cli.ok("compute", "run", "a.slice") == f"{HELLO}  a.slice\n"


# What a plain installation lacks.
PLAIN = """
import sys
for name in ("numpy", "cupy", "pyopencl", "distributed", "dask"):
    sys.modules[name] = None
sys.argv[0] = "tb-cli"
from tb_cli.entry import main
main()
"""


def plain(cli: Cli, *arguments: str) -> Done:
    """Run a command as if no extra was installed."""
    done = subprocess.run([sys.executable, "-c", PLAIN, *arguments], capture_output=True, text=True)
    return Done(done.returncode, done.stdout, done.stderr)


def test_plain_installation_hashes_and_calibrates(cli: Cli) -> None:
    cli.slice()
    expected = Done(0, f"{HELLO}  a.slice\n", "")
    assert plain(cli, "compute", "run", "a.slice") == expected
    done = plain(cli, "compute", "calibrate")
    assert (done.code, len(done.rows)) == (0, 4)
    assert done.err.startswith("only the CPU was calibrated: cuda: ")
    assert done.err.endswith("; opencl: pyopencl is not installed\n")
    assert plain(cli, "compute", "run", "a.slice") == expected
    cli.active("j1")
    assert plain(cli, "compute", "execute", "j1").code == 0
    assert cli.job()["state"] == "completed"


def test_plain_installation_says_what_to_install(cli: Cli) -> None:
    cli.slice()
    for verb in (("run", "a.slice"), ("calibrate",)):
        done = plain(cli, "compute", *verb, "--backend", "opencl")
        assert done == (
            2,
            "",
            "error[usage]: backend opencl: pyopencl is not installed\n"
            "hint: pip install '.[opencl]' in the source directory of tb-cli\n",
        )
    done = plain(cli, "compute", "run", "a.slice", "--executor", "dask://127.0.0.1:1")
    assert (done.code, done.out) == (2, "")
    assert done.err.endswith("hint: pip install '.[cluster]' in the source directory of tb-cli\n")
    # Somebody else calibrated a device here.
    store(cli, Calibration(1, machine(), 1, CPU, DEVICE))
    done = plain(cli, "compute", "run", *[cli.slice(f"{n}", bytes(99_999)) for n in range(3)])
    assert (done.code, done.err.count("\n")) == (0, 1)
    assert done.err.startswith("warning: opencl: ")
