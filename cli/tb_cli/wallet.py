"""Verbs on wallets: deposit, withdraw, balance. Those on all of them, on movements and on
statements stand by themselves.
"""

from typing import Any, Literal

from compute_market.errors import UsageError
from compute_market.records import check_id
from compute_market.settlement import escrow, ledger, wallets
from compute_market.store.txn import Txn
from tb_cli.frame.confirmation import confirm
from tb_cli.frame.options import AT, KEY, YES, amount
from tb_cli.frame.render import emit
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, examples, takes

_OWNER = argument("owner", "OWNER", "Whose wallet.", complete="party")
_MOVED = (
    amount("--ct", "Amount in CT.", default=0),
    amount("--it", "Amount in IT.", default=0),
    KEY,
)


@examples("tb-cli wallet deposit alice --ct 1000 --key october")
@takes(_OWNER, _MOVED)
def deposit(session: Session, owner: str, *, ct: int, it: int, key: str | None) -> None:
    """The operator's tap on a devnet."""
    _check(owner, ct, it)
    _tap(session, "deposit", owner, ct, it, key)


@examples("tb-cli wallet withdraw alice --ct 5 --key october-out")
@takes(_OWNER, _MOVED, YES)
def withdraw(session: Session, owner: str, *, ct: int, it: int, key: str | None, yes: bool) -> None:
    """On a terminal it asks first, unless --yes is given."""
    _check(owner, ct, it)
    confirm(session, f"take {ct} CT {it} IT out of the wallet of {owner}?", yes=yes)
    _tap(session, "withdraw", owner, ct, it, key)


@takes(
    argument(
        "owners",
        "OWNER…",
        "Whose wallets; - reads them from stdin.",
        many=True,
        complete="party",
    ),
    AT,
)
@examples(
    "tb-cli wallet balance alice",
    "tb-cli wallet balance alice bob --json",
    "tb-cli wallet balance alice --at '2h ago'",
)
def balance(session: Session, owners: list[str], *, at: str | None) -> int:
    """What is locked is in escrows and bonds of its jobs and bids. Of several owners each is shown;
    --json has a list of them then. With --at it is what they had then, found by taking back what
    was posted since; what has been archived of that is an error.
    """
    from tb_cli.frame import several

    if at is None:
        return several.show(session, owners, "owner", _balance)
    from compute_market.settlement import past
    from tb_cli.frame.earlier import instant_before_now, told_from_when

    at_ms = instant_before_now(at, "--at")

    def then(txn: Txn, owner: str) -> list[dict[str, Any]]:
        _check_known(txn, owner)
        with told_from_when():
            return [past.balance_document(txn, owner, at_ms)]

    return several.show(session, owners, "owner", then)


def _check(owner: str, ct: int, it: int) -> None:
    check_id(owner, "owner")
    if ct == it == 0:
        raise UsageError("nothing to move", hint="give --ct, --it or both")


def _balance(txn: Txn, owner: str) -> list[dict[str, Any]]:
    _check_known(txn, owner)
    return [escrow.balance_document(txn, owner)]


def _check_known(txn: Txn, owner: str) -> None:
    if wallets.is_known(txn, owner):
        return
    from compute_market import parties  # Most owners have a wallet.

    parties.check_known(txn, owner)


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
