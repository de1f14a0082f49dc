"""Walks everything and names every violation. What `compute-market audit` shows, and what the test
suite runs after every test."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from compute_market import metrics
from compute_market.amounts import payment, split, units_of
from compute_market.config.settings import Config
from compute_market.errors import IntegrityError
from compute_market.jobs import cancellations, jobs
from compute_market.offers import book, offers
from compute_market.records import Job, Link, Offer, Posting
from compute_market.reputation import reputation
from compute_market.scheduler import queue
from compute_market.settlement import ledger, receipts, settlement
from compute_market.store.schema import TABLES, decode, pack_u64
from compute_market.store.store import Txn

# Counters that the tables determine, all series of them.
_DERIVED = (
    "compute_market_fee_split",
    "slashing_burn_ct_total",
    "industrial_units_total",
    "scheduler_cancel_total",
    "matches_total",
    "settle_applied_total",
)


class Violation(NamedTuple):
    table: str
    key: str
    law: str
    detail: str

    def __str__(self) -> str:
        return f"{self.table} {self.key}: {self.law}: {self.detail}"


def check(txn: Txn, config: Config) -> Iterator[Violation]:
    """Every violation of the market's laws in one snapshot; nothing when all is well.

    A table with records that do not decode is named, and the laws that need it are left out.
    """
    damaged = {violation.table: violation for violation in _undecodable(txn)}
    yield from damaged.values()
    if not damaged.keys() & {"jobs", "settlements", "receipt_chain"}:
        yield from _receipts(txn)
    if not damaged.keys() & {"postings", "accounts"}:
        yield from _ledger(txn)
    if not damaged.keys() & {"offers", "jobs", "slices", "reputation"}:
        yield from _offers(txn)
        yield from _ranking(txn)
        yield from _lines(txn)
    if not damaged.keys() & {"jobs", "slices", "settlements", "accounts"}:
        yield from _jobs(txn)
    if not damaged.keys() & {"postings", "jobs", "settlements", "receipts", "receipt_chain"}:
        yield from _counters(txn)
    if "cancellations" not in damaged and "jobs" not in damaged:
        yield from _cancellations(txn)


def summary(txn: Txn, violations: list[Violation]) -> dict[str, Any]:
    """`audit` as a document: receipts looked at, violations found."""
    return {
        "receipts": txn.size("receipt_chain"),
        "invalid": len(violations),
        "violations": [violation._asdict() for violation in violations],
    }


def log_violations(txn: Txn, log: bytes) -> Iterator[Violation]:
    """Whether `cancellations.log` holds each cancellation once, in order."""
    offset = 0
    while text := cancellations.text_from(txn, offset):
        if log[offset : offset + len(text)] != text:
            yield Violation(
                "cancellations.log",
                f"byte {offset}",
                "the log is the text of the table",
                f"from here on it differs, at {len(log)} bytes of {cancellations.length(txn)}",
            )
            return
        offset += len(text)
    if len(log) > offset:
        yield Violation(
            "cancellations.log",
            f"byte {offset}",
            "the log is the text of the table",
            f"{len(log) - offset} bytes too many",
        )


def _undecodable(txn: Txn) -> Iterator[Violation]:
    """The first damaged record of each table; receipts are looked at one by one elsewhere."""
    for table, kind in TABLES.items():
        if kind is None or table == "receipts":
            continue
        for key, value in txn.scan(table):
            try:
                decode(table, key, value)
            except IntegrityError as error:
                yield Violation(table, repr(key), "records decode", error.message)
                break
    for key, value in txn.scan("accounts"):
        if len(value) != 8:
            yield Violation("accounts", repr(key), "records decode", f"{len(value)} bytes, not 8")
            break


def _ledger(txn: Txn) -> Iterator[Violation]:
    for token in ledger.TOKENS:
        computed: Counter[str] = Counter()
        for seq, posting in enumerate(txn.records("postings"), 1):
            if posting.seq != seq:
                yield Violation("postings", str(posting.seq), "no gaps", f"expected {seq}")
                return
            if posting.token == token:
                computed[posting.debit] -= posting.amount
                computed[posting.credit] += posting.amount
        stored = dict(ledger.balances(txn, token))
        total = sum(stored.values())
        if total:
            yield Violation("accounts", token, "conservation", f"balances sum to {total}")
        for account in sorted(computed.keys() | stored.keys()):
            is_, should = stored.get(account, 0), computed[account]
            if is_ != should:
                yield Violation(
                    "accounts",
                    f"{account} {token}",
                    "balance equals postings",
                    f"balance {is_}, postings {should}",
                )
            if is_ < 0 and account != ledger.SUPPLY:
                yield Violation("accounts", f"{account} {token}", "not negative", str(is_))
    touched = sum(
        account.startswith("wallet/")
        for posting in txn.records("postings")
        for account in (posting.debit, posting.credit)
    )
    if touched != txn.size("wallet_postings"):
        yield Violation(
            "wallet_postings",
            "*",
            "every posting of a wallet is in its history",
            f"{txn.size('wallet_postings')} of {touched}",
        )


def _offers(txn: Txn) -> Iterator[Violation]:
    held: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for job in txn.records("jobs"):
        if job.offer_id is not None:
            held[job.offer_id][1] += job.units_proven
            if job.state in ("queued", "active"):
                held[job.offer_id][0] += job.units - job.units_proven
    entries: Counter[str] = Counter()
    for offer in txn.records("offers"):
        yield from _offer_units(offer, held[offer.offer_id])
        place = offers.place(txn, offer)
        if place is None:
            continue
        for table, key in book.entries_of(offer, place):
            entries[table] += 1
            if txn.get(table, key) != offer.offer_id.encode():
                yield Violation(
                    table, offer.offer_id, "every offer is in its place", f"{key.hex()} is missing"
                )
    for table in ("book", "provider_prices"):
        if txn.size(table) != entries[table]:
            yield Violation(
                table,
                "*",
                "nothing but offers is in the index",
                f"{txn.size(table)} entries, {entries[table]} expected",
            )
    yield from _heads(txn)


def _offer_units(offer: Offer, held: list[int]) -> Iterator[Violation]:
    parts = offer.units_left + offer.units_reserved + offer.units_proven
    if parts != offer.units or min(offer.units_left, offer.units_reserved) < 0:
        yield Violation(
            "offers",
            offer.offer_id,
            "units = reserved + proven + left",
            f"{offer.units} ≠ {offer.units_reserved} + {offer.units_proven} + {offer.units_left}",
        )
    if [offer.units_reserved, offer.units_proven] != held:
        yield Violation(
            "offers",
            offer.offer_id,
            "reserved and proven units are those of its jobs",
            f"{offer.units_reserved} and {offer.units_proven}, jobs have {held[0]} and {held[1]}",
        )
    if offer.state != "withdrawn" and (offer.state == "exhausted") != (offer.units_left == 0):
        yield Violation(
            "offers",
            offer.offer_id,
            "exhausted means no units left",
            f"{offer.state} with {offer.units_left}",
        )


def _heads(txn: Txn) -> Iterator[Violation]:
    """The tree above the book: every node, and nothing else, knows the least order below it."""
    expected = 0
    above: set[bytes] = set()  # the nodes above the entry before: those of one class are together
    for key, offer_id in txn.scan("book"):
        nodes = {node: place for node, *place in book.nodes_of(key)}
        for node in nodes.keys() - above:
            expected += 1
            if txn.get("heads", node) != book.least_below(txn, *nodes[node]):
                yield Violation(
                    "heads", offer_id.decode(), "each node knows the least below it", node.hex()
                )
        above = set(nodes)
    if txn.size("heads") != expected:
        yield Violation(
            "heads",
            "*",
            "no node without offers below it",
            f"{txn.size('heads')} nodes, {expected} expected",
        )


def _ranking(txn: Txn) -> Iterator[Violation]:
    for key, value in txn.scan("reputation"):
        score = decode("reputation", key, value).score
        if txn.get("standing", reputation.rank_key(score, key.decode())) is None:
            yield Violation("standing", key.decode(), "every score is ranked", str(score))
    if txn.size("standing") != txn.size("reputation"):
        yield Violation(
            "standing",
            "*",
            "one rank per score",
            f"{txn.size('standing')} ranks, {txn.size('reputation')} scores",
        )


def _jobs(txn: Txn) -> Iterator[Violation]:
    accounts: dict[tuple[str, str], int] = {}
    for token in ledger.TOKENS:
        for account, amount in ledger.balances(txn, token):
            if not account.startswith("wallet/"):
                accounts[account, token] = amount
    for job in txn.records("jobs"):
        yield from _job_slices(txn, job)
        for account, unit, expected in _demanded(txn, job):
            held = accounts.pop((account, unit), 0)
            if held != expected:
                yield Violation(
                    "accounts",
                    f"{account} {unit}",
                    "escrow and bonds are what the job's state demands",
                    f"holds {held}, {job.state} demands {expected}",
                )
    for account, unit in accounts:
        if account not in (ledger.SUPPLY, ledger.BURNED):
            yield Violation(
                "accounts", f"{account} {unit}", "escrow and bonds belong to a job", "no such job"
            )


def _demanded(txn: Txn, job: Job) -> Iterator[tuple[str, Any, int]]:
    """What a job's accounts must hold."""
    ct = it = buyer_bond = provider_bond = 0
    if job.funded and job.state in ("queued", "active"):
        ct, it = split(job.units * job.price_per_unit, job.fee_pct_ct)
        buyer_bond, provider_bond = job.consumer_bond, job.provider_bond
    elif job.funded and (key := receipts.key_of_job(job)) is not None:
        settled = settlement.of(txn, key)
        if settled is not None and settled.status == "pending":
            ct, it = settled.ct, settled.it
    yield ledger.escrow(job.job_id), "CT", ct
    yield ledger.escrow(job.job_id), "IT", it
    yield ledger.bond(job.job_id, "buyer"), "CT", buyer_bond
    yield ledger.bond(job.job_id, "provider"), "CT", provider_bond


