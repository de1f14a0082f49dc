"""The start-up path of `tb-cli`, kept short because shell loops pay for it on every line."""

import gc
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tb_cli.frame.session import Session


def main() -> None:
    """Run one command and leave with its exit code, without tearing the interpreter down."""
    # Nothing built while starting is garbage; looking for some costs a tenth of the time.
    gc.disable()
    _open_what_is_closed()
    from tb_cli.frame.guard import guarded

    arguments = sys.argv[1:]
    code = guarded(lambda: call(arguments), arguments)
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
