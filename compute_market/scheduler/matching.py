"""Matching: the cheapest capable offer of a provider in good standing, and why the others are not.

`judge` is the one place that knows the conditions. The matcher asks it about the few offers the
index puts first, `explain` about all of them, so the two cannot disagree.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from compute_market import metrics
from compute_market.offers import book, offers
from compute_market.records import Capability, Job, Offer
from compute_market.reputation import reputation
from compute_market.scheduler import queue
from compute_market.settlement import ledger
from compute_market.store.schema import pack_u64
from compute_market.store.store import Txn

OUTCOMES_KEPT = 100

# The next equal may lie in another class, which costs about as much to find as so many rivals.
_RIVALS_PER_EQUAL = 8

# Results of a match that found nothing, by how far an offer came. See `metrics.MATCH_RESULTS`.
STAGES = metrics.MATCH_RESULTS[1:]
_CAPABILITY, _REPUTATION, _PRICE, _UNITS, _BOND = range(len(STAGES))


class Shortfall(NamedTuple):
    """One condition an offer fails, as asked and as offered."""

    stage: int  # index into STAGES
    condition: str
    asked: int | str
    relation: str  # how asked stands to offered, where the offer would need the opposite
    offered: int | str | None

    def __str__(self) -> str:
        offered = "none" if self.offered is None else self.offered
        return f"{self.condition} {self.asked} {self.relation} {offered}"


class Match(NamedTuple):
    """The offer a job goes to."""

    offer: Offer
    effective_price: int  # rounded half up, premium included; what is paid is the quoted price


class NoMatch(NamedTuple):
    """Nothing fits; `result` is the furthest stage any offer reached."""

    result: str
    message: str


def judge(txn: Txn, job: Job, offer: Offer, *, real: bool) -> list[Shortfall]:
    """Every condition of `job` that `offer` fails; empty when it fits.

    With `real` the provider must be able to pay its bond.
    """
    found: list[Shortfall] = []
    need, has = job.capability, offer.capability

    def at_least(stage: int, condition: str, asked: int, offered: int) -> None:
        if offered < asked:
            found.append(Shortfall(stage, condition, asked, ">", offered))

    def at_most(stage: int, condition: str, asked: int, offered: int) -> None:
        if offered > asked:
            found.append(Shortfall(stage, condition, asked, "<", offered))

    if offer.state == "withdrawn":
        found.append(Shortfall(_CAPABILITY, "state", "open", "≠", "withdrawn"))
    if offer.job_id is not None and offer.job_id != job.job_id:
        found.append(Shortfall(_CAPABILITY, "job_id", job.job_id, "≠", offer.job_id))
    if offer.provider == job.buyer:
        found.append(Shortfall(_CAPABILITY, "buyer", job.buyer, "=", "provider"))
    at_least(_CAPABILITY, "cpu_cores", need.cpu_cores, has.cpu_cores)
    if need.gpu is not None and need.gpu != has.gpu:
        found.append(Shortfall(_CAPABILITY, "gpu", need.gpu, "≠", has.gpu))
    at_least(_CAPABILITY, "gpu_count", need.gpu_count, has.gpu_count)
    at_least(_CAPABILITY, "gpu_memory_mb", need.gpu_memory_mb, has.gpu_memory_mb)
    if need.accelerator is not None and need.accelerator != has.accelerator:
        found.append(Shortfall(_CAPABILITY, "accelerator", need.accelerator, "≠", has.accelerator))
    at_least(
        _CAPABILITY,
        "accelerator_memory_mb",
        need.accelerator_memory_mb,
        has.accelerator_memory_mb,
    )
    at_least(_REPUTATION, "reputation", 0, reputation.score(txn, offer.provider))
    at_most(_PRICE, "max_price_per_unit", job.max_price_per_unit, offer.price_per_unit)
    at_most(_PRICE, "consumer_bond", job.consumer_bond, offer.consumer_bond)
    at_least(_UNITS, "units", job.units, offer.units_left)
    if real:
        funds = ledger.balance(txn, ledger.wallet(offer.provider), "CT")
        at_least(_BOND, "provider_bond", offer.provider_bond, funds)
    return found


def match(txn: Txn, job: Job, *, real: bool) -> Match | NoMatch:
    """The offer with the lowest exact effective price; ties: higher reputation, then older.

    Reads a handful of index entries however many offers there are, and writes nothing.
    """
    best = _best(txn, job, real)
    if best is not None:
        accelerator = job.capability.accelerator is not None
        return Match(
            best, offers.effective_price(best.price_per_unit, best.multiplier_ppm, accelerator)
        )
    result = STAGES[_furthest(txn, job)]
    return NoMatch(result, _MESSAGES[result])


def record(txn: Txn, job: Job, outcome: Match | NoMatch) -> None:
    """Count an outcome and keep it for the statistics."""
    result = "success" if isinstance(outcome, Match) else outcome.result
    metrics.count(txn, "scheduler_match_total", result)
    kept = (txn.get("meta", b"outcomes") or b"") + bytes([metrics.MATCH_RESULTS.index(result)])
    txn.put("meta", b"outcomes", kept[-OUTCOMES_KEPT:])
    if isinstance(outcome, Match):
        txn.set_number("effective_price", outcome.effective_price)
        txn.put(
            "effective_prices",
            outcome.offer.provider.encode(),
            pack_u64(txn.now_ms) + outcome.effective_price.to_bytes(16, "big"),
        )
        label = _hardware(outcome.offer.capability).encode()
        used = int.from_bytes(txn.get("utilization", label) or b"", "big")
        txn.put("utilization", label, pack_u64(used + 1))
    elif result == "capability_mismatch" and job.capability.accelerator is not None:
        metrics.count(txn, "scheduler_accelerator_miss_total")


def last_effective_price(txn: Txn) -> int | None:
    """The effective price of the last match, None before the first."""
    return txn.number("effective_price") if txn.get("meta", b"effective_price") else None


def outcomes(txn: Txn) -> dict[str, int]:
    """How many of the last 100 matches ended with each result."""
    kept = txn.get("meta", b"outcomes") or b""
    return {name: kept.count(bytes([i])) for i, name in enumerate(metrics.MATCH_RESULTS)}


def utilization(txn: Txn) -> dict[str, int]:
    """Matches ever made, by the provider's GPU model, else accelerator, else `cpu`."""
    return {key.decode(): int.from_bytes(value, "big") for key, value in txn.scan("utilization")}


