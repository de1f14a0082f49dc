"""Explaining: the matcher's own verdict on every offer."""

from typing import Any

import pytest

from compute_market.errors import NotFoundError
from compute_market.jobs import drafts
from compute_market.records import Capability, Job, replace
from compute_market.scheduler.explain import explain
from tests.support.market import Market, job_request, slice_of


def asks(**capability: Any) -> Job:
    """A job of one unit that needs some hardware."""
    job = drafts.sketch(job_request("job", [slice_of(1)]), [slice_of(1)])
    return replace(job, capability=Capability(**capability))


def explained(market: Market, job: Job, **chosen: Any) -> list[dict[str, Any]]:
    return market.view(lambda txn: list(explain(txn, job, **chosen)))


def texts(market: Market, job: Job) -> dict[str, list[str]]:
    found = explained(market, job)
    return {f["offer_id"]: [shortfall["text"] for shortfall in f["shortfalls"]] for f in found}


def test_explain_gives_the_verdict_of_the_matcher_on_every_offer(market: Market) -> None:
    market.post("good", price_per_unit=5, capability={"gpu": "A100", "gpu_memory_mb": 16384})
    market.post("small", price_per_unit=5, capability={"gpu": "A100", "gpu_memory_mb": 8192})
    market.post("bad", reputation=-1)
    job = asks(gpu="A100", gpu_memory_mb=16384)
    found = explained(market, job)
    assert [(f["offer_id"], f["fits"], f["result"]) for f in found] == [
        ("o-1", True, "success"),
        ("o-2", False, "capability_mismatch"),
        ("o-3", False, "capability_mismatch"),
    ]
    assert found[1]["shortfalls"] == [
        {
            "condition": "gpu_memory_mb",
            "asked": 16384,
            "offered": 8192,
            "text": "gpu_memory_mb 16384 > 8192",
        }
    ]
    assert explained(market, job, offer_id="o-2") == [found[1]]
    with pytest.raises(NotFoundError, match="o-9"):
        explained(market, job, offer_id="o-9")


def test_explain_names_every_model_that_would_do(market: Market) -> None:
    market.post("a", capability={"gpu": "V100M32"})
    market.post("b", capability={"gpu": "T4"})
    market.post("c")
    assert texts(market, asks(gpu=("V100M16", "V100M32"))) == {
        "o-1": [],
        "o-2": ["gpu V100M16 or V100M32 ≠ T4"],
        "o-3": ["gpu V100M16 or V100M32 ≠ none"],
    }


def test_explain_asks_for_the_bond_where_money_moves(market: Market) -> None:
    market.post("prov", provider_bond=5)
    assert texts(market, asks()) == {"o-1": []}
    market.configure(settle_mode="real")
    assert texts(market, asks()) == {"o-1": []}  # The mode is that of the store by now.
    market.opened.arm(0)
    market.advance(1)
    market.deposit("prov", ct=4)
    assert texts(market, asks()) == {"o-1": ["provider_bond 5 > 4"]}
    market.deposit("prov", ct=1)
    assert texts(market, asks()) == {"o-1": []}
