"""What markets send each other of bundles: envelopes, and what acknowledges them.

An envelope is canonical JSON lines: the first says whose it is, a line for each bundle says what
it is, and the last has the one signature over all bytes before it. An acknowledgement is one line,
signed by whom the bundles were brought to. Whether a key is believed is `check_trusted`'s to say.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Final, Literal

from blake3 import blake3
from msgspec import Meta, Struct

from compute_market.amounts import AMOUNT_MAX
from compute_market.chain import MARKET_ID_BYTES
from compute_market.courier.courier import id_text
from compute_market.courier_records import BundleKind, BundleReceipt
from compute_market.errors import IntegrityError, RefusedError, UsageError
from compute_market.records import check_id
from compute_market.signatures import canonical, signatures
from compute_market.signatures.canonical import malformed
from compute_market.signatures.keys import Key, public_key_of
from compute_market.signatures.signatures import (
    ACKNOWLEDGEMENT,
    BUNDLES,
    PUBLIC_KEY_BYTES,
    SIGNATURE_BYTES,
)
from compute_market.text import clipped

METHOD: Final = "courier.deliver"  # of the endpoint, at the path of this name
FORMAT: Final = "tb-bundles"
ACKNOWLEDGEMENT_FORMAT: Final = "tb-acknowledgement"
VERSION: Final = 1
BUNDLES_MAX: Final = 1000  # in one envelope
LINE_BYTES_MAX: Final = 16 * 1024  # of an envelope, with the newline
ACKNOWLEDGEMENT_BYTES_MAX: Final = 2**20
HASH_BYTES: Final = 32

_ID_BYTES: Final = 8
_DEST_MAX: Final = 4096  # characters
_ERROR_MAX: Final = 300  # characters of what was wrong with a bundle
_LAST: Final = b'{"signature":'

Outcome = Literal["taken", "refused"]

_Number = Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]


class _First(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    format: str  # what it is: `tb-bundles`
    version: int  # of the format: 1
    market_id: str  # the market it is of, 32 hex digits
    public_key: str  # the key that signs, 3904 hex digits
    bundles: Annotated[int, Meta(ge=1, le=BUNDLES_MAX)]  # how many lines follow


class _Line(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    id: str  # of the bundle, 16 hex digits
    kind: BundleKind  # a handoff tells of a job that goes over
    bundle_hash: str  # BLAKE3 of its bytes, 64 hex digits
    bytes: _Number  # how long it is
    sender: str  # whose bundle it is
    dest: Annotated[str, Meta(max_length=_DEST_MAX)]  # where it goes
    timestamp_ms: _Number  # when it was sent
    job_id: str | None  # of a handoff


class _Last(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    signature: str  # of all bytes before this line, 6618 hex digits


class _Taken(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    id: str  # of the bundle, 16 hex digits
    bundle_hash: str  # BLAKE3 of its bytes, 64 hex digits
    outcome: Outcome  # what became of it
    error: Annotated[str, Meta(max_length=_ERROR_MAX)] | None  # why it was refused


class _Acknowledgement(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    format: str  # what it is: `tb-acknowledgement`
    version: int  # of the format: 1
    market_id: str  # the market that answers, 32 hex digits
    public_key: str  # the key that signs, 3904 hex digits
    to_market_id: str  # the market that sent it, 32 hex digits
    envelope: str  # BLAKE3 of what it answers, 64 hex digits
    taken: Annotated[list[_Taken], Meta(min_length=1, max_length=BUNDLES_MAX)]  # one a bundle
    signature: str  # of this line with an empty signature


class Entry(Struct, frozen=True, gc=False):
    """What an envelope says of one bundle."""

    receipt_id: int
    kind: BundleKind
    bundle_hash: bytes
    size: int  # bytes
    sender: str
    dest: str
    sent_ms: int
    job_id: str | None = None  # of a handoff


class Envelope(Struct, frozen=True, gc=False):
    """An envelope whose signature is good."""

    market_id: bytes
    key: Key
    digest: bytes  # BLAKE3 of all its bytes
    entries: tuple[Entry, ...]


class Taken(Struct, frozen=True, gc=False):
    """What became of one bundle where it was brought to."""

    receipt_id: int
    bundle_hash: bytes
    outcome: Outcome
    error: str | None = None


class Acknowledgement(Struct, frozen=True, gc=False):
    """An acknowledgement whose signature is good."""

    market_id: bytes  # of whom the bundles were brought to
    key: Key
    to_market_id: bytes
    envelope: bytes  # the digest of what it answers
    taken: tuple[Taken, ...]


def entry_of(receipt: BundleReceipt) -> Entry:
    return Entry(
        receipt.receipt_id,
        receipt.kind,
        receipt.bundle_hash,
        receipt.size,
        receipt.sender,
        receipt.dest,
        receipt.sent_ms,
        receipt.job_id,
    )


def text(market_id: bytes, key: Key, entries: Sequence[Entry]) -> bytes:
    """An envelope of 1…1000 bundles, signed with a key of one's own."""
    assert key.seed is not None, "it is the key of somebody else"
    assert 1 <= len(entries) <= BUNDLES_MAX
    first = _First(FORMAT, VERSION, market_id.hex(), key.public_key.hex(), len(entries))
    lines = b"".join((canonical.line(first), *(canonical.line(_line(each)) for each in entries)))
    signature = signatures.sign(key.seed, _signed(market_id, key.key_id, lines), BUNDLES)
    return lines + canonical.line(_Last(signature.hex()))


