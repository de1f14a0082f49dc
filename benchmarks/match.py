"""Claim: a match among a million open offers takes at most twice as long as among a thousand.

And at most 0.3 ms. Peer: the same market with a thousand offers, asked for the same job at the
same moment. The variants are what someone might post to slow the matcher down; in those where the
many are of no use, the useful thousand are the same in both markets.

With `--limits` it measures what the index does not bound, instead: decoys short of an uncommon size
by less than a step, and hardly two offers of one size.
"""

import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import measure

from compute_market.config.settings import DEFAULTS
from compute_market.engine import Engine
from compute_market.jobs import drafts
from compute_market.offers import posting
from compute_market.offers.standing import follow_wallets, record_outcome
from compute_market.records import Job, Slice, replace
from compute_market.reputation import reputation
from compute_market.requests import CapabilityRequest, OfferRequest
from compute_market.scheduler.matching import Match, match
from compute_market.settlement import ledger
from compute_market.store.schema import BOOK, HEADS, OFFERS, PROVIDER_OFFERS
from compute_market.store.table import Table
from compute_market.store.txn import Txn

RATIO_BOUND = 2.0
MATCH_BOUND_MS = 0.3
FEW = 1_000
PROVIDERS = 1_000
CHUNK = 20_000
UNIT_BYTES = 2**20
MONEY = 100  # CT in every wallet
GPUS = ("A100", "H100", "L4", "RTX4090")
MEMORY_MB = (8_192, 16_384, 24_576, 40_960, 81_920)

Post = Callable[[int, random.Random], OfferRequest]
Want = Callable[[int, random.Random], Job]


class Variant(NamedTuple):
    """One way to fill a market: the offers that count, those that do not, and what is asked."""

    text: str
    useful: Post
    want: Want
    useless: Post | None = None  # None: there are a million useful ones
    real: bool = False  # bonds count


def ordinary(number: int, rng: random.Random) -> OfferRequest:
    """Anything one may meet: a machine without a GPU, with some, or with an accelerator."""
    hardware: dict[str, Any] = {"cpu_cores": rng.choice((2, 4, 8, 16, 32, 64, 96))}
    kind = rng.random()
    if kind < 0.6:
        hardware["gpu"] = rng.choice(GPUS)
        hardware["gpu_count"] = rng.choice((1, 1, 2, 4, 8))
        hardware["gpu_memory_mb"] = rng.choice(MEMORY_MB) * hardware["gpu_count"]
    elif kind < 0.7:
        hardware |= {"accelerator": "TPUv4", "accelerator_memory_mb": 32_768}
    return measure.offer_request(
        f"prov-{rng.randrange(PROVIDERS)}",
        units=rng.randint(100, 10_000),
        price_per_unit=rng.randint(10, 1_000_000),
        reputation=rng.randint(0, 100),
        reputation_multiplier=f"0.{rng.randint(50, 99)}",
        capability=CapabilityRequest(**hardware),
    )


def coarse(number: int, rng: random.Random) -> OfferRequest:
    """The same, at one of a thousand prices: twenty of a million cost exactly the least."""
    return replace(ordinary(number, rng), price_per_unit=rng.randint(10, 1_000))


def one_price(number: int, rng: random.Random) -> OfferRequest:
    provider = rng.randrange(PROVIDERS)
    return measure.offer_request(f"prov-{provider}", price_per_unit=5, reputation=provider)


def solid(number: int, rng: random.Random) -> OfferRequest:
    """Serves every job of `demanding`, at a price above the useless ones."""
    return measure.offer_request(
        f"prov-{number % 100}",
        units=10_000,
        price_per_unit=rng.randint(100, 120),
        capability=CapabilityRequest(
            cpu_cores=64, gpu="H100", gpu_count=8, gpu_memory_mb=8 * 81_920
        ),
    )


def lacking(number: int, rng: random.Random) -> OfferRequest:
    """Cheap, and short of cores, of memory or of units, in the sizes that are sold."""
    short = number % 3
    count = rng.choice((1, 2, 4, 8))
    return measure.offer_request(
        f"cheap-{rng.randrange(PROVIDERS)}",
        units=rng.randint(1, 9) if short == 2 else rng.randint(100, 10_000),
        price_per_unit=rng.randint(1, 50),
        capability=CapabilityRequest(
            cpu_cores=rng.randint(1, 15) if short == 0 else 64,
            gpu="H100",
            gpu_count=count,
            gpu_memory_mb=rng.choice((4_096, 8_192, 12_288)) if short == 1 else 81_920 * count,
        ),
    )


