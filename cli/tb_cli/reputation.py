"""Verbs on scores: show."""

from typing import Any

from compute_market.errors import NotFoundError
from compute_market.records import check_id
from compute_market.reputation import reputation
from compute_market.store.store import Txn
from tb_cli.frame.options import JSONL, LIMIT
from tb_cli.frame.render import Listing
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, takes


@takes(argument("provider", "[PROVIDER]", "Only this provider.", required=False), LIMIT, JSONL)
def show(session: Session, provider: str | None, *, limit: int | None, jsonl: bool) -> None:
    if provider is not None:
        check_id(provider, "provider")

    def documents(txn: Txn) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for _, name in reputation.ranking(txn) if provider is None else [(0, provider)]:
            if len(found) == limit:
                break
            entry = reputation.entry(txn, name)
            if entry is None:
                raise NotFoundError(f"provider {name} has no score")
            found.append(
                {
                    "provider": name,
                    "score": entry.score,
                    "seed": entry.seed,
                    "epoch": entry.epoch,
                    "last_change": entry.changed_ms // 1000,
                }
            )
        return found

    columns = ("provider", "score", "seed", "epoch", "last_change")
    listing = Listing(session, columns, jsonl=jsonl)
    for document in session.view(documents):
        listing.add(document)
    listing.end()
