"""The settlement mode: whether money moves. The only writer of its table."""

from typing import Any

from compute_market import chain, events, metrics
from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import RefusedError
from compute_market.records import SettleState
from compute_market.store.schema import SETTLE_STATE, UNSETTLED
from compute_market.store.txn import Txn

_KEY = b"mode"


def state(txn: Txn) -> SettleState:
    """The stored mode; the configuration seeds a store that has none yet."""
    stored = txn.read(SETTLE_STATE, _KEY)
    return SettleState(txn.config.settle_mode) if stored is None else stored


def is_real(txn: Txn) -> bool:
    return state(txn).mode == "real"


def is_due(txn: Txn) -> bool:
    """Whether an armed mode has reached its height."""
    return state(txn).mode == "armed" and is_real_by(txn, chain.height(txn))


def is_real_by(txn: Txn, height: int) -> bool:
    """Whether the mode is real once a height is reached, though nobody may have turned it yet."""
    present = state(txn)
    if present.mode == "armed":
        return height >= (present.activate_at or 0)
    return present.mode == "real"


def seed(txn: Txn) -> SettleState:
    """The stored mode; a store that has none yet keeps what the configuration says."""
    stored = txn.read(SETTLE_STATE, _KEY)
    if stored is None:
        stored = state(txn)
        txn.write(SETTLE_STATE, _KEY, stored)
    return stored


def activate(txn: Txn) -> bool:
    """Turn an armed mode real once its height is reached."""
    if not is_due(txn):
        return False
    _change(txn, SettleState("real"))
    return True


def check_can_be_armed(txn: Txn) -> None:
    """Raise RefusedError (`mode`) unless the mode is dry_run."""
    present = state(txn)
    if present.mode != "dry_run":
        raise RefusedError(
            f"the mode is {present.mode}, only dry_run can be armed",
            hint="tb-cli compute-market settle cancel-arm" if present.mode == "armed" else None,
            reason="mode",
        )


def arm(txn: Txn, delay_blocks: int) -> SettleState:
    """Turn real `delay_blocks` from now. Raises RefusedError unless the mode is dry_run."""
    check_can_be_armed(txn)
    height = chain.height(txn) + delay_blocks
    if height > AMOUNT_MAX:
        raise RefusedError(f"height {height} is past {AMOUNT_MAX}", reason="overflow")
    return _change(txn, SettleState("armed", activate_at=height))


def cancel_arm(txn: Txn) -> SettleState:
    """Back to dry_run. Raises RefusedError unless the mode is armed."""
    present = state(txn)
    if present.mode != "armed":
        raise RefusedError(
            f"the mode is {present.mode}, nothing is armed",
            hint="`tb-cli compute-market settle status` shows the mode",
            reason="mode",
        )
    return _change(txn, SettleState("dry_run", reason="arming cancelled"))


def to_dry_run(txn: Txn, reason: str) -> tuple[SettleState, bool]:
    """Stop moving money. Returns the state and whether it changed."""
    present = state(txn)
    if present.mode == "dry_run":
        return present, False
    return _change(txn, SettleState("dry_run", reason=reason)), True


def document(txn: Txn) -> dict[str, Any]:
    """`settle status`. `due` marks an armed mode past its height: the next change turns it real."""
    present = state(txn)
    found: dict[str, Any] = {"mode": present.mode, "height": chain.height(txn)}
    if present.activate_at is not None:
        found["activate_at"] = present.activate_at
    if present.reason is not None:
        found["reason"] = present.reason
    return found | {
        "due": is_due(txn),
        "pending": txn.size(UNSETTLED),
        "applied": metrics.value(txn, "settle_applied_total"),
        "failed": sum(failed for _, failed in metrics.series(txn, "settle_failed_total")),
    }


def _change(txn: Txn, to: SettleState) -> SettleState:
    txn.write(SETTLE_STATE, _KEY, to)
    txn.helped = True
    metrics.count(txn, "settle_mode_change_total", to.mode)
    events.note(txn, "mode_changed", to=to.mode, activate_at=to.activate_at, reason=to.reason)
    return to
