"""Explaining: the matcher's own verdict on every offer."""

from typing import Any

from compute_market.jobs import drafts
from compute_market.records import Capability, Job, replace
from compute_market.scheduler.explain import document, explain
from tests.support.market import Market, job_request, slice_of


def asks(**capability: Any) -> Job:
    """A job of one unit that needs some hardware."""
    job = drafts.sketch(job_request("job", [slice_of(1)]), [slice_of(1)])
    return replace(job, capability=Capability(**capability))


def explained(market: Market, job: Job) -> list[dict[str, Any]]:
    return [document(verdict) for verdict in market.view(lambda txn: explain(txn, job))]


def texts(market: Market, job: Job) -> dict[str, list[str]]:
    found = explained(market, job)
    return {f["offer_id"]: [shortfall["text"] for shortfall in f["shortfalls"]] for f in found}


def test_explain_gives_the_verdict_of_the_matcher_on_every_offer(market: Market) -> None:
    market.post("small", price_per_unit=5, capability={"gpu": "A100", "gpu_memory_mb": 8192})
    market.post("good", price_per_unit=5, capability={"gpu": "A100", "gpu_memory_mb": 16384})
    market.post("bad", reputation=-1)
    job = asks(gpu="A100", gpu_memory_mb=16384)
    found = explained(market, job)
    assert [(f["offer_id"], f["fits"], f["result"]) for f in found] == [
        ("o-2", True, "success"),
        ("o-1", False, "capability_mismatch"),
        ("o-3", False, "capability_mismatch"),
    ]
    assert found[1]["shortfalls"] == [
        {
            "condition": "gpu_memory_mb",
            "asked": 16384,
            "offered": 8192,
            "text": "gpu_memory_mb: needs 16384, has 8192",
        }
    ]


def test_explain_ranks_those_that_fit_as_the_matcher_takes_them(market: Market) -> None:
    market.post("dear", price_per_unit=9)
    market.post("small", capability={"cpu_cores": 1})
    market.post("cheap", price_per_unit=10, reputation_multiplier="0.5")
    market.post("same", price_per_unit=5)
    job = asks()
    found = explained(market, replace(job, max_price_per_unit=10))
    assert [(f["provider"], f["effective_price"], f["rank"], f["wins"]) for f in found] == [
        ("small", 5, 1, True),  # the oldest of those that are as cheap
        ("cheap", 5, 2, False),
        ("same", 5, 3, False),
        ("dear", 9, 4, False),
    ]
    tpu = replace(job, capability=Capability(accelerator="TPU"))
    assert {f["effective_price"] for f in explained(market, tpu)} == {6, 11}  # with the premium
    assert {f["rank"] for f in explained(market, tpu)} == {None}


def test_explain_names_every_model_that_would_do(market: Market) -> None:
    market.post("a", capability={"gpu": "V100M32"})
    market.post("b", capability={"gpu": "T4"})
    market.post("c")
    assert texts(market, asks(gpu=("V100M16", "V100M32"))) == {
        "o-1": [],
        "o-2": ["gpu: needs V100M16 or V100M32, has T4"],
        "o-3": ["gpu: needs V100M16 or V100M32, has none"],
    }


def test_explain_asks_for_the_bond_where_money_moves(market: Market) -> None:
    market.post("prov", provider_bond=5)
    assert texts(market, asks()) == {"o-1": []}
    market.configure(settle_mode="real")
    assert texts(market, asks()) == {"o-1": []}  # The mode is that of the store by now.
    market.opened.arm(0)
    market.advance(1)
    market.deposit("prov", ct=4)
    assert texts(market, asks()) == {"o-1": ["provider_bond: needs 5 CT, the wallet has 4"]}
    market.deposit("prov", ct=1)
    assert texts(market, asks()) == {"o-1": []}
