"""Verbs on scores: show."""

from typing import Annotated, Any

import typer

from compute_market.errors import NotFoundError
from compute_market.records import check_id
from compute_market.reputation import reputation
from compute_market.store.store import Txn
from tb_cli.frame import options
from tb_cli.frame.render import Listing
from tb_cli.frame.session import Session


def show(
    ctx: typer.Context,
    provider: Annotated[
        str | None, typer.Argument(metavar="[PROVIDER]", help="Only this provider.")
    ] = None,
    limit: options.Limit = None,
    jsonl: options.Jsonl = False,
) -> None:
    """Show the scores of providers, the best first."""
    session = Session.of(ctx)
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
