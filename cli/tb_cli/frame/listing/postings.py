"""Movements of a wallet as they are listed."""

from typing import Any

from compute_market import parties
from compute_market.records import Posting
from compute_market.settlement import ledger, past
from compute_market.store.txn import Txn
from tb_cli.frame.listing.columns import Column, Noun
from tb_cli.frame.listing.options import among
from tb_cli.frame.listing.reading import Reading
from tb_cli.frame.listing.selecting import Wanted
from tb_cli.frame.paging import PAGE

FILTERS = (
    among("--event", "Only of these events: deposit, settle, bond:lock and so on."),
    among("--job", "Only of these jobs.", name="ref", complete="any job"),
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


def reading(
    owner: str, wanted: Wanted, *, since_ms: int | None = None, until_ms: int | None = None
) -> Reading:
    """Those of a wallet, what archives left in it first. A time is found without a walk to it, and
    the newest without one from the oldest on. Raises NotFoundError for an owner nobody knows.
    """
    spans: list[past.Span] = []  # that of the list which is being read

    def openings(txn: Txn) -> list[Posting]:
        return [each for each in ledger.openings(txn, owner) if wanted(txn, each)]

    def page(txn: Txn, after: int | None, size: int) -> tuple[list[Posting], int | None]:
        first: list[Posting] = []
        if after is None:
            parties.check_known(txn, owner)
            spans[:] = [past.span(txn, since_ms, until_ms)]
            first = openings(txn)
        found, last = past.of_wallet(txn, spans[0], owner, after or 0, size)
        return [*first, *(each for each in found if wanted(txn, each))], last

    def newest(txn: Txn, limit: int) -> list[Posting]:
        parties.check_known(txn, owner)
        within = past.span(txn, since_ms, until_ms)
        found: list[Posting] = []
        before: int | None = within.last + 1
        while before is not None and len(found) < limit:
            looked_at, before = past.of_wallet_back(txn, within, owner, before, PAGE)
            found += [each for each in looked_at if wanted(txn, each)]
        whole = [*openings(txn), *found[:limit][::-1]]
        return whole[len(whole) - min(limit, len(whole)) :]

    return Reading(page, newest=newest)
