"""`batch`: one command per line of stdin, in one process, each in its own transaction."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BufferedReader, RawIOBase, TextIOWrapper

from compute_market.errors import UsageError, exit_code
from tb_cli.frame.guard import answered
from tb_cli.frame.render import note
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, flag, takes


@takes(
    argument("source", "[-]", "Only - : stdin.", required=False, default="-"),
    flag(
        "--keep-going",
        help="Go on after a line that failed.",
        opposite="--fail-fast",
        default=True,
    ),
)
def batch(session: Session, source: str, *, keep_going: bool) -> int:
    """Prints as it goes, and saves the start of a process for each.

    Lines are split as a shell splits words; blank lines and those that begin with # are skipped.
    `tb-cli` may stand before the command. Options given to `batch` hold for every line. A line
    cannot read stdin itself, where the commands come from. Ends with 0, the common code if all
    lines failed alike, else 7.
    """
    # A line is a command line: what runs those stands above every verb.
    from tb_cli.entry import call

    if source != "-":
        raise UsageError(f"{source!a}: only - , stdin, can be read")
    codes = []
    form = ["--json"] if session.json else []
    for number, line in enumerate(sys.stdin.buffer, 1):
        text = _decoded(line, number).strip()
        if not text or text.startswith("#"):
            continue
        words = _words(text, number)
        with _stdin_kept():
            code = answered(partial(call, words, session), [*words, *form])
        sys.stdout.flush()
        codes.append(code)
        if code:
            note(f"line {number}: exit code {code}")
            if not keep_going:
                break
    failed = [code for code in codes if code]
    if not failed:
        return 0
    return (
        failed[0] if len(failed) == len(codes) and len(set(failed)) == 1 else exit_code("partial")
    )


class _Taken(RawIOBase):
    """What a line finds in the place of standard input, which holds the lines after it."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        raise UsageError(
            "standard input cannot be read here: the commands of the batch come from it",
            hint="name a file, or run this command by itself",
        )


@contextmanager
def _stdin_kept() -> Iterator[None]:
    """Let nothing that runs in the block read standard input."""
    stdin = sys.stdin
    sys.stdin = TextIOWrapper(BufferedReader(_Taken()))
    try:
        yield
    finally:
        sys.stdin = stdin


def _decoded(line: bytes, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"stdin line {number} is not UTF-8") from error


def _words(text: str, number: int) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"stdin line {number}: {error}") from error
    if words[:1] == ["tb-cli"]:
        words = words[1:]
    if words[:1] == ["batch"]:
        raise UsageError(f"stdin line {number}: a batch cannot hold a batch")
    return words
