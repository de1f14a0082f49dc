"""Wallets of all owners: who has one, in order of their names, and what is in them.

An owner has a wallet from its first posting on. One whose postings were all archived has it as long
as they left something behind, or something is locked.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from compute_market.settlement import escrow, ledger
from compute_market.store.schema import ARCHIVED, HOLDINGS, WALLET_POSTINGS, id_prefix
from compute_market.store.table import Table
from compute_market.store.txn import Txn

_BEHIND = "\x01"  # sorts behind what ends an owner in a key, and before all that a name may hold


def page(txn: Txn, after: str, limit: int) -> tuple[list[dict[str, Any]], str | None]:
    """`wallet balance` of at most `limit` owners from behind the one `after` on, by name.

    The other result is the owner to go on behind, None at the end.
    """
    owners = list(islice(names(txn, after), limit))
    found = [escrow.balance_document(txn, owner) for owner in owners]
    return found, owners[-1] if len(owners) == limit else None


def names(txn: Txn, after: str = "") -> Iterator[str]:
    """Owners from behind one on, by name."""
    owner = _next(txn, after)
    while owner is not None:
        yield owner
        owner = _next(txn, owner)


def is_known(txn: Txn, owner: str) -> bool:
    """Whether there is a wallet of that owner."""
    if txn.first(WALLET_POSTINGS, id_prefix(owner)) is not None:
        return True
    from compute_market import archived  # Most owners have postings that are kept.

    account = ledger.wallet(owner)
    return any(archived.balance(txn, account, token) for token in ledger.TOKENS) or (
        txn.first(HOLDINGS.table, id_prefix(owner)) is not None
    )


def _next(txn: Txn, after: str) -> str | None:
    """The first owner by name behind another."""
    return min(_candidates(txn, after), default=None)


def _candidates(txn: Txn, after: str) -> Iterator[str]:
    """The first owner behind another of each table that names some."""
    from compute_market import archived

    behind = (after + _BEHIND).encode()
    of_owners: tuple[Table[Any], ...] = (WALLET_POSTINGS, HOLDINGS.table)
    for table in of_owners:
        for key, _ in islice(txn.scan(table, start=behind), 1):
            yield key.partition(b"\0")[0].decode()
    for token in ledger.TOKENS:
        prefix = archived.account_key(ledger.wallet(""), token)
        for key, _ in islice(txn.scan(ARCHIVED.table, prefix, prefix + behind), 1):
            yield key[len(prefix) :].decode()
