"""Verbs on receipts: list, show."""

from itertools import chain, islice
from typing import Any

from compute_market import archived
from compute_market.errors import NotFoundError
from compute_market.jobs import jobs
from compute_market.settlement import receipts, settlement
from compute_market.store.txn import Txn
from tb_cli.frame.options import JSONL, LIMIT, check_given
from tb_cli.frame.render import Listing, note
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, flag, option, takes

_COLUMNS = ("seq", "job_id", "provider", "units", "quote_price", "status", "idempotency_key")
_IMPORTED = ("market_id", *_COLUMNS, "reason")


@takes(
    option("--job", "Only of this job.", complete="any job"),
    flag("--imported", help="Those of other markets, by market."),
    LIMIT,
    JSONL,
)
def list_(
    session: Session, *, job: str | None, imported: bool, limit: int | None, jsonl: bool
) -> None:
    check_given("--job", job)
    listing = Listing(session, _IMPORTED if imported else _COLUMNS, jsonl=jsonl)
    damaged = False
    found = chain.from_iterable(
        session.pages(_imported_page, None) if imported else session.pages(_page, 0)
    )
    wanted = (d for d in found if d is None or job in (None, d["job_id"]))
    for document in islice(wanted, limit):
        if document is None:
            damaged = True
        else:
            listing.add(document)
    listing.end()
    if damaged:
        note("warning: damaged receipts are left out; `tb-cli compute-market audit` names them")


@takes(
    argument("targets", "JOB|KEY…", "Job ids or keys in hex; - reads them from stdin.", many=True)
)
def show(session: Session, targets: list[str]) -> int:
    """A job that was handed over has one for each provider. The key is the idempotency key. Of
    several jobs or keys the receipts of each are shown; --json has a list of them then.
    """
    from tb_cli.frame import several

    return several.show(session, targets, "job id or key", _find)


def _page(txn: Txn, after: int, size: int) -> tuple[list[dict[str, Any] | None], int | None]:
    """A page of receipts, None for each that is damaged or in quarantine."""
    found: list[dict[str, Any] | None] = []
    last, looked_at = after, 0
    for seq, key, receipt in receipts.page(txn, after, size):
        looked_at += 1
        last = seq
        settled = settlement.of(txn, key)
        if receipt is not None and settled is not None:
            found.append(receipts.document(receipt, settled))
        elif archived.receipt(txn, key) is None:
            found.append(None)
    return found, last if looked_at == size else None


def _imported_page(
    txn: Txn, after: bytes | None, size: int
) -> tuple[list[dict[str, Any] | None], bytes | None]:
    from compute_market.settlement import imports  # It brings signatures, which few lists need.

    found, last = imports.page(txn, after, size)
    return [*found], last


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
