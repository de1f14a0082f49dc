"""What the audit checks of money: accounts, what is held, receipts and their settlements."""

from collections import Counter
from collections.abc import Iterator

from compute_market import archived
from compute_market.errors import IntegrityError
from compute_market.laws import Law, Violation, same_size
from compute_market.records import Posting
from compute_market.settlement import import_laws, ledger, receipts, settlement
from compute_market.settlement.receipt_chain import GENESIS, link_digest
from compute_market.store.schema import (
    ACCOUNTS,
    ARCHIVED,
    ARCHIVED_JOBS,
    ARCHIVED_RECEIPTS,
    META,
    POSTINGS,
    POSTINGS_BEFORE,
    QUARANTINE,
    RECEIPT_CHAIN,
    RECEIPTS,
    RECEIPTS_ARCHIVED,
    SETTLEMENTS,
    TAPS,
    UNSETTLED,
    WALLET_POSTINGS,
    pack_u64,
    unpack_u64,
)
from compute_market.store.txn import Txn

_GOES_ON = "the chain goes on behind what was archived"
# What moves money into, between and out of the accounts of a job.
_OF_JOBS = frozenset(
    (
        *("escrow:lock", "escrow:refund", "bond:lock", "bond:release", "settle"),
        *("sla:slash", "cancel:slash", "slice:slash"),
    )
)


def _accounts(txn: Txn) -> Iterator[Violation]:
    """Conservation, no negative account, and balances that equal openings and postings.

    Those that may have been archived leave gaps between those that are kept.
    """
    computed: Counter[tuple[str, str]] = Counter(archived.balances(txn))
    before_ms = txn.number(POSTINGS_BEFORE)
    touched = last = last_ms = 0
    for posting in txn.records(POSTINGS):
        if posting.seq != last + 1 and (posting.seq <= last or last_ms >= before_ms):
            yield Violation("postings", str(posting.seq), "no gaps", f"expected {last + 1}")
            return
        last, last_ms = posting.seq, posting.at_ms
        computed[posting.token, posting.debit] -= posting.amount
        computed[posting.token, posting.credit] += posting.amount
        touched += posting.debit.startswith("wallet/") + posting.credit.startswith("wallet/")
    for token in ledger.TOKENS:
        stored = ledger.balances(txn, token)
        total = sum(stored.values())
        if total:
            yield Violation("accounts", token, "conservation", f"balances sum to {total}")
        known = {account for of, account in computed if of == token}
        for account in sorted(known | stored.keys()):
            is_, should = stored.get(account, 0), computed[token, account]
            if is_ != should:
                yield Violation(
                    "accounts",
                    f"{account} {token}",
                    "balance equals postings",
                    f"balance {is_}, postings {should}",
                )
            if is_ < 0 and account != ledger.SUPPLY:
                yield Violation("accounts", f"{account} {token}", "not negative", str(is_))
    yield from same_size(
        txn, WALLET_POSTINGS, touched, "every posting of a wallet is in its history"
    )


