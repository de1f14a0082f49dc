"""Receipts in a file that anybody can verify: signed JSON lines, with the links of their chain.

The first line says whose receipts they are and where in the chain they begin. A line for each
receipt, in order, has its link, which binds all that stand before it. The last line says where they
end and has the one signature, which through the last link binds every line.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Final

from msgspec import Meta, Struct

from compute_market.amounts import AMOUNT_MAX
from compute_market.chain import MARKET_ID_BYTES
from compute_market.errors import IntegrityError, UsageError
from compute_market.receipt_records import Receipt
from compute_market.records import Lane, Mode, check_id
from compute_market.settlement.receipt_chain import DIGEST_BYTES, GENESIS, link_digest
from compute_market.settlement.receipts import key_of_fields
from compute_market.signatures import canonical, signatures
from compute_market.signatures.canonical import malformed
from compute_market.signatures.keys import Key, public_key_of
from compute_market.signatures.signatures import PUBLIC_KEY_BYTES, RECEIPTS, SIGNATURE_BYTES
from compute_market.store.schema import pack_u64
from compute_market.store.table import encode

FORMAT: Final = "tb-receipts"
VERSION: Final = 1
LINE_BYTES_MAX: Final = 64 * 1024  # with the newline

_VERSION_MAX = 2**16 - 1
_LAST = b'{"receipts":'

_Number = Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]


class _First(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    format: str  # what it is: `tb-receipts`
    version: int  # of the format: 1
    market_id: str  # the market it is of, 32 hex digits
    public_key: str  # the key that signs, 3904 hex digits
    from_seq: Annotated[int, Meta(ge=1, le=AMOUNT_MAX)]  # number of the first receipt
    from_link: str  # the link that it follows, 64 hex digits; zeros before receipt 1


class _Line(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    seq: _Number  # number of the receipt
    link: str  # binds it to all before it, 64 hex digits
    version: Annotated[int, Meta(ge=0, le=_VERSION_MAX)]  # of the receipt: 1
    job_id: str  # the job that was paid for
    buyer: str  # who paid
    provider: str  # who was paid
    quote_price: _Number  # quoted price of a unit
    units: _Number  # units that were proven
    issued_at: _Number  # unix second
    idempotency_key: str  # by which it is paid once, 64 hex digits
    lane: Lane  # of the job
    dry_run: bool  # whether no money moved when it was issued


class _Last(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    receipts: _Number  # how many the file holds
    to_seq: _Number  # number of the last one
    to_link: str  # its link, 64 hex digits
    mode: Mode  # of the market when the export began
    height: _Number  # of the market then
    state_root: str  # of the market then, 64 hex digits
    signature: str  # of all that stands before it, 6618 hex digits


class Section(Struct, frozen=True, gc=False):
    """A part of the chain of one market, and the state in which the market was then."""

    market_id: bytes
    from_seq: int
    from_link: bytes  # the link before the first receipt
    to_seq: int  # `from_seq` − 1 when there is none
    to_link: bytes
    mode: Mode
    height: int
    state_root: bytes

    @property
    def receipts(self) -> int:
        return self.to_seq - self.from_seq + 1


class Exported(Struct, frozen=True, gc=False):
    """A receipt with its place in the chain."""

    seq: int
    link: bytes
    receipt: Receipt


class Verified(Struct, frozen=True, gc=False):
    """What a file holds that verified."""

    market_id: bytes
    public_key: bytes
    from_seq: int
    from_link: bytes
    to_seq: int
    to_link: bytes
    receipts: int
    state_root: bytes


def first_line(section: Section, public_key: bytes) -> bytes:
    first = _First(
        FORMAT,
        VERSION,
        section.market_id.hex(),
        public_key.hex(),
        section.from_seq,
        section.from_link.hex(),
    )
    return canonical.line(first)


def receipt_line(exported: Exported) -> bytes:
    receipt = exported.receipt
    line = _Line(
        exported.seq,
        exported.link.hex(),
        receipt.version,
        receipt.job_id,
        receipt.buyer,
        receipt.provider,
        receipt.quote_price,
        receipt.units,
        receipt.issued_at,
        receipt.idempotency_key.hex(),
        receipt.lane,
        receipt.dry_run,
    )
    return canonical.line(line)


def last_line(section: Section, key: Key) -> bytes:
    """The line that signs the file with a key of one's own."""
    assert key.seed is not None, "it is the key of somebody else"
    signature = signatures.sign(key.seed, _signed(section, key.key_id), RECEIPTS)
    last = _Last(
        section.receipts,
        section.to_seq,
        section.to_link.hex(),
        section.mode,
        section.height,
        section.state_root.hex(),
        signature.hex(),
    )
    return canonical.line(last)