def effective_prices(txn: Txn) -> Iterator[tuple[int, str, int]]:
    """(unix ms of the match, provider, effective price of its last match)."""
    for key, value in txn.scan("effective_prices"):
        yield int.from_bytes(value[:8], "big"), key.decode(), int.from_bytes(value[8:], "big")


def statistics(txn: Txn) -> dict[str, Any]:
    """`compute stats`: the last 100 matches, what runs and what waits."""
    last = outcomes(txn)
    return {
        "success": last["success"],
        "capability_mismatch": last["capability_mismatch"],
        "reputation_failure": last["reputation_failure"],
        "active_jobs": queue.active_jobs(txn),
        "utilization": utilization(txn),
        "preemptions": 0,
        "effective_price": last_effective_price(txn),
        "queued_high": queue.depth(txn, "high"),
        "queued_normal": queue.depth(txn, "normal"),
        "queued_low": queue.depth(txn, "low"),
        "priority_miss": metrics.value(txn, "scheduler_priority_miss_total"),
        "price_mismatch": last["price_mismatch"],
        "no_capacity": last["no_capacity"],
        "bond_unfunded": last["bond_unfunded"],
        "pending": txn.size("pending"),
    }


def explain(
    txn: Txn, job: Job, *, real: bool, offer_id: str | None = None
) -> Iterator[dict[str, Any]]:
    """The matcher's verdict on every offer, or on one. Raises NotFoundError for an unknown one."""
    chosen = offers.listed(txn) if offer_id is None else iter((offers.get(txn, offer_id),))
    for offer in chosen:
        found = judge(txn, job, offer, real=real)
        yield {
            "offer_id": offer.offer_id,
            "provider": offer.provider,
            "fits": not found,
            "result": STAGES[min(s.stage for s in found)] if found else "success",
            "shortfalls": [
                {"condition": s.condition, "asked": s.asked, "offered": s.offered, "text": str(s)}
                for s in found
            ],
        }