def shunned(number: int, rng: random.Random) -> OfferRequest:
    request = solid(number, rng)
    return measure.offer_request(
        f"shunned-{rng.randrange(PROVIDERS)}",
        units=request.units,
        price_per_unit=rng.randint(1, 50),
        reputation=-rng.randint(1, 1_000),
        capability=request.capability,
    )


def broke(number: int, rng: random.Random) -> OfferRequest:
    """Cheap, of providers who have money, but less than the bond they promise."""
    return measure.offer_request(
        f"broke-{rng.randrange(PROVIDERS)}",
        units=10_000,
        price_per_unit=rng.randint(1, 50),
        provider_bond=rng.randint(MONEY + 1, 10 * MONEY),
        capability=solid(number, rng).capability,
    )


def narrowly_short(number: int, rng: random.Random) -> OfferRequest:
    """Cheap, and short of what `demanding` asks by less than any coarse scale can tell."""
    return measure.offer_request(
        f"cheap-{rng.randrange(PROVIDERS)}",
        units=10_000,
        price_per_unit=rng.randint(1, 50),
        capability=CapabilityRequest(
            cpu_cores=64, gpu="H100", gpu_count=8, gpu_memory_mb=8_192 + rng.randrange(400)
        ),
    )


def dear(number: int, rng: random.Random) -> OfferRequest:
    """Narrowly above the most that `modest` pays, with a multiplier that puts it first."""
    return measure.offer_request(
        f"dear-{rng.randrange(PROVIDERS)}",
        units=10_000,
        price_per_unit=rng.randint(121, 127),
        reputation_multiplier="0.5",
        capability=solid(number, rng).capability,
    )


def scattered(number: int, rng: random.Random) -> OfferRequest:
    """Cheap and short of memory, and hardly two of a size."""
    return measure.offer_request(
        f"cheap-{rng.randrange(PROVIDERS)}",
        units=1 << rng.randrange(10, 40),
        price_per_unit=rng.randint(1, 50),
        capability=CapabilityRequest(
            cpu_cores=1 << rng.randrange(6, 40),
            gpu="H100",
            gpu_count=1 << rng.randrange(3, 40),
            gpu_memory_mb=rng.randrange(8_000),
            accelerator_memory_mb=1 << rng.randrange(40),
        ),
    )


def famous(number: int, rng: random.Random) -> OfferRequest:
    """By turns an offer of an unknown at one low price, and a dear one of a provider of repute."""
    if number % 2:
        return measure.offer_request(f"famous-{number}", price_per_unit=10_000, reputation=500)
    return measure.offer_request(f"unknown-{number}", price_per_unit=5)


def job(number: int, units: int, **fields: Any) -> Job:
    request = measure.job_request(f"job-{number}", **fields)
    return drafts.sketch(request, [Slice("/slices/a", units * UNIT_BYTES, bytes(32))])


def varied(number: int, rng: random.Random) -> Job:
    hardware: dict[str, Any] = {"cpu_cores": rng.choice((0, 1, 4, 8, 16))}
    kind = rng.random()
    if kind < 0.5:
        hardware |= {"gpu": rng.choice(GPUS), "gpu_memory_mb": rng.randint(1, 40_000)}
    elif kind < 0.6:
        hardware |= {"accelerator": "TPUv4", "accelerator_memory_mb": rng.randint(1, 32_768)}
    return job(
        number,
        rng.randint(1, 1_000),
        max_price_per_unit=1_000_000,
        capability=CapabilityRequest(**hardware),
    )


def plain(number: int, rng: random.Random) -> Job:
    return job(number, rng.randint(1, 500), max_price_per_unit=rng.randint(120, 500))


def demanding(number: int, rng: random.Random) -> Job:
    """What `solid` has and `lacking` has not."""
    return job(
        number,
        rng.randint(10, 1_000),
        max_price_per_unit=rng.randint(120, 1_000),
        capability=CapabilityRequest(
            cpu_cores=rng.randint(16, 64), gpu="H100", gpu_memory_mb=rng.randint(12_289, 81_920)
        ),
    )


