"""What receipts of another market must be to be taken; see `imports`, which writes."""

from compute_market import archived, chain
from compute_market.errors import ConflictError, IntegrityError, RefusedError
from compute_market.import_records import Origin
from compute_market.settlement import settlement
from compute_market.settlement.receipt_chain import link_digest
from compute_market.settlement.receipt_files import Exported, Verified
from compute_market.signatures import signatures
from compute_market.store.schema import (
    IMPORT_KEYS,
    IMPORTS,
    ORIGINS,
    RECEIPT_CHAIN,
    RECEIPTS_ARCHIVED,
    pack_u64,
)
from compute_market.store.table import encode
from compute_market.store.txn import Txn


def key_of(market_id: bytes, seq: int) -> bytes:
    """The key of an imported receipt."""
    return market_id + pack_u64(seq)


def check_key(txn: Txn, file: Verified) -> None:
    """Whether a file is signed by whom its market's receipts are taken from."""
    key_id, trusted = signatures.key_id(file.public_key), txn.config.net_trusted
    if key_id.hex() not in trusted:
        listed = ", ".join(f'"{each}"' for each in (*trusted, key_id.hex()))
        raise RefusedError(
            f"the receipts of market {file.market_id.hex()} are signed by key {key_id.hex()}, "
            "which is not trusted",
            hint=f"if you trust it, let [net] in config.toml have the line: trusted = [{listed}]",
            reason="untrusted_key",
            key_id=key_id.hex(),
        )
    origin = txn.read(ORIGINS, file.market_id)
    if origin is not None and origin.key_id != key_id and origin.key_id.hex() in trusted:
        raise RefusedError(
            f"the receipts of market {file.market_id.hex()} were signed by key "
            f"{origin.key_id.hex()} so far, and this file is by key {key_id.hex()}",
            hint="if the market has a new key, take the old one out of `trusted`",
            reason="another_key",
            key_id=key_id.hex(),
        )


def check_own(txn: Txn, file: Verified, each: Exported) -> None:
    """Whether a receipt that this market has exported is on its chain.

    Of one that was archived it is known that its key is taken; the links of the file lead from it
    to those that are kept.
    """
    link = txn.read(RECEIPT_CHAIN, pack_u64(each.seq))
    if link is None and each.seq < txn.number(RECEIPTS_ARCHIVED):
        left = archived.receipt(txn, each.receipt.idempotency_key)
        if left is not None and archived.is_same(left, each.receipt):
            return
    if link is None or link.digest != each.link:
        raise fork(file, each.seq)


def check_next(txn: Txn, file: Verified, each: Exported, from_link: bytes | None) -> Origin:
    """Whether a receipt is the next one of its market; the origin up to the one before it."""
    market = file.market_id.hex()
    origin = txn.read(ORIGINS, file.market_id)
    if origin is None:
        if each.seq > 1 and from_link != file.from_link:
            raise RefusedError(
                f"the first file of market {market} begins with receipt {each.seq}: receipts "
                f"1 to {each.seq - 1} are missing",
                hint="import those first, or say with --from-link which link it begins behind",
                reason="gap",
            )
        before = file.from_seq - 1
        origin = Origin(b"", file.from_seq, file.from_link, before, file.from_link)
    if each.seq < origin.from_seq:
        raise RefusedError(
            f"receipts of market {market} are taken from {origin.from_seq} on, not {each.seq}",
            hint=f"have it exported again --from {origin.from_seq}",
            reason="before_first",
        )
    if each.seq > origin.to_seq + 1:
        raise RefusedError(
            f"receipts {origin.to_seq + 1} to {each.seq - 1} of market {market} are missing",
            hint=f"import those first, or have it exported again --from {origin.to_seq + 1}",
            reason="gap",
        )
    if link_digest(each.seq, origin.to_link, encode(each.receipt)) != each.link:
        raise fork(file, each.seq)
    if each.receipt.buyer == each.receipt.provider:
        raise RefusedError(
            f"receipt {each.seq} of market {market}: {each.receipt.buyer} is buyer and provider",
            reason="self_deal",
        )
    return origin


def is_held(txn: Txn, file: Verified, each: Exported) -> bool:
    """Whether a receipt with that key, own or imported, is held already.

    With the same ids all else that the key is made of is the same too. Raises ConflictError
    (`key_collision`) for other ids.
    """
    receipt = each.receipt
    left = archived.receipt(txn, receipt.idempotency_key)
    if left is not None:
        if not archived.is_same(left, receipt):
            raise _collision(file, each, "a job that was archived")
        return True
    place = txn.get(IMPORT_KEYS, receipt.idempotency_key)
    holder = (
        settlement.of(txn, receipt.idempotency_key)
        if place is None
        else txn.must_read(IMPORTS, place).receipt
    )
    if holder is None:
        return False
    ids = holder.job_id, holder.buyer, holder.provider
    if ids != (receipt.job_id, receipt.buyer, receipt.provider):
        raise _collision(file, each, f"job {holder.job_id}")
    return True


def is_own(txn: Txn, key: bytes) -> bool:
    """Whether a key is that of a receipt of this market, kept or archived."""
    return settlement.of(txn, key) is not None or archived.receipt(txn, key) is not None


def unpaid_holder(txn: Txn, file: Verified, each: Exported) -> str | None:
    """The other market, in hex, that holds the key of a duplicate and was not paid for it.

    An own receipt that waits for the mode will be paid from its escrow; a recorded one never is.
    """
    place = txn.get(IMPORT_KEYS, each.receipt.idempotency_key)
    if place is None:
        own = settlement.of(txn, each.receipt.idempotency_key)
        left = archived.receipt(txn, each.receipt.idempotency_key)
        is_paid = left.is_applied if left else own is None or own.status != "recorded"
        market_id = chain.market_id(txn)
    else:
        is_paid = txn.must_read(IMPORTS, place).status == "applied"
        market_id = place[:-8]
    return None if is_paid or market_id == file.market_id else market_id.hex()


def _collision(file: Verified, each: Exported, holder: str) -> ConflictError:
    return ConflictError(
        f"receipt {each.seq} of market {file.market_id.hex()}, of job {each.receipt.job_id}, has "
        f"the key of the receipt of {holder}",
        reason="key_collision",
    )


def fork(file: Verified, seq: int) -> IntegrityError:
    return IntegrityError(
        f"receipt {seq} of market {file.market_id.hex()} is not on the chain that is held here: "
        "there are two",
        hint="its market or this one may be a restored backup; ask its operator which chain is "
        "true: nothing of the other is taken",
        reason="fork",
    )
