"""The laws of sealed bids, each broken by hand: the audit names it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compute_market import chain
from compute_market.bids import laws
from compute_market.settlement import ledger, modes
from compute_market.store.schema import BIDDERS, BIDS, BIDS_DUE, BIDS_DUE_FROM
from compute_market.store.txn import Txn
from tests.support.bids import ALICE, MALLORY, reveal, seal, take
from tests.support.laws import Case, check_named, edit, laws_in, posting_seq, repost
from tests.support.market import Market

COMMITTED = seal("committed", sequence=4).bid_tx.bid_id
REVEALED = seal("revealed", sequence=2).bid_tx.bid_id
REFUSED = seal("refused", sequence=3, consumer_bond=0).bid_tx.bid_id
EXPIRED = seal("expired", sequence=1).bid_tx.bid_id

BOND = "the bond of a bid is what its state demands"
DUE = "every committed bid is due, and no other"
SEQUENCE = "a bidder's sequence number is the highest of its bids"
IDS = "the id of a bid is that of what was signed"
BECAME = "a revealed bid has a job or a refusal, and no other bid has"


@pytest.fixture(scope="module")
def bidding(tmp_path_factory: pytest.TempPathFactory) -> Market:
    """A market with bids in every state, all with bonds."""
    market = Market(Path(tmp_path_factory.mktemp("bidding")))
    market.configure(bid_reveal_window=9, block_interval_secs=0)
    market.update(lambda txn: modes.arm(txn, 0))
    market.deposit("buyer", ct=1000)
    market.deposit("prov", ct=1000)
    market.post()
    take(market, seal("expired", sequence=1))
    market.configure(bid_reveal_window=100)
    take(market, seal("revealed", sequence=2))
    refused = seal("refused", sequence=3, consumer_bond=0)
    take(market, refused)
    market.update(lambda txn: chain.advance(txn, 20))
    reveal(market, seal("revealed", sequence=2))
    reveal(market, refused)
    take(market, seal("committed", sequence=4))
    assert market.violations() == []
    return market


def change(bid_id: str, **changes: Any) -> Callable[[Txn], None]:
    return lambda txn: edit(txn, BIDS, bid_id.encode(), **changes)


def drop(bid_id: str) -> Callable[[Txn], object]:
    return lambda txn: txn.delete(BIDS, bid_id.encode())


def due(txn: Txn) -> bytes:
    first = txn.first(BIDS_DUE)
    assert first is not None
    return first[0]


CASES = (
    Case(BOND, "bids", COMMITTED, change(COMMITTED, bond_ct=2)),
    Case(BOND, "bids", COMMITTED, change(COMMITTED, state="expired")),
    Case(BOND, "bids", REVEALED, change(REVEALED, state="expired", job_id=None)),
    Case(BOND, "bids", EXPIRED, change(EXPIRED, state="revealed", job_id="revealed")),
    Case(BOND, "bids", EXPIRED, change(EXPIRED, state="committed")),
    Case(BOND, "postings", posting_seq("bid:lock", COMMITTED), change(COMMITTED, owner="prov")),
    Case(BOND, "postings", REVEALED, drop(REVEALED)),
    Case(BOND, "accounts", f"{ledger.bid_bond(COMMITTED)} CT", drop(COMMITTED)),
    Case(DUE, "bids_due", COMMITTED, lambda txn: txn.delete(BIDS_DUE, due(txn))),
    Case(DUE, "bids_due", "*", lambda txn: txn.put(BIDS_DUE, bytes(8) + b"b-0")),
    Case(DUE, "bids_due", COMMITTED, change(COMMITTED, reveal_until=99)),
    Case(DUE, "meta", BIDS_DUE_FROM, lambda txn: txn.set_number(BIDS_DUE_FROM, 0)),
    Case(SEQUENCE, "bids", REVEALED, change(EXPIRED, sequence=2)),
    Case(
        SEQUENCE,
        "bidders",
        ALICE.key_id.hex(),
        lambda txn: edit(txn, BIDDERS, ALICE.key_id, sequence=3),
    ),
    Case(IDS, "bids", COMMITTED, change(COMMITTED, height=19)),
    Case(IDS, "bids", COMMITTED, change(COMMITTED, commitment=bytes(32))),
    Case(IDS, "bids", COMMITTED, lambda txn: txn.delete(BIDDERS, ALICE.key_id)),
    Case(
        IDS,
        "bids",
        COMMITTED,
        lambda txn: edit(txn, BIDDERS, ALICE.key_id, public_key=MALLORY.public_key),
    ),
    Case(BECAME, "bids", REVEALED, change(REVEALED, job_id=None)),
    Case(BECAME, "bids", REVEALED, change(REVEALED, job_id="nobody's")),
    Case(BECAME, "bids", REVEALED, change(REVEALED, refused="deadline")),
    Case(BECAME, "bids", REFUSED, change(REFUSED, refused=None)),
    Case(BECAME, "bids", COMMITTED, change(COMMITTED, job_id="revealed")),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_audit_names_what_is_falsified(bidding: Market, case: Case) -> None:
    check_named(bidding, case)


def test_every_law_has_a_case() -> None:
    assert {case.law for case in CASES} == laws_in(laws)


MOVES = "money moves as its event says, and back to where it came from"


@pytest.mark.parametrize(
    ("event", "ref", "changes"),
    [
        ("bid:release", REVEALED, {"credit": "wallet/prov"}),
        ("bid:release", REVEALED, {"credit": ledger.BURNED}),
        ("bid:slash", EXPIRED, {"credit": "wallet/buyer"}),
        ("bid:slash", EXPIRED, {"debit": "wallet/buyer"}),
        ("bid:lock", COMMITTED, {"credit": ledger.bid_bond(EXPIRED)}),
        ("bid:lock", COMMITTED, {"debit": ledger.SUPPLY}),
    ],
)
def test_bond_that_moves_otherwise_is_named(
    bidding: Market, event: str, ref: str, changes: dict[str, str]
) -> None:
    key = posting_seq(event, ref)
    check_named(bidding, Case(MOVES, "postings", key, repost(event, ref, **changes)))


def test_bond_of_a_bid_is_in_what_is_held(bidding: Market) -> None:
    law = "what is held of an owner is the sum over its jobs and bids"
    check_named(bidding, Case(law, "holdings", "buyer bonds_ct", change(COMMITTED, bond_ct=5)))
