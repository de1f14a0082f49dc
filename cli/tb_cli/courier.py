"""Verbs on the receipts of bundles: list, show. `courier_send` stores and changes them."""

from itertools import chain, islice
from typing import Any

from compute_market.courier import courier, documents
from compute_market.store.txn import Txn
from tb_cli.frame.options import JSONL, LIMIT
from tb_cli.frame.render import Listing, emit, fields
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, flag, takes

_COLUMNS = (
    *("id", "state", "sender", "bytes", "dest", "timestamp", "attempts", "next_attempt_at"),
    *("bundle_hash", "last_error"),
)


@takes(flag("--pending", help="Only those that wait."), LIMIT, JSONL)
def list_(session: Session, *, pending: bool, limit: int | None, jsonl: bool) -> None:
    """They come in the order of sending."""
    fetch = courier.waiting if pending else documents.listed

    def page(txn: Txn, after: bytes | None, size: int) -> tuple[list[dict[str, Any]], bytes | None]:
        found, last = fetch(txn, after, size)
        return [documents.document(txn, receipt) for receipt in found], last

    listing = Listing(session, _COLUMNS, jsonl=jsonl)
    for document in islice(chain.from_iterable(session.pages(page, None)), limit):
        listing.add(document)
    listing.end()


@takes(argument("bundle", "ID", "The id of a bundle receipt.", complete="bundle"))
def show(session: Session, bundle: str) -> None:
    receipt_id = courier.parse_id(bundle)
    document = session.view(lambda txn: documents.document(txn, courier.get(txn, receipt_id)))
    emit(session, document, fields(document))
