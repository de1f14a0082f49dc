"""The benchmark of GPUs on a machine without one: every part runs, and what is missing is told."""

import ast
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compute_market.hashing import measure
from compute_market.hashing.forms import PORTABLE, form_for
from compute_market.hashing.probe import cuda_missing
from tests.support.cli import without_opencl
from tests.support.effort import TORTURE
from tests.support.gpu import fake_benchmark, fake_cupy
from tests.support.gpu.fake_gpus import Gpus

pytest_plugins = ("tests.support.gpu.fake_cupy", "tests.support.cli")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
KIB = 1024


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The script as a module; what it brings along is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    before = set(sys.modules)
    yield import_module("gpu")
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("gpu", "gpu_parts", "rounds"):
            del sys.modules[name]


def run_part(name: str, backend: str, directory: Path) -> dict[str, Any]:
    """Run a part in this process, over very little data."""
    record_of, bench_of = import_module("gpu_parts.record"), import_module("gpu_parts.bench")
    record = record_of.Record(directory / f"{name}.json", name, backend, quick=True)
    bench = bench_of.Bench(backend, quick=True)
    bench.long, bench.rounds = 256 * KIB, 1
    with record:
        import_module(f"gpu_parts.{name}").run(bench, record)
    found: dict[str, Any] = json.loads((directory / f"{name}.json").read_text())
    assert found["status"] == "ok", found["reason"]
    return found


@pytest.fixture
def cupy(make_gpus: Callable[..., Gpus], monkeypatch: pytest.MonkeyPatch) -> Any:
    """CuPy with a GPU; no other library has arrays."""
    gpus = make_gpus()
    for name in ("torch", "numba.cuda.cudadrv.driver"):
        monkeypatch.delitem(sys.modules, name)
    cupy = sys.modules["cupy"]
    fake_benchmark.extend(gpus, cupy)
    return cupy


def test_every_part_has_a_module_and_a_limit(script: Any) -> None:
    names = [part.name for part in script.PARTS]
    assert len(set(names)) == len(names)
    files = {path.stem for path in (BENCHMARKS / "gpu_parts").glob("*.py")}
    assert files == {*names, *script.WATCHED, "__init__", "bench", "record", "table"}


