"""`compute run --check`: files against a list of sums, in the form of b3sum."""

import re
import sys
from collections.abc import Iterator
from itertools import islice

from msgspec import Struct

from compute_market.errors import IntegrityError, MarketError, UsageError, exit_code
from compute_market.text import for_terminal, legible
from compute_market.workloads.runner import Runner
from tb_cli.frame import guard
from tb_cli.frame.clocks import now_ms
from tb_cli.frame.lines import WORDS_MAX, Lines
from tb_cli.frame.listing.outputs import Json, JsonLines
from tb_cli.frame.render import note, report
from tb_cli.frame.session import Session

_LINE = re.compile(rb"(\\?)([0-9a-fA-F]{64})  ([^\0]+)")
_ESCAPED = re.compile(r"\\(.?)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "\\": "\\"}
_FORM = "HEX, two blanks and PATH, as b3sum prints it"
# Files that are given to the workload at once.
_TOGETHER = 1000


class Sum(Struct, frozen=True, gc=False):
    """A line of a list: a file, as it is named there, and what is to come out of it."""

    path: str
    shown: str  # on one line, escaped as in the list
    digest: str


class Check:
    """Checks lists of sums, and prints what became of each file.

    With `quiet` it tells only what is wrong, with `status` nothing of the files at all.
    """

    def __init__(
        self, session: Session, runner: Runner, workload: str, *, quiet: bool, status: bool
    ) -> None:
        self._session = session
        self._runner = runner
        self._workload = workload
        self._quiet = quiet or status
        self._status = status
        self._files = self._wrong = self._unread = self._malformed = 0
        self._failed: MarketError | None = None  # the first of what was wrong with whole lists
        self._as_json = session.json

    def run(self, lists: list[str], *, jsonl: bool) -> int:
        """Check every file of the lists, and return the exit code.

        That is 9 when any file is not what its sum says, or cannot be read; else that of a list
        that cannot be read, or 2 of one without sums; else 2 when a line is no sum. What is wrong
        with a list is told, and the others are checked all the same.
        """
        self._as_json = jsonl or self._session.json
        as_text = not self._as_json
        listing = None
        if not (as_text or self._status):
            listing = JsonLines() if jsonl else Json()
        try:
            for name in lists:
                self._check_list(Lines(name, WORDS_MAX), listing)
            if listing is not None:
                listing.end()
        except guard.OutputLost:
            pass  # Nobody reads on: what did not match until then still counts.
        return self._end()

    def _check_list(self, lines: Lines, listing: Json | JsonLines | None) -> None:
        before = self._files + self._malformed, self._failed
        sums = self._sums(lines)
        while part := list(islice(sums, _TOGETHER)):
            self._check(part, listing)
            sys.stdout.flush()
            guard.stop_if_lost()
        if (self._files + self._malformed, self._failed) == before:
            self._fail(UsageError(f"{lines.source}: has no sums"))

    def _sums(self, lines: Lines) -> Iterator[Sum]:
        """The sums of a list. Of the lines that are none the first is told; the end counts them."""
        is_told = self._status
        try:
            for number, line in lines.numbered():
                found = parsed(line)
                if found is not None:
                    yield found
                elif line.strip():
                    if not is_told:
                        hint = None if self._malformed else _FORM
                        message = f"{lines.source} line {number}: is no sum"
                        self._tell(UsageError(message, hint=hint))
                        is_told = True
                    self._malformed += 1
        except MarketError as error:
            self._fail(error)

    def _fail(self, error: MarketError) -> None:
        self._tell(error)
        self._failed = self._failed or error

    def _tell(self, error: MarketError) -> None:
        report(error, self._as_json)

    def _check(self, part: list[Sum], listing: Json | JsonLines | None) -> None:
        paths = [each.path if each.path != "-" else "./-" for each in part]
        results = self._runner.run(self._workload, paths, now_ms=now_ms())
        for each, result in zip(part, results, strict=True):
            self._files += 1
            digest = result.digest.hex()
            ok = result.error is None and digest == each.digest
            self._unread += result.error is not None
            self._wrong += result.error is None and not ok
            if listing is not None:
                if ok and self._quiet:
                    continue
                document = {"path": legible(each.path), "ok": ok, "expected": each.digest}
                if result.error is None:
                    document |= {"digest": digest, "bytes": result.length}
                else:
                    document |= {"error": result.error.document()}
                listing.rows([document])
            elif not self._status and not (ok and self._quiet):
                _print(f"{each.shown}: {_outcome(ok, result.error)}\n")

    def _end(self) -> int:
        if not self._status:
            for count, what in (
                (self._wrong, "sums did not match"),
                (self._unread, "files could not be read"),
                (self._malformed, "lines are no sums"),
            ):
                if count:
                    note(f"warning: {count} of {self._files + self._malformed} {what}")
        if self._wrong or self._unread:
            return IntegrityError.exit_code
        if self._failed is not None:
            return self._failed.exit_code
        return exit_code("usage") if self._malformed else 0


def parsed(line: bytes) -> Sum | None:
    """What a line of a list says, None if it is none of b3sum.

    A backslash before it says that backslashes and line breaks of the name are escaped.
    """
    found = _LINE.fullmatch(line.rstrip(b"\r\n"))
    if found is None:
        return None
    mark, digest, name = found.groups()
    path = name.decode(errors="surrogateescape")
    shown = f"{mark.decode()}{path}"
    if mark:
        if any(each not in _ESCAPES for each in _ESCAPED.findall(path)):
            return None
        path = _ESCAPED.sub(lambda escape: _ESCAPES[escape[1]], path)
    return Sum(path, shown, digest.decode().lower())


def _outcome(ok: bool, error: MarketError | None) -> str:
    if ok:
        return "OK"
    if error is None:
        return "FAILED"
    return f"FAILED ({error.message.rpartition(': ')[2]})"


def _print(line: str) -> None:
    if sys.stdout.isatty():
        line = for_terminal(line)
    if not line.isascii() and hasattr(sys.stdout, "reconfigure"):
        # A name that is no text in this locale goes out as it is on disk, as in `compute run`.
        sys.stdout.reconfigure(errors="surrogateescape")
    sys.stdout.write(line)
