"""What is shown of a job and its slices, and what never is: the reference of a slice."""

from collections.abc import Callable
from typing import Any

import pytest

from compute_market import audit, events
from compute_market.errors import MarketError
from compute_market.jobs import documents, jobs
from compute_market.store.schema import SLICES, pack_u64
from compute_market.store.txn import Txn
from tests.support.market import DIGEST, Market, slice_of
from tests.support.state import command, put_payload, put_raw

WRONG = bytes(32)


def shown_slices(market: Market, *, reference: bool = False) -> list[dict[str, Any]]:
    def read(txn: Txn) -> list[dict[str, Any]]:
        return [
            documents.slice_document(index, entry, reference=reference)
            for index, entry in enumerate(jobs.slices(txn, "job"))
        ]

    return market.view(read)


def test_job_document_shows_a_pending_job_without_a_provider(market: Market) -> None:
    market.submit(wait=True, capability={"gpu": "A100"}, deadline_secs=60)
    now = market.now_ms // 1000
    assert market.opened.job("job") == {
        "job_id": "job",
        "state": "pending",
        "buyer": "buyer",
        "provider": None,
        "offer_id": None,
        "workload": "transcode",
        "priority": "normal",
        "lane": "industrial",
        "units": 1,
        "units_proven": 0,
        "slices": 1,
        "slices_proven": 0,
        "price_per_unit": None,
        "max_price_per_unit": 100,
        "fee_pct_ct": None,
        "consumer_bond": 1,
        "provider_bond": None,
        "deadline": now + 60,
        "submitted_at": now,
        "started_at": None,
        "ended_at": None,
        "funded": False,
        "cause": None,
        "escrow": {"ct": 0, "it": 0},
        "paid": {"ct": 0, "it": 0},
        "refunded": {"ct": 0, "it": 0},
        "ended_by": None,
        "capability": {"gpu": "A100", "gpu_count": 1},
        "overdue": False,
        "provider_bond_min": 1,
        "unreadable_slice": None,
        "held": False,
    }


def test_job_document_shows_what_is_held_then_what_was_paid_and_refunded(real: Market) -> None:
    real.post(price_per_unit=10, fee_pct_ct=40, provider_bond=7)
    real.submit(lengths=(1, 1))
    found = real.opened.job("job")
    assert (found["provider"], found["offer_id"], found["provider_bond"]) == ("prov", "o-1", 7)
    assert (found["price_per_unit"], found["fee_pct_ct"], found["funded"]) == (10, 40, True)
    assert (found["escrow"], found["paid"]) == ({"ct": 8, "it": 12}, {"ct": 0, "it": 0})
    real.prove("job", 0)
    real.cancel()
    found = real.opened.job("job")
    assert (found["escrow"], found["paid"]) == ({"ct": 0, "it": 0}, {"ct": 4, "it": 6})
    assert found["refunded"] == {"ct": 4, "it": 6}
    assert (found["cause"], found["ended_by"]) == ("cancelled_by_client", "client")


def test_job_page_goes_through_all_jobs_by_id(market: Market) -> None:
    market.post()
    for job_id in ("c", "a", "b"):
        market.submit(job_id)
    first, after = market.view(lambda txn: documents.job_page(txn, None, 2))
    rest, end = market.view(lambda txn: documents.job_page(txn, after, 2))
    assert [shown["job_id"] for shown in first + rest] == ["a", "b", "c"]
    assert end is None


def test_slice_document_tells_the_digest_once_it_is_proven(market: Market) -> None:
    market.post()
    market.submit(inputs=[slice_of(10, "/a"), slice_of(2_000_000, "/b")])
    open_ones = [
        {"index": 0, "path": "/a", "bytes": 10, "units": 1, "proven_at": None},
        {"index": 1, "path": "/b", "bytes": 2_000_000, "units": 2, "proven_at": None},
    ]
    assert shown_slices(market) == open_ones
    market.advance(7)
    market.prove("job", 1)
    proven = {"proven_at": market.now_ms // 1000, "digest": DIGEST.hex()}
    assert shown_slices(market) == [open_ones[0], open_ones[1] | proven]


def test_slice_document_tells_a_reference_only_when_asked(market: Market) -> None:
    market.post()
    market.submit(lengths=(1, 1))
    market.prove("job", 0)
    assert ["reference" in shown for shown in shown_slices(market)] == [False, False]
    told = shown_slices(market, reference=True)
    assert [shown["reference"] for shown in told] == [DIGEST.hex()] * 2
    assert ["digest" in shown for shown in told] == [True, False]


# Whoever proves could hand the reference in without having done the work.


def submit_again(**changes: Any) -> Callable[[Market], Any]:
    return lambda market: market.submit(**({"inputs": INPUTS} | changes))


def damage(market: Market, change: Callable[[bytes], bytes], put: Callable[..., None]) -> Any:
    """What reading a slice says whose stored bytes were changed, which is rolled back."""
    key = b"job\0" + pack_u64(1)

    def action(txn: Txn) -> list[Any]:
        put(txn, SLICES, key, change(txn.stored(SLICES, key)))
        violations = list(audit.check(txn))
        jobs.slice_at(txn, jobs.get(txn, "job"), 1)
        return violations

    return market.update(action, dry_run=True)


INPUTS = [slice_of(10, "/a"), slice_of(10, "/b")]
ATTEMPTS: dict[str, Callable[[Market], Any]] = {
    "wrong output": lambda market: market.prove("job", 1, digest=WRONG)[0].accepted(),
    "wrong output of a proven slice": lambda market: market.prove("job", 0, digest=WRONG),
    "unknown index": lambda market: market.prove("job", 9, digest=WRONG),
    "unknown job": lambda market: market.prove("nobody", digest=WRONG),
    "another reference": submit_again(inputs=[INPUTS[0], slice_of(10, "/b", WRONG)]),
    "another path": submit_again(inputs=[INPUTS[0], slice_of(10, "/c")]),
    "another length": submit_again(inputs=[INPUTS[0], slice_of(11, "/b")]),
    "fewer slices": submit_again(inputs=INPUTS[:1]),
    "a flipped bit": lambda market: damage(market, lambda value: value[:-1] + b"\0", put_raw),
    "no record": lambda market: damage(market, lambda value: b"\xc1" + value, put_payload),
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_no_error_tells_the_reference(market: Market, attempt: str) -> None:
    market.post(reputation=5)
    market.submit(inputs=INPUTS)
    market.prove("job", 0)
    with pytest.raises(MarketError) as caught:
        ATTEMPTS[attempt](market)
    told = f"{caught.value} {caught.value.document()}"
    assert DIGEST.hex() not in told
    assert repr(DIGEST)[2:-1] not in told


def test_neither_verdict_nor_log_tells_the_reference(market: Market) -> None:
    market.post(reputation=5)
    market.submit(inputs=INPUTS, deadline_secs=70)
    verdicts = market.prove("job", 1, 0, digest=WRONG)
    market.prove("job", 0)
    market.advance(71)
    command(market)
    market.submit("refused", inputs=INPUTS, max_price_per_unit=1)
    told = [verdict.message for verdict in verdicts]
    told += [str(events.document(logged)) for logged in market.events()]
    told += [str(market.opened.job("job"))]
    assert len(told) > 10
    assert not any(DIGEST.hex() in text for text in told)


def test_job_that_was_done_to_its_end_was_ended_by_nobody(market: Market) -> None:
    market.post()
    market.submit()
    market.prove("job", 0)
    found = market.opened.job("job")
    assert (found["state"], found["cause"], found["ended_by"]) == ("completed", "all_proven", None)