def _best(txn: Txn, job: Job, real: bool) -> Offer | None:
    """Walk the cheapest offers and, among equals in price, find the best provider.

    Equals may be many. They come oldest first, and providers are ranked by score, so two searches
    run in step: one looks at the next equal, the other asks whether the next provider of a higher
    score has one. Either may finish first and decide.
    """
    equals = _candidates(txn, job, real)
    order, best = next(((o, offer) for o, offer in equals if offer is not None), (b"", None))
    if best is None:
        return None
    price = book.price_of(order)
    rivals = _rivals(txn, job, real, price)
    best_rank = _rank(txn, best)
    best_is_rival = False
    while True:
        for _ in range(_RIVALS_PER_EQUAL):
            score, rival = next(rivals, (-reputation.SCORE_MAX - 1, None))
            # Equals come by age, so of all with the score of the best one it is the oldest, and
            # only a higher score can win; rivals do not, so the rest of that score must be asked.
            if score < -best_rank[0] or (score == -best_rank[0] and not best_is_rival):
                return best
            if rival is not None and (rank := _rank(txn, rival)) < best_rank:
                best, best_rank, best_is_rival = rival, rank, True
        order, equal = next(equals, (b"", None))
        if book.price_of(order) != price:
            return best
        if equal is not None and (rank := _rank(txn, equal)) < best_rank:
            best, best_rank, best_is_rival = equal, rank, False


def _candidates(txn: Txn, job: Job, real: bool) -> Iterator[tuple[bytes, Offer | None]]:
    """Offers the index puts first, cheapest, then oldest; None for one that does not fit.

    None also comes once before the price rises, so that nobody looks for a dearer one in vain.
    """
    for order, offer_id in book.walk(txn, book.OPEN, job, book.floor_of(job), marks=True):
        if not offer_id:
            yield order, None
            continue
        offer = offers.get(txn, offer_id.decode())
        yield order, None if judge(txn, job, offer, real=real) else offer


def _rivals(txn: Txn, job: Job, real: bool, price: bytes) -> Iterator[tuple[int, Offer | None]]:
    """(score, offer at exactly `price`) provider by provider, the highest score first.

    None stands for an offer, or a provider without one, that does not fit: one step all the same.
    """
    for score, provider in reputation.ranking(txn):
        yield score, None
        for _, offer_id in book.of_provider(txn, provider, price):
            offer = offers.get(txn, offer_id.decode())
            if judge(txn, job, offer, real=real):
                yield score, None
            else:
                yield score, offer
                break


def _rank(txn: Txn, offer: Offer) -> tuple[int, int]:
    return -reputation.score(txn, offer.provider), offer.seq


def _furthest(txn: Txn, job: Job) -> int:
    """The furthest stage any offer reached, given that none fits; the bond is the last."""
    standing = (book.OPEN, book.EXHAUSTED)
    if _reaches(txn, job, (book.OPEN,), book.floor_of(job), _BOND):
        return _BOND
    if _reaches(txn, job, standing, book.floor_of(job, units=False), _UNITS):
        return _UNITS
    bare = book.floor_of(job, terms=False, units=False)
    if _reaches(txn, job, standing, bare, _PRICE):
        return _PRICE
    if _reaches(txn, job, (book.BAD_STANDING,), bare, _REPUTATION):
        return _REPUTATION
    return _CAPABILITY


def _reaches(txn: Txn, job: Job, shelves: tuple[bytes, ...], floor: book.Floor, stage: int) -> bool:
    """Whether some offer on these shelves passes every condition before `stage`."""
    for shelf in shelves:
        for _, offer_id in book.walk(txn, shelf, job, floor):
            offer = offers.get(txn, offer_id.decode())
            found = judge(txn, job, offer, real=False)
            if all(shortfall.stage >= stage for shortfall in found):
                return True
    return False


def _hardware(capability: Capability) -> str:
    return capability.gpu or capability.accelerator or "cpu"


_MESSAGES = {
    "capability_mismatch": "no offer of another provider has the capability asked for",
    "reputation_failure": "every offer that fits is of a provider in bad standing",
    "price_mismatch": "every offer that fits asks a higher price or bond than the job allows",
    "no_capacity": "no offer that fits has enough units left",
    "bond_unfunded": "no provider whose offer fits can pay its bond",
}
