"""Every way the market says no: one exit-code table and one class per row of it.

A `MarketError` raised inside a transaction rolls it back. What must be remembered although the
answer is "no" is not an error but a returned `Refused` verdict (see `records`).
"""

import errno
from collections.abc import Mapping
from typing import Any

from compute_market.text import cause_of, legible


class ExitCode:
    """One row of the table."""

    __slots__ = ("code", "meaning", "token")

    def __init__(self, code: int, token: str, meaning: str) -> None:
        self.code = code
        self.token = token
        self.meaning = meaning


EXIT_CODES = (
    ExitCode(0, "ok", "done, or nothing needed doing (changed: false)"),
    ExitCode(1, "internal", "a bug"),
    ExitCode(2, "usage", "bad option, argument or input file"),
    ExitCode(3, "not_found", "unknown id"),
    ExitCode(4, "already_done", "the job ended before (completed, failed)"),
    ExitCode(
        5,
        "refused",
        "policy said no: capability, price, funds, admission, mode, deadline, proof order",
    ),
    ExitCode(6, "conflict", "same id with other content, key collision, state moved"),
    ExitCode(7, "partial", "bulk: some items failed, some did not"),
    ExitCode(8, "busy", "write lock not had in time, disk or map full; try again"),
    ExitCode(9, "integrity", "damage found, wrong proof, bad signature, audit failed"),
    ExitCode(10, "pending", "not yet: reveal too early, bundles left, wait timed out"),
)


# What a system call says that may be had another time, and what to do about it.
_WAYS_OUT = {
    errno.ENOSPC: "free some disk space and try again",
    errno.EDQUOT: "free some disk space and try again",
    errno.EFBIG: "raise the limit of the size of files (`ulimit -f`) and try again",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`) and try again",
    errno.ENFILE: "the machine has too many open files; try again later",
    errno.EAGAIN: "too many processes are at work; try again later",
    errno.ENOMEM: "try again when there is more memory",
}


def way_out(number: int | None) -> str | None:
    """What to do about an error of the system that passes; None if it is about what was named."""
    return None if number is None else _WAYS_OUT.get(number)


def exit_code(token: str) -> int:
    """The exit code of a row of the table."""
    return next(row.code for row in EXIT_CODES if row.token == token)


class MarketError(Exception):
    """An error an operator can act on.

    `token` names the row of `EXIT_CODES`; `reason` narrows it down (`insufficient_funds`,
    `key_collision`, …) where scripts need to tell causes apart; `details` are further fields of
    the JSON form. Message and hint are made `legible`, so that they can be written anywhere.
    """

    token = "internal"
    exit_code = 1
    retryable = False

    def __init__(
        self, message: str, *, hint: str | None = None, reason: str | None = None, **details: Any
    ) -> None:
        self.message = legible(message)
        super().__init__(self.message)
        self.hint = hint and legible(hint)
        self.reason = reason
        self.details = details

    def document(self) -> dict[str, Any]:
        """The JSON form: `error`, `reason` if any, `message`, `hint`, `retryable`, details."""
        document: dict[str, Any] = {"error": self.token}
        if self.reason is not None:
            document["reason"] = self.reason
        document |= {"message": self.message, "hint": self.hint, "retryable": self.retryable}
        return document | self.details


class InternalError(MarketError):
    """The library broke a promise of its own."""


class UsageError(MarketError):
    """Input that no state of the market would accept."""

    token, exit_code = "usage", 2


class NotFoundError(MarketError):
    """An id nothing is stored under."""

    token, exit_code = "not_found", 3


class AlreadyDoneError(MarketError):
    """The job ended before, so nothing can change it any more."""

    token, exit_code = "already_done", 4


class RefusedError(MarketError):
    """Policy said no and there is nothing to remember about it."""

    token, exit_code = "refused", 5


class ConflictError(MarketError):
    """The same id or key already stands for something else."""

    token, exit_code = "conflict", 6


class BusyError(MarketError):
    """A resource was not to be had now; the same command may pass later."""

    token, exit_code, retryable = "busy", 8, True


class IntegrityError(MarketError):
    """Stored or submitted bytes are not what they must be."""

    token, exit_code = "integrity", 9


class PendingError(MarketError):
    """Not yet: the same command passes later with nothing else changed."""

    token, exit_code, retryable = "pending", 10, True


def file_error(what: str, error: OSError) -> MarketError:
    """What an error of the file system about `what` is: BusyError if it passes, else UsageError."""
    hint = way_out(error.errno)
    kind = UsageError if hint is None else BusyError
    return kind(f"{what}: {cause_of(error)}", hint=hint)


def check_same(
    what: str, stored: Mapping[str, Any], asked: Mapping[str, Any], *, hint: str | None = None
) -> None:
    """Idempotence by id (law 5): the same request again is the one that is stored.

    `what` names the stored thing, as in `job j-1`; the mappings hold the fields that make a request
    what it is, in the order in which they are compared. Raises ConflictError naming the first field
    that differs, with both values.
    """
    for field, now in asked.items():
        before = stored[field]
        if before != now:
            shown, wanted = ("none" if each is None else each for each in (before, now))
            raise ConflictError(
                f"{what} exists with {field} {shown}, not {wanted}", hint=hint, field=field
            )
