"""Verbs on wallets: deposit, withdraw, balance."""

from typing import Any, Literal

from compute_market.errors import UsageError
from compute_market.records import check_id
from compute_market.settlement import escrow, ledger
from compute_market.store.txn import Txn
from tb_cli.frame.confirmation import confirm
from tb_cli.frame.options import KEY, YES, amount
from tb_cli.frame.render import emit, fields
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
