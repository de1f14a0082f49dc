"""Receipts of bundles as they are listed."""

from itertools import islice

from compute_market.courier import courier, documents
from compute_market.courier_records import BundleReceipt
from compute_market.store.schema import BUNDLE_RECEIPTS
from compute_market.store.txn import Txn
from tb_cli.frame.listing.columns import Column, Noun
from tb_cli.frame.listing.options import among
from tb_cli.frame.listing.reading import Reading
from tb_cli.frame.listing.selecting import Wanted

_STATES = ("pending", "acknowledged", "refused")
FILTERS = (
    among("--state", f"Only in these states: {', '.join(_STATES)}.", allowed=_STATES),
    among("--sender", "Only of these senders."),
)

BUNDLE_LIST = Noun(
    "bundles",
    "id",
    (
        Column("id", "BUNDLE"),
        Column("bundle_hash", "HASH"),
        Column("bytes", kind="number", of="size"),
        Column("sender", of="sender"),
        Column("dest", kind="long", of="dest"),
        Column("timestamp", "SENT", "at"),
        Column("acknowledged"),
        Column("attempts", "TRIED", "number", "attempts"),
        Column("last_error", kind="long", of="last_error"),
        Column("next_attempt_at", "NEXT", "due"),
        Column("state", kind="state", of="state", order=_STATES),
        Column("kind", of="kind"),
        Column("reward_ct", "REWARD", "number", "reward_ct"),
        Column("job_id", "JOB", of="job_id"),
        Column("offer_id", "OFFER", of="offer_id"),
    ),
    shown=(
        *("id", "state", "sender", "bytes", "dest", "timestamp", "attempts", "next_attempt_at"),
        *("bundle_hash", "last_error"),
    ),
    table=(
        *("id", "state", "sender", "bytes", "timestamp", "attempts", "next_attempt_at", "dest"),
        *("last_error", "bundle_hash"),
    ),
    document=documents.document,
)


def reading(wanted: Wanted, *, waiting: bool) -> Reading:
    """All in the order of sending, or those alone that wait to be forwarded."""
    fetch = courier.waiting if waiting else documents.listed

    def page(txn: Txn, after: bytes | None, size: int) -> tuple[list[BundleReceipt], bytes | None]:
        found, last = fetch(txn, after, size)
        return [receipt for receipt in found if wanted(txn, receipt)], last

    def newest(txn: Txn, limit: int) -> list[BundleReceipt]:
        back = (BUNDLE_RECEIPTS.decode(*entry) for entry in txn.scan_back(BUNDLE_RECEIPTS))
        found = islice((each for each in back if wanted(txn, each)), limit)
        return [*found][::-1]

    return Reading(page, newest=None if waiting else newest)
