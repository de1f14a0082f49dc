"""Which offers are asked for, and the pages in which they are found."""

from msgspec import Struct

from compute_market.offers import offers
from compute_market.records import Offer, OfferState
from compute_market.store.schema import OFFERS, PROVIDER_OFFERS, id_prefix
from compute_market.store.txn import Txn

# What an offer is that was not withdrawn.
LIVE: tuple[OfferState, ...] = ("open", "exhausted")


class Selection(Struct, frozen=True, gc=False):
    """Which offers are asked for; what is empty asks for all."""

    states: tuple[OfferState, ...] = ()
    providers: tuple[str, ...] = ()

    def wants(self, offer: Offer) -> bool:
        return (not self.states or offer.state in self.states) and (
            not self.providers or offer.provider in self.providers
        )


def page(
    txn: Txn, asked: Selection, after: bytes | None, limit: int
) -> tuple[list[Offer], bytes | None]:
    """Those of the next `limit` offers behind a key that are asked for, and the key to go on from.

    That is None at the end. They come by id; live ones of one provider by bond, without a look at
    those of others.
    """
    if len(asked.providers) == 1 and asked.states and set(asked.states) <= set(LIVE):
        prefix = id_prefix(asked.providers[0])
        start = prefix if after is None else after + b"\0"
        entries = txn.collect(PROVIDER_OFFERS, limit, prefix, start)
        found = [offers.get(txn, key[len(prefix) + 8 :].decode()) for key, _ in entries]
        last = entries[-1][0] if len(entries) == limit else None
    else:
        whole, last = txn.page(OFFERS, after, limit)
        found = [offer for _, offer in whole]
    return [offer for offer in found if asked.wants(offer)], last
