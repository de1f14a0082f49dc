"""What the audit checks of usage."""

from collections.abc import Iterator

from compute_market.admission import shares
from compute_market.laws import Law, same_size
from compute_market.records import Violation
from compute_market.store.schema import USAGE, USAGE_RECENT, pack_u64
from compute_market.store.txn import Txn


def _usage(txn: Txn) -> Iterator[Violation]:
    law = "every party is found by its last charge"
    expected = 0
    for key, payload in txn.scan(USAGE):
        usage = USAGE.decode(key, payload)
        if min(usage.used_micro, usage.burst_micro) < 0:
            yield Violation("usage", repr(key), "usage and bursts are not negative", str(usage))
        if shares.is_party(key):
            expected += 1
            if txn.get(USAGE_RECENT, pack_u64(usage.at_ms) + key) is None:
                yield Violation("usage_recent", repr(key), law, "missing")
    yield from same_size(txn, USAGE_RECENT, expected, law)


LAWS = (Law(_usage, (USAGE, USAGE_RECENT)),)
