"""Verbs on scores: show."""

from typing import Any

from compute_market.records import check_id
from compute_market.reputation import reputation
from compute_market.store.txn import Txn
from tb_cli.frame.options import JSONL, LIMIT
from tb_cli.frame.render import Listing
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, takes


@takes(argument("provider", "[PROVIDER]", "Only this provider.", required=False), LIMIT, JSONL)
def show(session: Session, provider: str | None, *, limit: int | None, jsonl: bool) -> None:
    if provider is not None:
        check_id(provider, "provider")

    def documents(txn: Txn) -> list[dict[str, Any]]:
        if provider is not None:
            return [reputation.document(txn, provider)]
        best_first = sorted((-score.score, name) for name, score in reputation.entries(txn))
        return [reputation.document(txn, name) for _, name in best_first[:limit]]

    columns = ("provider", "score", "seed", "epoch", "last_change")
    listing = Listing(session, columns, jsonl=jsonl)
    for document in session.view(documents):
        listing.add(document)
    listing.end()
