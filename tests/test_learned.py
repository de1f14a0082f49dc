"""Types that several threads meet for the first time at once."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import compute_market
from tests.support.effort import effort

SOURCES = (Path(compute_market.__file__).parent, Path(__file__).parents[1] / "cli" / "tb_cli")
# One thread alone reads, or before there is another; what `rewriting` converts is no type.
LEFT_OUT = (
    "simulation",
    "calibration.py",
    "upgrades.py",
    "json_lines.py",
    "learned.py",
    "rewriting.py",
)

MEETING = """
import sys, threading
from msgspec import Struct, msgpack
from compute_market.learned import decoder, learned
from typing import Optional
sys.setswitchinterval(1e-7)
for turn in range(int(sys.argv[1])):
    class Inner(Struct):
        x: "int" = 0
        y: "Optional[str]" = None
    fields = {f"f{n}": "Optional[Inner]" for n in range(25)}
    Outer = type("Outer", (Struct,), {"__annotations__": fields, "__module__": "__main__"})
    data = msgpack.encode({name: {"x": 1} for name in fields})
    barrier = threading.Barrier(4)
    def meet(number):
        barrier.wait()
        found = decoder(Outer).decode(data) if number % 2 else msgpack.decode(
            data, type=learned(Outer))
        assert found.f24.x == 1
    threads = [threading.Thread(target=meet, args=(n,)) for n in range(4)]
    for each in threads: each.start()
    for each in threads: each.join()
"""


def test_threads_that_meet_a_type_at_once_all_read_into_it() -> None:
    command = [sys.executable, "-c", MEETING, str(effort(100, 5_000))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def read_into(tree: ast.AST) -> Iterator[str]:
    """The types that code reads into, as it names them."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func).rpartition(".")[2]
        if called == "decode":
            yield from (ast.unparse(each.value) for each in node.keywords if each.arg == "type")
        elif called == "Decoder" or (called == "convert" and len(node.args) == 2):
            yield ast.unparse(node.args[called == "convert"])


def test_every_type_that_threads_read_into_is_learned() -> None:
    found = {
        f"{path}: {kind}"
        for source in SOURCES
        for path in source.rglob("*.py")
        if not any(part in LEFT_OUT for part in path.parts)
        for kind in read_into(ast.parse(path.read_text()))
        if not kind.startswith("learned(")
    }
    assert found == set()
