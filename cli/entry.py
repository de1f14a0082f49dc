"""The start-up path of `tb-cli`, kept short because shell loops pay for it on every line."""

import gc
import os
import sys


def main() -> None:
    """Run one command and leave with its exit code, without tearing the interpreter down."""
    # Nothing built while starting is garbage; looking for some costs a tenth of the time.
    gc.disable()
    from cli.app import run

    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = code or 0  # Nobody reads any more, which is no error of the command.
    # Everything is committed or aborted and closed by now. Tools that must see the interpreter
    # finish, such as coverage, set TB_NO_FAST_EXIT.
    if "TB_NO_FAST_EXIT" in os.environ:
        sys.exit(code)
    os._exit(code)


if __name__ == "__main__":
    main()
