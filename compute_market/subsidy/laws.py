"""What the audit checks of the subsidy: epochs, the multiplier, who proved how much, payouts."""

from collections import Counter
from collections.abc import Iterator

from compute_market import archived
from compute_market.jobs import demand
from compute_market.laws import Law, Violation
from compute_market.store.schema import (
    ARCHIVED,
    EPOCH_FROM,
    EPOCH_UNITS,
    EPOCHS,
    JOBS,
    META,
    MULTIPLIER,
    POSTINGS,
    UNITS_BEFORE_EPOCHS,
    unpack_u64,
)
from compute_market.store.txn import Txn
from compute_market.subsidy import subsidy
from compute_market.subsidy.governor import MULTIPLIER_START, retuned
from compute_market.subsidy_records import Epochs

_FOLLOW = "epochs follow each other, and end where those of their length do"
_RETUNED = "the multiplier is what the samples make of it, and of the one before"
_EARNED = "a payout is what its units earn at the multiplier"
_PAID = "what an epoch pays is posted once, and nothing else is"
_UNITS = "every proven unit is that of one epoch"


def _epochs(txn: Txn) -> Iterator[Violation]:
    """From the first on without a gap, each with the multiplier that follows from the last."""
    begins: int | None = None
    multiplier = MULTIPLIER_START
    for key, payload in txn.scan(EPOCHS):
        each = EPOCHS.decode(key, payload)
        named = str(each.from_height)
        if each.from_height != unpack_u64(key) or begins not in (None, each.from_height):
            yield Violation("epochs", named, _FOLLOW, f"expected {begins}")
        if each.to_height < each.from_height or (each.to_height + 1) % each.blocks:
            yield Violation(
                "epochs", named, _FOLLOW, f"of {each.blocks} blocks to {each.to_height}"
            )
        begins = each.to_height + 1
        if not _is_retuned(multiplier, each):
            detail = f"{each.multiplier} after {multiplier}"
            yield Violation("epochs", named, _RETUNED, detail)
        multiplier = each.multiplier
        due_it = subsidy.payout(each.units, each.kappa_ppm, each.multiplier)
        if each.compute_it != due_it or (each.unpaid is not None and not due_it):
            yield Violation("epochs", named, _EARNED, f"{each.compute_it} IT, {due_it} are due")
    if begins is not None and (begins, multiplier) != (
        txn.number(EPOCH_FROM),
        txn.number(MULTIPLIER),
    ):
        detail = f"{txn.number(MULTIPLIER)} from {txn.number(EPOCH_FROM)} on"
        yield Violation("epochs", "*", _FOLLOW, detail)


def _is_retuned(before: int, each: Epochs) -> bool:
    sample = each.backlog, each.utilization_pct
    is_one = each.from_height // each.blocks == each.to_height // each.blocks
    if retuned(before, *sample) != each.multiplier:
        return False
    return is_one or (not each.units and retuned(each.multiplier, *sample) == each.multiplier)


def _payouts(txn: Txn) -> Iterator[Violation]:
    posted: Counter[str] = Counter()
    for posting in txn.records(POSTINGS):
        if posting.event == subsidy.EVENT:
            posted[posting.ref] += posting.amount
            if posting.token != "IT":
                detail = f"{posting.amount} {posting.token} to {posting.credit}"
                yield Violation("postings", str(posting.seq), _PAID, detail)
    for each in txn.records(EPOCHS):
        ref = str(each.from_height)
        is_, should = posted.pop(ref, 0), each.compute_it if each.paid else 0
        if is_ != should:
            detail = f"{should} IT, postings say {is_}"
            yield Violation("epochs", ref, _PAID, detail)
    for ref, amount in posted.items():
        yield Violation("epochs", ref, _PAID, f"no epoch, postings say {amount}")


def _units(txn: Txn) -> Iterator[Violation]:
    of_epochs = sum(each.units for each in txn.records(EPOCHS))
    running = sum(demand.epoch_units(txn).values())
    in_all = sum(job.units_proven for job in txn.records(JOBS))
    in_all += archived.counters(txn).get(("industrial_units_total",), 0)
    before = txn.number(UNITS_BEFORE_EPOCHS)
    if before + of_epochs + running != in_all:
        detail = f"{before} before the first, {of_epochs} of those that ended, {running} since"
        yield Violation("epoch_units", "*", _UNITS, f"{detail}, jobs have {in_all}")


LAWS = (
    Law(_epochs, (EPOCHS, META)),
    Law(_payouts, (EPOCHS, POSTINGS)),
    Law(_units, (EPOCHS, EPOCH_UNITS.table, JOBS, ARCHIVED.table, META)),
)
