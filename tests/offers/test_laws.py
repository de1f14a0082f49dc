"""What the audit finds in offers and their index: one row per way to damage them."""

from collections.abc import Callable
from typing import Any

import pytest

from compute_market import audit
from compute_market.offers import book
from compute_market.records import Offer, replace
from compute_market.store.schema import BOOK, HEADS, OFFER_COUNTS, OFFERS, PROVIDER_OFFERS
from compute_market.store.txn import Txn
from tests.support.market import Market


def change(**fields: Any) -> Callable[[Txn], None]:
    """Change fields of the first offer, behind the back of its index."""

    def action(txn: Txn) -> None:
        offer = txn.must_read(OFFERS, b"o-1")
        txn.write(OFFERS, b"o-1", replace(offer, **fields))

    return action


def first(txn: Txn, table: Any) -> tuple[bytes, bytes]:
    found = txn.first(table)
    assert found is not None
    return found


def lose(table: Any) -> Callable[[Txn], None]:
    return lambda txn: void(txn.delete(table, first(txn, table)[0]))


def add(table: Any, key: bytes, value: bytes = b"") -> Callable[[Txn], None]:
    return lambda txn: txn.put(table, key, value)


def void(_: object) -> None:
    return None


def another_offer(txn: Txn) -> None:
    key, _ = first(txn, BOOK)
    txn.put(BOOK, key, b"o-9")


def another_least(txn: Txn) -> None:
    """The head of a node names what comes second."""
    key, value = first(txn, HEADS)
    txn.put(HEADS, key, value[:11] + b"\xff" + value[12:])


def another_class(txn: Txn) -> None:
    key, value = first(txn, HEADS)
    txn.put(HEADS, key, value[:-1] + bytes((value[-1] ^ 1,)))


DAMAGES: dict[str, tuple[Callable[[Txn], None], set[tuple[str, str]]]] = {
    "units": (change(units_left=999), {("offers", "units = reserved + proven + left")}),
    "units below zero": (
        change(units_left=1001, units_reserved=-1),
        {("offers", "units = reserved + proven + left")},
    ),
    "exhausted with units": (
        change(state="exhausted"),
        {
            ("offers", "exhausted means no units left"),
            ("offer_counts", "counts are those of the offers"),
        },
    ),
    "wrong shelf": (
        change(shelf="open"),
        {
            ("offers", "every offer is on its shelf"),
            ("book", "every offer is in its place"),
            ("offer_counts", "counts are those of the offers"),
        },
    ),
    "wrong price": (change(price_per_unit=4), {("book", "every offer is in its place")}),
    "wrong bond": (
        change(provider_bond=2),
        {("provider_offers", "every offer is with its provider")},
    ),
    "lost from the book": (
        lose(BOOK),
        {
            ("book", "every offer is in its place"),
            ("book", "nothing but offers is in the index"),
            ("heads", "no node without offers below it"),
        },
    ),
    "another offer in the book": (another_offer, {("book", "every offer is in its place")}),
    "lost from its provider": (
        lose(PROVIDER_OFFERS),
        {
            ("provider_offers", "every offer is with its provider"),
            ("provider_offers", "nothing but offers is in the index"),
        },
    ),
    "too much at a provider": (
        add(PROVIDER_OFFERS, b"prov\0" + bytes(8) + b"o-9"),
        {("provider_offers", "nothing but offers is in the index")},
    ),
    "lost head": (
        lose(HEADS),
        {
            ("heads", "each node knows the least below it"),
            ("heads", "no node without offers below it"),
        },
    ),
    "too many heads": (add(HEADS, b"x"), {("heads", "no node without offers below it")}),
    "another least": (another_least, {("heads", "each node knows the least below it")}),
    "another class": (another_class, {("heads", "each node knows the least below it")}),
    "another count": (
        lambda txn: void(txn.add(OFFER_COUNTS, b"state open", 1)),
        {("offer_counts", "counts are those of the offers")},
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_audit_finds_the_damage(market: Market, name: str) -> None:
    damage, laws = DAMAGES[name]
    market.post("prov")

    def action(txn: Txn) -> set[tuple[str, str]]:
        damage(txn)
        txn.flush()
        return {(v.table, v.law) for v in audit.check(txn)}

    found = market.update(action, dry_run=True)
    assert laws <= found
    # What follows from a damage is told too, but of these tables alone.
    assert {table for table, _ in found} <= {table for table, _ in laws} | {"book", "heads"}


def test_every_place_of_an_offer_is_in_the_book(market: Market) -> None:
    """By its model, by its accelerator, by both, and by none."""
    market.post("prov", capability={"gpu": "A100", "accelerator": "TPU"})

    def keys(txn: Txn) -> tuple[int, int]:
        offer: Offer = txn.must_read(OFFERS, b"o-1")
        place = book.place_of(offer)
        assert place is not None
        return len(set(book.entries_of(offer, place))), txn.size(BOOK)

    assert market.view(keys) == (4, 4)
