"""The price-ordered index of offers, made so that a match reads a handful of entries.

Offers of one *shelf* (`records.Shelf`) are grouped by *family* (which models a job may name to see
them) and, inside a family, by *class*: one byte per requirement. A class can hold what a job needs
only if each byte reaches that of the job's *floor*.

`book` orders the offers of each class by exact effective price, then age. Above it, `heads` is a
tree over the bytes of the classes in which each node knows the least order below it, as in a
knock-out tournament. A walk descends best first and leaves out what the floor rules out, so
offers that lack memory, cores, units or acceptable terms are not looked at however cheap and many
they are. What a byte cannot tell, an offer short by less than its step, the caller judges.

Keys: `book` = shelf, family, class, order → offer id; `heads` = shelf, family, depth, first bytes
of the class → order. `provider_prices` = provider, order → offer id, for all a provider has not
withdrawn.
"""

from collections.abc import Iterator
from heapq import heappop, heappush, merge

from blake3 import blake3
from msgspec import Struct

from compute_market.amounts import PPM
from compute_market.records import Capability, Job, Offer, Shelf
from compute_market.store.schema import BOOK, HEADS, pack_u64
from compute_market.store.txn import Txn

_SHELVES: dict[Shelf, bytes] = {
    "open": b"o",
    "exhausted": b"e",
    "barred": b"b",
    "unfunded": b"u",
}

_ORDER = 12 + 8  # exact price, age
_PRICE = 12
_DEPTH = 7  # bytes of a class
_MULTIPLIER_STEPS = 10
_BYTE_MAX = 255
_FINE_BITS = 20
# Units and bonds come in all sizes; finer steps would only make a match look at more nodes.
_TERM_BITS = 2


class Place(Struct, frozen=True, gc=False):
    """Where an offer stands in the index."""

    shelf: bytes
    group: bytes  # its class
    order: bytes


class Floor(Struct, frozen=True, gc=False):
    """The least class that can serve a job, and the quoted price it may cost at most."""

    least: bytes
    price_max: int | None


def place_of(offer: Offer) -> Place | None:
    """Where an offer stands in the index; None when it is not there."""
    if offer.shelf is None:
        return None
    return Place(_SHELVES[offer.shelf], _class_of(offer), order_of(offer))


def moves(before: Offer, after: Offer) -> bool:
    """Whether a change of its units or shelf, which is all that changed, moves an offer."""
    if before.shelf != after.shelf:
        return True
    return _units_step(before.units_left) != _units_step(after.units_left)


def order_of(offer: Offer) -> bytes:
    """Sorts like (price × multiplier, age): the exact effective price, without the premium."""
    exact = offer.price_per_unit * offer.multiplier_ppm
    return exact.to_bytes(_PRICE, "big") + pack_u64(offer.seq)


def insert(txn: Txn, offer: Offer, place: Place) -> None:
    shelf, group, order = place.shelf, place.group, place.order
    offer_id = offer.offer_id.encode()
    for family in _families_of_offer(offer):
        prefix = shelf + family
        txn.put(BOOK, prefix + group + order, offer_id)
        for depth in range(_DEPTH, 0, -1):
            node = _node(prefix, group[:depth])
            least = txn.get(HEADS, node)
            if least is not None and least <= order:
                break  # And so it is for the nodes above.
            txn.put(HEADS, node, order)


def remove(txn: Txn, offer: Offer, place: Place) -> None:
    shelf, group, order = place.shelf, place.group, place.order
    for family in _families_of_offer(offer):
        prefix = shelf + family
        txn.delete(BOOK, prefix + group + order)
        for depth in range(_DEPTH, 0, -1):
            node = _node(prefix, group[:depth])
            if txn.get(HEADS, node) != order:
                break  # It was not the least here, nor above.
            least = least_below(txn, prefix, group[:depth])
            if least is None:
                txn.delete(HEADS, node)
            else:
                txn.put(HEADS, node, least)


def walk(txn: Txn, shelf: Shelf, job: Job, floor: Floor) -> Iterator[tuple[bytes, bytes]]:
    """(order, offer id) of every offer whose class reaches the floor, cheapest first, then oldest.

    Lazy: the caller stops when it has seen enough. An offer stands in one family of a job's, so
    none comes twice.
    """
    on = _SHELVES[shelf]
    families = _families_of_job(job)
    return merge(*(_walk_family(txn, on + family, floor) for family in families))


def floor_of(job: Job, *, terms: bool = True, units: bool = True) -> Floor:
    """The floor of a job; without `terms` (price and bond) or `units` those do not count."""
    least = (
        *_sizes(job.capability),
        _units_step(job.units) if units else 0,
        _BYTE_MAX - _size(job.consumer_bond, _TERM_BITS) if terms else 0,
        0,
    )
    return Floor(bytes(least), job.max_price_per_unit if terms else None)


def entries_of(offer: Offer, place: Place) -> Iterator[bytes]:
    """The keys in `book` that `insert` makes; for the laws."""
    shelf, group, order = place.shelf, place.group, place.order
    for family in _families_of_offer(offer):
        yield shelf + family + group + order


