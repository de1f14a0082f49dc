"""Verbs on wallets: deposit, withdraw, balance, history."""

from itertools import chain, islice
from typing import Any, Literal

from compute_market.errors import UsageError
from compute_market.records import Posting, check_id
from compute_market.settlement import escrow, ledger
from compute_market.store.txn import Txn
from tb_cli.frame.confirmation import confirm
from tb_cli.frame.options import JSONL, KEY, LIMIT, YES, amount
from tb_cli.frame.render import Listing, emit, fields
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, takes

_OWNER = argument("owner", "OWNER", "Whose wallet.")
_MOVED = (
    amount("--ct", "Amount in CT.", default=0),
    amount("--it", "Amount in IT.", default=0),
    KEY,
)


@takes(_OWNER, _MOVED)
def deposit(session: Session, owner: str, *, ct: int, it: int, key: str | None) -> None:
    """The operator's tap on a devnet."""
    _check(owner, ct, it)
    _tap(session, "deposit", owner, ct, it, key)


@takes(_OWNER, _MOVED, YES)
def withdraw(session: Session, owner: str, *, ct: int, it: int, key: str | None, yes: bool) -> None:
    """On a terminal it asks first, unless --yes is given."""
    _check(owner, ct, it)
    confirm(session, f"take {ct} CT {it} IT out of the wallet of {owner}?", yes=yes)
    _tap(session, "withdraw", owner, ct, it, key)


@takes(_OWNER)
def balance(session: Session, owner: str) -> None:
    """What is locked is in escrows and bonds of its jobs."""
    check_id(owner, "owner")
    document = session.view(lambda txn: escrow.balance_document(txn, owner))
    emit(session, document, fields(document))


@takes(_OWNER, LIMIT, JSONL)
def history(session: Session, owner: str, *, limit: int | None, jsonl: bool) -> None:
    """The oldest comes first. What was archived is one posting in each token, an `opening`."""
    check_id(owner, "owner")
    columns = ("seq", "at_ms", "token", "amount", "debit", "credit", "event", "ref")
    table = ("seq", "at_ms", "token", "amount", "event", "ref", "debit", "credit")
    listing = Listing(session, columns, table=table, jsonl=jsonl)

    def page(txn: Txn, after: int, size: int) -> tuple[list[Posting], int | None]:
        found = ledger.history(txn, owner, after, size)
        last = found[-1].seq if len(found) == size else None
        return found if after else [*ledger.openings(txn, owner), *found], last

    for posting in islice(chain.from_iterable(session.pages(page, 0)), limit):
        listing.add(ledger.posting_document(posting))
    listing.end()


def _check(owner: str, ct: int, it: int) -> None:
    check_id(owner, "owner")
    if ct == it == 0:
        raise UsageError("nothing to move", hint="give --ct, --it or both")


def _tap(
    session: Session,
    event: Literal["deposit", "withdraw"],
    owner: str,
    ct: int,
    it: int,
    key: str | None,
) -> None:
    def act(txn: Txn) -> dict[str, Any]:
        changed = ledger.tap(txn, event, owner, {"CT": ct, "IT": it}, key)
        return escrow.balance_document(txn, owner) | {"changed": changed}

    document = session.update(act)
    verb = "deposited" if event == "deposit" else "withdrew"
    text = f"{verb} {ct} CT {it} IT" if document["changed"] else f"key {key} was used: unchanged"
    emit(session, document, f"{text}; {owner} has {document['ct']} CT {document['it']} IT")
