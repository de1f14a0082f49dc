"""Every command ends here: an exit code of the table, one clear line, never a traceback.

The code is decided before it is printed: whether words can be written changes nothing about it.
"""

# The module behind `signal`, which makes three enumerations that take longer than a command has.
import _signal
import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, cast

from compute_market.errors import BusyError, MarketError

if TYPE_CHECKING:
    from typing import TextIO

# What says that nobody reads, which is no error of the command.
_READER_GONE = (errno.EPIPE, errno.ECONNRESET)


class Terminated(BaseException):
    """SIGTERM, raised like KeyboardInterrupt so that an open transaction is rolled back.

    It holds the number of the signal: another one may be told to do the same.
    """


class Whole:
    """A part of a command that signals wait for, once it has begun to be `settled`.

    Before that they end it at once. After that they are raised when the part ends, so that what
    was committed is also known to be: nothing that takes long may be done then, but where they are
    `heard`. There is one at a time, in the main thread.
    """

    def __init__(self) -> None:
        self._is_open = self._waits = False
        self._stop: BaseException | None = None

    def __enter__(self) -> None:
        self._is_open = True

    def __exit__(self, *_: object) -> None:
        self._is_open = False
        self._raise_now()

    def settle(self) -> None:
        """From here on, until the part ends, signals wait."""
        self._waits = self._is_open

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Let signals end what takes long, also within a part that is settled."""
        waited = self._waits
        self._raise_now()
        try:
            yield
        finally:
            self._waits = waited

    def end_by(self, stop: BaseException) -> None:
        """A signal has come: raise it, or keep it for later."""
        if not self._waits:
            raise stop
        self._stop = self._stop or stop

    def _raise_now(self) -> None:
        self._waits = False
        stop, self._stop = self._stop, None
        if stop is not None:
            raise stop


whole: Final = Whole()


class OutputLost(BaseException):
    """Raised by what has nothing to do but print, once that reaches nobody."""


class Output:
    """A standard stream on which writing does not fail.

    The first failure is kept in `error`; what is written from then on goes nowhere. A character
    that the encoding lacks becomes the escape that JSON has for it. All else is the stream's.
    """

    __slots__ = ("_stream", "amounts_are_text", "error", "is_needed")

    def __init__(self, stream: "TextIO") -> None:
        self._stream = stream
        self.error: OSError | None = None
        self.is_needed = True  # False for a command whose work counts, told or not
        self.amounts_are_text = False  # in the JSON that is printed

    def write(self, text: str) -> int:
        if self.error is None:
            try:
                try:
                    self._stream.write(text)
                except UnicodeEncodeError:
                    self._stream.write(_encodable(text, self._stream.encoding))
            except OSError as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        if self.error is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._lose(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self, error: OSError) -> None:
        """Send what is still buffered nowhere, so that flushing it at exit cannot fail again."""
        self.error = error
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        except OSError:
            pass  # It is no file, or none can be opened: what is buffered is lost either way.


def guarded(call: Callable[[], int], arguments: list[str]) -> int:
    """Run a command to its exit code, whatever ends it. `arguments` are those it was given."""
    _signal.signal(_signal.SIGTERM, _terminate)
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # Else it is ignored.
        _signal.signal(_signal.SIGINT, _interrupt)
    streams = sys.stdout, sys.stderr
    sys.stdout = cast("TextIO", Output(sys.stdout))
    sys.stderr = cast("TextIO", Output(sys.stderr))
    try:
        return _told(answered(call, arguments), arguments)
    except KeyboardInterrupt:
        return 128 + int(_signal.SIGINT)
    except Terminated as error:
        return 128 + int(error.args[0])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = streams


def answered(call: Callable[[], int], arguments: list[str]) -> int:
    """Run a command and turn what it raises into a message on stderr and an exit code.

    Signals pass through: they end more than one command.
    """
    try:
        return call()
    except MarketError as error:
        return _report(error, arguments)
    except Exception as error:  # noqa: BLE001 - the one place that answers for bugs
        return _report(_answer_to(error), arguments)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # The hasher's, which is no Exception.
            raise
        return _report(_answer_to(error), arguments)


def finished(code: int, *, acts: bool) -> int:
    """The exit code of a verb that has ended with `code`.

    Raises BusyError if it had nothing to do but to print, and that was lost.
    """
    if code == 0 and not acts:
        sys.stdout.flush()
        error = getattr(sys.stdout, "error", None)
        if error is not None and error.errno not in _READER_GONE:
            raise _lost(error)
    return code


def spare_output() -> None:
    """From here on the work of the command counts, whether its output can be written or not."""
    if isinstance(sys.stdout, Output):
        sys.stdout.is_needed = False


def show_amounts(*, as_text: bool) -> None:
    """From here on JSON has amounts as text, or as numbers."""
    if isinstance(sys.stdout, Output):
        sys.stdout.amounts_are_text = as_text


def stop_if_lost() -> None:
    """Raise OutputLost if what is printed reaches nobody any more."""
    if getattr(sys.stdout, "error", None) is not None:
        raise OutputLost


def _told(code: int, arguments: list[str]) -> int:
    """The exit code, once all output was written, or was found to be lost."""
    sys.stdout.flush()
    out = cast(Output, sys.stdout)
    if out.error is None or out.error.errno in _READER_GONE:
        return code
    if out.is_needed:
        return code or _report(_lost(out.error), arguments)
    sys.stderr.write(f"warning: {_lost(out.error).message}: what was to be told is lost\n")
    return code


def _lost(error: OSError) -> BusyError:
    from compute_market.text import cause_of

    return BusyError(f"standard output: {cause_of(error)}")


def _answer_to(error: BaseException) -> MarketError:
    from tb_cli.frame.faults import answer_to

    return answer_to(error)


def _report(error: MarketError, arguments: list[str]) -> int:
    from tb_cli.frame.render import report

    if "--debug" in arguments or "TB_DEBUG" in os.environ:
        import traceback

        traceback.print_exc()
    return report(error, _asks_for_json(arguments), color=_has_colors(arguments))


def _asks_for_json(arguments: list[str]) -> bool:
    """Whether a line asks for documents. It is asked of one that may never have been read."""
    from itertools import pairwise

    forms = ("json", "jsonl")
    return (
        any(f"--{form}" in arguments for form in forms)
        or any(f"{begin}{form}" in arguments for begin in ("-o", "--output=") for form in forms)
        or any(word in ("-o", "--output") and value in forms for word, value in pairwise(arguments))
    )


def _has_colors(arguments: list[str]) -> bool:
    """Whether an error is told on a terminal that shows colours, and nothing forbids them."""
    return (
        sys.stderr.isatty()
        and os.environ.get("TERM", "dumb") != "dumb"
        and "NO_COLOR" not in os.environ
        and "--no-color" not in arguments
    )


def _terminate(signum: int, frame: FrameType | None) -> None:
    whole.end_by(Terminated(signum))


def _interrupt(signum: int, frame: FrameType | None) -> None:
    whole.end_by(KeyboardInterrupt())


def _encodable(text: str, encoding: str) -> str:
    """The text, with an escape for each character that the encoding lacks."""

    def escaped(character: str) -> str:
        try:
            character.encode(encoding)
        except UnicodeEncodeError:
            from compute_market.text import json_escape

            return json_escape(character)
        return character

    return "".join(map(escaped, text))
