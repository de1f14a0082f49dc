"""Lines of a statement as they are listed: single movements, or all of a job, a day, an event."""

from tb_cli.frame.listing.columns import Column, Noun
from tb_cli.frame.listing.options import LISTED, OUTPUTS
from tb_cli.frame.verbs import group, option

# How a statement is told, which has an order of its own, and lines without ids. It reaches the
# function of the verb as `form`.
FORMS = (
    *group(
        "form",
        option(
            "--output",
            "table, tsv, csv, json or jsonl. [a table on a terminal, else tsv]",
            short="-o",
            choices=tuple(form for form in OUTPUTS if form != "ids"),
        ),
    ),
    *(each.in_group("form") for each in LISTED if each.name in ("jsonl", "header", "utc")),
)

_BALANCE = (Column("balance_ct", "BAL CT", "number"), Column("balance_it", "BAL IT", "number"))
_SUMS = (
    Column("movements", "MOVES", "number"),
    Column("received_ct", "IN CT", "number"),
    Column("received_it", "IN IT", "number"),
    Column("spent_ct", "OUT CT", "number"),
    Column("spent_it", "OUT IT", "number"),
    Column("ct", kind="number"),
    Column("it", kind="number"),
    *_BALANCE,
    Column("first_ms", "FIRST", "ms"),
    Column("last_ms", "LAST", "ms"),
)
_SINGLE = (
    Column("seq", "#", "number"),
    Column("at_ms", "TIME", "ms"),
    Column("event"),
    Column("ref"),
    Column("ct", kind="number"),
    Column("it", kind="number"),
    *_BALANCE,
)


def _noun(key: str, columns: tuple[Column, ...], table: tuple[str, ...]) -> Noun:
    shown = [each.name for each in columns]
    return Noun("movements", key, columns, shown=shown, table=table, ranked=True)


_AMOUNTS = ("ct", "it")
_MORE = (
    *("balance_ct", "balance_it", "movements"),
    *("received_ct", "spent_ct", "received_it", "spent_it"),
)
# By what a statement is grouped.
STATEMENTS: dict[str | None, Noun] = {
    None: _noun(
        "seq", _SINGLE, ("at_ms", "event", "ref", "ct", "it", "balance_ct", "balance_it", "seq")
    ),
    "job": _noun(
        "job_id",
        (Column("job_id", "JOB"), Column("event"), *_SUMS),
        # Without a job there are few lines, and their events are of less use than the amounts.
        ("job_id", *_AMOUNTS, "event", *_MORE, "last_ms"),
    ),
    "day": _noun("day", (Column("day"), *_SUMS), ("day", *_AMOUNTS, *_MORE)),
    "event": _noun("event", (Column("event"), *_SUMS), ("event", *_AMOUNTS, *_MORE)),
}
