"""Matching: the cheapest capable offer of a provider in good standing, and why the others are not.

`judge` is the one place that knows the conditions. The matcher asks it about the few offers the
index puts first, `explain` about all of them, so the two cannot disagree.
"""

from collections.abc import Iterator
from heapq import merge

from msgspec import Struct

from compute_market.offers import book, offers
from compute_market.offers.prices import effective_price
from compute_market.offers.standing import follow_wallets
from compute_market.records import MATCH_RESULTS, Job, Offer, Shelf
from compute_market.reputation import reputation
from compute_market.settlement import ledger
from compute_market.store.txn import Txn

# Results of a match that found nothing, by how far an offer came.
STAGES = MATCH_RESULTS[1:]
_CAPABILITY, _REPUTATION, _PRICE, _UNITS, _BOND = range(len(STAGES))

# Where offers stand that can be taken, and where those stand that would lack nothing but a bond;
# bonds count in `real` only.
_TAKEN_FROM: tuple[Shelf, ...] = ("open",)
_BONDS_ASIDE: tuple[Shelf, ...] = ("open", "unfunded")
_UNITS_ASIDE: tuple[Shelf, ...] = (*_BONDS_ASIDE, "exhausted")


class Shortfall(Struct, frozen=True, gc=False):
    """One condition an offer fails, as asked and as offered."""

    stage: int  # index into STAGES
    condition: str
    asked: int | str
    offered: int | str | None

    def __str__(self) -> str:
        offered = "none" if self.offered is None else self.offered
        words = _WORDS.get(self.condition, "needs {asked}, has {offered}")
        return f"{self.condition}: {words.format(asked=self.asked, offered=offered)}"


class Match(Struct, frozen=True, gc=False):
    """The offer a job goes to."""

    offer: Offer
    effective_price: int  # rounded half up, premium included; what is paid is the quoted price


class NoMatch(Struct, frozen=True, gc=False):
    """Nothing fits; `result` is the furthest stage any offer reached."""

    result: str
    message: str

    @property
    def way_out(self) -> str:
        """What to do about it: the same for every job with that result."""
        return _WAYS_OUT[self.result]


def judge(txn: Txn, job: Job, offer: Offer, *, real: bool) -> list[Shortfall]:
    """Every condition of `job` that `offer` fails; empty when it fits.

    With `real` the provider must be able to pay its bond.
    """
    found: list[Shortfall] = []
    need, has = job.capability, offer.capability

    if offer.state == "withdrawn":
        found.append(Shortfall(_CAPABILITY, "state", "open", "withdrawn"))
    if offer.job_id is not None and offer.job_id != job.job_id:
        found.append(Shortfall(_CAPABILITY, "job_id", job.job_id, offer.job_id))
    if offer.provider == job.buyer:
        found.append(Shortfall(_CAPABILITY, "buyer", job.buyer, offer.provider))
    if has.cpu_cores < need.cpu_cores:
        found.append(Shortfall(_CAPABILITY, "cpu_cores", need.cpu_cores, has.cpu_cores))
    models = need.gpu_models
    if models and set(models).isdisjoint(has.gpu_models):
        asked = " or ".join(models)
        found.append(Shortfall(_CAPABILITY, "gpu", asked, " ".join(has.gpu_models) or None))
    if has.gpu_count < need.gpu_count:
        found.append(Shortfall(_CAPABILITY, "gpu_count", need.gpu_count, has.gpu_count))
    if has.gpu_memory_mb < need.gpu_memory_mb:
        found.append(Shortfall(_CAPABILITY, "gpu_memory_mb", need.gpu_memory_mb, has.gpu_memory_mb))
    if need.accelerator is not None and need.accelerator != has.accelerator:
        found.append(Shortfall(_CAPABILITY, "accelerator", need.accelerator, has.accelerator))
    asked_mb, memory_mb = need.accelerator_memory_mb, has.accelerator_memory_mb
    if memory_mb < asked_mb:
        found.append(Shortfall(_CAPABILITY, "accelerator_memory_mb", asked_mb, memory_mb))
    score = reputation.score(txn, offer.provider)
    if score < 0:
        found.append(Shortfall(_REPUTATION, "reputation", 0, score))
    if offer.price_per_unit > job.max_price_per_unit:
        found.append(
            Shortfall(_PRICE, "max_price_per_unit", job.max_price_per_unit, offer.price_per_unit)
        )
    if offer.consumer_bond > job.consumer_bond:
        found.append(Shortfall(_PRICE, "consumer_bond", job.consumer_bond, offer.consumer_bond))
    if offer.provider_bond < job.provider_bond_min:
        found.append(
            Shortfall(_PRICE, "provider_bond_min", job.provider_bond_min, offer.provider_bond)
        )
    if offer.units_left < job.units:
        found.append(Shortfall(_UNITS, "units", job.units, offer.units_left))
    if real:
        funds = ledger.balance(txn, ledger.wallet(offer.provider), "CT")
        if funds < offer.provider_bond:
            found.append(Shortfall(_BOND, "provider_bond", offer.provider_bond, funds))
    return found


