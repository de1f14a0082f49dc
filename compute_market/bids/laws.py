"""What the audit checks of sealed bids: bonds, due heights, sequences, and jobs."""

from collections.abc import Iterator

from compute_market import archived
from compute_market.bid_records import Bid
from compute_market.bids import bids
from compute_market.jobs import jobs
from compute_market.laws import Law, Violation, same_size
from compute_market.settlement import ledger
from compute_market.signatures.signatures import key_id
from compute_market.store.schema import (
    ACCOUNTS,
    ARCHIVED_JOBS,
    BIDDERS,
    BIDS,
    BIDS_DUE,
    BIDS_DUE_FROM,
    JOBS,
    META,
    POSTINGS,
    unpack_u64,
)
from compute_market.store.txn import Txn

_BOND = "the bond of a bid is what its state demands"
_IS_DUE = "every committed bid is due, and no other"
_HIGHEST = "a bidder's sequence number is the highest of its bids"
_IS_SIGNED = "the id of a bid is that of what was signed"


def _money(txn: Txn) -> Iterator[Violation]:
    """A bond is held while its bid is committed, and was moved as its bid says."""
    accounts = {
        account: amount
        for account, amount in ledger.balances(txn, "CT").items()
        if ledger.is_bid_bond(account)
    }
    moved: dict[tuple[str, str], int] = {}
    for posting in txn.records(POSTINGS):
        if posting.event in ("bid:lock", "bid:release", "bid:slash"):
            moved[posting.ref, posting.event] = (
                moved.get((posting.ref, posting.event), 0) + posting.amount
            )
            wallet = ledger.wallet(_owner_of(txn, posting.ref))
            if posting.event == "bid:lock" and posting.debit != wallet:
                yield Violation("postings", str(posting.seq), _BOND, f"from {posting.debit}")
    for bid in txn.records(BIDS):
        held = accounts.pop(ledger.bid_bond(bid.bid_id), 0)
        demanded = bid.bond_ct if bid.state == "committed" else 0
        end = {"revealed": "bid:release", "expired": "bid:slash"}.get(bid.state)
        right = {"bid:lock": bid.bond_ct} | ({} if end is None else {end: bid.bond_ct})
        found = {
            event: amount
            for event in ("bid:lock", "bid:release", "bid:slash")
            if (amount := moved.pop((bid.bid_id, event), 0))
        }
        if held != demanded or found != {event: n for event, n in right.items() if n}:
            detail = f"holds {held}, {bid.state} demands {demanded}; postings say {found}"
            yield Violation("bids", bid.bid_id, _BOND, detail)
    for bid_id in sorted({bid_id for bid_id, _ in moved}):
        yield Violation("postings", bid_id, _BOND, "no such bid")
    for account in sorted(accounts):
        yield Violation("accounts", f"{account} CT", _BOND, "no such bid")


def _due(txn: Txn) -> Iterator[Violation]:
    """Each committed bid is due when its window has passed, and nothing else is."""
    count = 0
    for bid in txn.records(BIDS):
        if bid.state == "committed":
            count += 1
            if txn.get(BIDS_DUE, bids.due_key(bid)) is None:
                yield Violation("bids_due", bid.bid_id, _IS_DUE, "missing")
    yield from same_size(txn, BIDS_DUE, count, _IS_DUE)
    first = txn.first(BIDS_DUE)
    should = 0 if first is None else unpack_u64(first[0][:8]) + 1
    if txn.number(BIDS_DUE_FROM) != should:
        detail = f"{txn.number(BIDS_DUE_FROM)}, the first is due at {should}"
        yield Violation("meta", BIDS_DUE_FROM, _IS_DUE, detail)


def _bidders(txn: Txn) -> Iterator[Violation]:
    """No sequence number is used twice, and each bid is the one that was signed."""
    used: dict[bytes, set[int]] = {}
    for bid in txn.records(BIDS):
        sequences = used.setdefault(bid.key_id, set())
        if bid.sequence in sequences:
            yield Violation("bids", bid.bid_id, _HIGHEST, f"{bid.sequence} is used twice")
        sequences.add(bid.sequence)
        bidder = txn.read(BIDDERS, bid.key_id)
        if bidder is None or bids.bid_tx_of(txn, bid).bid_id != bid.bid_id:
            yield Violation("bids", bid.bid_id, _IS_SIGNED, "it has another, or no bidder")
    for key, payload in txn.scan(BIDDERS):
        bidder = BIDDERS.decode(key, payload)
        highest = max(used.get(key, ()), default=None)
        if bidder.sequence != highest or key_id(bidder.public_key) != key:
            detail = f"{bidder.sequence}, bids say {highest}"
            yield Violation("bidders", key.hex(), _HIGHEST, detail)


def _jobs(txn: Txn) -> Iterator[Violation]:
    """What a revealed bid has become: a job that is there, or a refusal."""
    for bid in txn.records(BIDS):
        if not _is_right(txn, bid):
            yield Violation(
                "bids",
                bid.bid_id,
                "a revealed bid has a job or a refusal, and no other bid has",
                f"{bid.state}, job {bid.job_id}, refused {bid.refused}",
            )


def _is_right(txn: Txn, bid: Bid) -> bool:
    if bid.state != "revealed":
        return bid.job_id is None and bid.refused is None
    if bid.job_id is None:
        return bid.refused is not None
    if bid.refused is not None:
        return False
    is_kept = jobs.find(txn, bid.job_id) is not None
    return is_kept or archived.job(txn, bid.job_id) is not None


def _owner_of(txn: Txn, bid_id: str) -> str:
    bid = bids.find(txn, bid_id)
    return "" if bid is None else bid.owner


LAWS = (
    Law(_money, (BIDS, POSTINGS, ACCOUNTS.table)),
    Law(_due, (BIDS, BIDS_DUE, META)),
    Law(_bidders, (BIDS, BIDDERS, META)),
    Law(_jobs, (BIDS, JOBS, ARCHIVED_JOBS)),
)
