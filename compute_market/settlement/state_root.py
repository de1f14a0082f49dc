"""The state root: one hash that stands for the balances, the mode and the receipts of a market.

Two markets with the same root have the same money in the same hands. What passes with time alone,
the height, is no part of it, nor is who waits for what: offers, jobs, scores.
"""

from typing import Any, Final

from compute_market import chain
from compute_market.errors import ConflictError
from compute_market.settlement import modes, receipt_chain
from compute_market.signatures.signatures import framed
from compute_market.store.schema import ACCOUNTS, pack_sum, pack_u64
from compute_market.store.txn import Txn

CONTEXT: Final = "compute_market 2026-11 state root v1"


def root(txn: Txn) -> bytes:
    """The root, 32 bytes: BLAKE3 under `CONTEXT` of the parts below, each behind its length.

    Market id, mode, the height at which it turns real (8 bytes, empty if none), number and link of
    the last receipt, then key and balance (16 bytes, signed) of every account that is not empty, in
    the order of their keys.
    """
    from blake3 import blake3  # Arming imports this module, and only `--expect-root` hashes.

    state = modes.state(txn)
    seq, link = receipt_chain.head(txn)
    activate_at = b"" if state.activate_at is None else pack_u64(state.activate_at)
    hasher = blake3(derive_key_context=CONTEXT)
    market_id = chain.market_id(txn)
    hasher.update(framed(market_id, state.mode.encode(), activate_at, pack_u64(seq), link))
    for key, amount in txn.sums(ACCOUNTS).items():
        hasher.update(framed(key, pack_sum(amount)))
    return hasher.digest()


def document(txn: Txn) -> dict[str, Any]:
    """`state root`; `receipts` counts those that were ever issued."""
    seq, _ = receipt_chain.head(txn)
    mode = modes.state(txn).mode
    return {"root": root(txn).hex(), "receipts": seq, "height": chain.height(txn), "mode": mode}


def check(txn: Txn, expected: bytes) -> None:
    """Raise ConflictError (`state_moved`) unless the state still has the root it is expected to.

    In a change of the market that is the state after what is due: nothing that time brought about
    since somebody looked goes unseen.
    """
    found = root(txn)
    if found != expected:
        raise ConflictError(
            f"the state moved: its root is {found.hex()}, not {expected.hex()}",
            hint="`tb-cli tick` does what is due; then look at "
            "`tb-cli compute-market settle plan` again",
            reason="state_moved",
            root=found.hex(),
            expected=expected.hex(),
        )