def _job_slices(txn: Txn, job: Job) -> Iterator[Violation]:
    count = units = proven = units_proven = 0
    for entry in jobs.slices(txn, job.job_id):
        count += 1
        units += units_of(entry.length)
        if entry.proven_ms is not None:
            proven += 1
            units_proven += units_of(entry.length)
    computed = (count, units, proven, units_proven)
    stored = (job.slices, job.units, job.slices_proven, job.units_proven)
    if computed != stored:
        yield Violation(
            "jobs",
            job.job_id,
            "slices, units, proven slices and proven units are those of its slices",
            f"{stored}, slices say {computed}",
        )
    if (job.state == "completed") != (job.slices_proven == job.slices):
        yield Violation(
            "jobs",
            job.job_id,
            "completed means all slices proven",
            f"{job.state} with {job.slices_proven} of {job.slices}",
        )


def _lines(txn: Txn) -> Iterator[Violation]:
    """Queue, active set, pending list and deadlines against the states of the jobs."""
    expected: Counter[str] = Counter()
    for job in txn.records("jobs"):
        for table, key in jobs.lines_of(job):
            expected[table] += 1
            waits = table == "pending" or table in queue.TABLES.values()
            stored = txn.get(table, key)
            if stored is None or (waits and stored[8:] != job.job_id.encode()):
                yield Violation(table, job.job_id, "every live job is in its line", job.state)
    for table in ("pending", *queue.TABLES.values(), "active", "active_low", "deadlines"):
        if txn.size(table) != expected[table]:
            yield Violation(
                table,
                "*",
                "nothing but live jobs is in a line",
                f"{txn.size(table)} entries, {expected[table]} expected",
            )


