"""The start-up path of `tb-cli`, kept short because shell loops pay for it on every line."""

import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

# Verbs that `tb_cli.frame.plain` may answer for.
_HOT = (["compute", "cancel"], ["compute", "status"], ["compute-market", "params"])

# What msgspec imports for its `inspect.type_info` and `json.schema`, which no command calls.
_SELDOM_USED = ("msgspec.inspect", "textwrap")


def main() -> None:
    """Run one command and leave with its exit code, without tearing the interpreter down."""
    # Nothing built while starting is garbage; looking for some costs a tenth of the time.
    gc.disable()
    _open_what_is_closed()
    from tb_cli.frame.guard import guarded

    code = guarded(_run, sys.argv[1:])
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


def _run() -> int:
    arguments = sys.argv[1:]
    if arguments[:2] == ["compute", "run"]:
        from tb_cli import run as sums

        code = sums.run(arguments)
        if code is not None:
            return code
    import_msgspec()
    if arguments[:2] in _HOT:
        from tb_cli.frame import plain as hot

        code = hot.run(arguments)
        if code is not None:
            return code
    from tb_cli.app import call

    return call(arguments)


if __name__ == "__main__":
    main()
