"""The settlement mode, and the payment of receipts. Only `real` moves money out of an escrow."""

from typing import Any, NamedTuple

from compute_market import chain, metrics
from compute_market.amounts import AMOUNT_MAX, payment
from compute_market.config.settings import Config
from compute_market.errors import RefusedError
from compute_market.records import Job, Mode, Receipt, Settlement, SettleState, Token, replace
from compute_market.settlement import ledger
from compute_market.store.schema import pack_u64
from compute_market.store.store import Txn

_KEY = b"mode"


def state(txn: Txn, config: Config) -> SettleState:
    """The stored mode; the configuration seeds a store that has none yet."""
    stored: SettleState | None = txn.read("settle_state", _KEY)
    return SettleState(config.settle_mode) if stored is None else stored


def is_real(txn: Txn, config: Config) -> bool:
    return state(txn, config).mode == "real"


def is_due(txn: Txn, config: Config) -> bool:
    """Whether an armed mode has reached its height, or receipts wait although the mode is real."""
    present = state(txn, config)
    if present.mode == "armed":
        return chain.height(txn, config) >= (present.activate_at or 0)
    return present.mode == "real" and txn.size("unsettled") > 0


def activate(txn: Txn, config: Config) -> bool:
    """Keep the seeded mode, and turn an armed one real once its height is reached."""
    present = state(txn, config)
    if txn.get("settle_state", _KEY) is None:
        txn.write("settle_state", _KEY, present)
    if present.mode == "armed" and chain.height(txn, config) >= (present.activate_at or 0):
        _change(txn, SettleState("real"))
        return True
    return False


def arm(txn: Txn, config: Config, delay_blocks: int) -> SettleState:
    """Turn real `delay_blocks` from now. Raises RefusedError unless the mode is dry_run."""
    present = state(txn, config)
    if present.mode != "dry_run":
        raise RefusedError(
            f"the mode is {present.mode}, only dry_run can be armed",
            hint="tb-cli compute-market settle cancel-arm" if present.mode == "armed" else None,
            reason="mode",
        )
    height = chain.height(txn, config) + delay_blocks
    if height > AMOUNT_MAX:
        raise RefusedError(f"height {height} is past {AMOUNT_MAX}", reason="overflow")
    return _change(txn, SettleState("armed", activate_at=height))


def cancel_arm(txn: Txn, config: Config) -> SettleState:
    """Back to dry_run. Raises RefusedError unless the mode is armed."""
    present = state(txn, config)
    if present.mode != "armed":
        raise RefusedError(f"the mode is {present.mode}, nothing is armed", reason="mode")
    return _change(txn, SettleState("dry_run", reason="arming cancelled"))


def to_dry_run(txn: Txn, config: Config, reason: str) -> tuple[SettleState, bool]:
    """Stop moving money. Returns the state and whether it changed."""
    present = state(txn, config)
    if present.mode == "dry_run":
        return present, False
    return _change(txn, SettleState("dry_run", reason=reason)), True


def settle(txn: Txn, config: Config, job: Job, receipt: Receipt) -> Settlement:
    """Decide what becomes of a new receipt, and pay it at once when the mode is real.

    The receipt of a job that was not funded never moves money. A key that was paid before is not
    paid again, even if its receipt was lost to damage since.
    """
    before = of(txn, receipt.idempotency_key)
    if before is not None:
        return before
    ct, it = payment(0, receipt.quote_price * receipt.units, job.fee_pct_ct)
    if receipt.dry_run:
        settlement = Settlement("recorded", ct, it)
    elif is_real(txn, config):
        settlement = _pay(txn, job, Settlement("pending", ct, it))
    else:
        settlement = Settlement("pending", ct, it)
        # With the job's id: what is due is paid even if the receipt is lost to damage meanwhile.
        txn.put("unsettled", pack_u64(receipt.seq), receipt.idempotency_key + job.job_id.encode())
    txn.write("settlements", receipt.idempotency_key, settlement)
    return settlement


class Waiting(NamedTuple):
    """A receipt that waits to be paid."""

    seq: int
    key: bytes
    job_id: str


def apply_pending(txn: Txn, waiting: Waiting, job: Job) -> Settlement:
    """Pay one receipt that waited for the mode to be real."""
    due: Settlement = txn.read("settlements", waiting.key)
    settlement = _pay(txn, job, due)
    txn.write("settlements", waiting.key, settlement)
    txn.delete("unsettled", pack_u64(waiting.seq))
    return settlement


def pending(txn: Txn) -> list[Waiting]:
    """Receipts that wait to be paid, in order of issue."""
    return [
        Waiting(int.from_bytes(seq, "big"), value[:32], value[32:].decode())
        for seq, value in txn.scan("unsettled")
    ]


def of(txn: Txn, key: bytes) -> Settlement | None:
    settlement: Settlement | None = txn.read("settlements", key)
    return settlement


def document(txn: Txn, config: Config) -> dict[str, Any]:
    """`settle status`."""
    present = state(txn, config)
    found: dict[str, Any] = {"mode": present.mode, "height": chain.height(txn, config)}
    if present.activate_at is not None:
        found["activate_at"] = present.activate_at
    if present.reason is not None:
        found["reason"] = present.reason
    return found | {
        "pending": txn.size("unsettled"),
        "applied": metrics.value(txn, "settle_applied_total"),
        "failed": 0,
    }


def _pay(txn: Txn, job: Job, due: Settlement) -> Settlement:
    ends = ledger.escrow(job.job_id), ledger.wallet(job.provider or "")
    amounts: tuple[tuple[Token, int], ...] = (("CT", due.ct), ("IT", due.it))
    for token, amount in amounts:
        ledger.transfer(txn, token, amount, *ends, "settle", job.job_id)
        metrics.count(txn, "compute_market_fee_split", token.lower(), "paid", by=amount)
    metrics.count(txn, "settle_applied_total")
    return replace(due, status="applied", applied_ms=txn.now_ms)


def _change(txn: Txn, to: SettleState) -> SettleState:
    txn.write("settle_state", _KEY, to)
    mode: Mode = to.mode
    metrics.count(txn, "settle_mode_change_total", mode)
    return to
