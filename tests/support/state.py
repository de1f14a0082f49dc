"""What tests compare before and after, and what they do to a market beside its verbs."""

from typing import Any

from compute_market.admission import capacity
from compute_market.offers import standing
from compute_market.receipt_records import Receipt
from compute_market.settlement import ledger, receipts
from compute_market.store.rewriting import stored_entries
from compute_market.store.schema import TABLES
from compute_market.store.table import Sums, Table
from compute_market.store.txn import Txn
from tests.support.market import Market


def command(market: Market) -> None:
    """A change of the market that does what is due and nothing else."""
    market.update(lambda txn: None)


def contents(market: Market, *left_out: Table[Any] | Sums) -> dict[str, list[tuple[bytes, bytes]]]:
    """Every byte of the store, by table."""
    without = {each.table if isinstance(each, Sums) else each for each in left_out}
    return market.view(
        lambda txn: {
            table.name: list(stored_entries(txn, table)) for table in TABLES if table not in without
        }
    )


def balances(market: Market) -> dict[str, int]:
    """Every account that is not empty: `wallet/prov CT` → balance; supply and burned included."""

    def read(txn: Txn) -> dict[str, int]:
        return {
            f"{account} {token}": amount
            for token in ledger.TOKENS
            for account, amount in ledger.balances(txn, token).items()
        }

    return market.view(read)


def put_payload(txn: Txn, table: Table[Any], key: bytes, payload: bytes) -> None:
    """Store what no action would, under a checksum that fits."""
    txn.put(table, key, payload)


def put_raw(txn: Txn, table: Table[Any], key: bytes, value: bytes) -> None:
    """Store bytes as they are, checksum included: what a flipped bit of a disk leaves behind."""
    txn._txn.put(key, value, db=txn._handles[table])


def receipts_of(market: Market, job_id: str = "job") -> list[Receipt]:
    """The receipts of a job, in order of issue."""

    def read(txn: Txn) -> list[Receipt]:
        found = [receipt for _, _, receipt in receipts.page(txn, 0, 10**6) if receipt is not None]
        return [receipt for receipt in found if receipt.job_id == job_id]

    return market.view(read)


def receipt_of(market: Market, job_id: str = "job") -> Receipt | None:
    """The one receipt of a job, None without one."""
    found = receipts_of(market, job_id)
    assert len(found) < 2, f"job {job_id} has {len(found)} receipts"
    return found[0] if found else None


def states(market: Market, *job_ids: str) -> list[str]:
    return [market.job(job_id).state for job_id in job_ids]


def withdraw(market: Market, owner: str, ct: int = 0, it: int = 0) -> None:
    market.update(lambda txn: ledger.tap(txn, "withdraw", owner, {"CT": ct, "IT": it}, None))


def record_capacity(market: Market, units: int) -> None:
    """Record samples until nothing else counts."""
    for _ in range(capacity.SAMPLES_KEPT):
        market.update(lambda txn: capacity.record(txn, units))


def improve_standing(market: Market) -> None:
    market.update(lambda txn: standing.record_outcome(txn, "prov", +1))


def three_receipts(market: Market) -> None:
    """Three jobs, a second apart, each with its receipt."""
    market.post()
    for n in range(3):
        market.submit(f"job-{n}")
        market.prove(f"job-{n}")
        market.advance(1)
