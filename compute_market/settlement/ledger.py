"""Double-entry accounts in two tokens. The only writer of accounts and postings.

An account is named `wallet/OWNER`, `escrow/JOB`, `bond/JOB/ROLE`, `bid/BID`, `supply` or `burned`,
and exists once per token. Every movement is one posting; a balance equals the sum
of its postings. Per token all balances sum to zero, and only `supply` is ever negative: it holds
minus what is in circulation.
"""

from itertools import islice
from typing import Any, Final, Literal

from compute_market import events
from compute_market.amounts import AMOUNT_MAX, checked
from compute_market.errors import InternalError, RefusedError
from compute_market.records import Posting, Token
from compute_market.store.schema import (
    ACCOUNTS,
    POSTINGS,
    POSTINGS_BEFORE,
    TAPS,
    WALLET_POSTINGS,
    id_prefix,
    pack_u64,
)
from compute_market.store.table import damaged
from compute_market.store.txn import Txn

SUPPLY = "supply"
BURNED = "burned"
TOKENS: tuple[Token, Token] = ("CT", "IT")
# Events of postings that no job is behind; they refer to a key, a bid, a bundle or an epoch.
OF_NO_JOB: Final = frozenset(
    (
        *("deposit", "withdraw", "bid:lock", "bid:release", "bid:slash"),
        *("import:settle", "courier:reward", "subsidy"),
    )
)

_WALLET = "wallet/"
_BID = "bid/"
_BEHIND = b"\xff" * 9  # sorts behind every seq


def wallet(owner: str) -> str:
    return _WALLET + owner


def is_wallet(account: str) -> bool:
    return account.startswith(_WALLET)


def listed_under(account: str) -> bytes:
    """What the keys of the postings of a wallet begin with; the number of each follows."""
    return id_prefix(account[len(_WALLET) :])


def escrow(job_id: str) -> str:
    return f"escrow/{job_id}"


def bond(job_id: str, role: Literal["buyer", "provider"]) -> str:
    return f"bond/{job_id}/{role}"


def bid_bond(bid_id: str) -> str:
    return f"{_BID}{bid_id}"


def is_bid_bond(account: str) -> bool:
    return account.startswith(_BID)


def balance(txn: Txn, account: str, token: Token) -> int:
    """The balance of an account; 0 for one that was never used."""
    return txn.sum(ACCOUNTS, _key(account, token))


def require(txn: Txn, account: str, token: Token, needed: int) -> None:
    """Raise RefusedError (`insufficient_funds`) unless the account holds `needed`."""
    available = balance(txn, account, token)
    if available < needed:
        kind, _, owner = account.partition("/")
        raise RefusedError(
            f"{kind} of {owner} has {available} {token}, {needed} {token} are needed",
            hint=f"tb-cli wallet deposit {owner} --{token.lower()} {needed - available}"
            if kind == "wallet" and needed <= AMOUNT_MAX
            else None,
            reason="insufficient_funds",
            owner=owner,
            token=token,
            needed=needed,
            available=available,
        )


def transfer(
    txn: Txn, token: Token, amount: int, debit: str, credit: str, event: str, ref: str
) -> None:
    """Move `amount` from `debit` to `credit` as one posting; an amount of zero is no movement.

    Raises RefusedError (`insufficient_funds`, `overflow`) before anything is written, and
    IntegrityError for an account of a job or a bid that holds less than it must.
    """
    if amount == 0:
        return
    if amount < 0 or debit == credit:
        raise InternalError(f"transfer of {amount} {token} from {debit} to {credit}")
    debit_key, credit_key = _key(debit, token), _key(credit, token)
    available = txn.sum(ACCOUNTS, debit_key)
    if available < amount and debit != SUPPLY:
        if not is_wallet(debit):  # What is held is there, for as long as nothing is damaged.
            problem = f"it holds {available} {token}, and {amount} are paid from it"
            raise damaged(ACCOUNTS.table, debit_key, problem)
        require(txn, debit, token, amount)
    reached = txn.sum(ACCOUNTS, credit_key) + amount
    if reached > AMOUNT_MAX or amount - available > AMOUNT_MAX:
        raise RefusedError(
            f"{credit} would hold {reached} {token}, more than {AMOUNT_MAX}", reason="overflow"
        )
    seq = txn.next_number("posting_seq")
    posting = Posting(seq, txn.now_ms, token, amount, debit, credit, event, ref)
    txn.write(POSTINGS, pack_u64(seq), posting)
    if is_wallet(debit):
        _follow(txn, debit, token, seq, available - amount, available)
    if is_wallet(credit):
        _follow(txn, credit, token, seq, reached - amount, reached)
        txn.helped = True
    txn.add(ACCOUNTS, debit_key, -amount)
    txn.add(ACCOUNTS, credit_key, amount)


