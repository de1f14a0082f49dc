"""Movements of a wallet as they are listed."""

from typing import Any

from compute_market.records import Posting
from compute_market.settlement import ledger
from compute_market.store.txn import Txn
from tb_cli.frame.listing.columns import Column, Noun
from tb_cli.frame.listing.options import among
from tb_cli.frame.listing.reading import Reading
from tb_cli.frame.listing.selecting import Wanted

FILTERS = (
    among("--event", "Only of these events: deposit, settle, bond:lock and so on."),
    among("--token", "Only in this token.", allowed=("CT", "IT")),
)


def _document(txn: Txn, posting: Posting) -> dict[str, Any]:
    return ledger.posting_document(posting)


POSTING_LIST = Noun(
    "movements",
    "seq",
    (
        Column("seq", "#", "number", "seq"),
        Column("at_ms", "TIME", "ms", "at_ms"),
        Column("token", of="token"),
        Column("amount", kind="number", of="amount"),
        Column("debit", "FROM", of="debit"),
        Column("credit", "TO", of="credit"),
        Column("event", of="event"),
        Column("ref", of="ref"),
    ),
    shown=("seq", "at_ms", "token", "amount", "debit", "credit", "event", "ref"),
    table=("seq", "at_ms", "token", "amount", "event", "ref", "debit", "credit"),
    document=_document,
)


def reading(owner: str, wanted: Wanted, *, selects: bool) -> Reading:
    """Those of a wallet, what archives left in it first; where nothing selects among them the
    newest are found at once.
    """

    def page(txn: Txn, after: int, size: int) -> tuple[list[Posting], int | None]:
        found = ledger.history(txn, owner, after, size)
        last = found[-1].seq if len(found) == size else None
        all_ = found if after else [*ledger.openings(txn, owner), *found]
        return [posting for posting in all_ if wanted(txn, posting)], last

    def newest(txn: Txn, limit: int) -> list[Posting]:
        found = ledger.newest(txn, owner, limit)[::-1]
        left = limit - len(found)
        return [*ledger.openings(txn, owner)[-left:], *found] if left else found

    return Reading(page, 0, newest=None if selects else newest)