def _movements(txn: Txn) -> Iterator[Violation]:
    """Money moves as its event says: back to where it came from, by a tap, or for a receipt.

    Of an archived job some postings may have gone before others, so they are no more than sums.
    """
    before_ms = txn.number(POSTINGS_BEFORE)
    locked: dict[str, str] = {}  # what is held → the wallet it was taken from
    tapped: Counter[tuple[str, str]] = Counter()
    paid: Counter[tuple[str, str, str]] = Counter()
    for posting in txn.records(POSTINGS):
        if _is_of_job(posting) and archived.job(txn, posting.ref) is not None:
            continue
        if not _is_right(posting, locked):
            yield Violation(
                "postings",
                str(posting.seq),
                "money moves as its event says, and back to where it came from",
                f"{posting.event} of {posting.ref} from {posting.debit} to {posting.credit}",
            )
        if posting.event == "settle":
            paid[posting.ref, posting.credit, posting.token] += posting.amount
        elif posting.event in ("deposit", "withdraw") and posting.ref:
            tapped[posting.ref, posting.token] += posting.amount
            yield from _tap_of(txn, posting)
    for tap in txn.records(TAPS):
        for token, amount in (("CT", tap.ct), ("IT", tap.it)):
            moved = tapped[tap.key, token]
            if moved != amount and (moved or tap.at_ms >= before_ms):
                yield Violation(
                    "taps",
                    tap.key,
                    "what a key moved is posted once",
                    f"{amount} {token}, postings say {moved}",
                )
    for settled in txn.records(SETTLEMENTS):
        if settled.status == "applied":
            ends = settled.job_id, ledger.wallet(settled.provider)
            paid[(*ends, "CT")] -= settled.ct
            paid[(*ends, "IT")] -= settled.it
    for (job_id, wallet, token), more in paid.items():
        if more:
            yield Violation(
                "settlements",
                job_id,
                "what was paid to a provider is what its receipts say",
                f"{wallet} had {abs(more)} {token} too {'much' if more > 0 else 'little'}",
            )


def _is_of_job(posting: Posting) -> bool:
    """Whether the accounts of a job are at an end of it; those of a bid are not."""
    return posting.event in _OF_JOBS


def _is_right(posting: Posting, locked: dict[str, str]) -> bool:
    """Whether a posting joins accounts that its event may. Keeps book of what is locked."""
    event, debit, credit = posting.event, posting.debit, posting.credit
    escrow = ledger.escrow(posting.ref)
    bonds = ledger.bond(posting.ref, "buyer"), ledger.bond(posting.ref, "provider")
    if event in ("deposit", "courier:reward", "subsidy"):
        return debit == ledger.SUPPLY and ledger.is_wallet(credit)
    if event == "withdraw":
        return ledger.is_wallet(debit) and credit == ledger.SUPPLY
    if event in ("escrow:lock", "bond:lock"):
        to = (escrow,) if event == "escrow:lock" else bonds
        is_first_or_more = locked.setdefault(credit, debit) == debit
        return ledger.is_wallet(debit) and credit in to and is_first_or_more
    if event == "escrow:refund":
        return debit == escrow and credit == locked.get(debit)
    if event == "bond:release":
        return debit in bonds and credit == locked.pop(debit, None)
    if event in ("bid:lock", "bid:release", "bid:slash"):
        return _is_right_for_a_bid(posting, locked)
    if event == "import:settle":
        return ledger.is_wallet(debit) and ledger.is_wallet(credit)
    if event == "settle":
        return debit == escrow and ledger.is_wallet(credit)
    return debit in bonds and credit == ledger.BURNED


def _is_right_for_a_bid(posting: Posting, locked: dict[str, str]) -> bool:
    event, debit, credit = posting.event, posting.debit, posting.credit
    bond = ledger.bid_bond(posting.ref)
    if event == "bid:lock":
        return (
            ledger.is_wallet(debit) and credit == bond and locked.setdefault(bond, debit) == debit
        )
    wallet = locked.pop(debit, None)  # Once given back or burned, it is gone.
    back_to = wallet if event == "bid:release" else ledger.BURNED
    return debit == bond and wallet is not None and credit == back_to


def _tap_of(txn: Txn, posting: Posting) -> Iterator[Violation]:
    tap = txn.read(TAPS, posting.ref.encode())
    ends = {posting.debit, posting.credit}
    if tap is None or tap.event != posting.event or ledger.wallet(tap.owner) not in ends:
        yield Violation(
            "postings",
            str(posting.seq),
            "a key of a deposit or withdrawal is that of its owner",
            f"{posting.event} of {posting.ref} from {posting.debit} to {posting.credit}",
        )