def tap(
    txn: Txn,
    event: Literal["deposit", "withdraw"],
    owner: str,
    amounts: dict[Token, int],
    key: str | None,
) -> bool:
    """Deposit from the supply into a wallet, or withdraw back into it; the operator's devnet tap.

    With a `key`, the same call again changes nothing and returns False. Raises ConflictError when
    the key was used for another movement, RefusedError (`insufficient_funds`, `overflow`).
    """
    for token, amount in amounts.items():
        checked(amount, f"{token} amount")
    if key is not None:
        from compute_market import idempotency  # Most movements are none of an operator's.

        asked = {"owner": owner, "ct": amounts["CT"], "it": amounts["IT"]}
        if idempotency.find(txn, key, event, asked) is not None:
            return False
        from compute_market.keyed_records import Tap  # Few movements of money have a key.

        taken = Tap(key, event, owner, amounts["CT"], amounts["IT"], txn.now_ms)
    # Both tokens are checked before either moves.
    for token, amount in amounts.items():
        if event == "withdraw":
            require(txn, wallet(owner), token, amount)
        elif amount - balance(txn, SUPPLY, token) > AMOUNT_MAX:
            raise RefusedError(
                f"a deposit of {amount} {token} would put more than {AMOUNT_MAX} {token} into "
                "circulation",
                reason="overflow",
            )
    # After this point the movement must succeed.
    if key is not None:
        txn.write(TAPS, key.encode(), taken)
    ends = (SUPPLY, wallet(owner)) if event == "deposit" else (wallet(owner), SUPPLY)
    for token, amount in amounts.items():
        transfer(txn, token, amount, *ends, event, key or "")
    events.note(txn, event, owner=owner, ct=amounts["CT"], it=amounts["IT"], key=key)
    return True


def history(txn: Txn, owner: str, after: int, limit: int) -> list[Posting]:
    """At most `limit` postings that touch the owner's wallet, oldest first, after seq `after`.

    Raises IntegrityError when one of them is missing.
    """
    prefix = id_prefix(owner)
    entries = txn.collect(WALLET_POSTINGS, limit, prefix, prefix + pack_u64(after + 1))
    return [txn.must_read(POSTINGS, key[len(prefix) :]) for key, _ in entries]


def newest(txn: Txn, owner: str, limit: int) -> list[Posting]:
    """The last `limit` of `history`, newest first."""
    prefix = id_prefix(owner)
    found = []
    for key, _ in islice(txn.scan_back(WALLET_POSTINGS, prefix + _BEHIND), limit):
        if not key.startswith(prefix):
            break
        found.append(txn.must_read(POSTINGS, key[len(prefix) :]))
    return found


def openings(txn: Txn, owner: str) -> list[Posting]:
    """What archived postings have left in a wallet, as postings with the number 0."""
    from compute_market import archived  # Most commands import this module, and few need it.

    at_ms, account = txn.number(POSTINGS_BEFORE), wallet(owner)
    found = []
    for token in TOKENS:
        amount = archived.balance(txn, account, token)
        ends = (SUPPLY, account) if amount > 0 else (account, SUPPLY)
        if amount:
            found.append(Posting(0, at_ms, token, abs(amount), *ends, "opening", ""))
    return found


def balances(txn: Txn, token: Token) -> dict[str, int]:
    """Every account of a token that is not empty, with its balance."""
    prefix = _key("", token)
    found = txn.sums(ACCOUNTS, prefix)
    return {key[len(prefix) :].decode(): amount for key, amount in found.items()}


def held_in(txn: Txn, kind: str, token: Token) -> int:
    """What all accounts hold whose names begin with `kind`, such as `bid/`."""
    return sum(txn.sums(ACCOUNTS, _key(kind, token)).values())


def in_circulation(txn: Txn, token: Token) -> int:
    """What was paid into wallets and not out again, burned tokens included."""
    return -balance(txn, SUPPLY, token)


def posting_document(posting: Posting) -> dict[str, Any]:
    """The JSON form of a posting, field for field."""
    return {name: getattr(posting, name) for name in Posting.__struct_fields__}


def _follow(txn: Txn, account: str, token: Token, seq: int, low: int, high: int) -> None:
    """List a posting as one of a wallet's, which held from `low` to `high` meanwhile."""
    owner = account[len(_WALLET) :]
    txn.put(WALLET_POSTINGS, id_prefix(owner) + pack_u64(seq))
    if token == "CT":
        span = txn.touched.setdefault(owner, [low, high])
        if low < span[0]:
            span[0] = low
        if high > span[1]:
            span[1] = high


def _key(account: str, token: Token) -> bytes:
    return f"{token}\0{account}".encode()
