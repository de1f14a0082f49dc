"""Statements of a wallet: what it had, what came and went in between, what it has then.

A statement has an opening balance, lines and a closing balance, which is the opening one and what
the lines say. A line is one posting, or all of a job, of a day or of one kind of event.
"""

from collections.abc import Callable
from typing import Any, Final

from compute_market.records import Posting, Token
from compute_market.settlement import ledger
from compute_market.settlement.past import Span
from compute_market.store.txn import Txn

# What lines may be made of beside single postings.
GROUPINGS: Final = ("job", "day", "event")

Amounts = dict[Token, int]


def has_now(txn: Txn, owner: str) -> Amounts:
    """What is in a wallet."""
    account = ledger.wallet(owner)
    return {token: ledger.balance(txn, account, token) for token in ledger.TOKENS}


def archived(txn: Txn, owner: str) -> Amounts:
    """What the archived postings of a wallet come to."""
    found: Amounts = dict.fromkeys(ledger.TOKENS, 0)
    for opening in ledger.openings(txn, owner):
        found[opening.token] += signed(opening, owner)
    return found


def signed(posting: Posting, owner: str) -> int:
    """By how much a posting of a wallet changed it; negative if it paid."""
    return posting.amount if posting.credit == ledger.wallet(owner) else -posting.amount


def head(
    owner: str, since_ms: int | None, until_ms: int | None, within: Span, opening: Amounts
) -> dict[str, Any]:
    """What a statement begins with. With `archived_before_ms`, postings from before that instant
    may have been archived: what they came to is in the opening balance."""
    return {
        "owner": owner,
        "since_ms": since_ms,
        "until_ms": until_ms,
        "archived_before_ms": within.archived_ms or None,
        "opening": amounts_document(opening),
    }


def amounts_document(amounts: Amounts) -> dict[str, int]:
    return {token.lower(): amounts[token] for token in ledger.TOKENS}


class Lines:
    """The lines of a statement, made of postings in their order.

    `by` is one of `GROUPINGS`, or None for single postings. `day_of` names the day of an instant,
    as it depends on where one lives.
    """

    def __init__(
        self, owner: str, opening: Amounts, by: str | None, day_of: Callable[[int], str]
    ) -> None:
        self._owner = owner
        self._by = by
        self._day_of = day_of
        self._groups: dict[tuple[str | None, ...], dict[str, Any]] = {}
        self.balance: Amounts = dict(opening)  # after what was taken in

    def take(self, posting: Posting) -> dict[str, Any] | None:
        """Take in one posting; its own line, if it has one."""
        amount = signed(posting, self._owner)
        self.balance[posting.token] += amount
        if self._by is not None:
            self._add(posting, amount)
            return None
        moved: Amounts = dict.fromkeys(ledger.TOKENS, 0)
        moved[posting.token] = amount
        return {
            "seq": posting.seq,
            "at_ms": posting.at_ms,
            "event": posting.event,
            "ref": posting.ref,
            **amounts_document(moved),
            "balance_ct": self.balance["CT"],
            "balance_it": self.balance["IT"],
        }

    def groups(self) -> list[dict[str, Any]]:
        """The lines of postings taken together, in the order of the first of each."""
        return list(self._groups.values())

    def _add(self, posting: Posting, amount: int) -> None:
        names = self._names(posting)
        key = tuple(names.values())
        line = self._groups.get(key)
        if line is None:
            line = self._groups[key] = {
                **names,
                "movements": 0,
                "first_ms": posting.at_ms,
                "last_ms": posting.at_ms,
                "received_ct": 0,
                "received_it": 0,
                "spent_ct": 0,
                "spent_it": 0,
                "ct": 0,
                "it": 0,
            }
        token = posting.token.lower()
        line["movements"] += 1
        line["last_ms"] = posting.at_ms
        line[f"received_{token}" if amount > 0 else f"spent_{token}"] += abs(amount)
        line[token] += amount

    def _names(self, posting: Posting) -> dict[str, str | None]:
        """What tells one group from the others."""
        if self._by == "day":
            return {"day": self._day_of(posting.at_ms)}
        if self._by == "event":
            return {"event": posting.event}
        is_of_job = posting.event not in ledger.OF_NO_JOB
        return {
            "job_id": posting.ref if is_of_job else None,
            "event": None if is_of_job else posting.event,
        }