def verify(
    lines: Iterable[bytes],
    *,
    key_id: bytes | None = None,
    from_link: bytes | None = None,
    source: str = "",
) -> Verified:
    """Verify a whole file, line by line in flat memory, with nothing else at hand.

    `key_id` is the key that must have signed it, any if None, and `from_link` the link that the
    first receipt must follow. Raises IntegrityError naming the first wrong line (`line` in its
    details): `malformed` for what is no line of such a file, for one that is cut off and for text
    behind its end; `bad_chain` for a receipt that was changed, left out, put in or moved;
    `bad_signature`. It begins with the name of the `source`, if that has one.
    """
    end = None
    for each in _checked(lines, key_id, from_link, source):
        end = each
    assert isinstance(end, Verified), "a file ends or is refused"
    return end


def entries(lines: Iterable[bytes], source: str = "") -> Iterator[Exported]:
    """The receipts of a file in order; it is verified again as they are taken, see `verify`."""
    for each in _checked(lines, None, None, source):
        if isinstance(each, Exported):
            yield each


def claimed_key(line: bytes) -> bytes | None:
    """The id of the key whose receipts a file is said to hold by its first line; None for no such
    line. Only `verify` finds out whether it is so.
    """
    try:
        return _first(line, None, None)[1].key_id
    except IntegrityError:
        return None


def _checked(
    lines: Iterable[bytes], key_id: bytes | None, from_link: bytes | None, source: str
) -> Iterator[Exported | Verified]:
    """Each receipt as soon as its line is right, and what was verified at the end."""
    number = 0
    try:
        numbered = enumerate(lines, 1)
        number, text = next(numbered, (1, b""))
        first, public = _first(text, key_id, from_link)
        seq, link = first.from_seq - 1, canonical.unhex(first.from_link, DIGEST_BYTES, "from_link")
        verified = None
        for number, text in numbered:  # noqa: B007 - it names the line that is wrong
            if verified is not None:
                raise malformed("there is more behind the last line of the file")
            if text.startswith(_LAST):
                verified = _verified(text, first, public, seq, link)
            else:
                exported = _entry(text, seq + 1, link)
                seq, link = exported.seq, exported.link
                yield exported
        if verified is None:
            number += 1
            raise malformed("the file ends before its last line, which has the signature")
    except IntegrityError as error:
        raise canonical.at_line(number, error, source) from error
    yield verified


def _first(text: bytes, key_id: bytes | None, from_link: bytes | None) -> tuple[_First, Key]:
    canonical.check_kind(text, FORMAT, VERSION, "it")
    first = canonical.parsed(_whole(text), _First, "the first line of the file")
    canonical.unhex(first.market_id, MARKET_ID_BYTES, "market_id")
    key = public_key_of(canonical.unhex(first.public_key, PUBLIC_KEY_BYTES, "public_key"))
    start = canonical.unhex(first.from_link, DIGEST_BYTES, "from_link")
    if key_id is not None and key_id != key.key_id:
        raise IntegrityError(
            f"the receipts are those of key {key.key_id.hex()}, not of {key_id.hex()}",
            reason="bad_signature",
        )
    if (first.from_seq == 1) != (start == GENESIS):
        raise _broken(f"receipt {first.from_seq} cannot follow the link {start.hex()}")
    if from_link not in (None, start):
        raise _broken(
            f"the file begins behind the link {start.hex()}, not behind {from_link.hex()}"
        )
    return first, key


