"""Receipts out of the store, for a file that verifies anywhere; see `receipt_files`."""

from compute_market import chain
from compute_market.errors import IntegrityError, NotFoundError, UsageError
from compute_market.settlement import modes, receipt_chain, receipts, state_root
from compute_market.settlement.receipt_chain import link_digest
from compute_market.settlement.receipt_files import Exported, Section
from compute_market.store.schema import RECEIPT_CHAIN, RECEIPTS_ARCHIVED, pack_u64
from compute_market.store.table import encode
from compute_market.store.txn import Txn


def section(txn: Txn, from_seq: int | None = None, to_seq: int | None = None) -> Section:
    """What is exported: receipts from one number to another, both included, and the state now.

    Without `from_seq` from the first that the chain still has, without `to_seq` up to the last;
    none when that is the one before. Receipts never change, so they may be read in transactions
    that come later. Raises NotFoundError for one that was not issued yet or has been archived,
    UsageError when the end comes before the beginning.
    """
    archived = txn.number(RECEIPTS_ARCHIVED)
    if from_seq is None:
        from_seq = archived + 1
    if from_seq <= archived:
        raise NotFoundError(
            f"receipts up to {archived} have been archived",
            hint=f"begin with --from {archived + 1}; `tb-cli state info` names the archives",
            reason="archived",
        )
    head, _ = receipt_chain.head(txn)
    end = head if to_seq is None else to_seq
    if to_seq is not None and to_seq < from_seq:
        raise UsageError(f"receipt {to_seq} comes before receipt {from_seq}")
    if max(from_seq - 1, end) > head:
        last = f"the last one is {head}" if head else "there is none yet"
        raise NotFoundError(f"there is no receipt {max(from_seq, end)}: {last}")
    return Section(
        market_id=chain.market_id(txn),
        from_seq=from_seq,
        from_link=receipt_chain.digest(txn, from_seq - 1),
        to_seq=end,
        to_link=receipt_chain.digest(txn, end),
        mode=modes.state(txn).mode,
        height=chain.height(txn),
        state_root=state_root.root(txn),
    )


def page(txn: Txn, of: Section, after: Exported | None, limit: int) -> list[Exported]:
    """At most `limit` receipts of a section, from behind `after` on, empty at its end.

    Raises IntegrityError naming one that is damaged, missing or in quarantine, or that is not what
    its link says: no file is made of a chain that would not verify.
    """
    seq, link = (of.from_seq - 1, of.from_link) if after is None else (after.seq, after.link)
    found = []
    for seq_key, payload in txn.collect(
        RECEIPT_CHAIN, min(limit, of.to_seq - seq), start=pack_u64(seq + 1)
    ):
        seq += 1
        stored = RECEIPT_CHAIN.decode(seq_key, payload)
        try:
            receipt = receipts.find(txn, stored.key)
        except IntegrityError as error:
            raise _not_exported(seq, "it is damaged") from error
        if receipt is None:
            raise _not_exported(seq, "it is missing, in quarantine or archived")
        if seq_key != pack_u64(seq) or link_digest(seq, link, encode(receipt)) != stored.digest:
            raise _not_exported(seq, "it is not what the chain says")
        link = stored.digest
        found.append(Exported(seq, link, receipt))
    if not found and seq != of.to_seq:
        raise _not_exported(seq + 1, "it is missing")
    return found


def _not_exported(seq: int, problem: str) -> IntegrityError:
    return IntegrityError(
        f"receipt {seq} cannot be exported: {problem}",
        hint="`tb-cli compute-market audit` tells all that is wrong; a range may leave it out",
        table="receipts",
        seq=seq,
    )
