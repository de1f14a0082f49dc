"""The price-ordered index of offers, made so that a match reads a handful of entries.

Offers of one *shelf* (`records.Shelf`) are grouped by *family* (which models a job may name to see
them) and, inside a family, by *class*: one byte per requirement. A class can hold what a job needs
only if each byte reaches that of the job's *floor*.

`book` orders the offers of each class by exact effective price, then age. Above it, `heads` is a
tree over the bytes of the classes in which each node knows what comes first below it, as in a
knock-out tournament: its order, and its class. A walk descends best first, leaves out what the
floor rules out, and goes no deeper than to where what comes first is of an adequate class. So
offers that lack memory, cores, units or acceptable terms are not looked at however cheap and many
they are. What a byte cannot tell, an offer short by less than its step, the caller judges.

Keys: `book` = shelf, family, class, order → offer id; `heads` = shelf, family, depth, first bytes
of the class → order, class.

Functions import what only a walk or a move needs: most commands import this module, and few do
either. They import modules whole, since `from` takes several times as long when all is loaded.
"""

from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import islice
from operator import ge
from typing import TYPE_CHECKING

from msgspec import Struct

from compute_market.amounts import PPM
from compute_market.records import Capability, Job, Offer, Shelf
from compute_market.store.schema import BOOK, HEADS, pack_u64
from compute_market.store.table import damaged
from compute_market.store.txn import Txn

if TYPE_CHECKING:
    import blake3

_SHELVES: dict[Shelf, bytes] = {
    "open": b"o",
    "exhausted": b"e",
    "barred": b"b",
    "unfunded": b"u",
}

_ORDER = 12 + 8  # exact price, age
_PRICE = 12
_DEPTH = 8  # bytes of a class
_LEVELS = tuple(bytes((depth,)) for depth in range(_DEPTH + 1))  # as keys name them
_MULTIPLIER = 4  # which of them is that of the multiplier
_MULTIPLIER_STEPS = 10
_BYTE_MAX = 255
_FINE_BITS = 20
_FIRSTS_MAX = 10_000  # walks whose first offer a transaction keeps in mind
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
    return _size(before.units_left, _TERM_BITS) != _size(after.units_left, _TERM_BITS)


def order_of(offer: Offer) -> bytes:
    """Sorts like (price × multiplier, age): the exact effective price, without the premium."""
    exact = offer.price_per_unit * offer.multiplier_ppm
    return exact.to_bytes(_PRICE, "big") + pack_u64(offer.seq)


def insert(txn: Txn, offer: Offer, place: Place) -> None:
    txn.firsts.clear()
    for family in _families_of_offer(offer):
        prefix = place.shelf + family
        _enter(txn, prefix, offer, place)
        _raise(txn, prefix, place, 0)


def remove(txn: Txn, offer: Offer, place: Place) -> None:
    txn.firsts.clear()
    for family in _families_of_offer(offer):
        prefix = place.shelf + family
        txn.remove(BOOK, prefix + place.group + place.order)
        _lower(txn, prefix, place, 0)


def move(txn: Txn, offer: Offer, old: Place, new: Place) -> None:
    """Take an offer from one place to another, neither of which it has to stand in alone."""
    if (old.shelf, old.order) != (new.shelf, new.order):
        remove(txn, offer, old)
        insert(txn, offer, new)
        return
    txn.firsts.clear()
    # In the nodes above both places it comes first now if it did before.
    shared = _begin_alike(old.group, new.group)
    before, after = old.order + old.group, new.order + new.group
    for family in _families_of_offer(offer):
        prefix = old.shelf + family
        txn.remove(BOOK, prefix + old.group + old.order)
        _enter(txn, prefix, offer, new)
        _lower(txn, prefix, old, shared)
        _raise(txn, prefix, new, shared)
        for depth in range(shared, 0, -1):
            node = _node(prefix, new.group[:depth])
            if txn.get(HEADS, node) != before:
                break
            txn.put(HEADS, node, after)


def shelved(txn: Txn, shelf: Shelf) -> Iterator[bytes]:
    """Ids of the offers of a shelf, each once, by family and class."""
    seen: set[bytes] = set()
    for _, offer_id in txn.scan(BOOK, _SHELVES[shelf]):
        if offer_id not in seen:
            seen.add(offer_id)
            yield offer_id


