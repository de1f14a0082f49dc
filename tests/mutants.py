"""Do the tests notice when the rooms that move money are wrong? One small change at a time.

    python -m tests.mutants [--all | --sample N] [--seed S] [--only PART_OF_A_PATH]

Each mutant is one edit of one expression or statement of the library, made in a copy of the
repository. The room's own tests run first, then those of all the rooms, then the random histories;
the first that fails catches it. Prints each that nothing caught, and a table at the end. Ends with
1 if fewer than 99 of 100 were caught, those left out that change nothing anybody could see.
"""

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
ROOMS = ("settlement", "jobs", "offers", "admission", "reputation", "bids", "courier")
MODULES = ("compute_market/amounts.py", *(f"compute_market/{room}" for room in ROOMS))
# Not what moves money: how it is shown, and what the audit says when it is wrong, which the
# falsifications of every law look after.
LEFT_OUT = ("__init__.py", "documents.py", "laws.py", "import_laws.py")
EVERY_ROOM = (
    *(f"tests/{room}" for room in (*ROOMS, "scheduler")),
    *(f"tests/test_{name}.py" for name in ("amounts", "audit", "chain", "events", "market")),
    *("tests/test_metrics.py", "tests/test_upgrades.py"),
)
HISTORIES = ("tests/simulation/test_model.py",)
LEAST_PERCENT = 99
# A mutant that goes on for ever is caught as well.
TIMEOUT_S = 240
_OPTIONS = (
    *("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0"),
    "--ignore=tests/scheduler/test_trace.py",  # it needs the benchmarks and a trace
)

_COMPARED: dict[type[ast.cmpop], tuple[str, ...]] = {
    ast.Lt: ("<=", ">="),
    ast.LtE: ("<", ">"),
    ast.Gt: (">=", "<="),
    ast.GtE: (">", "<"),
    ast.Eq: ("!=",),
    ast.NotEq: ("==",),
    ast.Is: ("is not",),
    ast.IsNot: ("is",),
    ast.In: ("not in",),
    ast.NotIn: ("in",),
}
_COMPUTED: dict[type[ast.operator], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "//",
    ast.FloorDiv: "*",
}
# Names of one type that stand for each other where somebody slipped.
_MIXED_UP = {
    "buyer": "provider",
    "provider": "buyer",
    "ct": "it",
    "it": "ct",
    "debit": "credit",
    "used_micro": "charged_micro",
    "burst_micro": "bucket_micro",
    "now": "now_ms",
    "units_left": "units_reserved",
    "units_reserved": "units_proven",
    "credit": "debit",
    "units_proven": "units",
    "paid_ct": "refunded_ct",
    "paid_it": "refunded_it",
    "consumer_bond": "provider_bond",
    "provider_bond": "consumer_bond",
    "min": "max",
    "max": "min",
    "release": "reserve",
    "all": "any",
    "any": "all",
}

# Mutants that change nothing that anybody could see, and why.
EQUAL: dict[str, str] = {
    "compute_market/scheduler/queue.py: table, key, _ = pending_entry(job, 0): 0 → 1": (
        "the time goes into the value, which is not looked at here"
    ),
    "compute_market/admission/shares.py: "
    'if charged.role != "market" and charged.charged_ms != txn.now_ms:: '
    'charged.role != "market" and charged.charged_ms != txn.now_ms → charged.role != "market"': (
        "an entry is taken out and put back as it was"
    ),
}


class Mutant(NamedTuple):
    """One edit: characters `start` to `end` of a file become `text`."""

    path: str
    line: int
    start: int
    end: int
    before: str
    text: str
    whole: str  # the line it begins in

    @property
    def name(self) -> str:
        """What it is known by in `EQUAL`: numbers of lines change, the code stays."""
        return f"{self.path}: {self.whole}: {_flat(self.before)} → {_flat(self.text)}"


def _flat(code: str) -> str:
    return " ".join(code.split())


