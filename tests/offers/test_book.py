"""The index of offers: order, classes and families; it forgets nothing and keeps nothing."""

from operator import ge
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compute_market.amounts import AMOUNT_MAX
from compute_market.jobs import drafts
from compute_market.offers import book
from compute_market.records import Capability, Job, Offer, Shelf, replace
from compute_market.store.schema import BOOK, HEADS
from compute_market.store.txn import Txn
from tests.support.effort import effort
from tests.support.market import Market, job_request, slice_of

TABLES = (BOOK, HEADS)

OFFER = Offer(
    offer_id="o",
    seq=1,
    provider="prov",
    units=1000,
    price_per_unit=5,
    fee_pct_ct=100,
    provider_bond=1,
    consumer_bond=1,
    capability=Capability(),
    reputation=0,
    multiplier_ppm=1_000_000,
    job_id=None,
    state="open",
    units_left=1000,
    units_reserved=0,
    units_proven=0,
    posted_at=0,
    shelf="open",
)
JOB = drafts.sketch(job_request("job", [slice_of(1)]), [slice_of(1)])


def has(**fields: Any) -> Offer:
    """An offer; fields of its capability may be given as well."""
    own = {name: fields.pop(name) for name in list(fields) if name in Offer.__struct_fields__}
    return replace(OFFER, capability=Capability(**fields), **own)


def asks(**fields: Any) -> Job:
    own = {name: fields.pop(name) for name in list(fields) if name in Job.__struct_fields__}
    return replace(JOB, capability=Capability(**fields), **own)


def is_adequate(offer: Offer, job: Job) -> bool:
    """Whether the walk of a job looks into the class of an offer."""
    return reaches(offer, book.floor_of(job))


def reaches(offer: Offer, floor: book.Floor) -> bool:
    stands = place(offer)
    group, order = stands.group, stands.order
    assert len(group) == len(floor.least)
    dear = book._is_dearer(group, order, floor.price_max)
    return all(map(ge, group, floor.least)) and not dear


def place(offer: Offer) -> book.Place:
    found = book.place_of(offer)
    assert found is not None
    return found


def insert(txn: Txn, *offers: Offer) -> None:
    for offer in offers:
        book.insert(txn, offer, place(offer))


def remove(txn: Txn, *offers: Offer) -> None:
    for offer in offers:
        book.remove(txn, offer, place(offer))


def walk(txn: Txn, job: Job, shelf: Shelf = "open") -> list[str]:
    return [i.decode() for _, i in book.walk(txn, shelf, job, book.floor_of(job))]


def contents(txn: Txn) -> dict[str, list[tuple[bytes, bytes]]]:
    return {table.name: list(txn.scan(table)) for table in TABLES}


# Order.

PRICES = st.tuples(
    st.integers(1, 20) | st.integers(1, AMOUNT_MAX),
    st.sampled_from([500_000, 999_999, 1_000_000]) | st.integers(0, 2**40),
    st.integers(1, 3) | st.integers(1, 2**64 - 1),
)


def order(price: int, ppm: int, seq: int) -> bytes:
    if price * ppm >= 2**96:
        ppm = 1_000_000
    return book.order_of(has(price_per_unit=price, multiplier_ppm=ppm, seq=seq))


@given(PRICES, PRICES)
def test_order_is_that_of_exact_price_and_age(
    one: tuple[int, int, int], other: tuple[int, int, int]
) -> None:
    keys = [
        (price * (ppm if price * ppm < 2**96 else 1_000_000), seq)
        for price, ppm, seq in (one, other)
    ]
    assert (order(*one) < order(*other)) == (keys[0] < keys[1])
    assert (order(*one) == order(*other)) == (keys[0] == keys[1])


def test_order_tells_apart_what_rounds_to_the_same(market: Market) -> None:
    exact = has(offer_id="exact", price_per_unit=5, seq=9)
    above = has(offer_id="above", price_per_unit=7, multiplier_ppm=714_286, seq=1)  # 5.000002
    below = has(offer_id="below", price_per_unit=7, multiplier_ppm=714_285, seq=8)  # 4.999995

    def action(txn: Txn) -> list[str]:
        insert(txn, above, exact, below)
        return walk(txn, asks())

    assert market.update(action, dry_run=True) == ["below", "exact", "above"]


# Classes.

SIZED = ("cpu_cores", "gpu_count", "gpu_memory_mb", "accelerator_memory_mb")
SIZES = st.integers(0, 20) | st.integers(0, AMOUNT_MAX)


