"""What the audit checks of the outcomes of matches."""

from collections.abc import Iterator

from compute_market.laws import Law, Violation, same_size
from compute_market.store.schema import EFFECTIVE_PRICES, EFFECTIVE_PRICES_RECENT
from compute_market.store.txn import Txn


def _prices(txn: Txn) -> Iterator[Violation]:
    law = "every price is found by its last match"
    for provider, value in txn.scan(EFFECTIVE_PRICES):
        if txn.get(EFFECTIVE_PRICES_RECENT, value[:8] + provider) is None:
            yield Violation("effective_prices_recent", provider.decode(), law, "missing")
    yield from same_size(txn, EFFECTIVE_PRICES_RECENT, txn.size(EFFECTIVE_PRICES), law)


LAWS = (Law(_prices, (EFFECTIVE_PRICES, EFFECTIVE_PRICES_RECENT)),)
