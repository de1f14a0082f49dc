"""What is left in the store of what was archived: ids and keys that stay taken, and sums.

The only writer is `archive.removal`.
"""

from typing import Final

from compute_market.archive_records import ArchivedJob, ArchivedReceipt
from compute_market.errors import ConflictError, NotFoundError
from compute_market.receipt_records import Receipt
from compute_market.store.schema import ARCHIVED, ARCHIVED_JOBS, ARCHIVED_RECEIPTS
from compute_market.store.txn import Txn

_WHERE: Final = "it is in an archive; `tb-cli state info` names them"
_ACCOUNT: Final = b"account\0"
_COUNTER: Final = b"counter\0"
_OFFER: Final = b"offer\0"


def job(txn: Txn, job_id: str) -> ArchivedJob | None:
    """How a job ended that was archived; None for any other."""
    return txn.read(ARCHIVED_JOBS, job_id.encode())


def missing(txn: Txn, job_id: str) -> NotFoundError:
    """The error for a job that is not there: it was archived, or there never was one."""
    found = job(txn, job_id)
    if found is None:
        return NotFoundError(f"job {job_id} does not exist", hint="see `tb-cli compute list`")
    return NotFoundError(
        f"job {job_id} was {found.state}, and has been archived",
        hint=_WHERE,
        reason="archived",
        state=found.state,
        ended_at=found.ended_at,
    )


def taken(txn: Txn, job_id: str) -> ConflictError:
    """The error for a new job with the id of one that was archived."""
    found = txn.must_read(ARCHIVED_JOBS, job_id.encode())
    return ConflictError(
        f"job {job_id} was {found.state}, and has been archived: its id is not used again",
        hint="use another job id",
        reason="archived",
    )


def receipt(txn: Txn, key: bytes) -> ArchivedReceipt | None:
    """What is left of the receipt under a key; None for one that was not archived."""
    return txn.read(ARCHIVED_RECEIPTS, key)


def is_same(found: ArchivedReceipt, asked: Receipt) -> bool:
    """Whether a receipt with the same key is the one that was archived."""
    lengths = len(asked.job_id), len(asked.buyer)
    return lengths == (found.job_id_length, found.buyer_length)


# Sums, and the keys that they have.


def account_key(account: str, token: str) -> bytes:
    return _ACCOUNT + f"{token}\0{account}".encode()


def counter_key(names: tuple[str, ...]) -> bytes:
    return _COUNTER + "\0".join(names).encode()


def offer_key(offer_id: str) -> bytes:
    return _OFFER + offer_id.encode()


def balance(txn: Txn, account: str, token: str) -> int:
    """The opening balance of one account."""
    return txn.sum(ARCHIVED, account_key(account, token))


def balances(txn: Txn) -> dict[tuple[str, str], int]:
    """Opening balances: what archived postings come to, by token and account."""
    found = {}
    for key, amount in txn.sums(ARCHIVED, _ACCOUNT).items():
        token, account = key[len(_ACCOUNT) :].decode().split("\0")
        found[token, account] = amount
    return found


def counters(txn: Txn) -> dict[tuple[str, ...], int]:
    """What counters have counted of the archived, by their names and label values."""
    found = txn.sums(ARCHIVED, _COUNTER)
    return {tuple(key[len(_COUNTER) :].decode().split("\0")): n for key, n in found.items()}


def units(txn: Txn) -> dict[str, int]:
    """Units that archived jobs have proven of each offer."""
    found = txn.sums(ARCHIVED, _OFFER)
    return {key[len(_OFFER) :].decode(): proven for key, proven in found.items()}
