"""The start-up path of `tb-cli`, kept short because shell loops pay for it on every line."""

import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tb_cli.frame.session import Session

# What msgspec imports for its `inspect.type_info` and `json.schema`, which no command calls.
_SELDOM_USED = ("msgspec.inspect", "textwrap")


def main() -> None:
    """Run one command and leave with its exit code, without tearing the interpreter down."""
    # Nothing built while starting is garbage; looking for some costs a tenth of the time.
    gc.disable()
    _open_what_is_closed()
    from tb_cli.frame.guard import guarded

    arguments = sys.argv[1:]
    code = guarded(lambda: _run(arguments), arguments)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        pass  # It was reported, or it is a closed pipe.
    # Everything is committed or aborted and closed by now. Tools that must see the interpreter
    # finish, such as coverage, set TB_NO_FAST_EXIT.
    if "TB_NO_FAST_EXIT" in os.environ:
        sys.exit(code)
    os._exit(code)


def _open_what_is_closed() -> None:
    """Stand in for standard streams a process was started without.

    In their order, so that each gets its own number and no file of the market gets it.
    """
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


class _LazyFinder:
    """Finds modules of `_SELDOM_USED`, which run when an attribute of theirs is first asked for."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in _SELDOM_USED else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def import_msgspec() -> None:
    """Import msgspec without what it imports and no command uses: a quarter of a short command.

    What stands in meanwhile is gone afterwards: whoever imports those modules later gets them. This
    is not for the library, whose users may want to know nothing of it.
    """
    if "msgspec" in sys.modules:
        return
    platform = ModuleType("platform")
    platform.system = lambda: os.uname().sysname  # type: ignore[attr-defined]
    stand_ins = {
        # Absent, `typing` is asked for the same names, and has them from Python 3.11 on.
        "typing_extensions": None,
        # `uuid` asks it for the name of the system and nothing else.
        "platform": platform,
        # Where the types of `datetime` come from; before Python 3.12 that defines its own first.
        "datetime": import_module("_datetime"),
    }
    absent = [name for name in stand_ins if name not in sys.modules]
    sys.modules.update({name: stand_ins[name] for name in absent})  # type: ignore[misc]
    sys.meta_path.insert(0, _LazyFinder)
    try:
        import msgspec  # noqa: F401
    finally:
        sys.meta_path.remove(_LazyFinder)
        for name in absent:
            del sys.modules[name]


def _run(arguments: list[str]) -> int:
    # Hashing files needs no record; its ten thousand paths are read before it is known what does.
    if arguments[:2] != ["compute", "run"]:
        import_msgspec()
    return call(arguments)


def call(arguments: list[str], batch: "Session | None" = None) -> int:
    """Run one command line. Returns its exit code or raises what went wrong.

    As a line of a `batch` it uses the store of that session.
    """
    from tb_cli.frame import plain
    from tb_cli.tree import TREE

    code = plain.run(TREE, arguments, batch)
    if code is None:
        from tb_cli import app

        code = app.call(arguments, batch)
    return code


if __name__ == "__main__":
    main()
