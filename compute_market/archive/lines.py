"""The file of an archive: JSON lines, each the whole of one thing, the fields of records by name.

    {"archive": 1, "id", "market_id", "before", "begun_ms", "receipts_before", "link"}
    {"job": {…}, "slices": [{…}], "placements": [{…}], "receipts": [{…, "link", "settlement"}]}
    {"posting": {…}}
    {"end": 1, "jobs", "receipts", "postings", "receipts_to", "link", "bytes", "blake3"}

The head has the number and the link of the last receipt that was archived before, the end those of
the last one by now, where the chain in the store goes on. Its checksum is the BLAKE3 of all bytes
before that line. Bytes are in hex, what an array of records is in the store is an object here.
"""

from typing import Any, Final

from msgspec import Struct, ValidationError, json

from compute_market import chain
from compute_market.archive.selection import Ended
from compute_market.archive_records import Archive
from compute_market.errors import UsageError
from compute_market.learned import learned
from compute_market.records import Posting
from compute_market.settlement import receipt_chain
from compute_market.store.schema import RECEIPTS_ARCHIVED
from compute_market.store.txn import Txn

VERSION: Final = 1
HEAD_MAX: Final = 1_000  # bytes of the first line, at most
END_MAX: Final = 1_000  # and of the last one


class Head(Struct, frozen=True, gc=False):
    """The first line."""

    archive: int  # version of the format: 1
    id: str  # of the archive, in hex
    market_id: str  # the market it is of, 32 hex digits
    before: int  # unix second before which all of it ended
    begun_ms: int  # when it was begun
    receipts_before: int  # number of the last receipt that was archived before
    link: str  # the link of that receipt, 64 hex digits


def head(txn: Txn, archive_id: bytes, before: int) -> Head:
    """The head of an archive that begins now."""
    seq = txn.number(RECEIPTS_ARCHIVED)
    link = receipt_chain.digest(txn, seq)
    market_id = chain.market_id(txn)
    return Head(VERSION, archive_id.hex(), market_id.hex(), before, txn.now_ms, seq, link.hex())


def read_head(start: bytes, path: str) -> Head:
    """The head of a file that begins like this. Raises UsageError when that is no archive."""
    line, newline, _ = start.partition(b"\n")
    try:
        found = json.decode(line, type=learned(Head)) if newline else None
        if found is not None and len(bytes.fromhex(found.id)) and bytes.fromhex(found.market_id):
            if found.archive > VERSION:
                raise UsageError(
                    f"{path} is an archive of version {found.archive}, this release knows "
                    f"{VERSION}",
                    hint="choose another file",
                )
            return found
    except (ValidationError, ValueError):
        pass
    raise UsageError(f"{path}: file exists, and is no archive", hint="choose another file")


def of_head(found: Head) -> bytes:
    return json.encode(found) + b"\n"


def of_jobs(ended: list[Ended]) -> bytes:
    return b"".join(map(_of_job, ended))


def of_postings(postings: list[Posting]) -> bytes:
    return b"".join(json.encode({"posting": plain(each)}) + b"\n" for each in postings)


def of_end(txn: Txn, archive: Archive) -> bytes:
    """The last line of an archive that has grown to what it is."""
    seq = txn.number(RECEIPTS_ARCHIVED)
    link = receipt_chain.digest(txn, seq).hex()
    return json.encode(_end(archive, seq, link)) + b"\n"


def is_end(line: bytes, archive: Archive) -> bool:
    """Whether this is the last line of an archive that has grown to what it is.

    Where the chain went on from there is known to that line alone.
    """
    try:
        found = json.decode(line)
    except ValueError:
        return False
    if not isinstance(found, dict):
        return False
    known = _end(archive, found.get("receipts_to"), found.get("link"))
    return line == json.encode(known) + b"\n"


def _end(archive: Archive, seq: Any, link: Any) -> dict[str, Any]:
    return {
        "end": VERSION,
        "jobs": archive.jobs,
        "receipts": archive.receipts,
        "postings": archive.postings,
        "receipts_to": seq,
        "link": link,
        "bytes": archive.length,
        "blake3": archive.digest.hex(),
    }


def plain(record: Any) -> Any:
    """A record, and what is in it, as JSON has it."""
    if isinstance(record, Struct):
        return {name: plain(getattr(record, name)) for name in record.__struct_fields__}
    if isinstance(record, bytes):
        return record.hex()
    if isinstance(record, list | tuple):
        return list(map(plain, record))
    return record


def _of_job(ended: Ended) -> bytes:
    found = [
        plain(each.receipt) | {"link": each.link.digest.hex(), "settlement": plain(each.settlement)}
        for each in ended.proofs
    ]
    document = {
        "job": plain(ended.job),
        "slices": plain(ended.slices),
        "placements": plain(ended.placements),
        "receipts": found,
    }
    return json.encode(document) + b"\n"
