"""Times as people write them."""

import time
from typing import Any

from compute_market.errors import UsageError
from compute_market.quantities import in_unit
from compute_market.text import clipped, printable

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
# The fields of records that hold an instant, in unix milliseconds and in unix seconds.
_IN_MS = frozenset(
    (
        *("at_ms", "sent_ms", "received_ms", "ended_ms", "acknowledged_ms"),
        *("last_change_ms", "genesis_ms"),
    )
)
_IN_SECONDS = frozenset(
    (
        *("submitted_at", "started_at", "ended_at", "deadline", "posted_at", "issued_at"),
        *("newest_at", "proven_at", "timestamp", "next_attempt_at"),
    )
)
# A bare number from here on is an instant, as pipes and JSON have it: unix seconds, and from the
# second one on unix milliseconds. No age of anything in a market is as long.
_UNIX_S, _UNIX_MS = 10**9, 10**12
_DIGITS_MAX = 15
_LAST_MS = 253_402_300_799_999  # of the year 9999, the last that is written in four digits
_HINT = (
    "a time ago (90s, 15m, '2h ago', 3d), a time of today (03:00), 2026-11-27T03:00,"
    " or unix seconds"
)


def local(at_ms: int) -> str:
    """An instant in the time zone of the machine, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000))


def utc_text(at_ms: int) -> str:
    """An instant in UTC as ISO 8601 has it, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_ms / 1000))


def with_local(document: dict[str, Any]) -> dict[str, Any]:
    """A record for eyes: its instants as local time, and those of records in it.

    The name of one in milliseconds says no unit then. What is an instant is told by its name alone:
    others that end so are durations, and heights.
    """
    found: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            found[name] = with_local(value)
        elif name in _IN_MS and isinstance(value, int):
            found[name.removesuffix("_ms")] = local(value)
        elif name in _IN_SECONDS and isinstance(value, int):
            found[name] = local(value * 1000)
        else:
            found[name] = value
    return found


def relative(at: int, now: int) -> str:
    """How long ago a unix second was, or in how long it will be: `12s ago`, `in 23h`."""
    seconds = abs(now - at)
    unit = next(
        (unit for unit, size in reversed(_SECONDS.items()) if seconds >= 2 * size),
        "s",
    )
    text = f"{seconds // _SECONDS[unit]}{unit}"
    return f"in {text}" if at > now else f"{text} ago"


def instant(text: str, option: str, now_ms: int, *, utc: bool = False) -> int:
    """The unix milliseconds an operator means, in the time zone of the machine unless it says one.

    With `utc` that is UTC. A duration, with or without `ago`, is so long ago; a bare number is so
    many seconds ago below 10^9, unix seconds from there on, and unix milliseconds from 10^12 on.
    Raises UsageError naming the option.
    """
    if _is_instant(text):
        number = int(text)
        found_ms = number if number >= _UNIX_MS else number * 1000
        if found_ms > _LAST_MS:
            raise _no_time(text, option)
        return found_ms
    ago = in_unit(text.removesuffix(" ago"), "seconds")
    if ago is not None:
        return max(0, now_ms - ago * 1000)
    # The parser of dates costs more to import than a command takes.
    from datetime import UTC, datetime

    parts = time.gmtime(now_ms / 1000) if utc else time.localtime(now_ms / 1000)
    of_day = len(text) <= len("03:00:00") and ":" in text
    try:
        found = datetime.fromisoformat(
            f"{time.strftime('%Y-%m-%d', parts)}T{text}" if of_day else text
        )
        if utc and found.tzinfo is None:
            found = found.replace(tzinfo=UTC)
        return int(found.timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise _no_time(text, option) from None


def deadline(text: str, option: str, now_ms: int) -> int:
    """The unix second that an operator means by a time, to come as a rule; see `instant`.

    Raises UsageError naming the option, for a duration too: it would be one that has gone by.
    """
    hint = f"{option}-secs takes a duration; a time is 03:00 (today), 2026-11-27T03:00,"
    hint += " or unix seconds"
    if not _is_instant(text) and in_unit(text.removesuffix(" ago"), "seconds") is not None:
        said = f"{clipped(printable(text), 60)!a} is a duration and no time"
        raise UsageError(f"{option}: {said}", hint=hint)
    try:
        return instant(text, option, now_ms) // 1000
    except UsageError as error:
        raise UsageError(error.message, hint=hint) from None


def _is_instant(text: str) -> bool:
    """Whether a number is so large that it is no age."""
    is_number = text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX
    return is_number and int(text) >= _UNIX_S


def _no_time(text: str, option: str) -> UsageError:
    return UsageError(f"{option}: {clipped(printable(text), 60)!a} is no time", hint=_HINT)