class Source:
    """A file of the library, and what can be changed in it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.text = (ROOT / path).read_text()
        self._tree = ast.parse(self.text)
        self._lines = self.text.encode().splitlines(keepends=True)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))

    def mutants(self) -> Iterator[Mutant]:
        typing_only = {
            id(inner)
            for node in ast.walk(self._tree)
            for inner in _of_no_effect(node)
            for inner in ast.walk(inner)
        }
        for node in ast.walk(self._tree):
            if id(node) in typing_only:
                continue
            for text in _edits(node, self._code):
                before = self._code(node)
                if text != before:
                    yield self._mutant(node, text)
            if isinstance(node, ast.If | ast.While):
                yield self._mutant(node.test, f"not ({self._code(node.test)})")

    def _mutant(self, node: ast.AST, text: str) -> Mutant:
        start, end = self._span(node)
        line: int = node.lineno  # type: ignore[attr-defined]
        whole = self._lines[line - 1].decode().strip()
        return Mutant(self.path, line, start, end, self._code(node), text, whole)

    def _span(self, node: ast.AST) -> tuple[int, int]:
        """Where it is, in bytes."""
        start = self._starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        return start, self._starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def _code(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self.text.encode()[start:end].decode()


def _of_no_effect(node: ast.AST) -> Iterator[ast.AST]:
    """Parts of a node that say something only to a reader or a type checker."""
    if isinstance(node, ast.FunctionDef):
        yield node.args
        if node.returns is not None:
            yield node.returns
        yield from node.decorator_list
    if isinstance(node, ast.ClassDef):
        yield from node.keywords  # how a record is made, not what it holds
    if isinstance(node, ast.AnnAssign):
        yield node.annotation
    if isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr | ast.Assert):
        yield node
    if isinstance(node, ast.Raise) and node.exc is not None:
        yield node.exc  # What an error says is no matter of money; that it is raised, is.
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        yield node


def _edits(node: ast.AST, code: Callable[[ast.AST], str]) -> Iterator[str]:
    """What may stand in the place of a node."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            for sign in _COMPARED.get(type(op), ()):
                yield f"{code(left)} {sign} {code(right)}"
        case ast.BoolOp(op=op, values=values):
            word = " or " if isinstance(op, ast.And) else " and "
            yield word.join(f"({code(value)})" for value in values)
            kept = " and " if isinstance(op, ast.And) else " or "
            for left_out in range(len(values)):
                rest = [code(value) for n, value in enumerate(values) if n != left_out]
                yield kept.join(rest)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield f"bool({code(operand)})"
        case ast.UnaryOp(op=ast.USub(), operand=operand) if not _is_ceiling(operand):
            yield code(operand)
        case ast.BinOp(left=ast.UnaryOp(op=ast.USub()), op=ast.FloorDiv(), right=right):
            pass  # a ceiling; its negation is one node up
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _COMPUTED:
            if not _is_text(left) and not _is_text(right):
                yield f"({code(left)} {_COMPUTED[type(op)]} {code(right)})"
        case ast.Constant(value=bool() as value):
            yield repr(not value)
        case ast.Constant(value=int() as value):
            yield repr(value + 1)
            if value > 0:
                yield repr(value - 1)
        case ast.IfExp(body=body, orelse=other):
            yield f"({code(body)})"
            yield f"({code(other)})"
        case ast.Attribute(value=value, attr=name) if name in _MIXED_UP:
            yield f"{code(value)}.{_MIXED_UP[name]}"
        case ast.Call(func=ast.Name(id=name)) if name in _MIXED_UP:
            yield _MIXED_UP[name] + code(node)[len(name) :]
        case ast.Call(args=args, keywords=[_, *_]):
            yield from _without_a_keyword(node, code)
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise():
            yield "pass"
        case ast.Break():
            yield "continue"
        case ast.Continue():
            yield "break"
        case _:
            pass
    match node:
        # A ceiling, -(-a // b), turned into a floor.
        case ast.UnaryOp(op=ast.USub(), operand=operand) if _is_ceiling(operand):
            assert isinstance(operand, ast.BinOp)
            assert isinstance(operand.left, ast.UnaryOp)
            yield f"({code(operand.left.operand)} // {code(operand.right)})"
        case ast.Call(args=args) if any(_is_event(each) for each in args):
            for each in args:
                if _is_event(each):
                    yield code(node).replace(code(each), '"another"', 1)
        case _:
            pass


def _is_ceiling(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.FloorDiv)
        and isinstance(node.left, ast.UnaryOp)
    )


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    )


