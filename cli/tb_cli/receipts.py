"""The verb that shows receipts. `receipt_list` has the one that lists them."""

from typing import Any

from compute_market import archived
from compute_market.errors import NotFoundError
from compute_market.jobs import jobs
from compute_market.records import check_id
from compute_market.settlement import receipts, settlement
from compute_market.store.txn import Txn
from tb_cli.frame.render import emit, fields
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, takes


@takes(argument("target", "JOB|KEY", "A job id or a key in hex."))
def show(session: Session, target: str) -> None:
    """A job that was handed over has one for each provider. The key is the idempotency key."""
    check_id(target, "job id or key")
    found = session.view(lambda txn: _find(txn, target))
    lines = [line for document in found for line in fields(document)]
    emit(session, found[0] if len(found) == 1 else found, lines)


def _find(txn: Txn, target: str) -> list[dict[str, Any]]:
    key = _key(target)
    keys = [] if key is None or receipts.find(txn, key) is None else [key]
    if not keys and (job := jobs.find(txn, target)) is not None:
        keys = [
            key
            for placement in jobs.placements(txn, job)
            if (key := receipts.key_of_placement(job, placement)) is not None
        ]
    found = []
    for key in keys:
        receipt, settled = receipts.find(txn, key), settlement.of(txn, key)
        if receipt is not None and settled is not None:
            found.append(receipts.document(receipt, settled))
    if not found and (
        archived.job(txn, target) or (key is not None and archived.receipt(txn, key))
    ):
        raise NotFoundError(
            f"the receipts of {target} have been archived",
            hint="they are in an archive; `tb-cli state info` names them",
            reason="archived",
        )
    if not found:
        raise NotFoundError(
            f"there is no receipt of {target}", hint="see `tb-cli compute-market receipts list`"
        )
    return found


def _key(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text) if len(text) == 64 else None
    except ValueError:
        return None
