"""What the audit checks of the money of jobs: held, paid, refunded and burned."""

from collections import Counter
from collections.abc import Iterator

from compute_market import archived
from compute_market.amounts import split
from compute_market.errors import IntegrityError
from compute_market.jobs import jobs
from compute_market.laws import Law, Violation, same_size
from compute_market.records import (
    LIVE_STATES,
    Cause,
    Job,
    Posting,
    Side,
    Token,
)
from compute_market.settlement import escrow, ledger, receipts, settlement
from compute_market.settlement.escrow import Held
from compute_market.store.schema import (
    ACCOUNTS,
    ARCHIVED_JOBS,
    ARCHIVED_RECEIPTS,
    BIDS,
    HOLDINGS,
    JOBS,
    PLACEMENTS,
    POSTINGS,
    RECEIPT_CHAIN,
    SETTLEMENTS,
    id_prefix,
)
from compute_market.store.txn import Txn

# What a cause burns: the event of the posting, and whose bond it is.
_FAULTS: dict[Cause, tuple[str, Side]] = {
    "deadline_missed": ("sla:slash", "provider"),
    "cancelled_by_provider": ("cancel:slash", "provider"),
    "slice_changed": ("slice:slash", "buyer"),
}


def _money(txn: Txn) -> Iterator[Violation]:
    """Escrow and bonds are what each job's state demands, and their sums what is held of whom."""
    accounts: dict[tuple[str, str], int] = {}
    for token in ledger.TOKENS:
        for account, amount in ledger.balances(txn, token).items():
            # Those of bids are looked at in their own room.
            if not ledger.is_wallet(account) and not ledger.is_bid_bond(account):
                accounts[account, token] = amount
    held: Counter[bytes] = Counter()
    for bid in txn.records(BIDS):
        if bid.state == "committed":
            held[id_prefix(bid.owner) + b"bonds_ct"] += bid.bond_ct
    for job in txn.records(JOBS):
        for account, token, owner, what, expected in _demanded(txn, job):
            held[id_prefix(owner) + what.encode()] += expected
            found = accounts.pop((account, token), 0)
            if found != expected:
                yield Violation(
                    "accounts",
                    f"{account} {token}",
                    "escrow and bonds are what the job's state demands",
                    f"holds {found}, {job.state} demands {expected}",
                )
    for account, unit in accounts:
        if account not in (ledger.SUPPLY, ledger.BURNED):
            yield Violation(
                "accounts", f"{account} {unit}", "escrow and bonds belong to a job", "no such job"
            )
    stored = txn.sums(HOLDINGS)
    for key in sorted(stored.keys() | held.keys()):
        is_, should = stored.get(key, 0), held[key]
        if is_ != should:
            yield Violation(
                "holdings",
                key.decode().replace("\0", " "),
                "what is held of an owner is the sum over its jobs and bids",
                f"{is_}, they say {should}",
            )


def _demanded(txn: Txn, job: Job) -> Iterator[tuple[str, Token, str, Held, int]]:
    """What a job's accounts must hold: account, token, owner, kind, amount."""
    ct = it = buyer_bond = provider_bond = 0
    placements = jobs.placements(txn, job)
    if job.funded and job.state in ("queued", "active"):
        *earlier, present = placements
        done = sum(placement.units_proven for placement in earlier)
        ct, it = split((job.units - done) * present.price_per_unit, present.fee_pct_ct)
        for placement in earlier:
            due_ct, due_it = settlement.due_to(placement)
            ct, it = ct + due_ct, it + due_it
        buyer_bond, provider_bond = job.consumer_bond, present.provider_bond
    elif job.funded:
        for placement in placements:
            key = receipts.key_of_placement(job, placement)
            settled = None if key is None else settlement.of(txn, key)
            if settled is not None and settled.status == "pending":
                ct, it = ct + settled.ct, it + settled.it
    amounts = (ct, it, buyer_bond, provider_bond)
    for held, amount in zip(escrow.held_accounts(job), amounts, strict=False):
        yield (*held, amount)


def _settlements(txn: Txn) -> Iterator[Violation]:
    """Every provider of an ended job is due what it proved, at the price it was placed at."""
    for job in txn.records(JOBS):
        if job.state in LIVE_STATES:
            continue
        for placement in jobs.placements(txn, job):
            key = receipts.key_of_placement(job, placement)
            settled = None if key is None else settlement.of(txn, key)
            due = settlement.due_to(placement)
            if key is not None and (settled is None or (settled.ct, settled.it) != due):
                yield Violation(
                    "settlements", key.hex(), "the amounts are those of its job", f"{due} are due"
                )