def _receipts(txn: Txn) -> Iterator[Violation]:
    """Keys recomputed, chain unbroken, every receipt on it and settled.

    Of those that were archived the chain keeps the links that are not at its beginning, and the
    last of those that are.
    """
    previous = GENESIS
    count = txn.number(RECEIPTS_ARCHIVED)
    gone = 0
    if count:
        link = txn.read(RECEIPT_CHAIN, pack_u64(count))
        count -= 1
        if link is None or archived.receipt(txn, link.key) is None:
            yield Violation("receipt_chain", str(count + 1), _GOES_ON, "its link is missing")
            return
    first = count
    for seq_key, payload in txn.scan(RECEIPT_CHAIN):
        count += 1
        seq = unpack_u64(seq_key)
        if seq != count:
            yield Violation("receipt_chain", str(seq), "no gaps", f"expected {count}")
            return
        link = RECEIPT_CHAIN.decode(seq_key, payload)
        if archived.receipt(txn, link.key) is not None:
            gone += 1
        elif txn.get(QUARANTINE, link.key) is not None:
            yield Violation("receipts", link.key.hex(), "receipts decode", "in quarantine")
        else:
            yield from _receipt(txn, seq, link.key, previous, link.digest)
        previous = link.digest
    if count != txn.number("receipt_seq"):
        last = txn.number("receipt_seq")
        yield Violation("receipt_chain", "*", "no gaps", f"the last is {count}, {last} were issued")
    waiting = sum(settled.status == "pending" for settled in txn.records(SETTLEMENTS))
    yield from same_size(txn, UNSETTLED, waiting, "the status fits the receipt", "wait")
    on_chain = count - first - gone - txn.size(QUARANTINE)
    yield from same_size(txn, RECEIPTS, on_chain, "every receipt is on the chain")


def _receipt(txn: Txn, seq: int, key: bytes, previous: bytes, digest: bytes) -> Iterator[Violation]:
    try:
        receipt = receipts.find(txn, key)
    except IntegrityError as error:
        yield Violation("receipts", key.hex(), "receipts decode", error.message)
        return
    if receipt is None:
        yield Violation("receipts", key.hex(), "no link without a receipt", "missing")
        return
    if link_digest(seq, previous, RECEIPTS.opened(key, txn.stored(RECEIPTS, key))) != digest:
        yield Violation("receipt_chain", str(seq), "the chain is unbroken", "the link does not fit")
    computed = receipts.key_of_fields(receipt)
    if computed != key or receipt.idempotency_key != key:
        yield Violation("receipts", key.hex(), "the key is that of its fields", computed.hex())
        return
    settled = settlement.of(txn, key)
    if settled is None:
        yield Violation("settlements", key.hex(), "every receipt is settled", "missing")
        return
    waits = txn.get(UNSETTLED, pack_u64(seq)) == key
    if waits != (settled.status == "pending") or receipt.dry_run != (settled.status == "recorded"):
        yield Violation("settlements", key.hex(), "the status fits the receipt", settled.status)
    of = (receipt.job_id, receipt.buyer, receipt.provider)
    if (settled.job_id, settled.buyer, settled.provider) != of:
        yield Violation(
            "settlements", key.hex(), "the money is that of its receipt", settled.provider
        )
    if settled.ct + settled.it != receipt.quote_price * receipt.units:
        yield Violation(
            "settlements",
            key.hex(),
            "the amounts are those of its receipt",
            f"{receipt.quote_price * receipt.units} are due",
        )


LAWS = (
    Law(_accounts, (POSTINGS, ACCOUNTS.table, WALLET_POSTINGS, ARCHIVED.table, META)),
    Law(_movements, (POSTINGS, TAPS, SETTLEMENTS, ARCHIVED_JOBS, META)),
    Law(_receipts, (RECEIPT_CHAIN, SETTLEMENTS, UNSETTLED, QUARANTINE, ARCHIVED_RECEIPTS, META)),
    *import_laws.LAWS,
)