def _entry(text: bytes, seq: int, previous: bytes) -> Exported:
    """The receipt of a line, which must be the next one."""
    line = canonical.parsed(_whole(text), _Line, f"the line of receipt {seq}")
    try:
        for name in ("job_id", "buyer", "provider"):
            check_id(getattr(line, name), name)
    except UsageError as error:
        raise malformed(error.message) from error
    receipt = Receipt(
        version=line.version,
        job_id=line.job_id,
        buyer=line.buyer,
        provider=line.provider,
        quote_price=line.quote_price,
        units=line.units,
        issued_at=line.issued_at,
        idempotency_key=canonical.unhex(line.idempotency_key, DIGEST_BYTES, "idempotency_key"),
        lane=line.lane,
        dry_run=line.dry_run,
        seq=line.seq,
    )
    link = canonical.unhex(line.link, DIGEST_BYTES, "link")
    if line.seq != seq:
        raise _broken(f"receipt {line.seq} stands where receipt {seq} belongs")
    if link_digest(seq, previous, encode(receipt)) != link:
        raise _broken(
            f"the link of receipt {seq} is not that of its fields and of the receipt before it"
        )
    if key_of_fields(receipt) != receipt.idempotency_key:
        raise _broken(f"the idempotency key of receipt {seq} is not that of its fields")
    return Exported(seq, link, receipt)


def _verified(text: bytes, first: _First, key: Key, seq: int, link: bytes) -> Verified:
    """What the last line signs, which must be all that came before it."""
    last = canonical.parsed(_whole(text), _Last, "the last line of the file")
    to_link = canonical.unhex(last.to_link, DIGEST_BYTES, "to_link")
    section = Section(
        market_id=bytes.fromhex(first.market_id),
        from_seq=first.from_seq,
        from_link=bytes.fromhex(first.from_link),
        to_seq=last.to_seq,
        to_link=to_link,
        mode=last.mode,
        height=last.height,
        state_root=canonical.unhex(last.state_root, DIGEST_BYTES, "state_root"),
    )
    signature = canonical.unhex(last.signature, SIGNATURE_BYTES, "signature")
    if (last.to_seq, last.receipts) != (seq, section.receipts):
        raise _broken(f"the file ends with receipt {seq}, and its last line says {last.to_seq}")
    if to_link != link:
        raise _broken(f"receipt {seq} has another link than the last line says")
    signatures.verify(
        key.public_key, signature, _signed(section, key.key_id), RECEIPTS, "the file of receipts"
    )
    return Verified(
        section.market_id,
        key.public_key,
        section.from_seq,
        section.from_link,
        section.to_seq,
        section.to_link,
        section.receipts,
        section.state_root,
    )


def _signed(section: Section, key_id: bytes) -> bytes:
    return signatures.framed(
        section.market_id,
        key_id,
        pack_u64(section.from_seq),
        section.from_link,
        pack_u64(section.to_seq),
        section.to_link,
        section.state_root,
        section.mode.encode(),
        pack_u64(section.height),
    )


def _whole(text: bytes) -> bytes:
    """A line as it was read, if it is a whole one and no longer than it may be."""
    if len(text) > LINE_BYTES_MAX:
        raise malformed(f"the line has more than {LINE_BYTES_MAX} bytes")
    if not text.endswith(b"\n"):
        raise malformed("the file is cut off here" if text else "the file is empty")
    return text


def _broken(problem: str) -> IntegrityError:
    return IntegrityError(problem, reason="bad_chain")
