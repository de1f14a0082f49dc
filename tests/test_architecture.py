"""The shape of the code, read from its source: who imports whom, what the library never does."""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import compute_market
from compute_market.store import schema
from compute_market.store.environment import MAX_TABLES
from compute_market.store.table import Sums, Table

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "compute_market"
CLI = ROOT / "cli" / "tb_cli"

# Every module of the library, each importing only what stands before it; modules of one package
# stand together. A new module has to be given its place here, and a new package in the list of the
# docstring of `compute_market`.
ORDER = (
    "text",
    "errors",
    "quantities",
    "learned",
    "field_errors",
    "signatures.canonical",
    "signatures.pyca",
    "signatures.liboqs",
    "signatures.signatures",
    "signatures.keys",
    "home",
    "amounts",
    "backends",
    "records",
    "keyed_records",
    "receipt_records",
    "bid_records",
    "import_records",
    "courier_records",
    "governance_records",
    "subsidy_records",
    "mempool_records",
    "price_records",
    "archive_records",
    "amount_text",
    "json_text",
    "json_lists",
    "json_documents",
    "requests",
    "config.toml",
    "config.settings",
    "config.parameters",
    "config.rows",
    "config.addresses",
    "config.files",
    "config.shown",
    "config.places",
    "store.table",
    "store.schema",
    "store.late",
    "store.resident",
    "store.txn",
    "store.search",
    "store.sparing",
    "store.rewriting",
    "store.lock",
    "store.pages",
    "store.creation",
    "store.translation",
    "store.environment",
    "store.compaction",
    "store.throwaway",
    "store.store",
    "store.copies",
    "store.usage",
    "store.changes",
    "store.group",
    "laws",
    "idempotency",
    "metrics",
    "archived",
    "events",
    "clock",
    "chain",
    "governance.parameters",
    "governance.governance",
    "governance.proposals",
    "governance.laws",
    "instance",
    "reputation.decay",
    "reputation.due",
    "reputation.reputation",
    "reputation.gossip",
    "reputation.snapshot",
    "reputation.laws",
    "settlement.ledger",
    "settlement.receipt_chain",
    "settlement.receipts",
    "settlement.receipt_files",
    "settlement.modes",
    "settlement.state_root",
    "settlement.receipt_export",
    "settlement.escrow",
    "settlement.settlement",
    "settlement.past",
    "settlement.wallets",
    "settlement.statements",
    "settlement.import_checks",
    "settlement.imports",
    "settlement.import_laws",
    "settlement.laws",
    "offers.prices",
    "offers.price_window",
    "offers.board",
    "offers.price_file",
    "offers.book",
    "offers.offers",
    "offers.selection",
    "offers.standing",
    "offers.posting",
    "offers.changing",
    "offers.laws",
    "scheduler.queue",
    "scheduler.matching",
    "scheduler.explain",
    "scheduler.counterfactual",
    "scheduler.preemption",
    "scheduler.outcomes",
    "scheduler.laws",
    "admission.shares",
    "admission.capacity",
    "admission.mempool",
    "admission.comfort",
    "admission.transactions",
    "admission.admission",
    "admission.laws",
    "jobs.cancellations",
    "jobs.lanes",
    "jobs.jobs",
    "jobs.listed",
    "jobs.selection",
    "jobs.pages",
    "jobs.by_end",
    "jobs.handovers",
    "jobs.pools",
    "jobs.documents",
    "jobs.past",
    "jobs.drafts",
    "jobs.work",
    "jobs.demand",
    "jobs.placing",
    "jobs.waiting",
    "jobs.explain",
    "jobs.chances",
    "jobs.obstacles",
    "jobs.submit",
    "jobs.prove",
    "jobs.faults",
    "jobs.cancel",
    "jobs.expire",
    "jobs.extend",
    "jobs.holding",
    "jobs.preempt",
    "jobs.bill",
    "jobs.handoff",
    "jobs.present",
    "jobs.money_laws",
    "jobs.laws",
    "bids.sealing",
    "bids.bid_files",
    "bids.sealed_jobs",
    "bids.bids",
    "bids.laws",
    "courier.leases",
    "courier.courier",
    "courier.documents",
    "courier.envelope",
    "courier.retries",
    "courier.deliveries",
    "courier.delivery_laws",
    "courier.laws",
    "subsidy.governor",
    "subsidy.subsidy",
    "subsidy.laws",
    "archive.counted",
    "archive.selection",
    "archive.removal",
    "archive.forgetting",
    "archive.archives",
    "archive.lines",
    "archive.files",
    "archive.archiving",
    "archive.laws",
    "audit",
    "overview",
    "parties",
    "exposition",
    "concerns",
    "rpc_results",
    "rpc",
    "upgrades",
    "execution",
    "housekeeping",
    "engine",
    "verbs",
    "submission",
    "market",
    "simulation.draws",
    "simulation.scenario",
    "simulation.scenario_files",
    "simulation.arrivals",
    "simulation.trace_lines",
    "simulation.trace_jobs",
    "simulation.swf",
    "simulation.openb",
    "simulation.traces",
    "simulation.stage",
    "simulation.providers",
    "simulation.script",
    "simulation.replay_records",
    "simulation.terms",
    "simulation.recorder",
    "simulation.replay",
    "simulation.work",
    "simulation.traffic",
    "simulation.world",
    "simulation.throwaway",
    "simulation.variations",
    "simulation.measures",
    "simulation.report",
    "simulation.comparison",
)
# They know nothing of the store.
APART = (
    "hashing.files",
    "hashing.cpu",
    "hashing.short",
    "hashing.batch",
    "hashing.forms",
    "hashing.kernels.source",
    "hashing.plan",
    "hashing.launch",
    "hashing.device",
    "hashing.checked",
    "hashing.lanes",
    "hashing.pipeline",
    "hashing.probe",
    "hashing.cuda",
    "hashing.opencl",
    "hashing.calibration",
    "hashing.hasher",
    "hashing.measure",
    "workloads.workloads",
    "workloads.cache",
    "workloads.tasks",
    "workloads.places",
    "workloads.remote_tasks",
    "workloads.pools",
    "workloads.here",
    "workloads.runner",
)
# They bring slices and the store together.
RUNS_SLICES = {"execution", "market"}
APART_MAY_IMPORT = ("text", "errors", "field_errors", "backends")