def _receipts(txn: Txn) -> Iterator[Violation]:
    """Keys recomputed, chain unbroken, every receipt on it and settled."""
    previous = bytes(32)
    count = 0
    for seq_key, value in txn.scan("receipt_chain"):
        count += 1
        seq = int.from_bytes(seq_key, "big")
        if seq != count:
            yield Violation("receipt_chain", str(seq), "no gaps", f"expected {count}")
            return
        link: Link = decode("receipt_chain", seq_key, value)
        stored = txn.get("receipts", link.key)
        found = txn.get("quarantine", link.key) if stored is None else stored
        if stored is None and found is not None:
            yield Violation("receipts", link.key.hex(), "receipts decode", "in quarantine")
        elif found is None:
            yield Violation("receipts", link.key.hex(), "no link without a receipt", "missing")
        elif receipts.link_digest(seq, previous, found) != link.digest:
            yield Violation(
                "receipt_chain", str(seq), "the chain is unbroken", "the link does not fit"
            )
        if stored is not None:
            yield from _receipt(txn, link.key, stored)
        previous = link.digest
    waiting = sum(settled.status == "pending" for settled in txn.records("settlements"))
    if txn.size("unsettled") != waiting:
        yield Violation(
            "unsettled",
            "*",
            "the status fits the receipt",
            f"{txn.size('unsettled')} wait, {waiting} are pending",
        )
    if txn.size("receipts") + txn.size("quarantine") != count:
        yield Violation(
            "receipts",
            "*",
            "every receipt is on the chain",
            f"{txn.size('receipts')} and {txn.size('quarantine')} in quarantine, {count} links",
        )


