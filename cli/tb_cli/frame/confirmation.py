"""Questions before what is dangerous: only on a terminal, and an answer is no unless it is yes."""

import os
import sys

from compute_market.errors import RefusedError
from compute_market.text import printable
from tb_cli.frame.session import Session

_YES = (b"y", b"yes")


def is_asked(session: Session, *, yes: bool) -> bool:
    """Whether somebody is there to be asked, and anything to ask.

    Never in a pipe, with `yes`, in a dry run, or for a line of a batch, whose input are its lines.
    Where stderr is kept elsewhere, only of a command in the foreground: another could not read.
    """
    if yes or session.dry_run or session.is_line or not sys.stdin.isatty():
        return False
    return sys.stderr.isatty() or _has_foreground()


def confirm(session: Session, question: str, *, yes: bool) -> None:
    """Ask, if somebody is there to be asked. Raises RefusedError if that is declined.

    The end of input is no, and Ctrl-C ends the command as it does anywhere. It comes before the
    command does anything.
    """
    if not is_asked(session, yes=yes):
        return
    _write(f"{printable(question)} [y/N] ")
    try:
        answer = sys.stdin.buffer.readline()
    except KeyboardInterrupt:
        _write("\n")
        raise
    except OSError:  # The terminal is gone.
        answer = b""
    if not answer.endswith(b"\n"):
        _write("\n")
    if answer.strip().lower() not in _YES:
        raise RefusedError(
            "not confirmed, nothing was changed",
            hint="answer y, or give --yes",
            reason="not_confirmed",
        )


def _has_foreground() -> bool:
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:  # It is not the terminal of this session.
        return False


def _write(text: str) -> None:
    """Write where somebody sees it: on stderr, or on the terminal if that is no terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(text)
        sys.stderr.flush()
        return
    try:
        with open("/dev/tty", "w") as terminal:
            terminal.write(text)
    except OSError:  # It is gone, and so is who would answer.
        pass
