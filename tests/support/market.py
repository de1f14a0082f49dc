"""The market under test: the real store in a temporary directory and a clock that tests set."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from blake3 import blake3

from compute_market import events, market, metrics
from compute_market.admission import mempool
from compute_market.config.settings import DEFAULTS, Config
from compute_market.engine import Engine
from compute_market.events import Logged
from compute_market.jobs import jobs
from compute_market.jobs.cancel import Cancelled, cancel
from compute_market.jobs.prove import prove
from compute_market.jobs.submit import post_offer, submit
from compute_market.laws import Violation
from compute_market.offers import offers
from compute_market.records import Job, Offer, Slice, replace
from compute_market.reputation import reputation
from compute_market.requests import CapabilityRequest, JobRequest, OfferRequest
from compute_market.settlement import ledger
from compute_market.store.environment import Creation
from compute_market.store.store import Store
from compute_market.store.txn import Txn
from compute_market.upgrades import bring_up_to_date
from compute_market.workloads.tasks import Result

T = TypeVar("T")

START_MS = 1_800_000_000_000
DIGEST = bytes(range(32))
MARKET_ID = bytes(16)


class Market:
    """One market under a clock that tests set. Each call is one action in one transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now_ms = START_MS
        self.opened = self.open()

    def open(self, config: Config = DEFAULTS) -> market.Market:
        store = open_store(self.path, self.now_ms)
        return market.Market(Engine(store, config, clock=lambda: self.now_ms))

    def reopen(self) -> None:
        config = self.config
        self.store.close()
        self.opened = self.open(config)

    @property
    def store(self) -> Store:
        return self.opened.engine.store

    @property
    def config(self) -> Config:
        return self.opened.engine.config

    @config.setter
    def config(self, config: Config) -> None:
        self.opened.engine.config = config

    def configure(self, **changes: Any) -> None:
        self.config = replace(self.config, **changes)

    def advance(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)

    def update(self, fn: Callable[[Txn], T], *, dry_run: bool = False) -> T:
        """A market command: what is due, then `fn`."""
        return self.opened.update(fn, dry_run=dry_run)

    def alone(self, fn: Callable[[Txn], T]) -> T:
        """A transaction of nothing but `fn`, to damage or prepare what no action would."""
        return self.store.update(fn, now_ms=self.now_ms, config=self.config)

    def view(self, fn: Callable[[Txn], T]) -> T:
        return self.opened.view(fn)

    # The actions tests use most, with everything they are not about left at a default.

    def deposit(self, owner: str, ct: int = 0, it: int = 0) -> None:
        self.opened.deposit(owner, ct=ct, it=it)

    def balance(self, account: str, token: Any = "CT") -> int:
        return self.view(lambda txn: ledger.balance(txn, account, token))

    def post(self, provider: str = "prov", **fields: Any) -> Offer:
        request = offer_request(provider, **fields)
        return self.update(lambda txn: post_offer(txn, request)).offer

    def submit(self, job_id: str = "job", **fields: Any) -> Any:
        """Returns Submitted or Refused."""
        wait = fields.pop("wait", False)
        inputs = fields.pop("inputs", None) or [slice_of(n) for n in fields.pop("lengths", (10,))]
        request = job_request(job_id, inputs, **fields)
        return self.update(lambda txn: submit(txn, request, inputs, wait=wait))

    def send(self, fee: int = 1, size: int = 1, sender: str = "sender") -> Any:
        """A consumer transaction; returns Taken or Refused."""
        return self.update(lambda txn: mempool.submit(txn, sender, fee, size))

    def prove(self, job_id: str = "job", *indexes: int, digest: bytes = DIGEST) -> Any:
        """Returns the list of Proven or InvalidProof."""
        proofs = [(index, digest) for index in indexes or (0,)]
        return self.update(lambda txn: prove(txn, job_id, proofs))

    def cancel(self, job_id: str = "job", by: Any = "client") -> Cancelled:
        return self.update(lambda txn: cancel(txn, job_id, by))

    def job(self, job_id: str = "job") -> Job:
        return self.view(lambda txn: jobs.get(txn, job_id))

    def offer(self, offer_id: str) -> Offer:
        return self.view(lambda txn: offers.get(txn, offer_id))

    def score(self, provider: str = "prov") -> int:
        return self.view(lambda txn: reputation.score(txn, provider))

    def counter(self, name: str, *values: str) -> int:
        return self.view(lambda txn: metrics.value(txn, name, *values))

    def events(self, event: str | None = None) -> list[Logged]:
        """The log, oldest first; only one kind of event, if given."""
        found = self.view(lambda txn: list(events.forward(txn)))
        return [logged for logged in found if event in (None, logged.event.event)]

    def violations(self) -> list[Violation]:
        return self.opened.audit()


def open_store(path: Path, now_ms: int = START_MS, **options: Any) -> Store:
    """The store in a directory, made there if need be."""
    creation = Creation(now_ms, MARKET_ID)
    upgrade = bring_up_to_date
    return Store.open(str(path), creation=creation, sleep=time.sleep, upgrade=upgrade, **options)


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
