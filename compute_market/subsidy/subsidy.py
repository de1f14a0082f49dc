"""Epochs, and what each pays. The only writer of `epochs`.

An epoch ends at the next multiple of `epoch_blocks`. The first change after that closes it, and all
others that have ended since the last change: with what the market looked like when each ended
(`governor.Past`), so that a market that slept has the same epochs as one that did not. Those that
ended alike are one record, whether they are closed together or one by one.
"""

from itertools import islice
from typing import Any, Final

from msgspec import Struct

from compute_market import chain, events
from compute_market.amounts import AMOUNT_MAX, PPM
from compute_market.clock import LAST_RUN
from compute_market.errors import NotFoundError
from compute_market.jobs import demand
from compute_market.records import Event, EventName, replace
from compute_market.settlement import ledger, modes
from compute_market.store.schema import EPOCH_FROM, EPOCHS, MULTIPLIER, pack_u64
from compute_market.store.txn import Txn
from compute_market.subsidy.governor import MULTIPLIER_START, Past, retuned, unchanged
from compute_market.subsidy_records import Epochs, Payouts, Unpaid

# Of its postings.
EVENT: Final = "subsidy"


def multiplier(txn: Txn) -> int:
    """The multiplier in percent, as the next change would find it."""
    epochs = ended(txn)
    return epochs[-1].multiplier if epochs else _stored_multiplier(txn)


def payout(units: int, kappa_ppm: int, multiplier: int) -> int:
    """IT for proven units, rounded down; at most 2^63-1, and more is never paid."""
    return min(_exact_payout(units, kappa_ppm, multiplier), AMOUNT_MAX)


def _exact_payout(units: int, kappa_ppm: int, multiplier: int) -> int:
    return units * kappa_ppm * multiplier // (100 * PPM)


def ended(txn: Txn) -> list[Epochs]:
    """Epochs that have ended and are not closed yet, oldest first. Writes nothing.

    None while the clock is not believed. The time it takes depends on how often the market looked
    different meanwhile, and not on their number.
    """
    if not has_ended(txn):
        return []
    return _ended(txn, demand.epoch_units(txn), chain.height(txn))


def has_ended(txn: Txn) -> bool:
    """Whether the running epoch has, and is to be closed: not while the clock is not believed."""
    return txn.timely and chain.height(txn) >= chain.epoch_end(txn)


class Closed(Struct, frozen=True, gc=False):
    """What the end of epochs brought."""

    paid_it: int = 0
    epochs: int = 0  # in which units were proven
    multipliers: tuple[int, ...] = ()  # before and after them, if that is another one


def close(txn: Txn, height: int) -> Closed:
    """Close every epoch that has ended by the present height, and pay what it pays.

    The caller has seen that the running one has: `has_ended`.

    Nothing is paid unless the mode was real when the epoch ended, nor what would bring more than
    2^63-1 IT into circulation: neither is made good later.
    """
    units = demand.epoch_units(txn)
    epochs = _ended(txn, units, height)
    # After this point it must succeed.
    paid_it = _pay(txn, epochs[0], units) if units else 0
    first = before = _stored_multiplier(txn)
    for each in epochs:
        if each.multiplier != before:
            _note_multiplier(txn, before, each)
        before = each.multiplier
    last, _ = txn.beside(EPOCHS, pack_u64(epochs[0].from_height))
    known = None if last is None else txn.read(EPOCHS, last)
    stored = [] if known is None else [known]
    for each in epochs:
        _join(stored, each)
    for each in stored:
        if each is not known:
            txn.write(EPOCHS, pack_u64(each.from_height), each)
    if units:
        demand.begin_epoch(txn, units)
    txn.set_number(EPOCH_FROM, epochs[-1].to_height + 1)
    if before != txn.number(MULTIPLIER):
        txn.set_number(MULTIPLIER, before)
    moved = (first, before) if before != first else ()
    # Units are those of the first alone.
    return Closed(paid_it, int(epochs[0].units > 0), moved)


def industrial_subsidies(txn: Txn, height: int) -> Payouts | None:
    """What the epoch of a height pays; None unless it has ended, and for heights before the first.

    Ended is what the next change would find ended.
    """
    found = _of(txn, height, ended(txn))
    return None if found is None else Payouts(0, 0, found.compute_it)