def match(txn: Txn, job: Job, *, real: bool) -> Match | NoMatch:
    """The offer with the lowest exact effective price; among equals the oldest.

    Reads a handful of index entries however many offers there are.
    """
    follow_wallets(txn)
    shelves = _TAKEN_FROM if real else _BONDS_ASIDE
    for offer in _on_shelves(txn, job, shelves, book.floor_of(job)):
        if not judge(txn, job, offer, real=real):
            accelerator = job.capability.accelerator is not None
            price = effective_price(offer.price_per_unit, offer.multiplier_ppm, accelerator)
            return Match(offer, price)
    stage, cheapest = _furthest(txn, job)
    result = STAGES[stage]
    if stage == _CAPABILITY and is_empty(txn):
        return NoMatch(result, NO_OFFERS)
    if stage != _PRICE or cheapest is None:
        return NoMatch(result, _MESSAGES[result])
    asks = " and ".join(
        _ASKS[shortfall.condition].format(shortfall)
        for shortfall in judge(txn, job, cheapest, real=False)
        if shortfall.stage == _PRICE
    )
    return NoMatch(result, f"{_MESSAGES[result]}: {cheapest.offer_id}, the cheapest, {asks}")


def is_empty(txn: Txn) -> bool:
    """Whether nobody offers anything; what was withdrawn is no offer."""
    return not offers.count_of(txn, "state open") and not offers.count_of(txn, "state exhausted")


def _on_shelves(
    txn: Txn, job: Job, shelves: tuple[Shelf, ...], floor: book.Floor
) -> Iterator[Offer]:
    """Offers of these shelves, cheapest first, then oldest, that the index cannot rule out."""
    walks = []
    for shelf in shelves:
        if offers.count_of(txn, f"shelf {shelf}"):
            walks.append(book.walk(txn, shelf, job, floor))
    for _, offer_id in walks[0] if len(walks) == 1 else merge(*walks):
        yield offers.named(txn, offer_id)


def _furthest(txn: Txn, job: Job) -> tuple[int, Offer | None]:
    """The furthest stage any offer reached, given that none fits, and the cheapest that did.

    The bond is the last stage. No offer need have reached the first.
    """
    bare = book.floor_of(job, terms=False, units=False)
    ways: tuple[tuple[int, tuple[Shelf, ...], book.Floor], ...] = (
        (_BOND, _BONDS_ASIDE, book.floor_of(job)),
        (_UNITS, _UNITS_ASIDE, book.floor_of(job, units=False)),
        (_PRICE, _UNITS_ASIDE, bare),
        (_REPUTATION, ("barred",), bare),
    )
    for stage, shelves, floor in ways:
        for offer in _on_shelves(txn, job, shelves, floor):
            found = judge(txn, job, offer, real=False)
            if all(shortfall.stage >= stage for shortfall in found):
                return stage, offer
    return _CAPABILITY, None


NO_OFFERS = "there are no offers"

_MESSAGES = {
    "capability_mismatch": "no offer of another provider has the capability asked for",
    "reputation_failure": "every offer that fits is of a provider in bad standing",
    "price_mismatch": "no offer that fits has the terms asked for",
    "no_capacity": "no offer that fits has enough units left",
    "bond_unfunded": "no provider whose offer fits can pay its bond",
}

_EXPLAIN = "`tb-cli compute explain`, given the same, names what each offer lacks"
_WAYS_OUT = {
    "capability_mismatch": _EXPLAIN,
    "reputation_failure": "`tb-cli net reputation show` lists the scores; `tb-cli net reputation "
    "adjust PROVIDER +N --reason TEXT` adds to one",
    "price_mismatch": _EXPLAIN,
    "no_capacity": "`tb-cli compute offer list` tells what each has left; `tb-cli compute offer "
    "set OFFER --units +N` adds units",
    "bond_unfunded": "`tb-cli wallet deposit PROVIDER --ct N` fills the wallet that pays the bond; "
    "`tb-cli compute offer list` shows which offers lack it",
}

# What is wrong with the terms of an offer, by the condition of its shortfall.
_ASKS = {
    "max_price_per_unit": "asks {0.offered} per unit, more than the {0.asked} allowed",
    "consumer_bond": "asks a buyer's bond of {0.offered}, more than the {0.asked} given",
    "provider_bond_min": "locks a bond of {0.offered}, less than the {0.asked} wanted",
}

# What a shortfall says of what is asked for and what is there, by its condition; others are about
# an amount or a name.
_WORDS = {
    "state": "is {offered}",
    "job_id": "is for job {offered} alone",
    "buyer": "{asked} is the provider",
    "units": "needs {asked}, has {offered} left",
    "max_price_per_unit": "allows {asked}, asks {offered}",
    "price_per_unit": "pays {asked}, asks {offered}",
    "consumer_bond": "gives {asked}, asks {offered}",
    "provider_bond": "needs {asked} CT, the wallet has {offered}",
}