def close_call(number: int, rng: random.Random) -> Job:
    capability = CapabilityRequest(gpu="H100", gpu_memory_mb=rng.randint(8_600, 9_000))
    return job(number, 10, max_price_per_unit=1_000, capability=capability)


def modest(number: int, rng: random.Random) -> Job:
    return job(number, rng.randint(1, 100), max_price_per_unit=120)


VARIANTS = {
    "random": Variant("random prices and hardware", ordinary, varied),
    "coarse": Variant("random hardware, few prices", coarse, varied),
    "one-price": Variant("one price, 1000 providers with different scores", one_price, plain),
    "lacking": Variant("cheap offers that lack cores, memory or units", solid, demanding, lacking),
    "bad-standing": Variant("cheap offers in bad standing", solid, demanding, shunned),
    "narrow": Variant("cheap offers that lack a little memory", solid, close_call, narrowly_short),
    "dear": Variant("offers a little above the cap", solid, modest, dear),
    "unfunded": Variant("cheap offers whose bond nobody can pay", solid, demanding, broke, True),
    "famous": Variant("equals, and providers of repute who are no rivals", solid, plain, famous),
    "scattered": Variant("cheap offers of all sizes", solid, demanding, scattered),
}

LIMITS = {"narrow", "scattered"}
BOUNDED = [name for name in VARIANTS if name not in LIMITS]


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--variant", choices=VARIANTS, action="append", help="only this one")
    parser.add_argument("--limits", action="store_true", help="what the index does not bound")
    parser.add_argument("--offers", type=int, help="how many are many")
    chosen = parser.parse_args()
    many = chosen.offers or (100_000 if chosen.quick else 1_000_000)
    rounds = 100 if chosen.quick else 400
    for name in chosen.variant or (set(VARIANTS) & LIMITS if chosen.limits else BOUNDED):
        with measure.scratch(on_disk=False, gib=4) as directory:
            compare(name, VARIANTS[name], directory, many, rounds)
    measure.finish()


def compare(name: str, variant: Variant, directory: Path, many: int, rounds: int) -> None:
    config = replace(DEFAULTS, map_size_gib=8)
    with (
        measure.open_market(directory / "small", config) as small,
        measure.open_market(directory / "large", config) as large,
    ):
        fill(small, variant, FEW)
        took = fill(large, variant, many)
        entries = large.view(lambda txn: txn.size(HEADS))
        print(f"== {name}: {variant.text}")
        print(f"{many} offers posted in {took:.0f} s; {entries} entries in the index of heads")
        # Both markets are asked inside their write transactions, in turn, about the same job.
        few, lots = small.update(
            lambda small_txn: large.update(
                lambda large_txn: ask(small_txn, large_txn, variant, rounds), dry_run=True
            ),
            dry_run=True,
        )
        show(FEW, few)
        show(many, lots)
        median_ms = 1000 * statistics.median(lots.times)
        measure.claim(
            f"{name}: match",
            median_ms / (1000 * statistics.median(few.times)),
            RATIO_BOUND,
            f"× match among {FEW}",
        )
        measure.claim(f"{name}: match", median_ms, MATCH_BOUND_MS, "ms")
        post_more(small, large, variant)
        for what, act in (("score", change_scores), ("wallet", change_wallets)):
            rewritten = large.update(lambda txn, act=act: count_rewritten(txn, act), dry_run=True)
            measure.claim(
                f"{name}: a {what} that crosses nothing rewrites", rewritten, 0, "entries"
            )


class Asked(NamedTuple):
    times: list[float]  # seconds
    results: Counter[str]


def ask(small: Txn, large: Txn, variant: Variant, rounds: int) -> tuple[Asked, Asked]:
    rng = random.Random(2)
    wanted = [variant.want(number, rng) for number in range(rounds)]
    few, lots = Asked([], Counter()), Asked([], Counter())
    deadline = time.perf_counter() + 60
    for number, one in enumerate(wanted):
        for txn, asked in ((small, few), (large, lots)):
            began = time.perf_counter()
            found = match(txn, one, real=variant.real)
            asked.times.append(time.perf_counter() - began)
            asked.results["success" if isinstance(found, Match) else found.result] += 1
        if number >= 3 and time.perf_counter() > deadline:
            break
    return few, lots