def newest(txn: Txn, limit: int) -> list[dict[str, Any]]:
    """The last `limit` records of closed epochs as documents, newest first.

    One of them stands for all that ended alike in a row.
    """
    return [
        {
            "from_height": each.from_height,
            "to_height": each.to_height,
            "multiplier": each.multiplier,
            "backlog": each.backlog,
            "utilization_pct": each.utilization_pct,
            "units": each.units,
            "compute_it": each.compute_it,
            "paid": each.paid,
            "unpaid": each.unpaid,
        }
        for each in (EPOCHS.decode(*last) for last in islice(txn.scan_back(EPOCHS), limit))
    ]


def document(txn: Txn, height: int | None) -> dict[str, Any]:
    """The epoch of a height, else the running one, as it would end now at its present multiplier.

    `due` says that the next change makes it so: it closes an epoch that has ended, and pays it.
    Raises NotFoundError for a height before the first epoch or behind the running one.
    """
    epochs = ended(txn)
    running = _running(txn, epochs)
    at = chain.height(txn) if height is None else height
    # Without a height it is the running one, also while a held clock keeps it from ending.
    if height is None or running.from_height <= height <= running.to_height:
        return _document(running, at, has_ended=False, due=bool(epochs))
    found = _of(txn, height, epochs)
    if found is None:
        known = f"the running one is {running.from_height}…{running.to_height}"
        raise NotFoundError(f"height {height} is in no epoch that is known; {known}")
    due = height >= txn.number(EPOCH_FROM)
    return _document(found, height, has_ended=True, due=due)


def _ended(txn: Txn, proven: dict[str, int], height: int) -> list[Epochs]:
    """Epochs that have ended by a height, with what was proven in the first of them: all since it
    began."""
    found: list[Epochs] = []
    units = sum(proven.values())
    sampled = _sampled(txn, height)
    if len(sampled) == 1 and not units:
        return sampled  # Most often.
    for epochs in sampled:
        if units and not found:
            end = chain.next_epoch(txn, epochs.from_height)
            found.append(_with_payout(txn, epochs, end - 1, units))
            if end <= epochs.to_height:
                found.append(replace(epochs, from_height=end))
        else:
            _join(found, epochs)
    return found


