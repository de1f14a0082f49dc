"""Verbs on the receipts of bundles: list, show. `courier_send` stores and changes them."""

from typing import Any

from compute_market.courier import courier, documents
from compute_market.store.txn import Txn
from tb_cli.frame.listing import bundles as listed
from tb_cli.frame.listing import lists
from tb_cli.frame.listing.options import DATED, LISTED, columns_of
from tb_cli.frame.listing.selecting import wanted
from tb_cli.frame.options import BUNDLE_IDS
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, flag, takes


@takes(listed.FILTERS, flag("--pending", help="Only those that wait."), DATED, LISTED)
@examples(
    "tb-cli compute courier list --pending",
    "tb-cli compute courier list --state refused --since 1d --columns id,sender,last_error",
)
@columns_of(listed.BUNDLE_LIST)
def list_(
    session: Session, *, filters: dict[str, Any], pending: bool, listing: dict[str, Any]
) -> None:
    """They come in the order of sending, which --since and --until are about."""
    noun, utc = listed.BUNDLE_LIST, listing.get("utc", False)
    selected = wanted(noun, listed.FILTERS, filters, dated="timestamp", utc=utc)
    lists.show(session, noun, listing, listed.reading(selected, waiting=pending))


@examples(
    "tb-cli compute courier show 00f1c8a2b3d4e5f6",
    "tb-cli compute courier list --pending -q | tb-cli compute courier show -",
)
@takes(BUNDLE_IDS)
def show(session: Session, bundle_ids: list[str]) -> int:
    """Of several receipts each is shown; --json has a list of them then."""
    from tb_cli.frame import several

    def find(txn: Txn, bundle_id: str) -> list[dict[str, Any]]:
        return [documents.document(txn, courier.get(txn, courier.parse_id(bundle_id)))]

    return several.show(session, bundle_ids, "bundle id", find)