def nodes_of(book_key: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(key in `heads`, prefix, path) of every node above an entry of `book`; for the laws."""
    prefix, group = book_key[: -_DEPTH - _ORDER], book_key[-_DEPTH - _ORDER : -_ORDER]
    for depth in range(1, _DEPTH + 1):
        yield _node(prefix, group[:depth]), prefix, group[:depth]


def least_below(txn: Txn, prefix: bytes, path: bytes) -> bytes | None:
    """The least order below a node, from the level beneath it; None when that is empty."""
    if len(path) == _DEPTH:
        head = txn.first(BOOK, prefix + path)
        return None if head is None else head[0][-_ORDER:]
    return min((least for _, least in txn.scan(HEADS, _children(prefix, path))), default=None)


def _walk_family(txn: Txn, prefix: bytes, floor: Floor) -> Iterator[tuple[bytes, bytes]]:
    # What is to be looked at next: an offer, or a node with the least order below it.
    open_: list[tuple[bytes, bytes, bytes]] = [(b"", b"", b"")]  # order, path, offer id
    while open_:
        order, path, offer_id = heappop(open_)
        if offer_id:
            yield order, offer_id
            start = prefix + path + order + b"\0"
        elif len(path) == _DEPTH:
            start = prefix + path
        else:
            below = _children(prefix, path)
            from_ = below + floor.least[len(path) : len(path) + 1]
            for key, least in txn.collect(HEADS, _BYTE_MAX + 1, below, from_):
                heappush(open_, (least, path + key[-1:], b""))
            continue
        found = txn.first(BOOK, prefix + path, start=start)
        if found is not None and not _is_dearer(path, found[0][-_ORDER:], floor.price_max):
            heappush(open_, (found[0][-_ORDER:], path, found[1]))


def _is_dearer(group: bytes, order: bytes, price_max: int | None) -> bool:
    """Whether a quoted price must be above `price_max`, from the exact effective price alone.

    The multiplier is known up to its step. Effective prices rise along a class, so from here on
    the whole class is too dear.
    """
    if price_max is None or group[-1] == _BYTE_MAX:
        return False
    multiplier_max_ppm = -(-group[-1] // 2) * PPM // _MULTIPLIER_STEPS
    return int.from_bytes(order[:_PRICE], "big") > price_max * multiplier_max_ppm


def _node(prefix: bytes, path: bytes) -> bytes:
    return prefix + bytes((len(path),)) + path


def _children(prefix: bytes, path: bytes) -> bytes:
    """What the keys of a node's children begin with."""
    return prefix + bytes((len(path) + 1,)) + path


def _families_of_offer(offer: Offer) -> set[bytes]:
    """A directed offer is seen by its job alone, any other by jobs that name its models or none."""
    if offer.job_id is not None:
        return {_directed(offer.job_id)}
    has = offer.capability
    return {
        _family(gpu, accelerator)
        for gpu in ("", *has.gpu_models)
        for accelerator in ("", has.accelerator or "")
    }


def _families_of_job(job: Job) -> list[bytes]:
    """One for each model that will do, and that of the offers directed to it."""
    need = job.capability
    found = [_family(gpu, need.accelerator or "") for gpu in need.gpu_models or ("",)]
    return [*found, _directed(job.job_id)]


def _family(gpu: str, accelerator: str) -> bytes:
    return blake3(f"models\0{gpu}\0{accelerator}".encode()).digest(16)


def _directed(job_id: str) -> bytes:
    return blake3(f"directed\0{job_id}".encode()).digest(16)


def _class_of(offer: Offer) -> bytes:
    step, rest = divmod(offer.multiplier_ppm * _MULTIPLIER_STEPS, PPM)
    return bytes(
        (
            *_sizes(offer.capability),
            _units_step(offer.units_left),
            _BYTE_MAX - _size(offer.consumer_bond, _TERM_BITS),
            min(2 * step + (rest != 0), _BYTE_MAX),
        )
    )


def _units_step(units: int) -> int:
    return _size(units, _TERM_BITS)


def _sizes(capability: Capability) -> tuple[int, int, int, int]:
    return (
        _size(capability.cpu_cores),
        _size(capability.gpu_count),
        _size(capability.gpu_memory_mb),
        _size(capability.accelerator_memory_mb),
    )


def _size(number: int, bits: int = 3) -> int:
    """One byte that grows with a number: its leading bits, and a place between each two steps.

    With three bits there are four steps per doubling, 0…8, 10, 12, 14, 16, 20, 24, …, which is what
    hardware comes in: an offer of exactly a step is told from one that has a little more. From 2^20
    on only powers of two are steps.
    """
    length = max(0, number).bit_length()
    if length > _FINE_BITS:
        coarse = 2 * (length - _FINE_BITS - 1) + _between(number, length - 1)
        return _size(2**_FINE_BITS - 1, bits) + 1 + coarse
    shift = max(0, length - bits)
    return 2 * ((shift << bits - 1) + (max(0, number) >> shift)) + _between(number, shift)


def _between(number: int, shift: int) -> bool:
    """Whether a number has bits below the step it is counted to."""
    return number != number >> shift << shift
