"""What the audit checks of offers and their indexes. That of their units is in `jobs.laws`."""

from collections import Counter
from collections.abc import Iterator

from compute_market.laws import Law, Violation, same_size
from compute_market.offers import book, offers, price_window
from compute_market.records import LANES
from compute_market.store.schema import (
    ACCOUNTS,
    BOOK,
    HEADS,
    META,
    OFFER_COUNTS,
    OFFERS,
    PRICES,
    PROVIDER_OFFERS,
    REPUTATION,
)
from compute_market.store.txn import Txn


def _indexes(txn: Txn) -> Iterator[Violation]:
    in_book = of_providers = 0
    counted: Counter[bytes] = Counter()
    for offer in txn.records(OFFERS):
        counted.update(offers.counted_under(offer))
        shelf = offers.shelf_of(txn, offer)
        if offer.shelf != shelf:
            yield Violation(
                "offers",
                offer.offer_id,
                "every offer is on its shelf",
                f"on {offer.shelf}, belongs on {shelf}",
            )
        place = book.place_of(offer)
        for key in book.entries_of(offer, place) if place is not None else ():
            in_book += 1
            if txn.get(BOOK, key) != offer.offer_id.encode():
                yield Violation(
                    "book", offer.offer_id, "every offer is in its place", f"{key.hex()} is missing"
                )
        for key in offers.provider_keys(offer):
            of_providers += 1
            if txn.get(PROVIDER_OFFERS, key) is None:
                yield Violation(
                    "provider_offers", offer.offer_id, "every offer is with its provider", "missing"
                )
    yield from same_size(txn, BOOK, in_book, "nothing but offers is in the index")
    yield from same_size(txn, PROVIDER_OFFERS, of_providers, "nothing but offers is in the index")
    if (stored := txn.sums(OFFER_COUNTS)) != {key: counted[key] for key in sorted(counted)}:
        yield Violation("offer_counts", "*", "counts are those of the offers", f"{stored}")


def _units(txn: Txn) -> Iterator[Violation]:
    for offer in txn.records(OFFERS):
        left, reserved, proven = offer.units_left, offer.units_reserved, offer.units_proven
        if left + reserved + proven != offer.units or min(left, reserved) < 0:
            yield Violation(
                "offers",
                offer.offer_id,
                "units = reserved + proven + left",
                f"{offer.units} ≠ {reserved} + {proven} + {left}",
            )
        if offer.state != "withdrawn" and (offer.state == "exhausted") != (left == 0):
            yield Violation(
                "offers",
                offer.offer_id,
                "exhausted means no units left",
                f"{offer.state} with {left}",
            )


def _heads(txn: Txn) -> Iterator[Violation]:
    """The tree above the book: every node, and nothing else, knows the least order below it."""
    expected = 0
    above: set[bytes] = set()  # the nodes above the entry before: those of one class are together
    for key, offer_id in txn.scan(BOOK):
        nodes = {node: place for node, *place in book.nodes_of(key)}
        for node in nodes.keys() - above:
            expected += 1
            if txn.get(HEADS, node) != book.least_below(txn, *nodes[node]):
                yield Violation(
                    "heads", offer_id.decode(), "each node knows the least below it", node.hex()
                )
        above = set(nodes)
    yield from same_size(txn, HEADS, expected, "no node without offers below it", "nodes")


def _prices(txn: Txn) -> Iterator[Violation]:
    last = txn.number(price_window.SEQ)
    found = 0
    for lane in LANES:
        keys = [key for key, _ in price_window.entries(txn, lane)]
        found += len(keys)
        stored = txn.number(price_window.STORED[lane])
        if len(keys) != stored:
            detail = f"{len(keys)} are stored, {stored} are counted"
            yield Violation("prices", lane, "every price of the window is stored", detail)
        if keys and keys[-1] > price_window.key_of(lane, last):
            detail = f"{keys[-1].hex()}, and the last one has the number {last}"
            yield Violation("prices", lane, "no price is newer than the last one", detail)
    yield from same_size(txn, PRICES, found, "every price is of a lane")


LAWS = (
    Law(
        _indexes,
        (OFFERS, BOOK, PROVIDER_OFFERS, OFFER_COUNTS.table, REPUTATION, ACCOUNTS.table),
    ),
    Law(_units, (OFFERS,)),
    Law(_heads, (BOOK, HEADS)),
    Law(_prices, (PRICES, META)),
)
