"""Questions before what is dangerous: only on a terminal, and an answer is no unless it is yes."""

import sys

from compute_market.errors import RefusedError
from compute_market.text import printable
from tb_cli.frame.session import Session

_YES = (b"y", b"yes")


def is_asked(session: Session, *, yes: bool) -> bool:
    """Whether somebody is there to be asked, and anything to ask.

    Never in a pipe, with `yes`, in a dry run, or for a line of a batch, whose input are its lines.
    """
    if yes or session.dry_run or session.is_line:
        return False
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(session: Session, question: str, *, yes: bool) -> None:
    """Ask, if somebody is there to be asked. Raises RefusedError if that is declined.

    The end of input is no, and Ctrl-C ends the command as it does anywhere. It comes before the
    command does anything.
    """
    if not is_asked(session, yes=yes):
        return
    sys.stderr.write(f"{printable(question)} [y/N] ")
    sys.stderr.flush()
    try:
        answer = sys.stdin.buffer.readline()
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        raise
    except OSError:  # The terminal is gone.
        answer = b""
    if not answer.endswith(b"\n"):
        sys.stderr.write("\n")
    if answer.strip().lower() not in _YES:
        raise RefusedError(
            "not confirmed, nothing was changed",
            hint="answer y, or give --yes",
            reason="not_confirmed",
        )
