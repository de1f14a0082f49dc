"""Tables: every one is made, decoded, sealed, and named when what it holds is damaged."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_market import audit
from compute_market.errors import IntegrityError
from compute_market.store.environment import MAX_TABLES
from compute_market.store.rewriting import examined, stored_entries
from compute_market.store.schema import (
    BOOK,
    HEADS,
    META,
    OFFERS,
    RECEIPTS,
    RECORD_TABLES,
    REPUTATION,
    SCHEMA_VERSION,
    SUMS,
    TABLES,
    pack_u64,
)
from compute_market.store.store import Store
from compute_market.store.table import Sums, Table, encode
from compute_market.store.txn import Txn
from tests.support.market import Market
from tests.support.stores import drop, flip, flipped, open_store, open_to_look, put, raw

# Every test here is over in a second or two; one that is not waits for a lock nobody gives back.
pytestmark = pytest.mark.timeout(30)

every_table = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)


def test_pack_u64_sorts_like_the_number() -> None:
    numbers = [0, 1, 255, 256, 2**32, 2**63 - 1, 2**64 - 1]
    assert [len(pack_u64(number)) for number in numbers] == [8] * len(numbers)
    assert sorted(map(pack_u64, numbers)) == [pack_u64(number) for number in numbers]


# Records.


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xc1",  # No MessagePack at all.
        b"\x95\x01",  # Ends early.
        b"\x94\xa1x\x00\x00\x00",  # A string for a number.
        b"\x92\x01\x02",  # Fields are missing.
    ],
)
def test_read_of_a_record_that_does_not_decode_names_table_and_key(
    store: Store, value: bytes
) -> None:
    """Under a checksum that is right: it was stored like this."""
    store.update(lambda txn: txn.put(REPUTATION, b"prov", value), now_ms=0)
    for read in (
        lambda txn: txn.read(REPUTATION, b"prov"),
        lambda txn: txn.must_read(REPUTATION, b"prov"),
        lambda txn: list(txn.records(REPUTATION)),
        lambda txn: txn.page(REPUTATION, None, 1),
    ):
        with pytest.raises(IntegrityError, match=r"table reputation, key b'prov': .*damaged"):
            store.view(read, now_ms=0)


def test_must_read_of_a_record_that_is_missing_names_table_and_key(store: Store) -> None:
    with pytest.raises(IntegrityError, match=r"table offers, key b'o': .*missing") as caught:
        store.view(lambda txn: txn.must_read(OFFERS, b"o"), now_ms=0)
    assert "backup" in (caught.value.hint or "")


@given(st.sampled_from(RECORD_TABLES), st.binary(max_size=60))
def test_decode_gives_a_record_or_an_integrity_error(table: Table[Any], value: bytes) -> None:
    found: Any
    try:
        found = table.decode(b"key", value)
    except IntegrityError as error:
        found = error.message
    assert type(found) is table.kind or f"table {table.name}, key b'key'" in found


def test_decode_of_text_that_is_no_utf8_is_an_integrity_error() -> None:
    # An Offer whose id is not text.
    with pytest.raises(IntegrityError, match="table offers"):
        OFFERS.decode(b"o", b"\xdc\x00\x11\xa2\xff\xfe" + b"\x00" * 16)


# Checksums.


@given(st.binary(min_size=1, max_size=40), st.binary(max_size=40))
def test_a_sealed_value_opens_as_itself_under_its_key_alone(key: bytes, payload: bytes) -> None:
    sealed = HEADS.sealed(key, payload)
    assert HEADS.opened(key, sealed) == payload
    for table, other in ((HEADS, key + b"\0"), (HEADS, key[:-1]), (BOOK, key)):
        with pytest.raises(IntegrityError, match=f"table {table.name}, key "):
            table.opened(other, sealed)


@pytest.mark.parametrize("value", [b"", b"\0", bytes(3)])
def test_opened_refuses_a_value_with_no_room_for_a_checksum(value: bytes) -> None:
    with pytest.raises(IntegrityError, match="table heads, key b'k'"):
        HEADS.opened(b"k", value)


def sums_of(table: Table[Any]) -> Sums | None:
    return next((sums for sums in SUMS if sums.table is table), None)


def readers(table: Table[Any], key: bytes) -> dict[str, Callable[[Txn], object]]:
    """Every way to read one entry of a table."""
    found: dict[str, Callable[[Txn], object]] = {
        "get": lambda txn: txn.get(table, key),
        "scan": lambda txn: list(txn.scan(table, key)),
        "scan_back": lambda txn: next(txn.scan_back(table, key + b"\0")),
        "first": lambda txn: txn.first(table, key),
        "collect": lambda txn: txn.collect(table, 1, key),
    }
    if table in RECORD_TABLES:
        found |= {
            "read": lambda txn: txn.read(table, key),
            "must_read": lambda txn: txn.must_read(table, key),
            "records": lambda txn: list(txn.records(table, key)),
            "page": lambda txn: txn.page(table, None, 1, key),
        }
    sums = sums_of(table)
    if sums is not None:
        found |= {
            "sum": lambda txn: txn.sum(sums, key),
            "sums": lambda txn: txn.sums(sums, key),
        }
    if table is META:
        found["number"] = lambda txn: txn.number(key.decode())
    return found


@every_table
def test_a_flipped_bit_is_an_integrity_error_however_it_is_read(
    path: Path, store: Store, table: Table[Any]
) -> None:
    """Each bit of a value once, each in an entry of its own; also of an empty value."""
    payloads = [b"", encode("text")]
    sums = sums_of(table)

    def fill(txn: Txn) -> None:
        for number, payload in enumerate(payloads):
            for bit in range(8 * len(table.sealed(b"", payload))):
                txn.put(table, b"key %d bit %03d" % (number, bit), payload)
        if sums is not None:
            for bit in range(8 * 20):
                txn.add(sums, b"key sum bit %03d" % bit, -(10**12))

    store.update(fill, now_ms=0)
    sound = store.view(lambda txn: dict(txn.scan(table, b"key ")), now_ms=0)
    store.close()
    with raw(path) as stored:
        cursor = stored(table)
        for key in sound:
            assert cursor.set_key(key)
            cursor.put(key, flipped(cursor.value(), int(key[-3:])))
    store = open_store(path)

    def read_all(txn: Txn) -> None:
        for key in sound:
            for name, read in readers(table, key).items():
                with pytest.raises(IntegrityError) as caught:
                    read(txn)
                assert f"table {table.name}, key {key!r}: " in caught.value.message, name
                assert caught.value.details == {"table": table.name}

    store.view(read_all, now_ms=0)
    broken = store.view(lambda txn: [key for key, error in examined(txn, table) if error], now_ms=0)
    assert [key for key in broken if key.startswith(b"key ")] == sorted(sound)
    store.close()


def test_what_a_flipped_key_hides_is_an_integrity_error_and_not_missing(
    path: Path, store: Store
) -> None:
    """Whichever bit of a key is flipped: it is looked for in vain, and what is beside it tells."""
    keys = [b"alice\0%d" % number for number in range(3)] + [b"bob\0%d" % n for n in range(3)]
    store.update(lambda txn: [txn.put(HEADS, key, b"1") for key in keys], now_ms=0)
    store.close()
    sound = (path / "data.mdb").read_bytes()
    for key in keys:
        for bit in range(8 * len(key)):
            data = bytearray(sound)
            for at in occurrences(sound, key):
                data[at : at + len(key)] = flipped(key, bit)
            (path / "data.mdb").write_bytes(data)
            store = open_to_look(path)
            for read in (
                lambda txn, key=key: txn.get(HEADS, key),
                lambda txn, key=key: list(txn.scan(HEADS, key[: key.index(b"\0") + 1])),
                lambda txn: list(txn.scan(HEADS)),
            ):
                with pytest.raises(IntegrityError, match="table heads, key "):
                    store.view(read, now_ms=0)
            store.close()
    (path / "data.mdb").write_bytes(sound)


def occurrences(data: bytes, text: bytes) -> Iterator[int]:
    at = data.find(text)
    while at >= 0:
        yield at
        at = data.find(text, at + 1)


def test_remove_of_what_is_missing_is_an_integrity_error(store: Store) -> None:
    store.update(put(b"a"), now_ms=0)
    store.update(lambda txn: txn.remove(HEADS, b"a"), now_ms=0)
    with pytest.raises(IntegrityError, match=r"table heads, key b'a': .*it is missing"):
        store.update(lambda txn: txn.remove(HEADS, b"a"), now_ms=0)
    store.close()


@every_table
def test_a_value_that_moved_is_an_integrity_error(
    path: Path, store: Store, table: Table[Any]
) -> None:
    """As when a page is found where another belongs: sound, but of another key or table."""
    other = HEADS if table is not HEADS else BOOK
    store.update(lambda txn: txn.put(table, b"key", b"value"), now_ms=0)
    store.close()
    with raw(path) as stored:
        cursor = stored(table)
        assert cursor.set_key(b"key")
        value = cursor.value()
        cursor.put(b"kez", value)
        stored(other).put(b"key", value)
    store = open_store(path)
    for place, key in ((table, b"kez"), (other, b"key")):
        for name, read in readers(place, key).items():
            with pytest.raises(IntegrityError) as caught:
                store.view(read, now_ms=0)
            assert f"table {place.name}, key {key!r}: " in caught.value.message, name
    assert store.view(lambda txn: txn.get(table, b"key"), now_ms=0) == b"value"
    store.close()


@every_table
def test_audit_names_a_table_with_a_damaged_value(tmp_path: Path, table: Table[Any]) -> None:
    """And goes on with the laws that do not need it."""
    market = Market(tmp_path / "market")
    market.post()
    market.submit()
    market.prove()
    key, named = b"key", "b'key'"
    if table is RECEIPTS:  # They are looked at one by one.
        ((key, _),) = market.view(lambda txn: list(txn.scan(RECEIPTS)))
        named = key.hex()
    else:
        market.alone(lambda txn: txn.put(table, key, b"value"))
    market.store.close()
    flip(market.path, table, key)
    market.opened = market.open()
    found = market.violations()
    market.store.close()
    (violation,) = [each for each in found if (each.table, each.key) == (table.name, named)]
    assert violation.law.endswith("decode")
    assert "checksum" in violation.detail


def test_a_flipped_bit_stops_an_update_and_nothing_is_written(path: Path, store: Store) -> None:
    store.update(put(b"a"), now_ms=0)
    store.close()
    flip(path, HEADS, b"a")
    store = open_store(path)

    def action(txn: Txn) -> None:
        txn.put(HEADS, b"b", b"1")
        txn.get(HEADS, b"a")

    with pytest.raises(IntegrityError, match="table heads, key b'a'"):
        store.update(action, now_ms=0)
    assert store.view(lambda txn: txn.size(HEADS), now_ms=0) == 1
    assert audit_of(store) == ["heads"]
    store.close()


def audit_of(store: Store) -> list[str]:
    return store.view(lambda txn: [found.table for found in audit.check(txn)], now_ms=0)


# Tables that are missing.


def test_open_makes_every_table(path: Path, store: Store) -> None:
    store.close()
    assert tables_of(path) == {table.name for table in TABLES}


def tables_of(path: Path) -> set[str]:
    with lmdb.open(str(path), max_dbs=MAX_TABLES, readonly=True, lock=False) as environment:
        return {name.decode() for name in environment.dbs()}


def test_names_and_seeds_of_tables_are_all_different() -> None:
    assert len({table.name for table in TABLES}) == len(TABLES)
    assert len({table.seed for table in TABLES}) == len(TABLES)


@pytest.mark.parametrize(
    "table", [table for table in TABLES if table is not META], ids=lambda table: table.name
)
def test_a_missing_table_is_viewed_as_empty_and_made_by_the_first_writer(
    path: Path, store: Store, table: Table[Any]
) -> None:
    store.close()
    drop(path, [table])
    before = (path / "data.mdb").read_bytes()
    store = open_to_look(path)
    empty: dict[str, object] = {
        "get": None,
        "scan": [],
        "first": None,
        "collect": [],
        "read": None,
        "records": [],
        "page": ([], None),
        "sum": 0,
        "sums": {},
    }
    for name, read in readers(table, b"key").items():
        if name in empty:
            assert store.view(read, now_ms=0) == empty[name], name
    # The names of tables are what LMDB's main table holds.
    for read in (
        lambda txn: txn.size(table),
        lambda txn: txn.stored(table, b"meta"),
        lambda txn: list(txn.scan_back(table)),
        lambda txn: list(examined(txn, table)),
        lambda txn: list(stored_entries(txn, table)),
    ):
        assert not store.view(read, now_ms=0)
    with pytest.raises(IntegrityError, match=f"table {table.name}, key b'key': .*missing"):
        store.view(lambda txn: txn.must_read(table, b"key"), now_ms=0)
    assert (path / "data.mdb").read_bytes() == before
    # A writer that is rolled back makes nothing, one that has nothing to do with it makes it.
    store.update(lambda txn: txn.put(table, b"key"), now_ms=0, dry_run=True)
    assert (path / "data.mdb").read_bytes() == before
    store.update(lambda _: None, now_ms=0)
    assert store.view(lambda txn: txn.size(table), now_ms=0) == 0
    store.update(lambda txn: txn.put(table, b"key", b"value"), now_ms=0)
    store.close()
    assert tables_of(path) == {table.name for table in TABLES}
    store = open_to_look(path)
    assert store.view(lambda txn: txn.get(table, b"key"), now_ms=0) == b"value"
    store.close()


def test_a_market_without_most_of_its_tables_is_sound(market: Market) -> None:
    market.store.close()
    drop(market.path, [table for table in TABLES if table is not META])
    market.opened = market.open()
    assert market.violations() == []
    assert list(market.opened.jobs()) == []
    assert market.opened.balance("buyer")["ct"] == 0
    market.post()
    market.submit()
    market.prove()
    assert market.job().state == "completed"


def test_open_without_the_table_of_the_schema_is_an_integrity_error(
    path: Path, store: Store
) -> None:
    store.close()
    drop(path, [META])
    with pytest.raises(IntegrityError, match="meta"):
        open_to_look(path)
    with pytest.raises(IntegrityError, match="meta"):
        open_store(path)


# The schema.


@pytest.mark.parametrize("opening", [open_store, open_to_look])
def test_open_refuses_a_newer_schema_and_names_both(
    path: Path, store: Store, opening: Callable[[Path], Store]
) -> None:
    store.update(lambda txn: txn.put(META, b"schema", bytes([SCHEMA_VERSION + 6])), now_ms=0)
    store.close()
    before = (path / "data.mdb").read_bytes()
    with pytest.raises(IntegrityError) as caught:
        opening(path)
    assert re.findall(r"schema (\d+).*up to (\d+)", caught.value.message) == [
        (str(SCHEMA_VERSION + 6), str(SCHEMA_VERSION))
    ]
    assert (path / "data.mdb").read_bytes() == before


def test_update_refuses_a_schema_that_became_newer_since_it_was_opened(store: Store) -> None:
    """A newer release was faster: what it stored is not for this one to change."""
    newer = bytes([SCHEMA_VERSION + 1])
    store.update(lambda txn: txn.put(META, b"schema", newer), now_ms=0)
    with pytest.raises(IntegrityError, match=f"schema {SCHEMA_VERSION + 1}"):
        store.update(put(b"a"), now_ms=0)
    assert store.view(lambda txn: txn.get(HEADS, b"a"), now_ms=0) is None


@pytest.mark.parametrize("value", [None, b"", b"\0", b"\2", b"\x01\x02\x03\x04\x05"])
def test_open_names_a_damaged_schema(path: Path, store: Store, value: bytes | None) -> None:
    """Also one byte that no release has written: the first schema alone had no checksum."""
    store.close()
    with raw(path) as stored:
        cursor = stored(META)
        assert cursor.set_key(b"schema")
        if value is None:
            cursor.delete()
        else:
            cursor.put(b"schema", value)
    with pytest.raises(IntegrityError, match="table meta, key b'schema'"):
        open_to_look(path)
