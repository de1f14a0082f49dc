"""Every command ends here: an exit code of the table, one clear line, never a traceback."""

# The module behind `signal`, which makes three enumerations that take longer than a command has.
import _signal
import errno
import os
import sys
from collections.abc import Callable
from types import FrameType

from compute_market.errors import BusyError, InternalError, MarketError


class _Terminated(BaseException):
    """SIGTERM, raised like KeyboardInterrupt so that an open transaction is rolled back."""


def guarded(call: Callable[[], int], arguments: list[str]) -> int:
    """Run a command to its exit code, whatever ends it. `arguments` are those it was given."""
    _signal.signal(_signal.SIGTERM, _terminate)
    try:
        return answered(lambda: _flushed(call), arguments)
    except BrokenPipeError:
        _silence_stdout()  # Nobody reads any more, which is no error of the command.
        return 0
    except KeyboardInterrupt:
        return 128 + int(_signal.SIGINT)
    except _Terminated:
        return 128 + int(_signal.SIGTERM)


def answered(call: Callable[[], int], arguments: list[str]) -> int:
    """Run a command and turn what it raises into a message on stderr and an exit code.

    Signals and a closed pipe pass through: they end more than one command.
    """
    try:
        return call()
    except MarketError as error:
        return _report(error, arguments)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the one place that answers for bugs
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            # The store and files have their own errors; this is the output.
            return _report(BusyError("standard output: no space left"), arguments)
        message = f"{type(error).__name__}: {error}"
        return _report(InternalError(message, hint="a bug; --debug shows where"), arguments)


def _flushed(call: Callable[[], int]) -> int:
    code = call()
    sys.stdout.flush()
    return code


def _report(error: MarketError, arguments: list[str]) -> int:
    from tb_cli.frame.render import report

    if "--debug" in arguments or "TB_DEBUG" in os.environ:
        import traceback

        traceback.print_exc()
    return report(error, "--json" in arguments or "--jsonl" in arguments)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise _Terminated


def _silence_stdout() -> None:
    """Send what is still buffered nowhere, so that flushing it at exit cannot fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
