"""A table of the store: how its entries are encoded, and found among damaged ones.

Every stored value ends in a checksum over the table's name, the key and the value, since LMDB 0.9
has none: a flipped bit, or a page that is found where another belongs, is an error and never an
answer.
"""

from binascii import crc32
from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, TypeVar

from msgspec import DecodeError
from msgspec.msgpack import Encoder

from compute_market.errors import IntegrityError, InternalError
from compute_market.learned import decoder

R = TypeVar("R")

encode = Encoder().encode

CHECKSUM_BYTES: Final = 4
_PAYLOAD: Final = slice(-CHECKSUM_BYTES)
DISORDER: Final = "the keys are not in order"
_ANOTHER: Final = "the checksum is another"
# The CRC-32 of anything that is followed by its own CRC-32, the least byte first.
_INTACT: Final = 0x2144DF1C


class Table(Generic[R]):
    """One table. `R` is the record its values decode to, or bytes where they are plain.

    `key` says what its keys are made of, `writer` which module of the library may write it. A
    record that few commands need is named by its module, and imported once it is met. `kept` says
    that a transaction reads a few of its entries again and again, and keeps them in mind. `late`
    says that entries are asked for by their key, or written and not asked for, so that those of a
    transaction can be written at its end; what is kept is late.
    """

    __slots__ = ("_decode", "_kind", "kept", "key", "late", "name", "seed", "writer")

    def __init__(
        self,
        name: str,
        kind: type[R] | str,
        *,
        key: str,
        writer: str,
        kept: bool = False,
        late: bool = False,
    ) -> None:
        self.name = name
        self._kind: Any = kind
        self.key = key
        self.writer = writer
        self.kept = kept
        self.late = late or kept
        self.seed = crc32(f"{name}\0".encode())
        self._decode: Any = None

    @property
    def kind(self) -> type[R]:
        if isinstance(self._kind, str):
            from importlib import import_module  # Most commands meet no such record.

            module, name = self._kind.split(".")
            self._kind = getattr(import_module(f"compute_market.{module}"), name)
        found: type[R] = self._kind
        return found

    @property
    def has_records(self) -> bool:
        return self._kind is not bytes

    def decode(self, key: bytes, payload: bytes) -> R:
        """The record. Raises IntegrityError naming table and key when it does not decode."""
        if self._decode is None:
            # Few commands read many tables, and each decoder takes a while to make.
            self._decode = decoder(self.kind).decode
        try:
            record: R = self._decode(payload)
        except (DecodeError, UnicodeDecodeError) as error:
            raise damaged(self, key, str(error)) from error
        return record

    def sealed(self, key: bytes, payload: bytes) -> bytes:
        """The payload with its checksum, as it is stored."""
        return payload + crc32(key + payload, self.seed).to_bytes(CHECKSUM_BYTES, "little")

    def put_all(self, cursor: Any, keys: list[bytes], entries: dict[bytes, Any]) -> None:
        """Write what stands under keys, in this order, with checksums: payloads or records."""
        seed = self.seed
        sealed = []
        for key in keys:
            payload = entries[key]
            if type(payload) is not bytes:
                payload = encode(payload)
            checksum = crc32(key + payload, seed).to_bytes(CHECKSUM_BYTES, "little")
            sealed.append((key, payload + checksum))
        cursor.putmulti(sealed)

    def opened(self, key: bytes, value: bytes) -> bytes:
        """The payload of a stored value. Raises IntegrityError when the checksum is not its own."""
        if crc32(key + value, self.seed) != _INTACT:
            raise damaged(self, key, _ANOTHER)
        return value[_PAYLOAD]

    def taken(self, cursor: Any, prefix: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """At most `limit`, not 0, of the entries from where a cursor stands that begin with
        `prefix`. Raises IntegrityError when one of them, or the next, is damaged."""
        found: list[tuple[bytes, bytes]] = []
        length, seed = len(prefix), self.seed
        for key, value in cursor.iternext():
            if crc32(key + value, seed) != _INTACT:
                raise damaged(self, key, _ANOTHER)
            if key[:length] != prefix:
                break
            found.append((key, value[_PAYLOAD]))
            if len(found) == limit:
                break
        return found

    def first(self, cursor: Any, prefix: bytes, start: bytes) -> tuple[bytes, bytes] | None:
        """The first entry from `start` on, if its key begins with `prefix`."""
        if cursor.set_range(start):
            key: bytes = cursor.key()
            payload = self.opened(key, cursor.value())
            if key.startswith(prefix):
                return key, payload
        return None

    # Walks. Keys out of order end them with IntegrityError, as damaged entries do.

    def part(self, cursor: Any, prefix: bytes, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The entries from `start` on that begin with `prefix`.

        Those before and behind them are looked at too.
        """
        last = b""
        if self.begins(cursor, start):
            for key, value in cursor.iternext():
                if key <= last:
                    raise damaged(self, key, DISORDER)
                last = key
                payload = self.opened(key, value)
                if not key.startswith(prefix):
                    return
                yield key, payload

    def whole(self, cursor: Any, size: Callable[[], int]) -> Iterator[tuple[bytes, bytes]]:
        """All entries, of which there must be `size`."""
        count = 0
        for key, value in self.stored(cursor):
            count += 1
            yield key, self.opened(key, value)
        if count != size():
            raise damaged(self, b"", f"{count} entries are found of {size()}")

    def stored(self, cursor: Any) -> Iterator[tuple[bytes, bytes]]:
        """All keys and values as they are stored, damaged or not."""
        last = b""
        if cursor.first():
            for key, value in cursor.iternext():
                if key <= last:
                    raise damaged(self, key, DISORDER)
                last = key
                yield key, value

    def back(self, cursor: Any, before: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """All entries, last key first; only those whose key is below `before`, if given."""
        stands_behind = before is not None and cursor.set_range(before)
        if cursor.prev() if stands_behind else cursor.last():
            for key, value in cursor.iterprev():
                yield key, self.opened(key, value)

    # Searches. One that goes wrong at a damaged key ends beside it, or where keys are out of order:
    # what stands on both sides of a key is looked at before it is said to be missing.

    def find(self, cursor: Any, key: bytes) -> bytes | None:
        """The payload under a key, or None. Raises IntegrityError where it may only seem so."""
        behind = None
        if cursor.set_range(key):
            behind, value = cursor.item()
            payload = self.opened(behind, value)
            if behind == key:
                return payload
        self._before(cursor, key, behind)
        return None

    def beside(self, cursor: Any, key: bytes) -> tuple[bytes | None, bytes | None]:
        """The last key below a key, and the first that is not; None where there is none.

        The cursor is left at the former. Raises IntegrityError when they may be others.
        """
        behind = None
        if cursor.set_range(key):
            behind, value = cursor.item()
            self.opened(behind, value)
        return self._before(cursor, key, behind), behind

    def begins(self, cursor: Any, start: bytes) -> bool:
        """Move a cursor to the first key that is not below `start`; False when there is none.

        Raises IntegrityError when it may be another one.
        """
        if not start:
            return bool(cursor.first())
        before, behind = self.beside(cursor, start)
        if behind is None:
            return False
        return bool(cursor.first() if before is None else cursor.next())

    def _before(self, cursor: Any, key: bytes, behind: bytes | None) -> bytes | None:
        """The last key below a key, where `behind`, the first that is not, was found."""
        if not key:
            raise InternalError(f"an empty key is looked for in table {self.name}")
        if behind is not None and behind < key:
            raise damaged(self, key, DISORDER)
        if not (cursor.last() if behind is None else cursor.prev()):
            return None
        before: bytes
        before, value = cursor.item()
        self.opened(before, value)
        if before >= key:
            raise damaged(self, key, DISORDER)
        return before


class Sums:
    """A table of signed integers that only ever have something added to them.

    A transaction keeps them aside until its end, so that a thousand changes of one sum are one
    write. A sum of zero is not stored.
    """

    __slots__ = ("table",)

    def __init__(self, name: str, *, key: str, writer: str) -> None:
        self.table = Table(name, bytes, key=key, writer=writer)


def damaged(table: "Table[Any]", key: bytes, problem: str) -> IntegrityError:
    return IntegrityError(
        f"table {table.name}, key {key!r}: the stored record is damaged ({problem})",
        hint="run `tb-cli compute-market audit`; restore from a backup",
        table=table.name,
    )
