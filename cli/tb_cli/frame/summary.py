"""What is said at the end of many items: how many were done, or how many failed for what reason."""

from collections.abc import Iterator, Mapping

from compute_market.text import one_line


def of_done(count: int, changed: int) -> str:
    """Of items that all went well, of which so many are other than they were."""
    unchanged = f", {count - changed} unchanged" if count > changed else ""
    return f"all {count} done: {changed} changed{unchanged}"


def of_failures(
    failed: int, total: int, reasons: Mapping[str, int], hints: Mapping[str, str | None]
) -> Iterator[str]:
    """Of items some of which failed: counts by reason, then the hint of each that has one."""
    counted = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    yield f"{failed} of {total} failed: {counted}"
    for reason, hint in hints.items():
        if hint is not None:
            yield f"hint: {reason}: {one_line(hint)}"