def room_of(module: str) -> str:
    """The package a module is in, or the module itself at the top."""
    return module.split(".")[0]


ROOMS = tuple(dict.fromkeys(map(room_of, ORDER)))
ROOMS_APART = tuple(dict.fromkeys(map(room_of, APART)))

# Who may talk to the operating system: the store's files and the slices.
USES_FILES = {
    *("home", "signatures.liboqs", "jobs.cancellations", "engine", "market", "execution", *APART),
    *("offers.price_file", "archive.files", "archive.archiving"),
    *("store.lock", "store.creation", "store.translation", "store.environment", "store.store"),
    *("store.compaction", "store.copies", "store.usage"),
    *("store.throwaway", "simulation.trace_lines", "simulation.traces"),
}
# Time, randomness and the network are arguments or somebody else's.
FORBIDDEN_IMPORTS = {
    "time",
    "datetime",
    "random",
    "secrets",
    "uuid",
    "logging",
    "socket",
    "http",
    "urllib",
    "ssl",
    "asyncio",
    "tb_cli",
    "typer",
    "rich",
}
FORBIDDEN_NAMES = {"print", "input", "environ", "getenv", "urandom", "getrandom", "breakpoint"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(LIBRARY).with_suffix("").parts)


@cache
def sources() -> dict[str, ast.Module]:
    """The modules of the library; what no test of a process asks for, it does not parse."""
    return {
        name_of(path): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(LIBRARY.rglob("*.py"))
        if path.name != "__init__.py"
    }


@cache
def cli_sources() -> dict[str, ast.Module]:
    return {
        path.relative_to(CLI).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(CLI.rglob("*.py"))
    }


@cache
def nodes_of(tree: ast.AST) -> tuple[ast.AST, ...]:
    """All that a tree has: it is walked once, and not by each test that looks at it."""
    return tuple(ast.walk(tree))


