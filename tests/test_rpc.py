"""The two tables of the endpoint: its methods, and the numbers of its errors."""

from typing import Any

import msgspec
import pytest

from compute_market import rpc
from compute_market.errors import (
    EXIT_CODES,
    AlreadyDoneError,
    BusyError,
    IntegrityError,
    InternalError,
    MarketError,
    NotFoundError,
    RefusedError,
    UsageError,
)
from compute_market.records import MATCH_RESULTS, Refused
from compute_market.workloads.workloads import resolve

# Those of the specification, in its order.
NAMES = [
    *("compute_market.stats", "compute_market.scheduler_stats", "compute_market.price_board"),
    *("compute.job_requirements", "compute.job_status", "compute.job_cancel"),
    *("settlement_status", "net.reputation_gossip", "courier.deliver"),
]
NUMBERS = [
    *(-32700, -32600, -32601, -32602, -32000, -33000, -33001, -33002, -33099),
    *(-33100, -33101, -33102, -33103),
]


def test_tables_have_what_is_specified() -> None:
    assert list(rpc.METHODS) == NAMES
    assert sorted(code.number for code in rpc.CODES) == sorted(NUMBERS)


@pytest.mark.parametrize("method", rpc.METHODS.values(), ids=lambda method: method.name)
def test_method_has_what_its_access_needs(method: rpc.Method) -> None:
    # What is signed is looked at before there is a transaction.
    assert (method.act is None) == (method.access == "signature")
    assert method.reads == (method.access == "anyone")
    assert method.summary.endswith(".")
    assert set(method.errors) <= set(NUMBERS)


def unknown_workload() -> MarketError:
    with pytest.raises(UsageError) as raised:
        resolve("no such")
    return raised.value


# What the library says, and the number it has at the endpoint.
SAID: dict[str, tuple[MarketError, int]] = {
    "usage": (UsageError("x"), rpc.INVALID_PARAMS),
    "refused": (RefusedError("x", reason="mode"), rpc.REFUSED),
    "refused without a reason": (RefusedError("x"), rpc.REFUSED),
    "already done": (AlreadyDoneError("x"), rpc.REFUSED),
    "busy": (BusyError("x"), rpc.REFUSED),
    "bad signature": (IntegrityError("x", reason="bad_signature"), rpc.REFUSED),
    "no price data": (RefusedError("x", reason="no_price_data"), rpc.NO_PRICE_DATA),
    "broken workload": (IntegrityError("x", reason="broken_workload"), rpc.INVALID_WORKLOAD),
    "unknown job": (NotFoundError("x"), rpc.JOB_NOT_FOUND),
    "a bug": (InternalError("x"), rpc.INTERNAL),
    "capacity": (Refused("capacity", "x").error(), rpc.INSUFFICIENT_CAPACITY),
    "no units": (Refused("no_capacity", "x").error(), rpc.INSUFFICIENT_CAPACITY),
    "fair share": (Refused("fair_share", "x", None, 5).error(), rpc.FAIR_SHARE_EXCEEDED),
    "burst": (Refused("burst_exhausted", "x").error(), rpc.BURST_EXHAUSTED),
    "capability": (Refused("capability_mismatch", "x").error(), rpc.CAPABILITY_MISMATCH),
}
# Those that are about the text of a call, which the library never sees.
OF_THE_CALL = {rpc.PARSE_ERROR, rpc.INVALID_REQUEST, rpc.METHOD_NOT_FOUND}


@pytest.mark.parametrize(("error", "number"), SAID.values(), ids=SAID)
def test_error_has_a_number_by_its_document(error: MarketError, number: int) -> None:
    assert rpc.code_of(error.document()) == number


def test_every_number_is_of_something() -> None:
    assert {number for _, number in SAID.values()} | OF_THE_CALL == set(NUMBERS)


def test_every_token_and_every_reason_of_the_table_is_one() -> None:
    tokens = [token for code in rpc.CODES for token in code.tokens]
    assert sorted(tokens) == sorted(row.token for row in EXIT_CODES if row.token != "ok")
    reasons = {reason for code in rpc.CODES for reason in code.reasons}
    admission = {"capacity", "fair_share", "burst_exhausted"}
    workloads = {"unknown_workload", "broken_workload"}
    assert reasons <= {*MATCH_RESULTS, *admission, *workloads, "no_price_data"}


def test_workload_that_nobody_knows_is_an_invalid_one() -> None:
    assert rpc.code_of(unknown_workload().document()) == rpc.INVALID_WORKLOAD


@pytest.mark.parametrize("text", ["", "-x", "a b", "a" * 129, "a\n", "ä", "../x"])
def test_parameter_that_can_be_no_id_is_refused(text: str) -> None:
    kinds: list[Any] = [rpc.OfJob, rpc.Cancel]
    for kind in kinds:
        with pytest.raises((msgspec.ValidationError, UsageError)):
            msgspec.convert({"job_id": text}, kind)
    with pytest.raises((msgspec.ValidationError, UsageError)):
        msgspec.convert({"owner": text}, rpc.OfOwner)
