"""Money at earlier times: what postings since then have changed is taken back.

Market time never goes back, so postings come in the order of their numbers and of their instants,
and an instant is found among them without a walk. What was archived is not there to be taken back:
who asks for a time before it is told so. A look may take several transactions; when postings are
archived in between, it has to begin anew.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from msgspec import Struct

from compute_market.errors import BusyError, NotFoundError
from compute_market.records import Posting
from compute_market.settlement import escrow, ledger
from compute_market.store import search
from compute_market.store.schema import (
    BIDS,
    JOBS,
    POSTINGS,
    POSTINGS_BEFORE,
    WALLET_POSTINGS,
    pack_u64,
    unpack_u64,
)
from compute_market.store.txn import Txn

# A movement of what an owner has or has locked: `ct`, `it`, `escrow_ct`, `escrow_it` or `bonds_ct`,
# and by how much it grew.
Change = tuple[str, int]

_HELD = {"escrow": "escrow", "bond": "bonds", "bid": "bonds"}
# These go back into the wallet that they were locked from.
_RETURNS = frozenset(("escrow:refund", "bond:release", "bid:release"))


class Span(Struct, frozen=True, gc=False):
    """The postings between two instants: those that are numbered from behind `after` to `last`."""

    after: int
    last: int
    removed: int  # how many postings had been archived
    archived_ms: int  # before which instant they may have been made; 0 when none was archived


def span(txn: Txn, since_ms: int | None = None, until_ms: int | None = None) -> Span:
    """The postings from one instant up to another, both included."""
    newest = txn.number("posting_seq")
    return Span(
        0 if since_ms is None else _first_since(txn, since_ms) - 1,
        newest if until_ms is None else _first_since(txn, until_ms + 1) - 1,
        _removed(txn),
        txn.number(POSTINGS_BEFORE),
    )


def check_kept(txn: Txn, at_ms: int) -> None:
    """Raise NotFoundError (`archived`) when postings after an instant may have been archived."""
    before_ms = txn.number(POSTINGS_BEFORE)
    if at_ms + 1 < before_ms:
        raise NotFoundError(
            "who had what then is not known: later postings have been archived",
            hint="they are in an archive; `tb-cli state info` names them",
            reason="archived",
            known_from_ms=before_ms - 1,
        )


def of_wallet(
    txn: Txn, within: Span, owner: str, after: int, limit: int
) -> tuple[list[Posting], int | None]:
    """At most `limit` postings of a wallet from behind number `after` on, oldest first.

    The other result is the number to go on behind, None at the end. Raises BusyError when postings
    were archived since the span was made.
    """
    _check_same(txn, within)
    found = ledger.history(txn, owner, max(after, within.after), limit)
    inside = [posting for posting in found if posting.seq <= within.last]
    return inside, inside[-1].seq if len(inside) == limit else None


def of_wallet_back(
    txn: Txn, within: Span, owner: str, before: int, limit: int
) -> tuple[list[Posting], int | None]:
    """The same from below number `before` on, newest first."""
    _check_same(txn, within)
    prefix = ledger.listed_under(ledger.wallet(owner))
    start = prefix + pack_u64(min(before, within.last + 1))
    found: list[Posting] = []
    for key, _ in islice(txn.scan_back(WALLET_POSTINGS, start), limit):
        if not key.startswith(prefix) or unpack_u64(key[len(prefix) :]) <= within.after:
            return found, None
        found.append(txn.must_read(POSTINGS, key[len(prefix) :]))
    return found, found[-1].seq if len(found) == limit else None


def balance_document(txn: Txn, owner: str, at_ms: int) -> dict[str, Any]:
    """`wallet balance` as it was at an instant, after what was posted then.

    Looks at all postings since: what is paid out of an escrow, and a bond that burns, touch no
    wallet of whom they were. Raises NotFoundError (`archived`) when some may not be there.
    """
    check_kept(txn, at_ms)
    changed: Counter[str] = Counter()
    start = pack_u64(_first_since(txn, at_ms + 1))
    for posting in txn.records(POSTINGS, start=start):
        for name, amount in _changes_by(txn, owner, posting):
            changed[name] += amount
    document = escrow.balance_document(txn, owner)
    held, bonds = document["escrow"], document["bonds"]
    return document | {
        "ct": document["ct"] - changed["ct"],
        "it": document["it"] - changed["it"],
        "escrow": {
            "ct": held["ct"] - changed["escrow_ct"],
            "it": held["it"] - changed["escrow_it"],
        },
        "bonds": {"ct": bonds["ct"] - changed["bonds_ct"]},
        "at_ms": at_ms,
    }


def _changes_by(txn: Txn, owner: str, posting: Posting) -> Iterator[Change]:
    token, amount = posting.token.lower(), posting.amount
    wallet = ledger.wallet(owner)
    if posting.debit == wallet:
        yield token, -amount
    if posting.credit == wallet:
        yield token, amount
    # What is locked comes from a wallet, and belongs to it.
    into = _HELD.get(posting.credit.partition("/")[0])
    if into is not None and posting.debit == wallet:
        yield f"{into}_{token}", amount
    out_of = _HELD.get(posting.debit.partition("/")[0])
    if out_of is None:
        return
    if posting.event in _RETURNS:
        is_own = posting.credit == wallet
    else:
        is_own = _holder(txn, posting) == owner
    if is_own:
        yield f"{out_of}_{token}", -amount


def _holder(txn: Txn, posting: Posting) -> str:
    """Whose money a posting took out of an escrow or a bond to pay or burn it."""
    kind, _, rest = posting.debit.partition("/")
    if kind == "bid":
        return txn.must_read(BIDS, rest.encode()).owner
    job = txn.read(JOBS, posting.ref.encode())
    if job is None:
        raise NotFoundError(
            f"job {posting.ref} has been archived: whose money it held is not known",
            hint="finish the archive, and ask for a later time",
            reason="archived",
        )
    is_providers = kind == "bond" and rest.endswith("/provider")
    return job.placed.provider if is_providers else job.buyer


def _first_since(txn: Txn, at_ms: int) -> int:
    """The number of the first posting from an instant on; that after the newest if there is none.

    It may be lower where those before it were archived.
    """

    def is_there(key: bytes, payload: bytes) -> bool:
        return POSTINGS.decode(key, payload).at_ms >= at_ms

    found = search.first_where(txn, POSTINGS, is_there)
    return txn.number("posting_seq") + 1 if found is None else found[0]


def _removed(txn: Txn) -> int:
    """How many postings have been archived: numbers are given without gaps."""
    return txn.number("posting_seq") - txn.size(POSTINGS)


def _check_same(txn: Txn, within: Span) -> None:
    if _removed(txn) != within.removed:
        raise BusyError("postings were archived meanwhile", hint="ask again")
