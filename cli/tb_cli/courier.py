"""Verbs on the receipts of bundles: list, show. `courier_send` stores and changes them."""

from typing import Any

from compute_market.courier import courier, documents
from tb_cli.frame.listing import bundles as listed
from tb_cli.frame.listing import lists
from tb_cli.frame.listing.options import DATED, LISTED, columns_of
from tb_cli.frame.listing.selecting import wanted
from tb_cli.frame.render import emit, fields
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, examples, flag, takes


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


@examples("tb-cli compute courier show 00f1c8a2b3d4e5f6")
@takes(argument("bundle", "ID", "The id of a bundle receipt.", complete="bundle"))
def show(session: Session, bundle: str) -> None:
    receipt_id = courier.parse_id(bundle)
    document = session.view(lambda txn: documents.document(txn, courier.get(txn, receipt_id)))
    emit(session, document, fields(document))