def _sampled(txn: Txn, height: int) -> list[Epochs]:
    """The same by their samples alone; several that end alike are one."""
    since_ms, known_height = txn.number_before(LAST_RUN), txn.number_before("height_seen")
    blocks = txn.config.epoch_blocks
    before, start = _stored_multiplier(txn), txn.number(EPOCH_FROM)
    sample = unchanged(txn, since_ms // 1000, txn.now)
    if sample is not None and retuned(before, *sample) == before:
        # Most often: nothing has changed, so that they are one.
        end = height // blocks * blocks
        return [Epochs(start, end - 1, blocks, before, *sample)] if end > start else []
    past = Past(txn, since_ms // 1000)
    found = []
    while (end := (start // blocks + 1) * blocks) <= height:
        # What was reached before the last change was over is seen as that change left it.
        at_ms = since_ms if end <= known_height else chain.reached_ms(txn, end, since_ms)
        second = at_ms // 1000
        sample = past.sample(second)
        after = retuned(before, *sample)
        if after == before or retuned(after, *sample) == after:
            change = past.changes_after(second)
            alike = height
            if change is not None and change <= txn.now:
                alike = min(height, max(known_height, chain.height_by(txn, change * 1000 - 1)))
            end = max(end, alike // blocks * blocks)
        found.append(Epochs(start, end - 1, blocks, after, *sample))
        before, start = after, end
    return found


def _with_payout(txn: Txn, epochs: Epochs, to_height: int, units: int) -> Epochs:
    """The epoch in which units were proven, the first of some up to a height, with what it pays,
    and whether that can be paid."""
    kappa_ppm = txn.config.kappa_cpu_sub_it_ppm
    exact_it = _exact_payout(units, kappa_ppm, epochs.multiplier)
    unpaid: Unpaid | None = None
    if exact_it and not modes.is_real_by(txn, to_height + 1):
        unpaid = "mode"
    elif exact_it > AMOUNT_MAX - ledger.in_circulation(txn, "IT"):
        unpaid = "overflow"
    return replace(
        epochs,
        to_height=to_height,
        units=units,
        kappa_ppm=kappa_ppm,
        compute_it=min(exact_it, AMOUNT_MAX),
        unpaid=unpaid,
    )


def _pay(txn: Txn, epochs: Epochs, proven: dict[str, int]) -> int:
    """Share the payout of an epoch among those who proved its units; what was paid.

    Shares are differences of rounded running totals, so that they add up.
    """
    if not epochs.paid:
        return 0
    so_far = paid_it = 0
    ref = str(epochs.from_height)
    for provider, units in proven.items():
        so_far += units
        share_it = epochs.compute_it * so_far // epochs.units - paid_it
        paid_it += share_it
        if share_it:
            to = ledger.wallet(provider)
            ledger.transfer(txn, "IT", share_it, ledger.SUPPLY, to, EVENT, ref)
            detail = {"multiplier": epochs.multiplier, "units": units, "it": share_it}
            _note(txn, "subsidy_paid", epochs, provider, detail)
    return paid_it


def _note_multiplier(txn: Txn, before: int, epochs: Epochs) -> None:
    sample = {"backlog": epochs.backlog, "utilization_pct": epochs.utilization_pct}
    detail = {"from": before, "to": epochs.multiplier, **sample}
    _note(txn, "multiplier_changed", epochs, None, detail)


def _note(
    txn: Txn, event: EventName, epochs: Epochs, owner: str | None, detail: dict[str, Any]
) -> None:
    """Note what the end of the first of some epochs brought."""
    epoch = epochs.from_height // epochs.blocks
    detail = {"epoch": epoch, "height": epochs.from_height, **detail}
    events.add(txn, Event(event, owner=owner, detail=detail))


def _join(found: list[Epochs], epochs: Epochs) -> None:
    """Append epochs to earlier ones; those that ended like the last become one with it."""
    if found and _are_alike(found[-1], epochs):
        found[-1] = replace(found[-1], to_height=epochs.to_height)
    else:
        found.append(epochs)


def _are_alike(one: Epochs, other: Epochs) -> bool:
    """Whether both ended alike, and nothing was proven in them: then they pay nothing either."""
    return (
        one.multiplier == other.multiplier
        and one.backlog == other.backlog
        and one.utilization_pct == other.utilization_pct
        and one.blocks == other.blocks
        and not one.units
        and not other.units
    )


def _of(txn: Txn, height: int, epochs: list[Epochs]) -> Epochs | None:
    """The record that a height is in, of those that are closed and those that will be."""
    stored = islice(txn.scan_back(EPOCHS, pack_u64(height + 1)), 1)
    candidates = (*(EPOCHS.decode(*last) for last in stored), *epochs)
    return next((each for each in candidates if each.from_height <= height <= each.to_height), None)


def _running(txn: Txn, epochs: list[Epochs]) -> Epochs:
    """The running epoch as it would be if it ended now, at the present multiplier."""
    start = epochs[-1].to_height + 1 if epochs else txn.number(EPOCH_FROM)
    present = epochs[-1].multiplier if epochs else _stored_multiplier(txn)
    units = 0 if epochs else sum(demand.epoch_units(txn).values())
    kappa_ppm = txn.config.kappa_cpu_sub_it_ppm
    return Epochs(
        start,
        chain.next_epoch(txn, start) - 1,
        txn.config.epoch_blocks,
        present,
        *Past(txn, txn.now).sample(txn.now),
        units,
        kappa_ppm if units else 0,
        payout(units, kappa_ppm, present),
    )


def _document(epochs: Epochs, height: int, *, has_ended: bool, due: bool) -> dict[str, Any]:
    """One epoch, of a record that may stand for several."""
    epoch = height // epochs.blocks if has_ended else epochs.from_height // epochs.blocks
    begins = epoch * epochs.blocks
    found: dict[str, Any] = {
        "epoch": epoch,
        "height": height,
        "from_height": max(epochs.from_height, begins),
        "to_height": min(epochs.to_height, begins + epochs.blocks - 1),
        "ended": has_ended,
        "due": due,
        "multiplier": epochs.multiplier,
        "backlog": epochs.backlog,
        "utilization_pct": epochs.utilization_pct,
        "units": epochs.units,
        "payouts": {"storage": 0, "read": 0, "compute": epochs.compute_it},
        "paid": has_ended and epochs.paid and not due,
    }
    return found if epochs.unpaid is None else found | {"unpaid": epochs.unpaid}


def _stored_multiplier(txn: Txn) -> int:
    return txn.number(MULTIPLIER) or MULTIPLIER_START