def digest_of(envelope: bytes) -> bytes:
    """What an acknowledgement names an envelope by."""
    return blake3(envelope).digest()


def read(readline: Callable[[int], bytes], what: str) -> bytes:
    """The bytes of an envelope at the beginning of a stream, which may go on with its bundle.

    `readline` gives the next line, or as many bytes of it as it is asked for. Nothing is verified
    yet. Raises IntegrityError (`malformed`) naming `what` for anything that cannot be an envelope.
    """
    lines: list[bytes] = []
    # As many as an envelope may have, its first and last one among them.
    while len(lines) < BUNDLES_MAX + 2:
        line = readline(LINE_BYTES_MAX + 1)
        if not line.endswith(b"\n"):
            long = len(line) > LINE_BYTES_MAX
            problem = (
                f"more than {LINE_BYTES_MAX} bytes in line" if long else "it is cut off in line"
            )
            raise malformed(f"{what}: {problem} {len(lines) + 1}")
        lines.append(line)
        if line.startswith(_LAST):
            return b"".join(lines)
    raise malformed(f"{what}: more than {BUNDLES_MAX} bundles are in it")


def parse(text: bytes, what: str) -> Envelope:
    """The envelope in its bytes, all of them.

    Raises IntegrityError naming `what`: `malformed` or `bad_signature`.
    """
    canonical.check_kind(text, FORMAT, VERSION, what)
    lines = text.splitlines(keepends=True)
    if len(lines) < 3:
        raise malformed(f"{what} is cut off")
    first = canonical.parsed(lines[0], _First, what)
    market_id = canonical.unhex(first.market_id, MARKET_ID_BYTES, f"{what}: the market id")
    key = _key(first.public_key, what)
    entries = tuple(_entry(line, f"{what}, bundle {n}") for n, line in enumerate(lines[1:-1], 1))
    if len(entries) != first.bundles:
        raise malformed(f"{what} says it has {first.bundles} bundles, and has {len(entries)}")
    if len({each.receipt_id for each in entries}) != len(entries):
        raise malformed(f"{what} has two bundles of one id")
    last = canonical.parsed(lines[-1], _Last, f"{what}, its last line")
    signature = canonical.unhex(last.signature, SIGNATURE_BYTES, f"{what}: the signature")
    signed = _signed(market_id, key.key_id, text[: len(text) - len(lines[-1])])
    signatures.verify(key.public_key, signature, signed, BUNDLES, what)
    return Envelope(market_id, key, digest_of(text), entries)


def acknowledgement(
    market_id: bytes, key: Key, envelope: Envelope, taken: Iterable[Taken]
) -> bytes:
    """What answers an envelope: one line, signed with a key of one's own."""
    assert key.seed is not None, "it is the key of somebody else"
    unsigned = _Acknowledgement(
        ACKNOWLEDGEMENT_FORMAT,
        VERSION,
        market_id.hex(),
        key.public_key.hex(),
        envelope.market_id.hex(),
        envelope.digest.hex(),
        [
            _Taken(
                id_text(each.receipt_id),
                each.bundle_hash.hex(),
                each.outcome,
                None if each.error is None else clipped(each.error, _ERROR_MAX),
            )
            for each in taken
        ],
        "",
    )
    signed = _signed(market_id, key.key_id, canonical.line(unsigned))
    signature = signatures.sign(key.seed, signed, ACKNOWLEDGEMENT)
    return canonical.line(_with_signature(unsigned, signature.hex()))


