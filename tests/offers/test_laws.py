"""The laws of offers and their indexes: each one, broken by hand, is named by the audit."""

import pytest

from compute_market.offers import book, laws, price_window
from compute_market.store.schema import BOOK, HEADS, OFFER_COUNTS, OFFERS, PRICES, PROVIDER_OFFERS
from compute_market.store.txn import Txn
from tests.support.laws import Case, check_named, edit, key_of, laws_in
from tests.support.market import Market


def leaf_above(txn: Txn, offer_id: bytes) -> bytes:
    """The lowest node of the index above an offer."""
    *_, (leaf, _, _) = book.nodes_of(key_of(txn, BOOK, offer_id))
    return leaf


def with_provider(txn: Txn, offer_id: bytes) -> bytes:
    return next(key for key, _ in txn.scan(PROVIDER_OFFERS) if key.endswith(offer_id))


def class_changed(txn: Txn, node: bytes) -> None:
    """A node names another class than that of what comes first below it."""
    least = txn.get(HEADS, node) or b""
    txn.put(HEADS, node, least[:-1] + bytes((least[-1] ^ 1,)))


CASES = (
    *(
        Case(
            "every offer is on its shelf",
            "offers",
            offer_id,
            lambda txn, offer_id=offer_id, shelf=shelf: edit(
                txn, OFFERS, offer_id.encode(), shelf=shelf
            ),
        )
        for offer_id, shelf in (
            ("main", "barred"),
            ("unpaid", "open"),
            ("small", "open"),
            ("gone", "open"),
        )
    ),
    Case(
        "every offer is in its place",
        "book",
        "main",
        lambda txn: txn.delete(BOOK, key_of(txn, BOOK, b"main")),
    ),
    Case(
        "every offer is in its place",
        "book",
        "main",
        lambda txn: edit(txn, OFFERS, b"main", price_per_unit=4),
    ),
    Case(
        "every offer is in its place",
        "book",
        "main",
        lambda txn: txn.put(BOOK, key_of(txn, BOOK, b"main"), b"other"),
    ),
    Case(
        "every offer is with its provider",
        "provider_offers",
        "main",
        lambda txn: edit(txn, OFFERS, b"main", provider_bond=19),
    ),
    Case(
        "every offer is with its provider",
        "provider_offers",
        "main",
        lambda txn: txn.delete(PROVIDER_OFFERS, with_provider(txn, b"main")),
    ),
    Case(
        "nothing but offers is in the index",
        "book",
        "*",
        lambda txn: txn.put(BOOK, key_of(txn, BOOK, b"main") + b"x", b"main"),
    ),
    Case(
        "nothing but offers is in the index",
        "provider_offers",
        "*",
        lambda txn: txn.put(PROVIDER_OFFERS, b"nobody\0" + bytes(8) + b"main"),
    ),
    Case(
        "counts are those of the offers",
        "offer_counts",
        "*",
        lambda txn: txn.add(OFFER_COUNTS, b"state open", 1),
    ),
    Case(
        "counts are those of the offers",
        "offer_counts",
        "*",
        lambda txn: txn.add(OFFER_COUNTS, b"shelf barred", 1),
    ),
    Case(
        "units = reserved + proven + left",
        "offers",
        "main",
        lambda txn: edit(txn, OFFERS, b"main", units=999),
    ),
    Case(
        "units = reserved + proven + left",
        "offers",
        "small",
        lambda txn: edit(txn, OFFERS, b"small", units_left=-1, units_reserved=1),
    ),
    Case(
        "exhausted means no units left",
        "offers",
        "small",
        lambda txn: edit(txn, OFFERS, b"small", state="open"),
    ),
    Case(
        "exhausted means no units left",
        "offers",
        "main",
        lambda txn: edit(txn, OFFERS, b"main", state="exhausted"),
    ),
    Case(
        "each node knows the least below it",
        "heads",
        "main",
        lambda txn: txn.put(HEADS, leaf_above(txn, b"main"), bytes(27)),
    ),
    Case(
        "each node knows the least below it",
        "heads",
        "main",
        lambda txn: class_changed(txn, leaf_above(txn, b"main")),
    ),
    Case(
        "each node knows the least below it",
        "heads",
        "main",
        lambda txn: txn.delete(HEADS, leaf_above(txn, b"main")),
    ),
    Case(
        "every price of the window is stored",
        "prices",
        "industrial",
        lambda txn: txn.delete(PRICES, next(txn.scan(PRICES))[0]),
    ),
    Case(
        "no price is newer than the last one",
        "prices",
        "industrial",
        lambda txn: price_window.record(txn, "industrial", 1) or txn.set_number("price_seq", 1),  # type: ignore[func-returns-value]
    ),
    Case(
        "every price is of a lane",
        "prices",
        "*",
        lambda txn: txn.put(PRICES, b"\2" + bytes(8), bytes(16)),
    ),
    Case(
        "no node without offers below it",
        "heads",
        "*",
        lambda txn: txn.put(HEADS, b"x" * 40, b"main"),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_audit_names_what_is_falsified(busy: Market, case: Case) -> None:
    check_named(busy, case)


def test_every_law_has_a_case() -> None:
    assert {case.law for case in CASES} == laws_in(laws)


def test_every_place_of_an_offer_is_in_the_book(market: Market) -> None:
    """By its model, by its accelerator, by both, and by none."""
    market.post("prov", capability={"gpu": "A100", "accelerator": "TPU"})

    def keys(txn: Txn) -> tuple[int, int]:
        place = book.place_of(txn.must_read(OFFERS, b"o-1"))
        assert place is not None
        return len(set(book.entries_of(txn.must_read(OFFERS, b"o-1"), place))), txn.size(BOOK)

    assert market.view(keys) == (4, 4)
