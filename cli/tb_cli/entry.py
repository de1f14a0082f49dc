"""The start-up path of `tb-cli`, kept short because shell loops pay for it on every line."""

import gc
import os
import sys

# Not that of `typing`, which is still to be imported.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from tb_cli.frame.session import Session

# Parts of msgspec that no command uses.
_SELDOM_USED = ("msgspec.inspect", "msgspec.toml", "msgspec.yaml")


def main() -> None:
    """Run one command and leave with its exit code, without tearing the interpreter down."""
    # Nothing built while starting is garbage; looking for some costs a tenth of the time.
    gc.disable()
    _open_what_is_closed()
    _import_nothing_from_here()
    import_lightly("typing")
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


def _import_nothing_from_here() -> None:
    """Take the current directory off the path if an empty part of PYTHONPATH put it there.

    `PYTHONPATH=$UNSET:DIR` does not mean that what lies around may stand in for a module. A
    checkout, where the library itself lies, stays.
    """
    given = os.environ.get("PYTHONPATH")
    if not given or "" not in (parts := given.split(os.pathsep)):
        return
    try:
        here = os.getcwd()
    except OSError:
        return  # It was deleted, and nothing is in it.
    path = sys.path[:]
    if here not in parts:
        sys.path[:] = [each for each in path if each not in ("", here)]
    try:
        import compute_market  # noqa: F401 - whether it can be found is all that is asked
    except ModuleNotFoundError:
        sys.path[:] = path
    else:  # For the processes that this one starts.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, parts))


def import_lightly(name: str) -> None:
    """Import `typing`, and after it msgspec, without what they import and no command uses.

    That is a third of a short command. What stands in meanwhile is gone afterwards, and what is
    kept of it does the same: whoever imports those modules later gets them. This is not for the
    library, whose users may want to know nothing of it.
    """
    if name in sys.modules:
        return
    absent = {each: it for each, it in _stand_ins().items() if each not in sys.modules}
    sys.modules.update(absent)  # type: ignore[arg-type]
    # msgspec makes a reference to a type, to see how that is done; the first name that Python
    # compiles has it make the types of all syntax trees. `typing` looks here before the builtins.
    names = vars(sys.modules["typing"]) if name == "msgspec" else {}
    names["compile"] = lambda *_: None
    try:
        __import__(name)
    finally:
        del names["compile"]
        for each in absent:
            del sys.modules[each]


def _stand_ins() -> "dict[str, ModuleType | None]":
    """What stands in for a module, by its name, and why it may."""
    import _datetime
    import _sre

    # A pattern that succeeds at once: `re` has its types from such a one as well.
    pattern = _sre.compile("", 0, [1], 0, {}, ())
    return {
        # Absent, `typing` is asked for the same names, and has them from Python 3.11 on.
        "typing_extensions": None,
        # `uuid` asks it for the name of the system and nothing else.
        "platform": _module("platform", system=lambda: os.uname().sysname),
        # Where the types of `datetime` come from; before Python 3.12 that defines its own first.
        "datetime": _datetime,
        # `typing` warns only where somebody asks it for what is deprecated.
        "warnings": _module("warnings", __getattr__=_later_of("warnings")),
        # `typing` has aliases for its types, and msgspec compiles patterns that a type asks for.
        "re": _module(
            "re",
            Pattern=type(pattern),
            Match=type(pattern.match("")),
            compile=_later("re", "compile"),
        ),
        **{name: _module(name, __getattr__=_later_of(name)) for name in _SELDOM_USED},
        # It is asked for two functions and imports `msgspec.inspect`.
        "msgspec._json_schema": _module(
            "msgspec._json_schema",
            schema=_later("msgspec._json_schema", "schema"),
            schema_components=_later("msgspec._json_schema", "schema_components"),
        ),
    }


def _module(name: str, **attributes: object) -> "ModuleType":
    module = type(sys)(name)
    vars(module).update(attributes)
    return module


def _later(module: str, name: str) -> "Callable[..., object]":
    """A function that imports the one it stands for when it is called."""
    return lambda *values, **named: getattr(_loaded(module), name)(*values, **named)


def _later_of(module: str) -> "Callable[[str], object]":
    """What a module that stands in answers when it is asked for an attribute."""
    return lambda name: getattr(_loaded(module), name)


def _loaded(name: str) -> "ModuleType":
    __import__(name)
    return sys.modules[name]


def _run(arguments: list[str]) -> int:
    # Hashing files needs no record; its ten thousand paths are read before it is known what does.
    if arguments[:2] != ["compute", "run"]:
        import_lightly("msgspec")
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
