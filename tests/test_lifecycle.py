"""The life of a job: submit, match, prove, cancel, expire; what each costs whom."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from msgspec.structs import fields

from compute_market import admission, ledger, lifecycle, metrics, offers, receipts, reputation
from compute_market.amounts import AMOUNT_MAX, UNIT_BYTES, split
from compute_market.errors import (
    AlreadyDoneError,
    ConflictError,
    MarketError,
    NotFoundError,
    RefusedError,
    UsageError,
)
from compute_market.lifecycle import InvalidProof, Proven, Submitted
from compute_market.records import Receipt, Refused, Slice, replace
from compute_market.requests import JobRequest
from compute_market.store import TABLES, Txn
from tests.conftest import DIGEST, Market, slice_of

WRONG = bytes(32)


def command(market: Market) -> None:
    market.update(lambda txn: None)


def score(market: Market, provider: str = "prov") -> int:
    return market.view(lambda txn: reputation.score(txn, provider))


def holdings(market: Market) -> dict[str, int]:
    """Every account that is not empty: `wallet/prov CT` → balance; supply and burned included."""

    def read(txn: Txn) -> dict[str, int]:
        return {
            f"{account} {token}": amount
            for token in ledger.TOKENS
            for account, amount in ledger.balances(txn, token)
        }

    return market.view(read)


def receipt_of(market: Market, job_id: str = "job") -> Receipt | None:
    return market.view(lambda txn: receipts.of_job(txn, market.job(job_id)))


def contents(market: Market, *left_out: str) -> dict[str, list[tuple[bytes, bytes]]]:
    """Every byte of the store, by table."""
    return market.view(
        lambda txn: {table: list(txn.scan(table)) for table in TABLES if table not in left_out}
    )


def states(market: Market, *job_ids: str) -> list[str]:
    return [market.job(job_id).state for job_id in job_ids]


# Submit: the order of the checks.


class Rung(NamedTuple):
    """One reason to say no, and what takes it away."""

    reason: str
    world: Callable[[Market], None] = lambda market: None
    request: dict[str, Any] | None = None


def record_capacity(market: Market, units: int) -> None:
    for _ in range(admission.CAPACITY_SAMPLES):
        market.update(lambda txn: admission.record_capacity(txn, market.config, units))


def improve_standing(market: Market) -> None:
    market.update(lambda txn: offers.record_outcome(txn, "prov", +1))


# A request that is refused for every reason there is, and how to take them away one by one: each
# reason must show as soon as those before it are gone.
HOPELESS: dict[str, Any] = {
    "job_id": "taken",
    "lengths": (0,),
    "consumer_bond": 0,
    "deadline": 1,
    "capability": {"cpu_cores": 64},
    "max_price_per_unit": 4,
}
LADDER = (
    Rung("conflict", request={"job_id": "job"}),
    Rung("empty_slice", request={"lengths": (40 * UNIT_BYTES,)}),
    Rung("consumer_bond_too_low", request={"consumer_bond": 50}),
    Rung("deadline", request={"deadline": 1_900_000_000}),
    Rung("capability_mismatch", request={"capability": {"cpu_cores": 4}}),
    Rung("reputation_failure", improve_standing),
    Rung("price_mismatch", request={"max_price_per_unit": 5}),
    Rung("no_capacity", request={"lengths": (35 * UNIT_BYTES,)}),
    Rung("bond_unfunded", lambda market: market.deposit("prov", ct=100)),
    Rung("capacity", lambda market: record_capacity(market, 100)),
    Rung("fair_share", request={"lengths": (30 * UNIT_BYTES,)}),
    Rung("burst_exhausted", lambda market: market.configure(burst_quota_micro=30_000_000)),
    Rung("insufficient_funds", lambda market: market.deposit("buyer", ct=200, it=0)),
    Rung("admitted"),
)


def climb(market: Market) -> list[tuple[str, dict[str, Any]]]:
    """Build the hopeless case."""
    market.configure(
        settle_mode="real",
        initial_capacity=10,
        burst_quota_micro=30_000_000,
        fair_share_cap_ppm=10_000,
    )
    market.submit("taken", wait=True, capability={"gpu": "none has it"})
    market.post(
        units=35, reputation=-1, provider_bond=100, consumer_bond=50, capability={"cpu_cores": 4}
    )
    return []


def verdict(market: Market, request: dict[str, Any], *, dry_run: bool = True) -> str:
    """Why a request is refused, whether by a verdict or by an error, or `admitted`."""
    asked = dict(request)
    inputs = [slice_of(length) for length in asked.pop("lengths")]
    from tests.conftest import job_request

    built = job_request(asked.pop("job_id"), inputs, **asked)
    try:
        found = market.update(
            lambda txn: lifecycle.submit(txn, market.config, built, inputs), dry_run=dry_run
        )
    except MarketError as error:
        return error.reason or error.token
    return found.reason if isinstance(found, Refused) else "admitted"