@cache
def imports(tree: ast.AST) -> tuple[str, ...]:
    """Every imported module; of the library, every name taken from its package."""
    return tuple(_imports(tree))


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in nodes_of(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            if (
                node.module == "compute_market"
                or (LIBRARY.parent / node.module.replace(".", "/")).is_dir()
            ):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def own_imports(tree: ast.AST) -> set[str]:
    prefix = "compute_market."
    found = {name.removeprefix(prefix) for name in imports(tree) if name.startswith(prefix)}
    return found - {"__version__"}


def test_every_module_has_its_place() -> None:
    assert sorted(sources()) == sorted((*ORDER, *APART))


def test_docstring_lists_the_rooms_in_this_order() -> None:
    document = compute_market.__doc__ or ""
    listed = [
        name.rstrip("/")
        for line in document.splitlines()
        if line.startswith("    ")
        for name in line.strip().split("   ")[0].split()
    ]
    assert tuple(listed) == ROOMS
    for name in ROOMS_APART:
        assert f"`{name}`" in document


def test_modules_of_a_room_stand_together() -> None:
    for modules, rooms in ((ORDER, ROOMS), (APART, ROOMS_APART)):
        assert list(modules) == sorted(modules, key=lambda module: rooms.index(room_of(module)))


def test_modules_import_only_what_stands_before_them() -> None:
    wrong = {}
    for place, module in enumerate(ORDER):
        below = {*ORDER[:place], *(APART if module in RUNS_SLICES else ())}
        wrong[module] = own_imports(sources()[module]) - below
    assert {module: names for module, names in wrong.items() if names} == {}


def test_slice_modules_know_nothing_of_the_store() -> None:
    for place, module in enumerate(APART):
        below = {*APART_MAY_IMPORT, *APART[:place]}
        assert own_imports(sources()[module]) - below == set(), module


def test_package_itself_imports_nothing() -> None:
    for path in LIBRARY.rglob("__init__.py"):
        assert list(imports(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_only_modules_about_its_file_import_lmdb() -> None:
    users = {
        name
        for name, tree in (sources() | cli_sources()).items()
        if any(found.split(".")[0] == "lmdb" for found in imports(tree))
    }
    assert users == {
        *("store.pages", "store.creation", "store.translation", "store.environment"),
        "store.compaction",
        "store.throwaway",
    }


def test_only_the_engine_runs_transactions() -> None:
    users = {
        name
        for name, tree in sources().items()
        if any(found.startswith("compute_market.store.store") for found in imports(tree))
    }
    assert users == {"engine", "store.changes", "store.copies", "store.usage", "store.group"}


def test_prometheus_client_is_imported_late_and_in_one_place() -> None:
    """It takes longer to import than most commands take in all."""
    users = {
        name: tree
        for name, tree in (sources() | cli_sources()).items()
        if "prometheus_client" in {found.split(".")[0] for found in imports(tree)}
    }
    assert users.keys() == {"exposition"}
    tree = users["exposition"]
    inside = {
        node
        for function in nodes_of(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
    }
    for node in nodes_of(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and any(
            found.split(".")[0] == "prometheus_client" for found in imports(node)
        ):
            assert node in inside or is_for_types(tree, node), f"line {node.lineno}"


def test_pages_alone_import_their_templates() -> None:
    """What makes pages takes longer to import than most commands take in all."""
    users = {
        name
        for name, tree in cli_sources().items()
        if {found.split(".")[0] for found in imports(tree)} & {"jinja2", "markupsafe"}
    }
    assert users == {f"network/pages/{name}.py" for name in ("charts", "rendering", "words")}
    importers = {
        name
        for name, tree in cli_sources().items()
        if any(found.startswith("tb_cli.network.pages") for found in imports(tree))
        and not name.startswith("network/pages/")
    }
    assert importers == {"network/endpoints.py"}


def is_for_types(tree: ast.AST, node: ast.AST) -> bool:
    return any(
        isinstance(block, ast.If)
        and isinstance(block.test, ast.Name)
        and block.test.id == "TYPE_CHECKING"
        and node in block.body
        for block in nodes_of(tree)
    )


def test_library_reads_no_clock_and_no_environment_and_prints_nothing() -> None:
    for module, tree in sources().items():
        assert {name.split(".")[0] for name in imports(tree)} & FORBIDDEN_IMPORTS == set(), module
        names = {node.id for node in nodes_of(tree) if isinstance(node, ast.Name)}
        attributes = {node.attr for node in nodes_of(tree) if isinstance(node, ast.Attribute)}
        imported = {
            alias.name
            for node in nodes_of(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        assert (names | attributes | imported) & FORBIDDEN_NAMES == set(), module


def test_only_modules_about_files_use_the_operating_system() -> None:
    users = {
        name
        for name, tree in sources().items()
        if {found.split(".")[0] for found in imports(tree)} & {"os", "fcntl", "mmap", "threading"}
    }
    assert users <= USES_FILES


def test_library_keeps_no_state_in_globals() -> None:
    """No `global`, and no empty container at the top of a module waiting to be filled."""
    for module, tree in sources().items():
        assert not [node for node in nodes_of(tree) if isinstance(node, ast.Global)], module
        for node in tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign):
                empty = isinstance(node.value, ast.List | ast.Dict | ast.Set) and not list(
                    ast.iter_child_nodes(node.value)
                )
                assert not empty, f"{module}: line {node.lineno}"


# The last line of defence of the command line, which calls what arrives there a bug, and the border
# to packages of others, of whose bugs it makes an error of the slice.
CATCHES_ALL = {"frame/guard.py": 1, "workloads.workloads": 1}


def test_nothing_swallows_errors() -> None:
    catching: Counter[str] = Counter()
    for module, tree in (sources() | cli_sources()).items():
        for node in nodes_of(tree):
            if isinstance(node, ast.ExceptHandler):
                names = (
                    {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)}
                    if node.type
                    else {""}
                )
                catching[module] += bool(names & {"", "Exception"})
                if "BaseException" in names:  # For cleaning up, and then it goes on.
                    goes_on = (isinstance(n, ast.Raise) and not n.exc for n in ast.walk(node))
                    assert any(goes_on), f"{module}: line {node.lineno}"
    assert +catching == CATCHES_ALL


def test_exit_is_raised_and_never_returned() -> None:
    """Typer ignores an `Exit` that a command returns."""
    for module, tree in cli_sources().items():
        for node in nodes_of(tree):
            if isinstance(node, ast.Return | ast.Expr) and node.value is not None:
                value = node.value.func if isinstance(node.value, ast.Call) else node.value
                named = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")
                assert named not in ("Exit", "Abort"), f"{module}: line {node.lineno}"


def test_command_line_exists() -> None:
    assert "entry.py" in cli_sources()


# Tables that a schema step or the transaction itself may write as well.
WRITES_ALL = {"store.txn", "store.store", "store.creation", "store.environment", "upgrades"}
# It takes away what all rooms have of an ended job.
REMOVES_ALL = "archive.removal"


_WRITE_METHODS = ("put", "write", "delete", "remove", "add", "clear", "rewrite")


def named_tables(argument: ast.expr, tables: dict[str, Any]) -> list[str]:
    """The tables an argument stands for: one by its name, or those of the queue by priority."""
    if isinstance(argument, ast.Subscript) and ast.unparse(argument.value) == "TABLES":
        return ["QUEUE_HIGH", "QUEUE_NORMAL", "QUEUE_LOW"]
    return [argument.id] if isinstance(argument, ast.Name) and argument.id in tables else []


def test_each_table_is_written_by_the_module_it_names() -> None:
    tables = {
        name: value for name, value in vars(schema).items() if isinstance(value, Table | Sums)
    }
    writers: defaultdict[str, set[str]] = defaultdict(set)
    for module, tree in sources().items():
        for node in nodes_of(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in _WRITE_METHODS
                and node.args
            ):
                for name in named_tables(node.args[0], tables):
                    writers[name].add(module)
    for name, declared in tables.items():
        table = declared.table if isinstance(declared, Sums) else declared
        if table is schema.META:  # Small numbers and texts of many modules, each with its own key.
            continue
        assert writers[name] - WRITES_ALL - {REMOVES_ALL} | {table.writer} == {table.writer}, name
        assert table.writer in writers[name], name


def test_every_table_is_declared_once() -> None:
    names = [table.name for table in schema.TABLES]
    assert len(names) == len(set(names)) <= MAX_TABLES