@given(
    st.tuples(*[SIZES] * 7),
    st.tuples(*[SIZES] * 7),
    st.sets(st.sampled_from(range(7)), max_size=2),
)
def test_class_hides_no_offer_that_fits(
    one: tuple[int, ...], other: tuple[int, ...], short: set[int]
) -> None:
    """Each number of the offer is the larger of two, or the smaller where it may fall short."""
    more, less = (
        [max(p) for p in zip(one, other, strict=True)],
        [min(p) for p in zip(one, other, strict=True)],
    )
    for index in short:
        more[index], less[index] = less[index], more[index]
    offer = has(
        **dict(zip(SIZED, more, strict=False)),
        units_left=more[4],
        consumer_bond=less[5],
        price_per_unit=less[6],
    )
    job = asks(
        **dict(zip(SIZED, less, strict=False)),
        units=less[4],
        consumer_bond=more[5],
        max_price_per_unit=more[6],
    )
    fits = all(a >= b for a, b in zip(more, less, strict=True))
    assert is_adequate(offer, job) or not fits


STEPS = (*range(1, 9), 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 192, 256)
MEMORY_STEPS = (*STEPS, *(1024 * n for n in STEPS), 2**40, 2**62)


@pytest.mark.parametrize("field", SIZED)
def test_class_hides_offers_one_short_of_a_common_size(field: str) -> None:
    for size in MEMORY_STEPS:
        assert is_adequate(has(**{field: size}), asks(**{field: size}))
        assert not is_adequate(has(**{field: size - 1}), asks(**{field: size})), size


def test_class_hides_offers_short_by_a_power_of_two() -> None:
    for bits in range(1, 63):
        size = 2**bits
        assert not is_adequate(has(units_left=size - 1), asks(units=size))
        assert not is_adequate(has(consumer_bond=size + 1), asks(consumer_bond=size))


@pytest.mark.parametrize("multiplier_ppm", [500_000, 600_000, 900_000, 1_000_000])
def test_walk_hides_offers_dearer_than_the_cap(multiplier_ppm: int) -> None:
    for price in (1, 2, 100, 10**6, 2**62):
        offer = has(price_per_unit=price + 1, multiplier_ppm=multiplier_ppm)
        assert not is_adequate(offer, asks(max_price_per_unit=price))
        assert is_adequate(offer, asks(max_price_per_unit=price + 1))


