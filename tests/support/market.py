"""The market under test: the real store in a temporary directory and a clock that tests set."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from blake3 import blake3

from compute_market import audit
from compute_market.config.settings import DEFAULTS, Config
from compute_market.jobs import lifecycle
from compute_market.records import Job, Offer, Slice, replace
from compute_market.requests import CapabilityRequest, JobRequest, OfferRequest
from compute_market.settlement import ledger
from compute_market.store.store import Store, Txn
from compute_market.workloads.tasks import Result

T = TypeVar("T")

START_MS = 1_800_000_000_000
DIGEST = bytes(range(32))
MARKET_ID = bytes(16)


class Market:
    """One store, one config, one clock. Each call is one action in one transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now_ms = START_MS
        self.config: Config = DEFAULTS
        self.store = self.open()

    def open(self) -> Store:
        return Store.open(str(self.path), now_ms=self.now_ms, market_id=MARKET_ID, sleep=time.sleep)

    def reopen(self) -> None:
        self.store.close()
        self.store = self.open()

    def configure(self, **changes: Any) -> None:
        self.config = replace(self.config, **changes)

    def advance(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)

    def update(self, fn: Callable[[Txn], T], *, dry_run: bool = False) -> T:
        """A market command: housekeeping, then `fn`."""

        def action(txn: Txn) -> T:
            lifecycle.housekeeping(txn, self.config)
            return fn(txn)

        return self.store.update(action, now_ms=self.now_ms, dry_run=dry_run)

    def view(self, fn: Callable[[Txn], T]) -> T:
        return self.store.view(fn, now_ms=self.now_ms)

    # The actions tests use most, with everything they are not about left at a default.

    def deposit(self, owner: str, ct: int = 0, it: int = 0) -> None:
        self.update(lambda txn: ledger.tap(txn, "deposit", owner, {"CT": ct, "IT": it}, None))

    def balance(self, account: str, token: Any = "CT") -> int:
        return self.view(lambda txn: ledger.balance(txn, account, token))

    def post(self, provider: str = "prov", **fields: Any) -> Offer:
        request = offer_request(provider, **fields)
        return self.update(lambda txn: lifecycle.post_offer(txn, self.config, request)).offer

    def submit(self, job_id: str = "job", **fields: Any) -> Any:
        """Returns Submitted or Refused."""
        wait = fields.pop("wait", False)
        inputs = fields.pop("inputs", None) or [slice_of(n) for n in fields.pop("lengths", (10,))]
        request = job_request(job_id, inputs, **fields)
        return self.update(
            lambda txn: lifecycle.submit(txn, self.config, request, inputs, wait=wait)
        )

    def prove(self, job_id: str = "job", *indexes: int, digest: bytes = DIGEST) -> Any:
        """Returns the list of Proven or InvalidProof."""
        proofs = [(index, digest) for index in indexes or (0,)]
        return self.update(lambda txn: lifecycle.prove(txn, self.config, job_id, proofs))

    def cancel(self, job_id: str = "job", by: Any = "client") -> lifecycle.Cancelled:
        return self.update(lambda txn: lifecycle.cancel(txn, self.config, job_id, by))

    def job(self, job_id: str = "job") -> Job:
        from compute_market.jobs import jobs

        return self.view(lambda txn: jobs.get(txn, job_id))

    def offer(self, offer_id: str) -> Offer:
        from compute_market.offers import offers

        return self.view(lambda txn: offers.get(txn, offer_id))

    def counter(self, name: str, *values: str) -> int:
        from compute_market import metrics

        return self.view(lambda txn: metrics.value(txn, name, *values))

    def violations(self) -> list[audit.Violation]:
        return self.view(lambda txn: list(audit.check(txn, self.config)))


def expected(paths: list[str]) -> list[Result]:
    """What running the built-in job over files must give."""
    contents = [Path(path).read_bytes() for path in paths]
    return [
        Result(path, blake3(content).digest(), len(content))
        for path, content in zip(paths, contents, strict=True)
    ]


def slice_of(length: int, path: str = "/slices/a", reference: bytes = DIGEST) -> Slice:
    return Slice(path, length, reference)


def offer_request(provider: str = "prov", **fields: Any) -> OfferRequest:
    capability = CapabilityRequest(**fields.pop("capability", {}))
    defaults: dict[str, Any] = {"units": 1000, "price_per_unit": 5}
    return OfferRequest(provider=provider, capability=capability, **(defaults | fields))


def job_request(job_id: str, inputs: list[Slice], **fields: Any) -> JobRequest:
    capability = CapabilityRequest(**fields.pop("capability", {}))
    defaults: dict[str, Any] = {
        "buyer": "buyer",
        "workload": "transcode",
        "slices": [entry.path for entry in inputs],
        "max_price_per_unit": 100,
    }
    return JobRequest(job_id=job_id, capability=capability, **(defaults | fields))


def shared_directory(factory: pytest.TempPathFactory, name: str) -> Path:
    """A directory that all workers of a test run share."""
    base = factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    directory.mkdir(exist_ok=True)
    return directory
