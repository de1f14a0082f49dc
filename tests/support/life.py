"""What may happen in a market, drawn by a seed."""

from collections.abc import Callable, Iterator
from typing import Any

from compute_market.config.settings import DEFAULTS
from compute_market.jobs.cancel import cancel
from compute_market.jobs.prove import prove
from compute_market.jobs.submit import post_offer, submit
from compute_market.records import replace
from compute_market.requests import CapabilityRequest, JobRequest, OfferRequest
from compute_market.settlement import ledger
from compute_market.simulation.arrivals import DIGEST, WRONG, slice_of
from compute_market.simulation.draws import Stream
from compute_market.simulation.scenario import START_MS
from compute_market.store.txn import Txn

REAL = replace(DEFAULTS, settle_mode="real", slots=3)
Change = tuple[int, Callable[[Txn], Any]]  # how much later, and what


class Clock:
    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms


def job(job_id: str, **fields: Any) -> JobRequest:
    terms: dict[str, Any] = {
        "buyer": "buyer",
        "workload": "transcode",
        "slices": ["a"],
        "max_price_per_unit": 100,
        "deadline_secs": 600,
    }
    return JobRequest(job_id=job_id, **(terms | fields))


def offer(offer_id: str, **fields: Any) -> OfferRequest:
    terms: dict[str, Any] = {"provider": "prov", "units": 20, "price_per_unit": 5}
    return OfferRequest(offer_id=offer_id, **(terms | fields))


def fund(txn: Txn) -> None:
    for owner in ("buyer", "other", "prov", "rival"):
        ledger.tap(txn, "deposit", owner, {"CT": 10**6, "IT": 10**6}, None)


def life(count: int) -> Iterator[Change]:
    """What happens in a market in so many changes, drawn by a seed."""
    draws = Stream(7, "life")
    yield 0, fund
    for number in range(count):
        what, some = draws.below(8), f"j-{draws.below(number + 1)}"
        # Now and then several epochs pass.
        wait_ms = draws.below(20_000 if draws.below(5) else 600_000)
        if what < 3:
            gpu = (None, "A", ["A", "B"])[draws.below(3)]
            request = job(
                f"j-{number}",
                buyer=("buyer", "other")[draws.below(2)],
                capability=CapabilityRequest(gpu=gpu),
                priority=("high", "normal", "low")[draws.below(3)],
            )
            units, waits = 1 + draws.below(9), draws.below(2) == 0

            def act(
                txn: Txn, request: Any = request, units: int = units, waits: bool = waits
            ) -> Any:
                return submit(txn, request, [slice_of(units)], wait=waits)

        elif what < 4:
            posted = offer(
                f"o-{number}",
                provider=("prov", "rival")[draws.below(2)],
                price_per_unit=1 + draws.below(9),
                capability=CapabilityRequest(gpu=(None, "A", "B")[draws.below(3)]),
            )

            def act(txn: Txn, posted: Any = posted) -> Any:
                return post_offer(txn, posted)

        elif what < 7:
            digest = WRONG if draws.below(6) == 0 else DIGEST

            def act(txn: Txn, some: str = some, digest: bytes = digest) -> Any:
                return prove(txn, some, [(0, digest)])

        else:
            by = ("client", "provider")[draws.below(2)]

            def act(txn: Txn, some: str = some, by: Any = by) -> Any:
                return cancel(txn, some, by).outcome

        yield wait_ms, act
