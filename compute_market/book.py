"""The price-ordered index of offers, made so that a match reads a handful of entries.

Offers of one *shelf* (open, exhausted, bad standing) are grouped by *family* (which models a job
may name to see them) and, inside a family, by *class*: one byte per requirement, rounded down on a
logarithmic scale. Whether a class can hold what a job needs is seen from those bytes alone.

`book` orders the offers of each class by exact effective price, then age. `heads` holds only the
first offer of each class, in the same order over the whole family. A walk merges the heads of
the adequate classes and goes deeper only into a class whose head it has used up, so cheap offers
that lack memory, cores, units or acceptable terms cost one head per class, however many they are.

Keys: `book` = shelf, family, class, order; `heads` = shelf, family, order, class; both → offer id.
`provider_prices` = provider, order → offer id, for everything a provider has not withdrawn.
"""

from collections.abc import Iterator
from heapq import heappop, heappush, merge
from operator import ge

from blake3 import blake3

from compute_market.records import Capability, Job, Offer
from compute_market.schema import pack_u64
from compute_market.store import Txn

# Shelves.
OPEN = b"o"
EXHAUSTED = b"e"
BAD_STANDING = b"b"

_PREFIX = 1 + 16  # shelf, family
_ORDER = 12 + 8  # exact price, age
_PRICE = 12

Place = tuple[bytes, bytes, bytes]  # shelf, class, order


def place_of(offer: Offer, shelf: bytes) -> Place:
    """Where an offer stands in the index while it is on `shelf`."""
    return shelf, _class_of_offer(offer), order_of(offer)


def order_of(offer: Offer) -> bytes:
    """Sorts like (price × multiplier, age): the exact effective price, without the premium."""
    exact = offer.price_per_unit * offer.multiplier_ppm
    return exact.to_bytes(_PRICE, "big") + pack_u64(offer.seq)


def insert(txn: Txn, offer: Offer, place: Place) -> None:
    shelf, group, order = place
    offer_id = offer.offer_id.encode()
    for family in _families_of_offer(offer):
        prefix = shelf + family
        head = txn.first("book", prefix + group)
        if head is None or order < head[0][-_ORDER:]:
            if head is not None:
                txn.delete("heads", prefix + head[0][-_ORDER:] + group)
            txn.put("heads", prefix + order + group, offer_id)
        txn.put("book", prefix + group + order, offer_id)
    txn.put("provider_prices", provider_key(offer.provider) + order, offer_id)


def remove(txn: Txn, offer: Offer, place: Place) -> None:
    shelf, group, order = place
    for family in _families_of_offer(offer):
        prefix = shelf + family
        txn.delete("book", prefix + group + order)
        if txn.delete("heads", prefix + order + group):
            head = txn.first("book", prefix + group)
            if head is not None:
                txn.put("heads", prefix + head[0][-_ORDER:] + group, head[1])
    txn.delete("provider_prices", provider_key(offer.provider) + order)


def walk(txn: Txn, shelf: bytes, job: Job, floor: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(order, offer id) of every offer whose class reaches `floor`, cheapest first, then oldest.

    Lazy: the caller stops when it has seen enough. Inside a class an offer may still fall short,
    by less than one step of the scale.
    """
    streams = [_walk_family(txn, shelf + family, floor) for family in _families_of_job(job)]
    return merge(*streams)


def of_provider(txn: Txn, provider: str, price: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    """(order, offer id) of a provider's offers, cheapest first; of one exact price if given."""
    prefix = provider_key(provider)
    for key, offer_id in txn.scan("provider_prices", prefix + price):
        yield key[len(prefix) :], offer_id


def price_of(order: bytes) -> bytes:
    return order[:_PRICE]


def floor_of(job: Job, *, terms: bool = True, units: bool = True) -> bytes:
    """The least class that can serve a job; without `terms` or `units` those do not count."""
    need = job.capability
    return bytes(
        (
            *_sizes(need),
            job.units.bit_length() if units else 0,
            255 - job.consumer_bond.bit_length() if terms else 0,
            255 - job.max_price_per_unit.bit_length() if terms else 0,
        )
    )


def entries_of(offer: Offer, place: Place) -> Iterator[tuple[str, bytes]]:
    """The (table, key) pairs `insert` makes apart from `heads`; for the audit."""
    shelf, group, order = place
    for family in _families_of_offer(offer):
        yield "book", shelf + family + group + order
    yield "provider_prices", provider_key(offer.provider) + order


def group_of(book_key: bytes) -> bytes:
    """Shelf, family and class of a key in `book`; for the audit."""
    return book_key[:-_ORDER]


def head_key(book_key: bytes) -> bytes:
    """The key in `heads` of a class whose first key in `book` is given; for the audit."""
    prefix, group, order = book_key[:_PREFIX], book_key[_PREFIX:-_ORDER], book_key[-_ORDER:]
    return prefix + order + group


def provider_key(provider: str) -> bytes:
    return provider.encode() + b"\0"


def _walk_family(txn: Txn, prefix: bytes, floor: bytes) -> Iterator[tuple[bytes, bytes]]:
    opened: list[tuple[bytes, bytes, bytes]] = []  # order, offer id, class
    for key, offer_id in txn.scan("heads", prefix):
        order, group = key[_PREFIX : _PREFIX + _ORDER], key[_PREFIX + _ORDER :]
        if not all(map(ge, group, floor)):
            continue
        while opened and opened[0][0] < order:
            yield _take(txn, prefix, opened)
        heappush(opened, (order, offer_id, group))
    while opened:
        yield _take(txn, prefix, opened)


def _take(txn: Txn, prefix: bytes, opened: list[tuple[bytes, bytes, bytes]]) -> tuple[bytes, bytes]:
    """Pop the cheapest entry and put the next one of its class in its place."""
    order, offer_id, group = heappop(opened)
    after = txn.first("book", prefix + group, start=prefix + group + order + b"\0")
    if after is not None:
        heappush(opened, (after[0][-_ORDER:], after[1], group))
    return order, offer_id


def _families_of_offer(offer: Offer) -> set[bytes]:
    """A directed offer is seen by its job alone, any other by jobs that name its models or none."""
    if offer.job_id is not None:
        return {_directed(offer.job_id)}
    has = offer.capability
    return {_family(gpu, acc) for gpu in (None, has.gpu) for acc in (None, has.accelerator)}


def _families_of_job(job: Job) -> tuple[bytes, bytes]:
    need = job.capability
    return _family(need.gpu, need.accelerator), _directed(job.job_id)


def _family(gpu: str | None, accelerator: str | None) -> bytes:
    return blake3(f"models\0{gpu or ''}\0{accelerator or ''}".encode()).digest(16)


def _directed(job_id: str) -> bytes:
    return blake3(f"directed\0{job_id}".encode()).digest(16)


def _class_of_offer(offer: Offer) -> bytes:
    return bytes(
        (
            *_sizes(offer.capability),
            offer.units_left.bit_length(),
            255 - offer.consumer_bond.bit_length(),
            255 - offer.price_per_unit.bit_length(),
        )
    )


def _sizes(capability: Capability) -> tuple[int, int, int, int]:
    return (
        _size(capability.cpu_cores),
        _size(capability.gpu_count),
        _size(capability.gpu_memory_mb),
        _size(capability.accelerator_memory_mb),
    )


def _size(number: int) -> int:
    """Four steps per doubling: 0…8, 10, 12, 14, 16, 20, 24, … Common hardware sizes are steps."""
    shift = max(0, number.bit_length() - 3)
    return 4 * shift + (number >> shift)