def show(count: int, asked: Asked) -> None:
    ordered = sorted(1000 * taken for taken in asked.times)
    percentile_99 = ordered[len(ordered) * 99 // 100]
    results = ", ".join(f"{number} {result}" for result, number in asked.results.most_common())
    print(
        f"among {count:8}: median {statistics.median(ordered):8.3f} ms, "
        f"99th percentile {percentile_99:8.3f} ms; {results}"
    )


def fill(market: Engine, variant: Variant, count: int) -> float:
    """Post the offers of a market and return the seconds it took."""
    requests = made(variant, count)
    began = time.perf_counter()
    for start in range(0, count, CHUNK):
        market.update(lambda txn, start=start: post(txn, requests, min(CHUNK, count - start)))
    return time.perf_counter() - began


def made(variant: Variant, count: int) -> Iterator[OfferRequest]:
    """The useless come first: they are older as well."""
    rng = random.Random(1)
    if variant.useless is not None:
        for number in range(count - FEW):
            yield variant.useless(number, rng)
        # The same useful offers, whatever came before.
        rng = random.Random(1)
        count = FEW
    for number in range(count):
        yield variant.useful(number, rng)


def post(txn: Txn, requests: Iterator[OfferRequest], count: int) -> None:
    """Post some offers of providers who have the same money each."""
    for request in islice(requests, count):
        if not ledger.balance(txn, ledger.wallet(request.provider), "CT"):
            ledger.tap(txn, "deposit", request.provider, {"CT": MONEY, "IT": 0}, None)
        posting.post(txn, request)


def post_more(small: Engine, large: Engine, variant: Variant) -> None:
    """Compare what posting costs; both transactions are rolled back."""
    rng = random.Random(3)
    batch = [(variant.useless or variant.useful)(number, rng) for number in range(1_000)]
    times = measure.interleave(
        {
            name: lambda market=market: market.update(
                lambda txn: post(txn, iter(batch), len(batch)), dry_run=True
            )
            for name, market in (("small", small), ("large", large))
        },
        5,
    )
    rates = {name: len(batch) / statistics.median(taken) for name, taken in times.items()}
    factor = measure.ratio(times["large"], times["small"])
    print(
        f"posting: {rates['small']:.0f} offers/s among {FEW}, {rates['large']:.0f} offers/s among "
        f"the many: {factor:.2f} × as long"
    )


def change_scores(txn: Txn) -> None:
    """Raise the scores of a hundred providers, none of them over zero."""
    rising = [provider for provider, score in reputation.recent(txn) if 0 <= score < 1_000]
    for provider in rising[:100]:
        record_outcome(txn, provider, +1)


def change_wallets(txn: Txn) -> None:
    """Pay a hundred providers an amount that no bond lies in."""
    for provider, _ in islice(reputation.recent(txn), 100):
        ledger.tap(txn, "withdraw", provider, {"CT": MONEY // 2, "IT": 0}, None)
        ledger.tap(txn, "deposit", provider, {"CT": MONEY // 4, "IT": 0}, None)
    follow_wallets(txn)


def count_rewritten(txn: Txn, act: Callable[[Txn], None]) -> int:
    """Entries of the offers and their index that an action changes."""
    watched = Counter[Table[Any]]()

    class Watching(Txn):
        """The transaction, with its writes counted by table."""

        __slots__ = ()

        def put(self, table: Table[Any], key: bytes, value: bytes = b"") -> None:
            watched[table] += 1
            super().put(table, key, value)

        def write(self, table: Table[Any], key: bytes, record: Any) -> None:
            watched[table] += 1
            super().write(table, key, record)

        def delete(self, table: Table[Any], key: bytes) -> bool:
            watched[table] += 1
            return super().delete(table, key)

    act(Watching(txn._txn, txn._handles, txn.now_ms, txn.config, None))
    assert watched, "the action wrote nothing at all"
    return sum(watched[table] for table in (OFFERS, BOOK, HEADS, PROVIDER_OFFERS))


if __name__ == "__main__":
    main()
