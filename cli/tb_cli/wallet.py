"""Verbs on wallets: deposit, withdraw, balance, history."""

from itertools import chain, islice
from typing import Annotated, Any, Literal

import typer

from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import UsageError
from compute_market.jobs import jobs
from compute_market.records import Posting, check_id
from compute_market.settlement import ledger
from compute_market.store.store import Txn
from tb_cli.frame import options
from tb_cli.frame.render import Listing, emit, fields
from tb_cli.frame.session import Session

_PAGE = 1000

Owner = Annotated[str, typer.Argument(metavar="OWNER", help="Whose wallet.")]
Ct = Annotated[int, typer.Option(min=0, max=AMOUNT_MAX, help="Amount in CT.")]
It = Annotated[int, typer.Option(min=0, max=AMOUNT_MAX, help="Amount in IT.")]
Key = Annotated[
    str | None, typer.Option(metavar="K", help="Idempotency key: the same call again does nothing.")
]


def deposit(ctx: typer.Context, owner: Owner, ct: Ct = 0, it: It = 0, key: Key = None) -> None:
    """Pay into a wallet from the supply; the operator's tap on a devnet."""
    _tap(ctx, "deposit", owner, ct, it, key)


def withdraw(ctx: typer.Context, owner: Owner, ct: Ct = 0, it: It = 0, key: Key = None) -> None:
    """Pay out of a wallet into the supply."""
    _tap(ctx, "withdraw", owner, ct, it, key)


def balance(ctx: typer.Context, owner: Owner) -> None:
    """Show what a party has, and what is locked in escrows and bonds of its jobs."""
    session = Session.of(ctx)
    check_id(owner, "owner")
    document = session.view(lambda txn: jobs.balance_document(txn, owner))
    emit(session, document, fields(document))


def history(
    ctx: typer.Context, owner: Owner, limit: options.Limit = None, jsonl: options.Jsonl = False
) -> None:
    """List the movements of a wallet, the oldest first."""
    session = Session.of(ctx)
    check_id(owner, "owner")
    columns = ("seq", "at_ms", "token", "amount", "debit", "credit", "event", "ref")
    listing = Listing(session, columns, jsonl=jsonl)

    def page(txn: Txn, after: int) -> tuple[list[Posting], int | None]:
        found = ledger.history(txn, owner, after, _PAGE)
        return found, found[-1].seq if len(found) == _PAGE else None

    for posting in islice(chain.from_iterable(session.pages(page, 0)), limit):
        listing.add(ledger.posting_document(posting))
    listing.end()


def _tap(
    ctx: typer.Context,
    event: Literal["deposit", "withdraw"],
    owner: str,
    ct: int,
    it: int,
    key: str | None,
) -> None:
    session = Session.of(ctx)
    check_id(owner, "owner")
    if key is not None:
        check_id(key, "key")
    if ct == it == 0:
        raise UsageError("nothing to move", hint="give --ct, --it or both")

    def act(txn: Txn) -> dict[str, Any]:
        changed = ledger.tap(txn, event, owner, {"CT": ct, "IT": it}, key)
        return jobs.balance_document(txn, owner) | {"changed": changed}

    document = session.update(act)
    verb = "deposited" if event == "deposit" else "withdrew"
    text = f"{verb} {ct} CT {it} IT" if document["changed"] else f"key {key} was used: unchanged"
    emit(session, document, f"{text}; {owner} has {document['ct']} CT {document['it']} IT")