def _movements(txn: Txn) -> Iterator[Violation]:
    """What was locked, paid and refunded for each job, by the postings that name it."""
    moved: Counter[tuple[str, str, str]] = Counter()
    for posting in txn.records(POSTINGS):
        if posting.event in ledger.OF_NO_JOB:
            continue
        job = jobs.find(txn, posting.ref)
        if job is None and archived.job(txn, posting.ref) is not None:
            continue
        if job is None:
            yield Violation(
                "postings",
                str(posting.seq),
                "what is locked, paid or burned is that of a job",
                f"there is no job {posting.ref}",
            )
        elif not _is_party(txn, job, posting):
            yield Violation(
                "postings",
                str(posting.seq),
                "money is locked from the buyer and the providers of its job",
                f"{posting.event} of {posting.ref} from {posting.debit}",
            )
        moved[posting.ref, posting.event, posting.token] += posting.amount
    for job in txn.records(JOBS):
        said = (job.paid_ct, job.paid_it, job.refunded_ct, job.refunded_it)
        posted = tuple(
            moved[job.job_id, event, token]
            for event in ("settle", "escrow:refund")
            for token in ledger.TOKENS
        )
        if said != posted:
            yield Violation(
                "jobs",
                job.job_id,
                "what was paid and refunded is what its postings say",
                f"{said}, postings say {posted}",
            )


def _is_party(txn: Txn, job: Job, posting: Posting) -> bool:
    """Whether what is locked is that of the buyer, or of a provider who gave its bond."""
    if posting.event not in ("escrow:lock", "bond:lock"):
        return True
    if posting.credit == ledger.bond(job.job_id, "provider"):
        return posting.debit in {ledger.wallet(each.provider) for each in jobs.placements(txn, job)}
    return posting.debit == ledger.wallet(job.buyer)


def _receipts(txn: Txn) -> Iterator[Violation]:
    """One receipt for what each provider proved of an ended job, and no other."""
    once = "a receipt's units are what its provider proved of the job, once"
    due = 0
    for job in txn.records(JOBS):
        if job.state not in LIVE_STATES:
            due += sum(each.units_proven > 0 for each in jobs.placements(txn, job))
    for link in txn.records(RECEIPT_CHAIN):
        if archived.receipt(txn, link.key) is not None:
            due += 1
            continue
        try:
            receipt = receipts.find(txn, link.key)
        except IntegrityError:
            continue  # The laws of settlement name it.
        if receipt is None:
            continue
        ended = jobs.find(txn, receipt.job_id)
        if ended is None or ended.state in LIVE_STATES:
            yield Violation("receipts", link.key.hex(), once, f"no ended job {receipt.job_id}")
        elif link.key not in {
            receipts.key_of_placement(ended, each) for each in jobs.placements(txn, ended)
        }:
            detail = f"{receipt.units} units of {receipt.job_id} by {receipt.provider}"
            yield Violation("receipts", link.key.hex(), once, detail)
    yield from same_size(txn, RECEIPT_CHAIN, due, once)


def _burned(txn: Txn) -> Iterator[Violation]:
    """A bond burns for what its job ended with, and it is that of the party at fault."""
    law = "a bond is burned for the fault its job ended with"
    burned: dict[str, int] = {}
    for posting in txn.records(POSTINGS):
        if posting.credit != ledger.BURNED or posting.event in ledger.OF_NO_JOB:
            continue
        job = jobs.find(txn, posting.ref)
        if job is None and archived.job(txn, posting.ref) is not None:
            continue
        fault = None if job is None or job.cause is None else _FAULTS.get(job.cause)
        if fault is None or (posting.event, posting.debit) != (
            fault[0],
            ledger.bond(posting.ref, fault[1]),
        ):
            yield Violation("postings", str(posting.seq), law, posting.event)
        burned[posting.ref] = burned.get(posting.ref, 0) + posting.amount
    for job in txn.records(JOBS):
        must_burn = job.funded and job.cause == "slice_changed"
        if must_burn and burned.get(job.job_id, 0) != job.consumer_bond:
            yield Violation("jobs", job.job_id, law, f"{job.consumer_bond} are to be burned")


LAWS = (
    Law(_money, (JOBS, PLACEMENTS, SETTLEMENTS, BIDS, ACCOUNTS.table, HOLDINGS.table)),
    Law(_settlements, (JOBS, PLACEMENTS, SETTLEMENTS)),
    Law(_movements, (POSTINGS, JOBS, PLACEMENTS, ARCHIVED_JOBS)),
    Law(_receipts, (RECEIPT_CHAIN, JOBS, PLACEMENTS, ARCHIVED_RECEIPTS)),
    Law(_burned, (JOBS, POSTINGS, ARCHIVED_JOBS)),
)
