"""Offers of capacity: how they are read, shown and changed. The only writer of offers.

An offer knows the shelf it stands on in the index (`book`). Units, the standing of its provider and
the wallet that has to pay its bond put it there; whoever changes one of them has it shelved anew in
the same transaction (`standing`), so that the index is never searched by what is true by now.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from compute_market import events
from compute_market.amounts import format_ppm
from compute_market.errors import NotFoundError
from compute_market.offers import book
from compute_market.offers.prices import effective_price
from compute_market.records import Offer, OfferState, Placement, Shelf, capability_document, replace
from compute_market.reputation import reputation
from compute_market.settlement import ledger
from compute_market.store.schema import (
    OFFER_COUNTS,
    OFFERS,
    PROVIDER_OFFERS,
    id_prefix,
    pack_u64,
)
from compute_market.store.txn import Txn


def get(txn: Txn, offer_id: str) -> Offer:
    """The offer. Raises NotFoundError."""
    offer = find(txn, offer_id)
    if offer is None:
        raise NotFoundError(
            f"offer {offer_id} does not exist", hint="see `tb-cli compute offer list`"
        )
    return offer


def find(txn: Txn, offer_id: str) -> Offer | None:
    return txn.read(OFFERS, offer_id.encode())


def named(txn: Txn, offer_id: bytes) -> Offer:
    """The offer that an index or a job names. Raises IntegrityError when it is missing."""
    return txn.must_read(OFFERS, offer_id)


def listed(txn: Txn) -> Iterator[Offer]:
    """All offers, by id."""
    return txn.records(OFFERS)


def ids_on_shelf(txn: Txn, shelf: Shelf, limit: int) -> list[bytes]:
    """Ids of at most `limit` offers of a shelf, no order given."""
    return list(islice(book.shelved(txn, shelf), limit))


def ids_of_provider(txn: Txn, provider: str, limit: int) -> list[bytes]:
    """Ids of at most `limit` offers of a provider that are not withdrawn, by bond."""
    prefix = id_prefix(provider)
    entries = txn.collect(PROVIDER_OFFERS, limit, prefix)
    return [key[len(prefix) + 8 :] for key, _ in entries]


def add(txn: Txn, offer: Offer) -> Offer:
    """Put a new offer on the market."""
    offer = replace(offer, shelf=shelf_of(txn, offer))
    store_indexed(txn, offer)
    events.note(
        txn,
        "offer_posted",
        offer_id=offer.offer_id,
        owner=offer.provider,
        units=offer.units,
        price_per_unit=offer.price_per_unit,
    )
    return offer


def store_indexed(txn: Txn, offer: Offer) -> None:
    """Store an offer that no index knows yet, with its place in each."""
    index_anew(txn, offer)
    for key in provider_keys(offer):
        txn.put(PROVIDER_OFFERS, key)
    _count(txn, offer, +1)
    _write(txn, offer)


def index_anew(txn: Txn, offer: Offer) -> None:
    """Put an offer into an index by price that does not have it."""
    place = book.place_of(offer)
    if place is not None:
        book.insert(txn, offer, place)


def withdraw(txn: Txn, offer_id: str) -> tuple[Offer, bool]:
    """Take an offer off the market; jobs that hold it go on. Raises NotFoundError."""
    offer = get(txn, offer_id)
    if offer.state == "withdrawn":
        return offer, False
    withdrawn = replace(offer, state="withdrawn", shelf=None)
    _shelve(txn, offer, withdrawn)
    txn.stirred = True
    txn.remove(PROVIDER_OFFERS, _provider_key(offer))
    events.note(txn, "offer_withdrawn", offer_id=offer_id, owner=offer.provider)
    return withdrawn, True


def change(txn: Txn, offer: Offer, changes: dict[str, Any]) -> Offer:
    """Give an offer other terms, which its caller has checked, and units for all to come.

    What the jobs that hold it were promised stands in their placements.
    """
    changed: Offer = replace(offer, **changes)
    if changed.state != "withdrawn":
        changed = replace(changed, state="open" if changed.units_left else "exhausted")
    changed = replace(changed, shelf=shelf_of(txn, changed))
    _shelve(txn, offer, changed)
    txn.helped = True
    return changed


def reserve(txn: Txn, offer: Offer, units: int) -> None:
    """Set units aside for a job. The matcher has seen that they are there."""
    txn.stirred = True
    _move(
        txn, offer, units_left=offer.units_left - units, units_reserved=offer.units_reserved + units
    )


def prove(txn: Txn, offer_id: str, units: int) -> None:
    """Turn reserved units into proven ones."""
    offer = named(txn, offer_id.encode())
    _write(
        txn,
        replace(
            offer,
            units_reserved=offer.units_reserved - units,
            units_proven=offer.units_proven + units,
        ),
    )


def release(txn: Txn, offer_id: str, units: int) -> None:
    """Give back reserved units that were not proven; a withdrawn offer does not sell them again."""
    txn.helped = True
    offer = named(txn, offer_id.encode())
    _move(
        txn, offer, units_left=offer.units_left + units, units_reserved=offer.units_reserved - units
    )


def placement_on(offer: Offer, *, funded: bool) -> Placement:
    """What a job gets from an offer as it stands now."""
    return Placement(
        offer.offer_id,
        offer.provider,
        offer.price_per_unit,
        offer.fee_pct_ct,
        offer.provider_bond,
        funded,
    )


def restand(txn: Txn, provider: str, bonds: range | None = None) -> None:
    """Put a provider's offers on the shelves they belong to by now.

    Only those whose bond is in `bonds`, if given; the others are known to stand where they belong.
    """
    prefix = id_prefix(provider)
    start, end = prefix, None
    if bonds is not None:
        start, end = prefix + pack_u64(bonds.start), prefix + pack_u64(bonds.stop)
        _, first = txn.beside(PROVIDER_OFFERS, start)
        if first is None or first >= end:
            return  # The most frequent case by far.
    # Of offers that stay where they are nothing is written, so the scan is not disturbed.
    for key, _ in txn.scan(PROVIDER_OFFERS, prefix, start):
        if end is not None and key >= end:
            break
        offer = named(txn, key[len(prefix) + 8 :])
        moved = replace(offer, shelf=shelf_of(txn, offer))
        if moved.shelf != offer.shelf:
            _shelve(txn, offer, moved)
            txn.stirred = True
            # Where no money moves, one that cannot pay its bond can be taken as well.
            txn.helped = txn.helped or moved.shelf in ("open", "unfunded")


def shelf_of(txn: Txn, offer: Offer) -> Shelf | None:
    """The shelf an offer belongs to."""
    if offer.state == "withdrawn":
        return None
    if reputation.is_barred(txn, offer.provider):
        return "barred"
    if offer.units_left == 0:
        return "exhausted"
    funds = ledger.balance(txn, ledger.wallet(offer.provider), "CT")
    return "open" if funds >= offer.provider_bond else "unfunded"


def document(offer: Offer) -> dict[str, Any]:
    """The JSON form of an offer. `shelf` says what keeps an open one from being taken, if not
    `open`: `barred` (bad standing), `unfunded` (its bond cannot be paid)."""
    return {
        "offer_id": offer.offer_id,
        "provider": offer.provider,
        "units": offer.units,
        "price_per_unit": offer.price_per_unit,
        "fee_pct_ct": offer.fee_pct_ct,
        "provider_bond": offer.provider_bond,
        "consumer_bond": offer.consumer_bond,
        "capability": capability_document(offer.capability),
        "reputation": offer.reputation,
        "reputation_multiplier": format_ppm(offer.multiplier_ppm),
        "job_id": offer.job_id,
        "state": offer.state,
        "units_left": offer.units_left,
        "units_reserved": offer.units_reserved,
        "units_proven": offer.units_proven,
        "effective_price": effective_price(offer.price_per_unit, offer.multiplier_ppm),
        "posted_at": offer.posted_at,
        "shelf": offer.shelf,
        "market_priced": offer.market_priced,
    }


def provider_keys(offer: Offer) -> list[bytes]:
    """The keys in `provider_offers` that an offer must have; for the laws."""
    return [] if offer.state == "withdrawn" else [_provider_key(offer)]


def counted_under(offer: Offer) -> list[bytes]:
    """The keys in `offer_counts` that an offer counts under."""
    return [b"state " + offer.state.encode()] + (
        [] if offer.shelf is None else [b"shelf " + offer.shelf.encode()]
    )


def count_of(txn: Txn, what: str) -> int:
    """How many offers there are: `state open`, `shelf barred`, …; no walk."""
    return txn.sum(OFFER_COUNTS, what.encode())


def _move(txn: Txn, offer: Offer, *, units_left: int, units_reserved: int) -> None:
    state: OfferState = "open" if units_left else "exhausted"
    if offer.state == "withdrawn":
        state = "withdrawn"
    moved = replace(offer, units_left=units_left, units_reserved=units_reserved, state=state)
    if state != offer.state:
        moved = replace(moved, shelf=shelf_of(txn, moved))
    if book.moves(offer, moved):
        _shelve(txn, offer, moved)
    else:
        _write(txn, moved)


def _shelve(txn: Txn, before: Offer, after: Offer) -> None:
    old, new = book.place_of(before), book.place_of(after)
    if old is not None and new is not None:
        book.move(txn, after, old, new)
    elif old is not None:
        book.remove(txn, before, old)
    if (before.state, before.shelf) != (after.state, after.shelf):
        _count(txn, before, -1)
        _count(txn, after, +1)
    _write(txn, after)


def _count(txn: Txn, offer: Offer, by: int) -> None:
    for key in counted_under(offer):
        txn.add(OFFER_COUNTS, key, by)


def _write(txn: Txn, offer: Offer) -> None:
    txn.write(OFFERS, offer.offer_id.encode(), offer)


def _provider_key(offer: Offer) -> bytes:
    return id_prefix(offer.provider) + pack_u64(offer.provider_bond) + offer.offer_id.encode()
