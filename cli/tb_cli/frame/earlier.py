"""Looking back: the option --at, and what is said where nobody knows how things stood."""

from collections.abc import Iterator
from contextlib import contextmanager

from compute_market.errors import NotFoundError, UsageError
from tb_cli.frame.clocks import now_ms
from tb_cli.frame.times import instant, local


def instant_before_now(text: str, option: str) -> int:
    """The unix milliseconds of an instant that has been. Raises UsageError."""
    now = now_ms()
    found = instant(text, option, now)
    if found > now:
        raise UsageError(f"{option}: {local(found)} is still to come")
    return found


@contextmanager
def told_from_when() -> Iterator[None]:
    """Let an error that says a time is too long ago say from which one on there is an answer."""
    try:
        yield
    except NotFoundError as error:
        known_from_ms = error.details.get("known_from_ms")
        if known_from_ms is not None:
            # The first second that all of is known: a part of one cannot be asked for.
            second_ms = -(-known_from_ms // 1000) * 1000
            error.hint = f"it is known from {local(second_ms)} on; {error.hint}"
        raise
