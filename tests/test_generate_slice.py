"""The slice generator that comes with the examples, run as its users run it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "workloads" / "generate_slice.py"


def generate(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    # -I and -S: nothing but Python's own library is to be had.
    command = [sys.executable, "-I", "-S", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.parametrize(
    ("size", "length"), [("0", 0), ("1", 1), ("4097", 4097), ("3KiB", 3072), ("2MiB", 2_097_152)]
)
def test_generate_writes_that_many_bytes(tmp_path: Path, size: str, length: int) -> None:
    path = tmp_path / "a.slice"
    done = generate(path, "--bytes", size)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{length} {path}\n", "")
    assert path.stat().st_size == length
    assert os.listdir(tmp_path) == ["a.slice"]


def test_generate_is_deterministic_and_the_seed_counts(tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        generate(name, "--bytes", "1100000", "--seed", seed, cwd=tmp_path)
    generate("short", "--bytes", "1000", "--seed", 7, cwd=tmp_path)
    a, b, c, short = ((tmp_path / name).read_bytes() for name in ("a", "b", "c", "short"))
    assert a == b
    assert a != c
    assert a.startswith(short)
    assert len(set(a[:65536])) == 256
    assert a[:8].hex() == "894869808b4bf516"


def test_generate_refuses_to_overwrite_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "a.slice"
    path.write_bytes(b"precious")
    refused = generate(path, "--bytes", "16")
    assert refused.returncode == 2
    assert f"{path} exists: give --force to replace it" in refused.stderr
    assert path.read_bytes() == b"precious"

    forced = generate(path, "--bytes", "16", "--force")
    assert forced.returncode == 0
    assert path.stat().st_size == 16
    assert os.listdir(tmp_path) == ["a.slice"]


def test_generate_does_not_write_through_a_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert generate(tmp_path / "link", "--bytes", "16").returncode == 2
    assert os.listdir(tmp_path) == ["link"]


@pytest.mark.parametrize("size", ["", "-1", "1.5MiB", "1KB", "ten", "1 000", "٣"])
def test_generate_refuses_a_bad_size(tmp_path: Path, size: str) -> None:
    done = generate(tmp_path / "a", f"--bytes={size}")
    assert done.returncode == 2
    assert "is not a size" in done.stderr
    assert os.listdir(tmp_path) == []


def test_generate_says_why_it_cannot_write(tmp_path: Path) -> None:
    done = generate(tmp_path / "missing" / "a", "--bytes", "1")
    assert done.returncode == 1
    assert done.stderr.endswith("missing/a: No such file or directory\n")

    done = generate(tmp_path, "--bytes", "1", "--force")
    assert done.returncode == 1
    assert done.stderr.endswith("Is a directory\n")
    assert os.listdir(tmp_path.parent).count(tmp_path.name) == 1
    assert not [name for name in os.listdir(tmp_path.parent) if name.endswith(".tmp")]
