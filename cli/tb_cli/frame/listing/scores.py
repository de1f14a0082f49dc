"""Scores of providers as they are listed."""

from typing import Any

from compute_market.reputation import reputation
from compute_market.store.txn import Txn
from tb_cli.frame.listing.columns import Column, Noun
from tb_cli.frame.listing.reading import Reading

SCORE_LIST = Noun(
    "scores",
    "provider",
    (
        Column("provider"),
        Column("score", kind="number"),
        Column("seed", kind="number"),
        Column("epoch", kind="at"),
        Column("last_change", "CHANGED", "at"),
        Column("barred"),
        Column("barred_until", "BARRED UNTIL", "due"),
    ),
    shown=("provider", "score", "seed", "epoch", "last_change"),
    table=("provider", "score", "last_change", "barred_until", "seed", "epoch"),
    ranked=True,
)


def reading(provider: str | None) -> Reading:
    """The best first; or that of one provider, which must have one."""

    def page(txn: Txn, after: None, size: int) -> tuple[list[dict[str, Any]], None]:
        if provider is not None:
            return [reputation.document(txn, provider)], None
        found = ((-reputation.present(txn, each), name) for name, each in reputation.entries(txn))
        return [reputation.document(txn, name) for _, name in sorted(found)], None

    return Reading(page)