@given(st.integers(500_000, 1_000_000), st.integers(1, 2**62))
def test_walk_hides_no_offer_within_the_cap(multiplier_ppm: int, price: int) -> None:
    offer = has(price_per_unit=price, multiplier_ppm=multiplier_ppm)
    assert is_adequate(offer, asks(max_price_per_unit=price))
    # A multiplier between two steps of a tenth hides what is a fifth dearer at least.
    assert not is_adequate(offer, asks(max_price_per_unit=price * 4 // 5 - 1))


def test_floor_leaves_out_what_it_is_told_to() -> None:
    job = asks(cpu_cores=4, units=100, max_price_per_unit=3, consumer_bond=2)
    dear = has(cpu_cores=4, price_per_unit=1000, consumer_bond=1000, units_left=1000)
    used = has(cpu_cores=4, price_per_unit=1, units_left=0)
    assert not reaches(dear, book.floor_of(job))
    assert reaches(dear, book.floor_of(job, terms=False))
    assert not reaches(used, book.floor_of(job))
    assert reaches(used, book.floor_of(job, units=False))


# Families.


@pytest.mark.parametrize(
    ("asked", "seen"),
    [
        ({}, ["bare", "gpu", "other", "acc", "both"]),
        ({"gpu": "A100"}, ["gpu", "both"]),
        ({"gpu": "H100"}, ["other"]),
        ({"gpu": "a100"}, []),
        ({"accelerator": "TPU"}, ["acc", "both"]),
        ({"gpu": "A100", "accelerator": "TPU"}, ["both"]),
        ({"gpu": "H100", "accelerator": "TPU"}, []),
        ({"gpu": "TPU"}, []),
        ({"gpu": ("A100", "H100")}, ["gpu", "other", "both"]),
        ({"gpu": ("H100", "L4")}, ["other"]),
        ({"gpu": ("L4", "T4")}, []),
        ({"gpu": ("H100", "A100"), "accelerator": "TPU"}, ["both"]),
    ],
)
def test_walk_sees_offers_with_the_models_named(
    market: Market, asked: dict[str, Any], seen: list[str]
) -> None:
    offers = [
        has(offer_id="bare", seq=1),
        has(offer_id="gpu", seq=2, gpu="A100"),
        has(offer_id="other", seq=3, gpu="H100"),
        has(offer_id="acc", seq=4, accelerator="TPU"),
        has(offer_id="both", seq=5, gpu="A100", accelerator="TPU"),
    ]

    def action(txn: Txn) -> list[str]:
        insert(txn, *offers)
        return walk(txn, asks(**asked))

    assert market.update(action, dry_run=True) == seen


def test_walk_merges_open_and_directed_offers(market: Market) -> None:
    offers = [
        has(offer_id="mine", seq=1, price_per_unit=4, job_id="job", gpu="A100"),
        has(offer_id="other", seq=2, price_per_unit=1, job_id="job2"),
        has(offer_id="open", seq=3, price_per_unit=5),
        has(offer_id="cheap", seq=4, price_per_unit=3),
    ]

    def action(txn: Txn) -> list[str]:
        insert(txn, *offers)
        return walk(txn, asks())

    assert market.update(action, dry_run=True) == ["cheap", "mine", "open"]


def test_walk_goes_from_class_to_class_as_the_prices_do(market: Market) -> None:
    offers = [
        has(offer_id=f"o{price}", seq=price, price_per_unit=price, cpu_cores=cores)
        for price, cores in [(16, 4), (18, 8), (17, 4), (20, 16), (19, 8), (21, 4), (22, 16)]
    ]

    def action(txn: Txn) -> tuple[list[str], list[str]]:
        insert(txn, *offers)
        return walk(txn, asks()), walk(txn, asks(cpu_cores=8))

    everything, large = market.update(action, dry_run=True)
    assert everything == ["o16", "o17", "o18", "o19", "o20", "o21", "o22"]
    assert large == ["o18", "o19", "o20", "o22"]


def test_walk_stays_on_its_shelf(market: Market) -> None:
    shelves = get_args(Shelf)

    def action(txn: Txn) -> list[list[str]]:
        for number, shelf in enumerate(shelves):
            insert(txn, has(offer_id=shelf, seq=number, shelf=shelf))
        return [walk(txn, asks(), shelf) for shelf in shelves]

    assert market.update(action, dry_run=True) == [[shelf] for shelf in shelves]


def test_place_of_a_withdrawn_offer_is_none() -> None:
    assert book.place_of(has(state="withdrawn", shelf=None)) is None


# Contents.

OFFERS = st.lists(
    st.builds(
        has,
        provider=st.sampled_from(["a", "ab", "b"]),
        price_per_unit=st.integers(1, 4),
        multiplier_ppm=st.sampled_from([500_000, 1_000_000]),
        units_left=st.integers(1, 9),
        consumer_bond=st.integers(1, 3),
        job_id=st.sampled_from([None, None, None, "job"]),
        cpu_cores=st.integers(0, 9),
        gpu=st.sampled_from([None, "A100", "L4"]),
        accelerator=st.sampled_from([None, "TPU"]),
    ),
    max_size=12,
).map(
    lambda found: [
        replace(offer, offer_id=f"o{seq}", seq=seq) for seq, offer in enumerate(found, 1)
    ]
)
FIXTURE = settings(
    max_examples=effort(30, 1000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FIXTURE
@given(OFFERS, st.randoms(use_true_random=False))
def test_contents_depend_only_on_the_offers_that_are_left(
    market: Market, offers: list[Offer], random: Any
) -> None:
    gone = random.sample(offers, random.randint(0, len(offers)))
    kept = [offer for offer in offers if offer not in gone]
    shuffled = random.sample(offers, len(offers))

    def build(txn: Txn) -> dict[str, list[tuple[bytes, bytes]]]:
        insert(txn, *kept)
        return contents(txn)

    def build_and_take_away(txn: Txn) -> dict[str, list[tuple[bytes, bytes]]]:
        insert(txn, *shuffled)
        remove(txn, *gone)
        return contents(txn)

    expected = market.update(build, dry_run=True)
    assert market.update(build_and_take_away, dry_run=True) == expected
    assert kept or expected == {table.name: [] for table in TABLES}


MOVES = st.lists(
    st.tuples(st.integers(0, 11), st.integers(1, 9), st.sampled_from(["open", "exhausted"])),
    max_size=12,
)


@FIXTURE
@given(OFFERS.filter(bool), MOVES)
def test_moving_leaves_what_building_anew_gives(
    market: Market, offers: list[Offer], moves: list[tuple[int, int, Shelf]]
) -> None:
    """Units that were reserved and returned, and shelves that were changed."""

    def move(txn: Txn) -> dict[str, list[tuple[bytes, bytes]]]:
        now = list(offers)
        insert(txn, *now)
        for index, units, shelf in moves:
            before = now[index % len(now)]
            after = replace(before, units_left=units, shelf=shelf)
            if book.moves(before, after):
                book.move(txn, after, place(before), place(after))
            now[index % len(now)] = after
        found = contents(txn)
        remove(txn, *now)
        assert not any(contents(txn).values())
        insert(txn, *now)
        assert found == contents(txn)
        return found

    market.update(move, dry_run=True)


def test_moving_an_offer_rewrites_only_what_changes(market: Market) -> None:
    """Units that cross no step move nothing; those that cross one leave the cheaper alone."""
    cheap, dear = has(offer_id="cheap", price_per_unit=1), has(offer_id="dear", seq=2)
    less = replace(dear, units_left=500)

    def action(txn: Txn) -> tuple[set[bytes], set[bytes]]:
        insert(txn, cheap, dear)
        before = contents(txn)
        book.move(txn, less, place(dear), place(less))
        after = contents(txn)
        book_changed, heads_changed = (set(before[n]) ^ set(after[n]) for n in ("book", "heads"))
        return {value for _, value in book_changed}, {value[-8:] for _, value in heads_changed}

    assert not book.moves(dear, replace(dear, units_left=999))
    assert book.moves(dear, less)
    values, classes = market.update(action, dry_run=True)
    assert values == {b"dear"}
    assert classes == {place(less).group}


@FIXTURE
@given(
    OFFERS,
    st.builds(
        asks,
        cpu_cores=st.integers(0, 9),
        gpu=st.sampled_from([None, "A100", ("A100", "L4"), ("L4", "T4"), ("T4", "A100", "L4")]),
        accelerator=st.sampled_from([None, "TPU"]),
        units=st.integers(1, 9),
        consumer_bond=st.integers(1, 3),
        max_price_per_unit=st.integers(1, 4),
    ),
)
def test_walk_gives_every_offer_of_the_adequate_classes_once_and_in_order(
    market: Market, offers: list[Offer], job: Job
) -> None:
    need = job.capability
    expected = [
        offer.offer_id
        for offer in sorted(offers, key=book.order_of)
        if is_adequate(offer, job)
        and (
            offer.job_id == job.job_id
            or (
                offer.job_id is None
                and (not need.gpu_models or offer.capability.gpu in need.gpu_models)
                and need.accelerator in (None, offer.capability.accelerator)
            )
        )
    ]

    def action(txn: Txn) -> list[str]:
        insert(txn, *offers)
        return walk(txn, job)

    assert market.update(action, dry_run=True) == expected


def test_walk_in_the_same_transaction_sees_what_has_moved(market: Market) -> None:
    """What came first is kept in mind only until the index changes."""

    def act(txn: Txn) -> None:
        def first() -> str:
            found = next(book.walk(txn, "open", JOB, book.floor_of(JOB)), None)
            return "none" if found is None else found[1].decode()

        dear, cheap = has(offer_id="dear", price_per_unit=7), has(offer_id="cheap", seq=2)
        assert [first(), first()] == ["none", "none"]
        insert(txn, dear)
        assert [first(), first()] == ["dear", "dear"]
        insert(txn, cheap)
        assert [first(), first()] == ["cheap", "cheap"]
        walked = [name for _, name in book.walk(txn, "open", JOB, book.floor_of(JOB))]
        assert walked == [b"cheap", b"dear"]
        small = replace(cheap, units_left=0)
        book.move(txn, small, place(cheap), place(small))
        assert [first(), first()] == ["dear", "dear"]
        book.move(txn, cheap, place(small), place(cheap))
        assert [first(), first()] == ["cheap", "cheap"]
        directed = has(offer_id="own", seq=3, price_per_unit=1, job_id=JOB.job_id)
        insert(txn, directed)
        assert first() == "own"
        remove(txn, directed, cheap)
        assert [first(), first()] == ["dear", "dear"]
        remove(txn, dear)
        assert [first(), first()] == ["none", "none"]

    market.alone(act)
