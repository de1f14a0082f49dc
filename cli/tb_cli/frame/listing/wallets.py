"""Wallets of all owners as they are listed."""

from collections.abc import Callable
from typing import Any

from compute_market.settlement import escrow, wallets
from compute_market.store.txn import Txn
from tb_cli.frame.listing.columns import Column, Noun
from tb_cli.frame.listing.options import among
from tb_cli.frame.listing.reading import Reading

FILTERS = (among("--owner", "Only of these owners.", complete="owner"),)


def _in(name: str, token: str) -> Callable[[Txn, dict[str, Any]], int]:
    """What finds an amount of what is locked."""

    def amount(txn: Txn, document: dict[str, Any]) -> int:
        found: int = document[name][token]
        return found

    return amount


WALLET_LIST = Noun(
    "wallets",
    "owner",
    (
        Column("owner"),
        Column("ct", kind="number"),
        Column("it", kind="number"),
        Column("escrow_ct", kind="number", of=_in("escrow", "ct")),
        Column("escrow_it", kind="number", of=_in("escrow", "it")),
        Column("bonds_ct", kind="number", of=_in("bonds", "ct")),
        Column("escrow", kind="record"),
        Column("bonds", kind="record"),
    ),
    shown=("owner", "ct", "it", "escrow_ct", "escrow_it", "bonds_ct"),
    ranked=True,
)


def reading(owners: tuple[str, ...], wanted: Callable[[dict[str, Any]], bool]) -> Reading:
    """Those that are wanted, by owner; only of some owners, if they are named."""

    def of_all(txn: Txn, after: str, size: int) -> tuple[list[dict[str, Any]], str | None]:
        found, last = wallets.page(txn, after, size)
        return [document for document in found if wanted(document)], last

    def of_some(txn: Txn, after: str, size: int) -> tuple[list[dict[str, Any]], None]:
        known = (owner for owner in sorted(owners) if wallets.is_known(txn, owner))
        found = (escrow.balance_document(txn, owner) for owner in known)
        return [document for document in found if wanted(document)], None

    return Reading(of_some if owners else of_all, "")
