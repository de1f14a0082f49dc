"""What would have to be otherwise: making exactly that change flips the matcher's verdict."""

from random import Random
from typing import Any

import pytest

from compute_market.offers import offers
from compute_market.offers.standing import follow_wallets, pardon
from compute_market.records import Job, replace
from compute_market.scheduler import matching
from compute_market.scheduler.counterfactual import Change, Miss, changed, nearest
from compute_market.scheduler.explain import explain
from compute_market.scheduler.matching import Match, NoMatch
from compute_market.settlement import ledger, modes
from compute_market.store.txn import Txn
from tests.scheduler.test_matching import asks, fund, post, within
from tests.support.effort import effort
from tests.support.market import Market

MODELS = (None, "A100", "H100", "T4")


def missed(txn: Txn, job: Job) -> Miss | None:
    return nearest(job, explain(txn, job))


def real(market: Market) -> None:
    market.opened.arm(0)
    market.advance(1)
    market.update(lambda txn: None)


def stock(txn: Txn, random: Random) -> None:
    """A few offers of all kinds, of providers of all kinds."""
    for number in range(random.randint(1, 6)):
        provider = f"p{number}"
        fund(txn, provider, random.randint(0, 6))
        model = random.choice(MODELS)
        offer = post(
            txn,
            provider,
            units=random.randint(1, 6),
            price_per_unit=random.randint(1, 12),
            provider_bond=random.randint(1, 6),
            consumer_bond=random.randint(1, 4),
            reputation=random.choice((0, 0, 0, -3)),
            job_id=random.choice((None, None, None, None, "other")),
            capability={"cpu_cores": random.randint(0, 4)}
            | ({} if model is None else {"gpu": model, "gpu_count": random.randint(1, 3)})
            | random.choice(({}, {"accelerator": "TPU", "accelerator_memory_mb": 64})),
        )
        if random.random() < 0.1:
            offers.withdraw(txn, offer.offer_id)
        elif random.random() < 0.2:
            offers.reserve(txn, offer, offer.units_left)


def wish(random: Random) -> Job:
    return asks(
        units=random.randint(1, 6),
        max_price_per_unit=random.randint(1, 12),
        consumer_bond=random.randint(1, 4),
        provider_bond_min=random.randint(1, 4),
        cpu_cores=random.choice((0, 2, 5)),
        gpu=random.choice((*MODELS, ("A100", "T4"))),
        gpu_count=random.choice((0, 0, 2)),
        accelerator=random.choice((None, None, "TPU", "NPU")),
        accelerator_memory_mb=random.choice((0, 0, 65)),
    )


def make(txn: Txn, job: Job, change: Change) -> Job:
    """Make a change in the market, or in the job that is returned."""
    if change.whose == "job":
        return changed(job, change)
    assert isinstance(change.now, int)
    assert isinstance(change.needed, int)
    if change.whose == "offer":
        offer = offers.get(txn, change.name)
        assert (change.field, offer.units_left) == ("units_left", change.now)
        offers.release(txn, change.name, min(change.needed, offer.units_reserved))
        return replace(job, units=min(change.needed, offer.units_reserved))
    if change.field == "score":
        pardon(txn, change.name, change.needed - change.now, "test")
    else:
        assert ledger.balance(txn, ledger.wallet(change.name), "CT") == change.now
        fund(txn, change.name, change.needed - change.now)
    follow_wallets(txn)
    return job


@pytest.mark.parametrize("mode", ["dry_run", "real"])
def test_making_exactly_the_changes_flips_the_verdict(market: Market, mode: str) -> None:
    if mode == "real":
        real(market)
    tried: set[str] = set()

    def one(txn: Txn, seed: int) -> None:
        random = Random(seed)
        stock(txn, random)
        follow_wallets(txn)
        job, is_real = wish(random), modes.is_real(txn)
        assert is_real == (mode == "real")
        before = matching.match(txn, job, real=is_real)
        miss = missed(txn, job)
        if isinstance(before, Match):
            assert miss is None
            first = explain(txn, job)[0]
            assert (first.offer, first.effective_price) == (before.offer, before.effective_price)
            return
        if miss is None:
            return
        for place, change in enumerate(miss.changes):
            tried.add(change.field)
            # Up to the last of them nothing flips for this offer.
            left = matching.judge(
                txn, job, offers.get(txn, miss.verdict.offer.offer_id), real=is_real
            )
            assert len(left) == len(miss.changes) - place
            job = make(txn, job, change)
        assert isinstance(matching.match(txn, job, real=is_real), Match)

    for seed in range(effort(150, 5000)):
        within(market, lambda txn, seed=seed: one(txn, seed))
    assert {"units", "max_price_per_unit", "consumer_bond", "gpu", "score"} <= tried
    assert ("ct" in tried) == (mode == "real")


def test_a_single_change_that_is_smaller_flips_nothing(market: Market) -> None:
    tried = 0

    def one(txn: Txn, seed: int) -> bool:
        random = Random(seed)
        stock(txn, random)
        follow_wallets(txn)
        job = wish(random)
        miss = missed(txn, job)
        if miss is None or len(miss.changes) > 1 or miss.changes[0].whose != "job":
            return False
        (change,) = miss.changes
        if not isinstance(change.now, int) or not isinstance(change.needed, int):
            return False
        less = change.needed + (1 if change.needed < change.now else -1)
        short = changed(job, Change("job", "job", change.field, change.now, less))
        assert isinstance(matching.match(txn, short, real=False), NoMatch)
        return True

    for seed in range(effort(300, 5000)):
        tried += within(market, lambda txn, seed=seed: one(txn, seed))
    assert tried > 10


def test_fewest_conditions_come_first_then_the_least_away_then_the_cheapest(
    market: Market,
) -> None:
    def action(txn: Txn) -> Any:
        post(txn, "two", price_per_unit=11, capability={"cpu_cores": 3})
        post(txn, "far", price_per_unit=5, capability={"cpu_cores": 1})
        post(txn, "dear", price_per_unit=9, capability={"cpu_cores": 3})
        post(txn, "near", price_per_unit=8, capability={"cpu_cores": 3})
        post(txn, "own", price_per_unit=1, job_id="another", capability={"cpu_cores": 4})
        miss = missed(txn, asks(cpu_cores=4, max_price_per_unit=10))
        assert miss is not None
        return miss.verdict.offer.provider, [str(each) for each in miss.changes]

    assert within(market, action) == ("near", ["cpu_cores 3 instead of 4"])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (Change("job", "j", "gpu", "H100", None), "gpu none instead of H100"),
        (Change("job", "j", "units", 40, 3), "units 3 instead of 40"),
        (Change("offer", "o", "units_left", 0, 40), "units_left 40 instead of 0"),
        (Change("provider", "p", "score", -1, 0), "a score of 0 instead of -1 for p"),
        (Change("provider", "p", "ct", 4, 5), "5 CT instead of 4 in the wallet of p"),
    ],
)
def test_change_is_told_in_words(change: Change, text: str) -> None:
    assert str(change) == text


def test_what_no_change_would_make_fit_has_no_miss(market: Market) -> None:
    def action(txn: Txn) -> Any:
        post(txn, "one", job_id="another")
        offers.withdraw(txn, post(txn, "two").offer_id)
        post(txn, "buyer")
        return missed(txn, asks())

    assert within(market, action) is None