def walk(txn: Txn, shelf: Shelf, job: Job, floor: Floor) -> Iterator[tuple[bytes, bytes]]:
    """(order, offer id) of every offer whose class reaches the floor, cheapest first, then oldest.

    Lazy: the caller stops when it has seen enough, most often at the first, which is kept in mind
    until the index changes. An offer stands in one family of a job's, so none comes twice.
    """
    prefixes = [_SHELVES[shelf] + family for family in _families_of_job(job)]
    directed = _SHELVES[shelf] + _directed(job.job_id)
    if txn.first(HEADS, directed) is not None:  # Hardly ever.
        return (yield from _descend(txn, [*prefixes, directed], floor))
    asked = (*prefixes, floor.least, floor.price_max)
    if asked in txn.firsts:
        if (first := txn.firsts[asked]) is not None:
            yield first
            yield from islice(_descend(txn, prefixes, floor), 1, None)
        return
    if len(txn.firsts) == _FIRSTS_MAX:
        txn.firsts.clear()
    found = _descend(txn, prefixes, floor)
    first = txn.firsts[asked] = next(found, None)
    if first is not None:
        yield first
        yield from found


def _descend(txn: Txn, prefixes: list[bytes], floor: Floor) -> Iterator[tuple[bytes, bytes]]:
    """The same of several families of one shelf."""
    import heapq

    # What is to be looked at next: what comes first below a node, the path to the node, and the
    # family it is in. All of them begin at their roots.
    open_ = [(b"", b"", prefix) for prefix in prefixes]
    last = b""
    while open_:
        least, path, prefix = heapq.heappop(open_)
        order, group = least[:_ORDER], least[_ORDER:]
        if order != last and _reaches(group, order, floor):
            yield order, txn.get(BOOK, prefix + group + order) or b""
            last = order  # The nodes below it, down to its class, have it first too.
        while (depth := len(path)) < _DEPTH:
            stem = prefix + _LEVELS[depth + 1] + path
            start = stem + floor.least[depth : depth + 1]
            below = txn.collect(HEADS, _BYTE_MAX + 1, stem, start)
            if len(below) == 1 and below[0][1] == least:
                path += below[0][0][-1:]  # There is nothing else to compare it with.
                continue
            for key, first in below:
                heapq.heappush(open_, (first, path + key[-1:], prefix))
            break
        else:
            found = txn.first(BOOK, prefix + path, start=prefix + path + order + b"\0")
            if found is not None and not _is_dearer(path, found[0][-_ORDER:], floor.price_max):
                heapq.heappush(open_, (found[0][-_ORDER:] + path, path, prefix))


def floor_of(job: Job, *, terms: bool = True, units: bool = True) -> Floor:
    """The floor of a job; without `terms` (price and bonds) or `units` those do not count."""
    least = _class(
        job.capability,
        units=_size(job.units, _TERM_BITS) if units else 0,
        bond=_BYTE_MAX - _size(job.consumer_bond, _TERM_BITS) if terms else 0,
        multiplier=0,
        provider_bond=_size(job.provider_bond_min, _TERM_BITS) if terms else 0,
    )
    return Floor(least, job.max_price_per_unit if terms else None)


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
    """What a node knows: order and class of what comes first below it. None when that is empty."""
    if len(path) == _DEPTH:
        head = txn.first(BOOK, prefix + path)
        return None if head is None else head[0][-_ORDER:] + path
    children = txn.collect(HEADS, _BYTE_MAX + 1, _children(prefix, path))
    return min((least for _, least in children), default=None)


def _reaches(group: bytes, order: bytes, floor: Floor) -> bool:
    """Whether the floor lets what stands in a class pass."""
    return all(map(ge, group, floor.least)) and not _is_dearer(group, order, floor.price_max)


