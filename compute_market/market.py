"""The market as a program sees it: plain values in, plain documents out.

What a program does most has a method here that takes plain values, checks them like the files of an
operator, and returns plain documents; `docs/library.md` shows a whole market in thirty lines. Each
is one transaction of the `engine`. It imports what it needs when it is called: a program pays for
what it does alone.

Errors are those of `errors`, all of them `MarketError`.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from compute_market import clock as clocks
from compute_market import home
from compute_market.clock import Clock, Due, Time
from compute_market.engine import NOBODY, Engine, open_store
from compute_market.errors import MarketError, UsageError
from compute_market.records import PRIORITIES, Asked, check_id, check_number
from compute_market.store.environment import Creation
from compute_market.store.txn import Txn
from compute_market.verbs import Capacity, Mempool, Parameters, Prices, Settlement, State, pages

if TYPE_CHECKING:
    from compute_market.execution import Proofs, Tell
    from compute_market.jobs.cancel import By
    from compute_market.laws import Violation
    from compute_market.records import Fault, Job, Priority, Token

T = TypeVar("T")

OUTPUT_BYTES = 32


class Market:
    """A market and everything a program does with it. Its `engine` runs the transactions.

    `prices`, `params`, `mempool`, `settlement`, `capacity`, `state` have verbs of their own.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.prices = Prices(engine)
        self.params = Parameters(engine)
        self.mempool = Mempool(engine)
        self.settlement = Settlement(engine)
        self.capacity = Capacity(engine)
        self.state = State(engine)

    @classmethod
    def open(
        cls,
        directory: str,
        *,
        clock: Clock,
        sleep: Callable[[float], float | None],
        market_id: bytes | None = None,
        asked: Asked = NOBODY,
    ) -> "Market":
        """Open the market in a home directory, under the settings of its `config.toml`.

        With a `market_id`, 16 random bytes, one is made where there is none yet. `sleep` waits for
        the write lock, in seconds. Raises NotFoundError where there is no market and none is to be
        made, UsageError for a bad configuration, and what `Store.open` raises.
        """
        from compute_market import chain
        from compute_market.config import files

        if market_id is not None and len(market_id) != chain.MARKET_ID_BYTES:
            raise UsageError(f"a market id has {chain.MARKET_ID_BYTES} bytes, not {len(market_id)}")
        path = os.path.join(directory, home.CONFIG)
        config, _ = files.load(files.content_of(path), path)
        store = open_store(
            directory,
            config,
            sleep=sleep,
            creation=None if market_id is None else Creation(clocks.read(clock).wall_ms, market_id),
        )
        return cls(Engine(store, config, clock=clock, asked=asked))

    def __enter__(self) -> "Market":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the market; what was priced is saved to the price board first."""
        try:
            with suppress(OSError, MarketError):  # The store has the prices all the same.
                self.engine.save_prices()
        finally:
            self.engine.close()

    # Functions of the program's own, and what the engine knows.

    def update(self, fn: Callable[[Txn], T], *, dry_run: bool = False) -> T:
        """Run one action in one transaction, after what is due; rolled back with `dry_run`."""
        return self.engine.update(fn, dry_run=dry_run)

    def view(self, fn: Callable[[Txn], T]) -> T:
        """Look at one snapshot. Changes nothing, not even what is due."""
        return self.engine.view(fn)

    @property
    def due(self) -> Due:
        """What the last change did first."""
        return self.engine.due

    @property
    def time(self) -> Time | None:
        """What the market made of the clock in the last transaction; None before the first."""
        return self.engine.time

    def follow_log(self, path: str) -> None:
        """Bring `cancellations.log` at `path` up to date; see `Engine.follow_log`."""
        self.engine.follow_log(path)

    # Verbs.

    def deposit(self, owner: str, *, ct: int = 0, it: int = 0, key: str | None = None) -> bool:
        """Pay into a wallet. With a `key` the same call again changes nothing: False."""
        from compute_market.settlement import ledger

        amounts = _amounts(owner, ct, it, key)
        return self.update(lambda txn: ledger.tap(txn, "deposit", owner, amounts, key))

    def withdraw(self, owner: str, *, ct: int = 0, it: int = 0, key: str | None = None) -> bool:
        """Pay out of a wallet, once with a `key`. Raises RefusedError for more than it has."""
        from compute_market.settlement import ledger

        amounts = _amounts(owner, ct, it, key)
        return self.update(lambda txn: ledger.tap(txn, "withdraw", owner, amounts, key))

    def post_offer(self, **fields: Any) -> dict[str, Any]:
        """Post an offer by the fields of an offer file; returns it, with `changed`, `matched`.

        It takes no running job over; see `jobs.preempt`.
        """
        from compute_market.jobs.submit import post_offer
        from compute_market.offers import standing
        from compute_market.requests import OfferRequest, build

        request = build(fields, OfferRequest, "offer")
        if request.price_per_unit == 0:
            self.prices.load()

        def act(txn: Txn) -> dict[str, Any]:
            posted = post_offer(txn, request)
            more = {"changed": posted.changed, "matched": posted.matched}
            return standing.document(txn, posted.offer) | more

        return self.update(act)

    def change_offer(self, offer_id: str, **fields: Any) -> dict[str, Any]:
        """Change an offer by the fields of an offer file; returns it, with `before`.

        Units may be a text with a sign: so many more or fewer. Raises what `changing.change` does.
        """
        from compute_market.jobs.submit import change_offer
        from compute_market.offers import standing
        from compute_market.requests import OfferChange, build

        asked = build({**fields, "offer_id": offer_id}, OfferChange, "offer")
        if asked.price_per_unit == 0:
            self.prices.load()

        def act(txn: Txn) -> dict[str, Any]:
            changed = change_offer(txn, asked)
            return standing.document(txn, changed.offer) | {"before": changed.before}

        return self.update(act)

    def withdraw_offer(self, offer_id: str) -> bool:
        """Take an offer off the market; False if it is. Jobs that hold units of it go on."""
        from compute_market.offers import offers

        check_id(offer_id, "offer")
        return self.update(lambda txn: offers.withdraw(txn, offer_id))[1]

    def submit(self, *, wait: bool = False, **fields: Any) -> dict[str, Any]:
        """Submit a job by the fields of a job file; returns it, with `changed`.

        Slices are hashed first, long ones only if the market would take the job. Raises
        RefusedError with the reason when the market says no, which the market remembers.
        """
        from compute_market.submission import submitted

        return submitted(self.engine, fields, wait=wait)

    def execute(self, job_id: str) -> dict[str, Any]:
        """Run what an active job has left, and prove it; returns the job.

        A job that has completed is left alone. Raises what `execution.run_left` raises.
        """
        from compute_market.execution import left_of, run_left
        from compute_market.workloads.runner import Runner

        check_id(job_id, "job")
        left = self.view(lambda txn: left_of(txn, job_id))
        if left.job.state != "completed":
            with Runner() as runner:
                run_left(
                    left,
                    runner,
                    submit=self.prover(job_id),
                    tell=self.fault_teller(job_id),
                    clock=self.engine.wall_ms,
                    slice_root=self.engine.config.slice_root,
                )
        return self.job(job_id)

    def prover(self, job_id: str, *, dry_run: bool = False) -> "Callable[[Proofs], Job]":
        """What submits proofs of a job, each time in a transaction of its own."""
        from compute_market.jobs.prove import prove

        def submit(proofs: "Proofs") -> "Job":
            return self.update(lambda txn: prove(txn, job_id, proofs), dry_run=dry_run)[-1].job

        return submit

    def fault_teller(self, job_id: str, *, dry_run: bool = False) -> "Tell":
        """What tells the market of a slice of a job that has changed, or cannot be read."""
        from compute_market.jobs import faults

        def tell(fault: "Fault", index: int) -> None:
            self.update(lambda txn: faults.tell(txn, job_id, fault, index), dry_run=dry_run)

        return tell

    def prove(self, job_id: str, index: int, digest: bytes) -> bool:
        """Submit the proof of one slice; False for one that was proven before.

        Raises IntegrityError (`invalid_proof`) for a wrong output, which costs the provider a
        point.
        """
        from compute_market.jobs.prove import prove

        check_id(job_id, "job")
        if not isinstance(digest, bytes) or len(digest) != OUTPUT_BYTES:
            raise UsageError(f"the output of a slice is {OUTPUT_BYTES} bytes")
        proof = check_number(index, "index"), digest
        verdict = self.update(lambda txn: prove(txn, job_id, [proof]))[0]
        return verdict.accepted()

    def cancel(self, job_id: str, by: "By" = "client") -> str:
        """Cancel a job; returns `cancelled`, `already_cancelled` or `already_done`."""
        from compute_market.jobs.cancel import cancel

        check_id(job_id, "job")
        if by not in ("client", "provider"):
            raise UsageError(f"{by!a} cannot cancel a job, only client and provider can")
        return self.update(lambda txn: cancel(txn, job_id, by)).outcome

    def hold(self, job_id: str) -> bool:
        """Keep a job that waits from being started; False if it is held. See `holding.hold`."""
        from compute_market.jobs import holding

        check_id(job_id, "job")
        return self.update(lambda txn: holding.hold(txn, job_id))[1]

    def release(self, job_id: str) -> bool:
        """Let a held job wait again; False if it is not held. See `holding.release`."""
        from compute_market.jobs import holding

        check_id(job_id, "job")
        return self.update(lambda txn: holding.release(txn, job_id))[1]

    def change_job(
        self, job_id: str, *, priority: "Priority | None" = None, deadline: int | None = None
    ) -> dict[str, Any]:
        """Give a live job another priority, or a later deadline in unix seconds; returns it.

        Raises what `holding.change` raises.
        """
        from compute_market.jobs import documents, holding

        check_id(job_id, "job")
        if priority not in (None, *PRIORITIES):
            raise UsageError(f"{priority!a} is no priority, only {', '.join(PRIORITIES)} are")
        if deadline is not None:
            check_number(deadline, "deadline")

        def act(txn: Txn) -> dict[str, Any]:
            _, job = holding.change(txn, job_id, priority=priority, deadline=deadline)
            return documents.job_document(txn, job)

        return self.update(act)

    def match(self) -> list[str]:
        """Try all pending jobs again; the ids of those that found an offer."""
        from compute_market.jobs.waiting import match_pending

        matched = self.update(match_pending)
        return [*self.due.matched, *matched]  # Some were tried because it was due.

    def explain(self, job_id: str, offer_id: str | None = None) -> dict[str, Any]:
        """Why a job runs or waits, and what each offer lacks for it, or one of them alone.

        Raises NotFoundError.
        """
        from compute_market.jobs import explain

        check_id(job_id, "job")
        if offer_id is not None:
            check_id(offer_id, "offer")
        return self.view(lambda txn: explain.explain_stored(txn, job_id, offer_id))

    def job(self, job_id: str) -> dict[str, Any]:
        """One job as a document. Raises NotFoundError."""
        from compute_market.jobs import documents, jobs

        check_id(job_id, "job")
        return self.view(lambda txn: documents.job_document(txn, jobs.get(txn, job_id)))

    def jobs(self) -> Iterator[dict[str, Any]]:
        """All jobs as documents, by id, read in short transactions."""
        from compute_market.jobs import documents

        return pages(self.engine, documents.job_page)

    def offer(self, offer_id: str) -> dict[str, Any]:
        """One offer as a document. Raises NotFoundError."""
        from compute_market.offers import offers, standing

        check_id(offer_id, "offer")
        return self.view(lambda txn: standing.document(txn, offers.get(txn, offer_id)))

    def explain_offer(self, offer_id: str, since_ms: int | None = None) -> dict[str, Any]:
        """Which jobs an offer won, and why not others; see `jobs.chances`. Raises NotFoundError."""
        from compute_market.jobs.chances import chances

        check_id(offer_id, "offer")
        if since_ms is not None:
            check_number(since_ms, "since_ms")
        return self.view(lambda txn: chances(txn, offer_id, since_ms))

    def balance(self, owner: str) -> dict[str, Any]:
        """What a party has, and what its jobs hold of it."""
        from compute_market.settlement import escrow

        check_id(owner, "owner")
        return self.view(lambda txn: escrow.balance_document(txn, owner))

    def arm(self, delay_blocks: int) -> None:
        """Let money move from some blocks on. Raises RefusedError unless the mode is dry_run."""
        from compute_market.settlement import modes

        check_number(delay_blocks, "delay_blocks")
        self.update(lambda txn: modes.arm(txn, delay_blocks))

    def advance(self, blocks: int) -> int:
        """Let blocks pass; returns the height."""
        from compute_market import chain

        check_number(blocks, "blocks")
        return self.update(lambda txn: chain.advance(txn, blocks)).height

    def subsidy(self, height: int | None = None) -> dict[str, Any]:
        """What providers earn beside the price in the epoch of a height, or in the running one."""
        from compute_market.subsidy import subsidy

        if height is not None:
            check_number(height, "height")
        return self.view(lambda txn: subsidy.document(txn, height))

    def accept_clock(self) -> bool:
        """Take the clock as it is; False when it is believed anyway. See `clock.accept`."""
        return self.update(lambda txn: clocks.accept(txn, self.engine.read()))

    def extend_deadlines(self, by_secs: int) -> int:
        """Move the deadline of every live job; how many. Overdue ones are not failed before."""
        from compute_market.jobs.extend import extend

        check_number(by_secs, "by_secs")
        return self.engine.update(lambda txn: extend(txn, by_secs), sweep_limit=0)

    def tick(self) -> Due:
        """Do what is due and nothing else."""
        from compute_market.housekeeping import tick

        self.update(tick)
        return self.due

    def audit(self) -> "list[Violation]":
        """Every law of the market that is broken; none when all is well."""
        from compute_market import audit

        return self.view(lambda txn: list(audit.check(txn)))


def _amounts(owner: str, ct: int, it: int, key: str | None) -> "dict[Token, int]":
    """What goes into a wallet or out of it, checked with whose it is and the key."""
    check_id(owner, "owner")
    if key is not None:
        check_id(key, "key")
    return {"CT": check_number(ct, "ct"), "IT": check_number(it, "it")}
