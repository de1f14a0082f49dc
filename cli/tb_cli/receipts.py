"""The verb that shows receipts. `receipt_list` has the one that lists them."""

from typing import Any

from compute_market import archived
from compute_market.errors import NotFoundError
from compute_market.jobs import jobs
from compute_market.settlement import receipts, settlement
from compute_market.store.txn import Txn
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, takes


@takes(
    argument(
        "targets",
        "JOB|KEY…",
        "Job ids or keys in hex; - reads them from stdin.",
        many=True,
        complete="any job",
    )
)
def show(session: Session, targets: list[str]) -> int:
    """A job that was handed over has one for each provider. The key is the idempotency key. Of
    several jobs or keys the receipts of each are shown; --json has a list of them then.
    """
    from tb_cli.frame import several

    return several.show(session, targets, "job id or key", _find)


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
