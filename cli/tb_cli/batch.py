"""`batch`: one command per line of stdin, in one process, each in its own transaction."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, RawIOBase, TextIOWrapper

from compute_market.errors import UsageError, exit_code
from compute_market.text import counted
from tb_cli.frame.guard import Terminated, answered
from tb_cli.frame.lines import WORDS_MAX, Lines, text_of
from tb_cli.frame.render import note
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, examples, flag, takes


@examples("tb-cli batch -")
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
    codes: list[int] = []
    form = ["--json"] if session.json else []
    words: list[str] = []

    def run() -> int:
        words[:] = _words(line, number)
        return call(words, session) if words else 0

    try:
        for number, line in Lines("-", WORDS_MAX).numbered():
            words.clear()
            with _stdin_kept():
                code = answered(run, [*_said(line), *form])
            sys.stdout.flush()
            if not words and not code:
                continue
            codes.append(code)
            if code:
                note(f"line {number}: exit code {code}")
                if not keep_going:
                    break
    except (KeyboardInterrupt, Terminated):
        note(f"interrupted after {counted(len(codes), 'command')}")
        raise
    if not codes:
        note("nothing given, nothing done")
    failed = [code for code in codes if code]
    if not failed:
        return 0
    alike = len(failed) == len(codes) and len(set(failed)) == 1
    return failed[0] if alike else exit_code("partial")


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


def _words(line: bytes, number: int) -> list[str]:
    """The words of a command; none if the line is blank or a comment."""
    source = f"stdin line {number}"
    text = text_of(line, source, WORDS_MAX).strip()
    if not text or text.startswith("#"):
        return []
    if "\0" in text:
        raise UsageError(f"{source} has a NUL character")
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{source}: {error}") from error
    if words[:1] == ["tb-cli"]:
        words = words[1:]
    if words[:1] == ["batch"]:
        raise UsageError(f"{source}: a batch cannot hold a batch")
    return words


def _said(line: bytes) -> list[str]:
    """A line as far as it can be read: what says in it how its error is told counts at once."""
    return line.decode(errors="replace").split()