def parse_acknowledgement(text: bytes, what: str) -> Acknowledgement:
    """The acknowledgement in a line. Raises IntegrityError as `parse` does."""
    canonical.check_kind(text, ACKNOWLEDGEMENT_FORMAT, VERSION, what)
    found = canonical.parsed(text, _Acknowledgement, what)
    market_id = canonical.unhex(found.market_id, MARKET_ID_BYTES, f"{what}: the market id")
    key = _key(found.public_key, what)
    signature = canonical.unhex(found.signature, SIGNATURE_BYTES, f"{what}: the signature")
    signed = _signed(market_id, key.key_id, canonical.line(_with_signature(found, "")))
    signatures.verify(key.public_key, signature, signed, ACKNOWLEDGEMENT, what)
    return Acknowledgement(
        market_id,
        key,
        canonical.unhex(found.to_market_id, MARKET_ID_BYTES, f"{what}: to_market_id"),
        canonical.unhex(found.envelope, HASH_BYTES, f"{what}: the envelope"),
        tuple(_taken(each, what) for each in found.taken),
    )


def check_trusted(trusted: Sequence[str], market_id: bytes, key: Key, what: str) -> None:
    """Raise RefusedError (`untrusted_key`) unless a key is one of those that are believed."""
    if key.key_id.hex() not in trusted:
        listed = ", ".join(f'"{each}"' for each in (*trusted, key.key_id.hex()))
        raise RefusedError(
            f"{what} of market {market_id.hex()} is signed by key {key.key_id.hex()}, which is "
            "not trusted",
            hint=f"if you trust it, let [net] in config.toml have the line: trusted = [{listed}]",
            reason="untrusted_key",
            key_id=key.key_id.hex(),
        )


def check_answer(
    answer: Acknowledgement, market_id: bytes, digest: bytes, entries: Sequence[Entry]
) -> dict[int, Taken]:
    """What became of the bundles of an envelope by the acknowledgement of it, by their ids.

    Raises IntegrityError (`other_answer`) for one of another envelope, another bundle, or another
    number of them.
    """
    asked = {each.receipt_id: each.bundle_hash for each in entries}
    told = {each.receipt_id: each for each in answer.taken}
    hashes = {each.receipt_id: each.bundle_hash for each in answer.taken}
    if (answer.to_market_id, answer.envelope) != (market_id, digest):
        problem = "it is that of another envelope"
    elif len(told) != len(answer.taken) or hashes.keys() != asked.keys():
        problem = "it names other bundles than were sent"
    elif hashes != asked:
        problem = "it names another hash than was sent"
    else:
        return told
    raise IntegrityError(f"the acknowledgement: {problem}", reason="other_answer")


def _line(entry: Entry) -> _Line:
    return _Line(
        id_text(entry.receipt_id),
        entry.kind,
        entry.bundle_hash.hex(),
        entry.size,
        entry.sender,
        entry.dest,
        entry.sent_ms,
        entry.job_id,
    )


def _entry(text: bytes, what: str) -> Entry:
    found = canonical.parsed(text, _Line, what)
    try:
        check_id(found.sender, f"{what}: the sender")
        if found.job_id is not None:
            check_id(found.job_id, f"{what}: the job")
    except UsageError as error:
        raise malformed(error.message) from error
    if (found.job_id is not None) != (found.kind == "handoff"):
        raise malformed(f"{what}: a handoff names a job, and nothing else does")
    return Entry(
        _receipt_id(found.id, what),
        found.kind,
        canonical.unhex(found.bundle_hash, HASH_BYTES, f"{what}: the hash"),
        found.bytes,
        found.sender,
        found.dest,
        found.timestamp_ms,
        found.job_id,
    )


def _taken(found: _Taken, what: str) -> Taken:
    return Taken(
        _receipt_id(found.id, what),
        canonical.unhex(found.bundle_hash, HASH_BYTES, f"{what}: a hash"),
        found.outcome,
        found.error,
    )


def _with_signature(found: _Acknowledgement, signature: str) -> _Acknowledgement:
    return _Acknowledgement(
        found.format,
        found.version,
        found.market_id,
        found.public_key,
        found.to_market_id,
        found.envelope,
        found.taken,
        signature,
    )


def _receipt_id(text: str, what: str) -> int:
    return int.from_bytes(canonical.unhex(text, _ID_BYTES, f"{what}: the id"), "big")


def _key(text: str, what: str) -> Key:
    return public_key_of(canonical.unhex(text, PUBLIC_KEY_BYTES, f"{what}: the public key"))


def _signed(market_id: bytes, key_id: bytes, before: bytes) -> bytes:
    return signatures.framed(market_id, key_id, blake3(before).digest())