def _is_event(node: ast.AST) -> bool:
    """Whether it names what happened, as postings and counters have it."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) > 2


def _without_a_keyword(node: ast.Call, code: Callable[[ast.AST], str]) -> Iterator[str]:
    for left_out in node.keywords:
        if left_out.arg == "hint":
            continue  # what an error says besides
        kept = [code(each) for each in node.args]
        kept += [
            f"{each.arg}={code(each.value)}" if each.arg else f"**{code(each.value)}"
            for each in node.keywords
            if each is not left_out
        ]
        yield f"{code(node.func)}({', '.join(kept)})"


def all_mutants() -> list[Mutant]:
    found = []
    for place in MODULES:
        paths = [ROOT / place] if place.endswith(".py") else sorted((ROOT / place).glob("*.py"))
        for path in paths:
            if path.name not in LEFT_OUT:
                found += Source(path.relative_to(ROOT).as_posix()).mutants()
    return found


class Workshop:
    """A copy of the repository in which one file at a time is wrong."""

    def __init__(self, directory: Path) -> None:
        self._root = directory
        self.told = ""
        for name in ("compute_market", "cli", "tests", "examples", "docs"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, directory / name, ignore=ignored)
        for name in ("pyproject.toml", "config.toml", "README.md", "CHANGELOG.md"):
            shutil.copy(ROOT / name, directory / name)

    def caught_by(self, mutant: Mutant | None) -> str | None:
        """The first tests that fail with a mutant; with None, with nothing changed."""
        if mutant is None:
            return self._first_failure(EVERY_ROOM)
        path = self._root / mutant.path
        sound = (ROOT / mutant.path).read_bytes()
        mutated = sound[: mutant.start] + mutant.text.encode() + sound[mutant.end :]
        try:
            ast.parse(mutated)
        except SyntaxError:
            return "no Python"
        path.write_bytes(mutated)
        try:
            return self._first_failure(_own_tests(mutant.path), EVERY_ROOM, HISTORIES)
        finally:
            path.write_bytes(sound)

    def _first_failure(self, *stages: tuple[str, ...]) -> str | None:
        for tests in stages:
            try:
                done = subprocess.run(
                    [sys.executable, "-m", "pytest", *_OPTIONS, *tests],
                    cwd=self._root,
                    env=os.environ
                    | {
                        "PYTHONPATH": f"{self._root}:{self._root / 'cli'}",
                        "PYTHONDONTWRITEBYTECODE": "1",
                        "TB_MUTANT": "1",
                    },
                    capture_output=True,
                    timeout=TIMEOUT_S,
                )
            except subprocess.TimeoutExpired:
                return "a time-out"
            if done.returncode != 0:
                self.told = done.stdout.decode()
                assert done.returncode in (1, 2), self.told
                return " ".join(tests)
        return None


def _own_tests(path: str) -> tuple[str, ...]:
    """The tests of the same name, or of the same room."""
    room, name = Path(path).parts[-2:]
    if room == "compute_market":
        return (f"tests/test_{name}",)
    own = f"tests/{room}/test_{name}"
    return (own,) if (ROOT / own).exists() else (f"tests/{room}",)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sample", type=int, default=150)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--only", default="")
    parser.add_argument("--list", action="store_true", help="show them and run nothing")
    given = parser.parse_args()
    found = [mutant for mutant in all_mutants() if given.only in mutant.path]
    if not given.all and given.sample < len(found):
        found = sorted(random.Random(given.seed).sample(found, given.sample))
    if given.list:
        print(*(mutant.name for mutant in found), sep="\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        return _report(Workshop(Path(directory)), found)


def _report(workshop: Workshop, mutants: list[Mutant]) -> int:
    failing = workshop.caught_by(None)
    assert failing is None, f"with nothing changed, {failing} fails: {workshop.told}"
    made: Counter[str] = Counter()
    equal: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for number, mutant in enumerate(mutants, 1):
        made[mutant.path] += 1
        if mutant.name in EQUAL:
            equal[mutant.path] += 1
            continue
        by = workshop.caught_by(mutant)
        if by is None:
            left[mutant.path] += 1
            print(f"not caught, line {mutant.line}: {mutant.name}", flush=True)
        print(f"{number} of {len(mutants)}", file=sys.stderr)
    print("| module | mutants | equal | not caught |\n|---|---:|---:|---:|")
    for path in sorted(made):
        print(f"| {path} | {made[path]} | {equal[path]} | {left[path]} |")
    total, same, survived = made.total(), equal.total(), left.total()
    caught = 100 * (total - same - survived) / max(1, total - same)
    print(f"| all | {total} | {same} | {survived} |\n\n{caught:.1f} % caught")
    return int(caught < LEAST_PERCENT)


if __name__ == "__main__":
    sys.exit(main())
