"""The start-up path of `tb-cli`, kept short because shell loops pay for it on every line."""

import gc
import os
import sys

# Verbs that `tb_cli.frame.plain` may answer for.
_HOT = (["compute", "cancel"], ["compute", "status"], ["compute-market", "params"])


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


def _run() -> int:
    arguments = sys.argv[1:]
    if arguments[:2] == ["compute", "run"]:
        from tb_cli import run as sums

        code = sums.run(arguments)
        if code is not None:
            return code
    if arguments[:2] in _HOT:
        from tb_cli.frame import plain as hot

        code = hot.run(arguments)
        if code is not None:
            return code
    from tb_cli.app import call

    return call(arguments)


if __name__ == "__main__":
    main()