def _is_dearer(group: bytes, order: bytes, price_max: int | None) -> bool:
    """Whether a quoted price must be above `price_max`, from the exact effective price alone.

    The multiplier is known up to its step. Effective prices rise along a class, so from here on
    the whole class is too dear.
    """
    if price_max is None or group[_MULTIPLIER] == _BYTE_MAX:
        return False
    multiplier_max_ppm = -(-group[_MULTIPLIER] // 2) * PPM // _MULTIPLIER_STEPS
    return int.from_bytes(order[:_PRICE], "big") > price_max * multiplier_max_ppm


def _enter(txn: Txn, prefix: bytes, offer: Offer, place: Place) -> None:
    txn.put(BOOK, prefix + place.group + place.order, offer.offer_id.encode())


def _raise(txn: Txn, prefix: bytes, place: Place, above: int) -> None:
    """Tell the nodes above an entry, those deeper than `above`, that it is there now."""
    entry = place.order + place.group
    shared = _shared_depth(txn, prefix, place.group)
    for depth in range(_DEPTH, max(shared, above), -1):
        txn.put(HEADS, _node(prefix, place.group[:depth]), entry)
    for depth in range(shared, above, -1):
        node = _node(prefix, place.group[:depth])
        least = txn.get(HEADS, node)
        if least is not None and least <= entry:
            break  # And so it is for the nodes above.
        txn.put(HEADS, node, entry)


def _lower(txn: Txn, prefix: bytes, place: Place, above: int) -> None:
    """Tell the nodes above an entry, those deeper than `above`, that it is gone."""
    entry = place.order + place.group
    shared = _DEPTH
    if least_below(txn, prefix, place.group) is None:
        txn.remove(HEADS, _node(prefix, place.group))
        shared = _shared_depth(txn, prefix, place.group)
        for depth in range(_DEPTH - 1, max(shared, above), -1):
            txn.remove(HEADS, _node(prefix, place.group[:depth]))
    for depth in range(shared, above, -1):
        path = place.group[:depth]
        node = _node(prefix, path)
        if txn.get(HEADS, node) != entry:
            break  # It was not the least here, nor above.
        least = least_below(txn, prefix, path)
        if least is None:
            raise damaged(HEADS, node, "nothing stands below it")
        txn.put(HEADS, node, least)


def _shared_depth(txn: Txn, prefix: bytes, group: bytes) -> int:
    """Down to which depth there are nodes of other classes, or of this one, above a class.

    The classes beside it in their order tell: those share the most with it.
    """
    node = _node(prefix, group)
    stem = len(node) - _DEPTH
    return max(
        _begin_alike(key[stem:], group) if key is not None and key[:stem] == node[:stem] else 0
        for key in txn.beside(HEADS, node)
    )


def _begin_alike(one: bytes, other: bytes) -> int:
    """How many of the first bytes of two classes are the same."""
    return next((i for i in range(_DEPTH) if one[i] != other[i]), _DEPTH)


def _node(prefix: bytes, path: bytes) -> bytes:
    return prefix + _LEVELS[len(path)] + path


def _children(prefix: bytes, path: bytes) -> bytes:
    """What the keys of a node's children begin with."""
    return prefix + _LEVELS[len(path) + 1] + path


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
    """One for each model that will do, beside that of the offers directed to it."""
    need = job.capability
    return [_family(gpu, need.accelerator or "") for gpu in need.gpu_models or ("",)]


@lru_cache(maxsize=1024)
def _family(gpu: str, accelerator: str) -> bytes:
    return _short_digest(f"models\0{gpu}\0{accelerator}")


def _directed(job_id: str) -> bytes:
    return _short_digest(f"directed\0{job_id}")


def _short_digest(text: str) -> bytes:
    return _blake3()(text.encode()).digest(16)


@cache
def _blake3() -> "type[blake3.blake3]":
    import blake3

    return blake3.blake3


def _class_of(offer: Offer) -> bytes:
    step, rest = divmod(offer.multiplier_ppm * _MULTIPLIER_STEPS, PPM)
    return _class(
        offer.capability,
        units=_size(offer.units_left, _TERM_BITS),
        bond=_BYTE_MAX - _size(offer.consumer_bond, _TERM_BITS),
        multiplier=min(2 * step + (rest != 0), _BYTE_MAX),
        provider_bond=_size(offer.provider_bond, _TERM_BITS),
    )


def _class(
    capability: Capability, *, units: int, bond: int, multiplier: int, provider_bond: int
) -> bytes:
    """A class: what rules out most comes first."""
    return bytes(
        (
            _size(capability.cpu_cores),
            _size(capability.gpu_count),
            _size(capability.gpu_memory_mb),
            units,
            multiplier,
            bond,
            _size(capability.accelerator_memory_mb),
            provider_bond,
        )
    )


@lru_cache(maxsize=4096)
def _size(number: int, bits: int = 3) -> int:
    """One byte that grows with a number: its leading bits, and a place between each two steps.

    With three bits there are four steps per doubling, 0…8, 10, 12, 14, 16, 20, 24, …, which is what
    hardware comes in: an offer of exactly a step is told from one that has a little more. From 2^20
    on only powers of two are steps.
    """
    if number <= 0:
        return 0
    length = number.bit_length()
    if length > _FINE_BITS:
        coarse = 2 * (length - _FINE_BITS - 1) + _between(number, length - 1)
        return _size(2**_FINE_BITS - 1, bits) + 1 + coarse
    shift = length - bits if length > bits else 0
    return 2 * ((shift << bits - 1) + (number >> shift)) + _between(number, shift)


def _between(number: int, shift: int) -> bool:
    """Whether a number has bits below the step it is counted to."""
    return number != number >> shift << shift
