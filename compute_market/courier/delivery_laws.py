"""What the audit checks of bundles that other markets have brought."""

from collections.abc import Iterator

from compute_market.courier import deliveries
from compute_market.courier.envelope import HASH_BYTES
from compute_market.laws import Law, Violation
from compute_market.signatures.signatures import KEY_ID_BYTES
from compute_market.store.schema import DELIVERIES
from compute_market.store.txn import Txn

_KEY = "a delivery has the key of its market and its id there"
_SIGNED = "a delivery names a bundle, and who has signed for it"
_HANDOFF = "a handoff names a job, and no other delivery does"


def _deliveries(txn: Txn) -> Iterator[Violation]:
    for key, delivery in deliveries.deliveries(txn):
        if deliveries.key_of(delivery.market_id, delivery.receipt_id) != key:
            yield Violation("deliveries", key.hex(), _KEY, f"it says {delivery.receipt_id:016x}")
        lengths = len(delivery.bundle_hash), len(delivery.key_id)
        if lengths != (HASH_BYTES, KEY_ID_BYTES) or delivery.size < 0:
            yield Violation("deliveries", key.hex(), _SIGNED, f"it has {lengths} bytes of them")
        if (delivery.job_id is not None) != (delivery.kind == "handoff"):
            detail = f"a {delivery.kind} of job {delivery.job_id}"
            yield Violation("deliveries", key.hex(), _HANDOFF, detail)


LAWS = (Law(_deliveries, (DELIVERIES,)),)
