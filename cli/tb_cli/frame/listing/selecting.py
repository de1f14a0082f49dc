"""Which records a list is of, out of the options that select them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compute_market.errors import UsageError
from tb_cli.frame.clocks import now_ms
from tb_cli.frame.listing.columns import Noun, value_of
from tb_cli.frame.verbs import Parameter

if TYPE_CHECKING:
    from compute_market.store.txn import Txn

Wanted = Callable[["Txn", Any], bool]


def wanted(
    noun: Noun,
    declared: Sequence[Parameter],
    filters: Mapping[str, Any],
    *,
    dated: str | None = None,  # the field that --since and --until are about
    utc: bool = False,
) -> Wanted:
    """What says of a record whether options select it: each by the field it is named after.

    Raises UsageError for a value that cannot be.
    """
    checks = [
        _is_among(value_of(noun, noun.columns[name]), frozenset(values))
        for name, values in chosen(declared, filters).items()
    ]
    if dated is not None:
        since_ms, until_ms = window(filters, now_ms(), utc=utc)
        if since_ms is not None or until_ms is not None:
            checks.append(_is_within(noun, dated, since_ms, until_ms))
    return lambda txn, record: all(check(txn, record) for check in checks)


def separated(given: Iterable[str]) -> list[str]:
    """Values that came with commas between them, each once."""
    return list(dict.fromkeys(value.strip() for text in given for value in text.split(",")))


def chosen(declared: Sequence[Parameter], filters: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The values that select, by field. Raises UsageError for one that cannot be."""
    found = {}
    for each in declared:
        if not each.many or each.name not in filters:
            continue
        spelling = each.spellings[0]
        values = separated(filters[each.name])
        if not each.choices:  # Those were looked at as they were read.
            _check_ids(spelling, values)
        found[each.name] = tuple(values)
    return found


def window(
    filters: Mapping[str, Any], now_ms: int, *, utc: bool = False
) -> tuple[int | None, int | None]:
    """The instants in unix milliseconds between which something happened, both included.

    Raises UsageError for what is no time, and for one that ends before it begins.
    """
    since, until = filters.get("since"), filters.get("until")
    if since is None and until is None:
        return None, None
    from tb_cli.frame.times import instant

    since_ms = None if since is None else instant(since, "--since", now_ms, utc=utc)
    until_ms = None if until is None else instant(until, "--until", now_ms, utc=utc)
    if since_ms is not None and until_ms is not None and until_ms < since_ms:
        raise UsageError("--until is before --since", hint="give the earlier one with --since")
    return since_ms, until_ms


def _check_ids(spelling: str, values: Iterable[str]) -> None:
    from compute_market.records import check_id

    for value in values:
        check_id(value, spelling)


def _is_among(value: "Callable[[Txn, Any], Any]", values: frozenset[str]) -> Wanted:
    return lambda txn, record: value(txn, record) in values


def _is_within(noun: Noun, name: str, since_ms: int | None, until_ms: int | None) -> Wanted:
    """Times are seconds, of which each is meant whole, or milliseconds."""
    value = value_of(noun, noun.columns[name])
    unit = 1 if noun.columns[name].kind == "ms" else 1000
    since = 0 if since_ms is None else since_ms // unit
    until = None if until_ms is None else until_ms // unit

    def check(txn: "Txn", record: Any) -> bool:
        at = value(txn, record)
        return at is not None and since <= at and (until is None or at <= until)

    return check