@pytest.mark.usefixtures("cupy", "unchecked_kernels")
@pytest.mark.parametrize("part", ["digests", "checked"])
def test_digests_are_compared_in_every_form(
    part: str, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forms = {"plain": PORTABLE._replace(tiles=fake_cupy.TILES)}
    if not TORTURE:
        # Each form takes g++ some seconds.
        bench = import_module("gpu_parts.bench").Bench
        monkeypatch.setattr(bench, "forms", lambda self, chosen: forms)
    found = run_part(part, "cuda", tmp_path)["measured"]
    if part == "digests":
        assert found["right forms"] == (["plain", "multiply-add"] if TORTURE else ["plain"])
        assert found["right in arrays of"] == []


def test_forms_to_try_differ_in_one_thing_each(script: Any) -> None:
    bench = import_module("gpu_parts.bench").Bench("cuda", quick=False)
    forms = bench.forms(form_for(90))
    assert len(set(forms.values())) == len(forms)
    assert form_for(90) in forms.values()
    assert {form.l2_bytes for form in forms.values()} == {0, 64, 128, 256}


def test_digests_that_are_wrong_are_the_end(
    script: Any, tmp_path: Path, cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = import_module("gpu_parts.digests")
    backend = SimpleNamespace(
        first_lane=SimpleNamespace(tiles=(8, 16)),
        hash_batch=lambda data, offsets, lengths: bytes(32 * len(lengths)),
    )
    with pytest.raises(AssertionError, match="WRONG DIGEST"):
        digests.compare(backend, 2000)


@pytest.mark.usefixtures("unchecked_kernels")
def test_kernels_are_timed_by_events(script: Any, tmp_path: Path, cupy: Any) -> None:
    found = run_part("kernels", "cuda", tmp_path)
    (times,) = [each for name, each in found["measured"].items() if name.endswith("MiB")]
    assert {"chosen", "chosen again", "plain", "multiply-add"} <= set(times)
    assert all(each["kernel_s"] > 0 and each["call_s"] > 0 for each in times.values())
    assert set(found["measured"]["L2 fetch granularity"]) == {"as it was", "32 B", "64 B", "128 B"}
    assert cupy.for_benchmark.limits[fake_benchmark.GRANULARITY] == 64


@pytest.mark.usefixtures("cupy")
def test_copies_and_waits_are_measured(script: Any, tmp_path: Path) -> None:
    measured = run_part("copies", "cuda", tmp_path)["measured"]
    assert set(measured["copies"]) == {"pageable", "pinned", "device"}
    assert set(measured["an empty launch and its wait"]) == {"blocked", "spinning"}
    assert set(measured["staging by threads"]) == {"1", "2"}


@pytest.mark.usefixtures("cupy", "unchecked_kernels")
def test_data_on_the_device_is_held_against_the_bound(script: Any, tmp_path: Path) -> None:
    found = run_part("resident", "cuda", tmp_path)
    assert found["measured"]["clock under load"] == fake_benchmark.CLOCK_HZ
    # Four multiprocessors, 576 instructions of 4 x 32 lanes of 64 bytes in two clocks each.
    bound = 4 * fake_benchmark.CLOCK_HZ * 4096 / (576 * 1.094)
    assert found["measured"]["bound of the arithmetic"] == pytest.approx(bound)
    assert [row[1] for row in found["rows"]] == ["–", "0.8 ×", "0.92 ×"]
    assert len(found["missed"]) == 2


@pytest.mark.usefixtures("cupy", "unchecked_kernels")
def test_host_data_is_held_against_copy_and_staging(script: Any, tmp_path: Path) -> None:
    found = run_part("host", "cuda", tmp_path)
    assert set(found["measured"]["rates"]) == {"copy", "staging", "memory", "file", "pinned"}


@pytest.mark.usefixtures("cupy", "unchecked_kernels")
def test_profiler_sees_one_hash(script: Any, tmp_path: Path, cupy: Any) -> None:
    run_part("profiled", "cuda", tmp_path)
    assert cupy.for_benchmark.profiled == ["start", "stop"]


@pytest.mark.usefixtures("cupy", "unchecked_kernels", "measured_little")
def test_short_slices_and_auto_are_measured(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "_BUDGET_NS", 1_000_000)
    assert run_part("small", "cuda", tmp_path)["rows"]
    by_size = run_part("automatic", "cuda", tmp_path)["measured"]["by size"]
    assert set(by_size) == {"1 KiB", "4 KiB", "16 KiB", "64 KiB", "256 KiB"}
    assert all(set(each) == {"cpu", "device", "auto", "share"} for each in by_size.values())


@pytest.mark.parametrize("name", ["start", "kernels", "checkers", "profile"])
def test_part_runs_on_an_opencl_device_or_is_skipped(
    name: str, script: Any, tmp_path: Path
) -> None:
    if reason := without_opencl():
        pytest.skip(reason)
    found = run_part(name, "opencl", tmp_path)
    assert found["reason"].startswith("skipped: ") == (name != "start")


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize("code", [0, 9])
def test_tools_of_nvidia_watch_a_part(
    code: int, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("compute-sanitizer", "ncu"):
        tool = tmp_path / name
        tool.write_text(f'#!/bin/sh\necho "$@"\nexit {code}\n')
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    if code:
        for part in ("checkers", "profile"):
            with pytest.raises(AssertionError, match=r"'9'|ended with 9"):
                run_part(part, "cuda", tmp_path)
        return
    assert run_part("checkers", "cuda", tmp_path)["rows"][0][2] == "0"
    for tool in ("memcheck", "racecheck", "initcheck", "synccheck"):
        told = (tmp_path / f"{tool}.log").read_text()
        assert f"--tool {tool} --report-api-errors no" in told
        assert "--part checked" in told
    (counted,) = run_part("profile", "cuda", tmp_path)["measured"]["counted"]
    assert "smsp__inst_executed" in counted
    assert "--part profiled" in counted


# The whole script.


def test_script_needs_no_more_than_the_library_does(script: Any) -> None:
    """Of others CuPy and NumPy; arrays of PyTorch and Numba only where they are there."""
    may = {"blake3", "msgspec", "numpy", "cupy", "torch", "numba"}
    may |= {"compute_market", "gpu_parts", "rounds", *sys.stdlib_module_names}
    for path in [
        *BENCHMARKS.glob("gpu_parts/*.py"),
        BENCHMARKS / "gpu.py",
        BENCHMARKS / "rounds.py",
    ]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert {name.partition(".")[0] for name in names} <= may, path


def test_script_fails_without_a_device_after_writing_what_it_could(tmp_path: Path) -> None:
    """With nothing but the interpreter, from anywhere."""
    if cuda_missing() is None:
        pytest.skip("there is a GPU")
    words = [sys.executable, str(BENCHMARKS / "gpu.py"), "--out", str(tmp_path / "out"), "--quick"]
    words += ["--only", "machine", "--only", "copies", "--only", "small"]
    done = subprocess.run(words, cwd="/", env={}, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.count("failed: RuntimeError: no cuda: ") == 3
    found = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")}
    assert set(found) == {"machine", "copies", "small", "summary"}
    assert found["machine"]["measured"]["cpu"]["one thread"] > 0
    assert found["copies"]["measured"]["staging by threads"]["1"] > 0
    assert all(part["status"] == "failed" for part in found["summary"]["parts"])
    assert all(part["quick"] for part in found["summary"]["parts"])
    assert "no device" in (tmp_path / "out" / "table.md").read_text()


def test_part_that_takes_too_long_keeps_what_it_measured(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = "import sys, time, pathlib as p; p.Path(sys.argv[sys.argv.index('--out') + 1], 'small"
    slow += '.json\').write_text(\'{"status": "unfinished", "reason": "", "measured": '
    slow += '{"rate": 5}, "missed": [], "rows": []}\'); time.sleep(60)'
    (tmp_path / "slow.py").write_text(slow)
    monkeypatch.setattr(script, "__file__", str(tmp_path / "slow.py"))
    given = SimpleNamespace(out=tmp_path, backend="cuda", quick=True)
    began = time.monotonic()
    found = script._run_apart("small", 2, given)
    assert time.monotonic() - began < 30
    assert found["status"] == "failed"
    assert found["reason"] == "it took longer than 2 s"
    assert found["measured"] == {"rate": 5}


def test_part_that_dies_loses_nothing_else(script: Any, tmp_path: Path) -> None:
    given = SimpleNamespace(out=tmp_path, backend="no such", quick=True)
    found = script._run_apart("small", 60, given)
    assert found["status"] == "failed"
    assert "see small.log" in found["reason"]
    assert "invalid choice" in (tmp_path / "small.log").read_text()


def test_table_labels_what_was_quick(script: Any) -> None:
    table = import_module("gpu_parts.table").table
    end = {"part": "small", "status": "ok", "reason": "", "backend": "cuda", "measured": {}}
    end |= {"rows": [["slices", "20 ×", "21.00 ×"]]}
    assert "| slices | 20 × | 21.00 × | `gpu.py --quick`, cuda |" in table([end], True)
    assert "| slices | 20 × | 21.00 × | `gpu.py`, cuda |" in table([end], False)