def _receipt(txn: Txn, key: bytes, value: bytes) -> Iterator[Violation]:
    try:
        receipt = decode("receipts", key, value)
    except IntegrityError as error:
        yield Violation("receipts", key.hex(), "receipts decode", error.message)
        return
    computed = receipts.key_of(
        receipt.job_id,
        receipt.buyer,
        receipt.provider,
        receipt.quote_price,
        receipt.units,
        receipt.version,
    )
    if computed != key or receipt.idempotency_key != key:
        yield Violation("receipts", key.hex(), "the key is that of its fields", computed.hex())
        return
    settled = settlement.of(txn, key)
    job = jobs.find(txn, receipt.job_id)
    if settled is None or job is None:
        yield Violation("settlements", key.hex(), "every receipt is settled", "missing")
        return
    waits = txn.get("unsettled", pack_u64(receipt.seq)) == key + receipt.job_id.encode()
    due = payment(0, receipt.quote_price * receipt.units, job.fee_pct_ct)
    if (settled.ct, settled.it) != due:
        yield Violation(
            "settlements", key.hex(), "the amounts are those of its receipt", f"{due} are due"
        )
    if waits != (settled.status == "pending") or receipt.dry_run != (settled.status == "recorded"):
        yield Violation("settlements", key.hex(), "the status fits the receipt", settled.status)


def _counters(txn: Txn) -> Iterator[Violation]:
    """Counters against what the tables say."""
    expected: Counter[tuple[str, ...]] = Counter()
    posting: Posting
    for posting in txn.records("postings"):
        kind = {"settle": "paid", "escrow:refund": "refunded", "bond:release": "refunded"}.get(
            posting.event, "burned" if posting.credit == ledger.BURNED else ""
        )
        if kind:
            expected["compute_market_fee_split", posting.token.lower(), kind] += posting.amount
        if posting.credit == ledger.BURNED:
            expected["slashing_burn_ct_total",] += posting.amount
    for job in txn.records("jobs"):
        expected["industrial_units_total",] += job.units_proven
        if job.state == "cancelled":
            expected["scheduler_cancel_total", job.ended_by or ""] += 1
        if job.cause == "deadline missed":
            expected["industrial_rejected_total", "SLA"] += 1
    for link in txn.records("receipt_chain"):
        settled = settlement.of(txn, link.key)
        if settled is not None:
            dry_run = settled.status == "recorded"
            expected["matches_total", "true" if dry_run else "false"] += 1
            expected["settle_applied_total",] += settled.status == "applied"
    expected["receipt_corrupt_total",] = txn.size("quarantine")
    expected["industrial_rejected_total", "SLA"] += 0
    for name in _DERIVED:
        for values, _ in metrics.series(txn, name):
            expected[name, *values] += 0
    for (name, *labels), should in sorted(expected.items()):
        is_ = metrics.value(txn, name, *labels)
        if is_ != should:
            yield Violation(
                "counters",
                " ".join((name, *labels)),
                "counters equal what the tables say",
                f"{is_}, tables say {should}",
            )


def _cancellations(txn: Txn) -> Iterator[Violation]:
    offset = 0
    listed: Counter[str] = Counter()
    for entry in txn.records("cancellations"):
        if entry.offset != offset:
            yield Violation("cancellations", entry.job_id, "lines follow each other", str(offset))
        offset += len(cancellations.line(entry))
        listed[entry.job_id] += 1
    if offset != cancellations.length(txn):
        yield Violation("cancellations", "*", "the length is that of all lines", str(offset))
    cancelled = Counter(job.job_id for job in txn.records("jobs") if job.state == "cancelled")
    for job_id in sorted((listed - cancelled).keys() | (cancelled - listed).keys()):
        yield Violation(
            "cancellations",
            job_id,
            "one line for each cancelled job",
            f"{listed[job_id]} lines, {cancelled[job_id]} cancelled",
        )
