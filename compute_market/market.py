"""The market: the only runner of transactions, and the front door for programs.

`Market.update(fn)` does what is due, then `fn`, in one transaction; `Market.view(fn)` only looks.
The command line, tests, benchmarks and programs all go through them. What a program does most has
a method here that takes plain values, checks them like the files of an operator, and returns plain
documents; `docs/library.md` shows a whole market in thirty lines. Such a method imports what it
needs when it is called: a command pays for what it does alone.

Errors are those of `errors`, all of them `MarketError`.
"""

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec import Struct

from compute_market import clock as clocks
from compute_market import home
from compute_market.clock import Clock, Due, Reading, Time
from compute_market.config.settings import DEFAULTS, Config
from compute_market.errors import MarketError, UsageError
from compute_market.records import Asked, Refused, check_id, check_number
from compute_market.store.environment import Creation
from compute_market.store.schema import PARAMETERS_SET
from compute_market.store.store import Store
from compute_market.store.txn import Txn

if TYPE_CHECKING:
    from compute_market.execution import Proofs, Tell
    from compute_market.jobs.cancel import By
    from compute_market.price_records import Board
    from compute_market.records import Fault, Job, Token, Violation
    from compute_market.store.group import Outcome

T = TypeVar("T")

NOBODY = Asked()

# Overdue jobs that one change fails at most before its own effects.
SWEEP_LIMIT = 256
OUTPUT_BYTES = 32
_PAGE = 1000
# Who saves the price board lets others wait no longer.
_SAVE_PATIENCE_MS = 1_000


class _Acted(Struct, Generic[T], frozen=True):
    """What an action did in its transaction."""

    result: T
    due: Due  # what was done first
    uncounted: "Board | None"  # the price board as it was loaded, if it is still to be counted
    priced_after: int | None  # the last price before its own; None without any


class Market:
    """One market, under the settings in force.

    `clock` reads the clock; it is asked once within each transaction, and what the market makes of
    it is `time`. `asked` is who the log says asked. `stopwatch` gives nanoseconds for the latency
    histograms.
    """

    def __init__(
        self,
        store: Store,
        config: Config = DEFAULTS,
        *,
        clock: Clock,
        asked: Asked = NOBODY,
        stopwatch: Callable[[], int] | None = None,
    ) -> None:
        self.store = store
        self.config = config
        self.clock = clock
        self.asked = asked
        self.stopwatch = stopwatch
        self.due = Due()  # what the last update did first
        self.time: Time | None = None  # of the last transaction
        self.board: Board | None = None  # the price board, once it was loaded
        self._uncounted: Board | None = None  # as it was loaded, for the next change to count
        # The last price before those that this process has made and not saved; None without any.
        self.priced_after: int | None = None
        self._is_of_home = False  # nobody else saves the price board

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
        market = cls(store, config, clock=clock, asked=asked)
        market._is_of_home = True
        return market

    def __enter__(self) -> "Market":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the store; what a market that was opened by its home has priced is saved first."""
        try:
            if self._is_of_home:
                with suppress(OSError, MarketError):  # The store has the prices all the same.
                    self.save_prices()
        finally:
            self.store.close()

    # Transactions.

    def update(
        self,
        fn: Callable[[Txn], T],
        *,
        dry_run: bool = False,
        sweep_limit: int = SWEEP_LIMIT,
        lock_timeout_ms: int | None = None,
    ) -> T:
        """Run one action in one transaction, after what is due; rolled back with `dry_run`."""
        self.due = Due()
        acted = self.store.update(
            lambda txn: self._act(txn, fn, sweep_limit, self._uncounted),
            config=self.config,
            dry_run=dry_run,
            stopwatch=self.stopwatch,
            lock_timeout_ms=lock_timeout_ms,
        )
        self.due = acted.due
        if not dry_run:
            self._keep(acted)
        return acted.result

    def update_each(self, fns: Iterable[Callable[[Txn], T]]) -> "list[Outcome[T]]":
        """Run several actions, each as `update` does, in one durable transaction.

        One that raises leaves nothing of itself, and the others stand. Each is asked for once the
        one before it has ended, with the write lock in hand. `due` is what all of them did first.
        Raises what keeps all of them from being committed.
        """
        from compute_market.store.group import Outcome

        def group(txn: Txn) -> list[Outcome[_Acted[T]]]:
            found: list[Outcome[_Acted[T]]] = []
            uncounted = self._uncounted
            for fn in fns:
                act = partial(self._act, fn=fn, sweep_limit=SWEEP_LIMIT, uncounted=uncounted)
                outcome = self.store.attempt(txn, act)
                if outcome.error is None:
                    uncounted = outcome.result.uncounted
                found.append(outcome)
            return found

        self.due = Due()
        outcomes: list[Outcome[T]] = []
        for each in self.store.update(group, config=self.config, stopwatch=self.stopwatch):
            if each.error is None:
                self.due = self.due.plus(each.result.due)
                self._keep(each.result)
                outcomes.append(Outcome(each.result.result))
            else:
                outcomes.append(Outcome(error=each.error))
        return outcomes

    def _act(
        self, txn: Txn, fn: Callable[[Txn], T], sweep_limit: int, uncounted: "Board | None"
    ) -> "_Acted[T]":
        import compute_market.housekeeping as housekeeping

        # With the lock in hand: whoever waited for it would come with a time gone by.
        clocks.keep(txn, self._enter(txn))
        due = housekeeping.housekeeping(txn, sweep_limit)
        result = fn(txn)
        if self.board is not None and txn.noted:  # The same command again counts nothing.
            from compute_market.offers import price_window  # Few commands need it.

            price_window.count(txn, uncounted)
            uncounted = None
        housekeeping.conclude(txn, self.asked)
        return _Acted(result, due, uncounted, txn.priced_after)

    def _keep(self, acted: "_Acted[Any]") -> None:
        """Keep in mind what was committed."""
        self._uncounted = acted.uncounted
        if self.priced_after is None:
            self.priced_after = acted.priced_after

    def view(self, fn: Callable[[Txn], T]) -> T:
        """Look at one snapshot. Changes nothing, not even what is due."""

        def look(txn: Txn) -> T:
            self._enter(txn)
            return fn(txn)

        return self.store.view(look, config=self.config)

    def read(self) -> Reading:
        """What the clock says now. Raises BusyError for one that was never set."""
        return clocks.read(self.clock)

    def wall_ms(self) -> int:
        """The wall clock in unix milliseconds, believed or not."""
        return self.read().wall_ms

    def _enter(self, txn: Txn) -> Time:
        self.time = clocks.judge(txn, self.read())
        clocks.enter(txn, self.time)
        if txn.number(PARAMETERS_SET):
            from compute_market.governance import governance  # Most markets have no proposals.

            txn.config = governance.in_force(txn)
        if self.board is not None:
            import compute_market.offers.price_window as price_window

            txn.board = self.board = price_window.begun(txn, self.board, self.priced_after)
        return self.time

    def follow_log(self, path: str) -> None:
        """Append to `cancellations.log` at `path` what the table has and the file lacks.

        Runs after a commit and outside the write lock. Raises OSError when the file cannot be
        written, and where another market is by now: the next change makes it whole.
        """
        from compute_market.jobs import cancellations

        if self.store.readonly or self.view(cancellations.length) == cancellations.length_at(path):
            return
        if not self.store.is_here():
            raise OSError(errno.ESTALE, "another market has taken the place of this one")
        cancellations.append(
            path,
            lambda offset: self.view(lambda txn: cancellations.text_from(txn, offset)),
            self.store.patience(),
        )

    def load_prices(self) -> "Board":
        """Read the price board, for the transactions that follow; see `price_file.load`."""
        from compute_market.offers import price_file

        self.board = self._uncounted = price_file.load(self.store.path, self.config)
        return self.board

    def save_prices(self) -> "Board | None":
        """Write the committed prices of this process to the board; None without any.

        Raises what `price_file.save` raises; the store has them all the same.
        """
        after = self.priced_after
        if after is None:
            return None
        from compute_market.offers import price_file, price_window

        of_others = None if self.board is None else self.board.seq_of_others

        def change(found: "Board") -> "Board":
            return self.view(lambda txn: price_window.joined(txn, found, after, of_others))

        self.board = price_file.save(
            self.store.path, self.config, self.store.patience(_SAVE_PATIENCE_MS), change
        )
        self.priced_after = None
        return self.board

    # Verbs for programs.

    def deposit(self, owner: str, *, ct: int = 0, it: int = 0, key: str | None = None) -> bool:
        """Pay into a wallet. With a `key` the same call again changes nothing: False."""
        from compute_market.settlement import ledger

        check_id(owner, "owner")
        if key is not None:
            check_id(key, "key")
        amounts: dict[Token, int] = {"CT": check_number(ct, "ct"), "IT": check_number(it, "it")}
        return self.update(lambda txn: ledger.tap(txn, "deposit", owner, amounts, key))

    def post_offer(self, **fields: Any) -> dict[str, Any]:
        """Post an offer by the fields of an offer file; returns it, with `changed`, `matched`.

        It takes no running job over; see `jobs.preempt`.
        """
        from compute_market.jobs.submit import post_offer
        from compute_market.offers import standing
        from compute_market.requests import OfferRequest, build

        request = build(fields, OfferRequest, "offer")
        if request.price_per_unit == 0:
            self.load_prices()

        def act(txn: Txn) -> dict[str, Any]:
            posted = post_offer(txn, request)
            more = {"changed": posted.changed, "matched": posted.matched}
            return standing.document(txn, posted.offer) | more

        return self.update(act)

    def submit(self, *, wait: bool = False, **fields: Any) -> dict[str, Any]:
        """Submit a job by the fields of a job file; returns it, with `changed`.

        Slices are hashed first, long ones only if the market would take the job. Raises
        RefusedError with the reason when the market says no, which the market remembers.
        """
        from compute_market.execution import (
            ASK_FROM_BYTES,
            bytes_to_hash,
            hashed,
            known_slices,
            unhashed,
        )
        from compute_market.jobs import documents
        from compute_market.jobs.submit import ask, submit
        from compute_market.requests import JobRequest, build
        from compute_market.workloads.runner import Runner

        request = build(fields, JobRequest, "job")
        known = known_slices(request, "", self.config.slice_root)
        if bytes_to_hash(request.workload, known) < ASK_FROM_BYTES or self.view(
            lambda txn: ask(txn, request, known, wait=wait)
        ):
            with Runner() as runner:
                inputs = hashed(request.workload, known, runner, now_ms=self.wall_ms())
        else:
            inputs = unhashed(known)

        def act(txn: Txn) -> dict[str, Any] | Refused:
            verdict = submit(txn, request, inputs, wait=wait)
            if isinstance(verdict, Refused):
                return verdict
            return documents.job_document(txn, verdict.job) | {"changed": verdict.changed}

        found = self.update(act)
        if isinstance(found, Refused):
            raise found.error()
        return found

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
                    clock=self.wall_ms,
                    slice_root=self.config.slice_root,
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

    def job(self, job_id: str) -> dict[str, Any]:
        """One job as a document. Raises NotFoundError."""
        from compute_market.jobs import documents, jobs

        check_id(job_id, "job")
        return self.view(lambda txn: documents.job_document(txn, jobs.get(txn, job_id)))

    def jobs(self) -> Iterator[dict[str, Any]]:
        """All jobs as documents, by id, read in short transactions."""
        from compute_market.jobs import documents

        after: bytes | None = None
        while True:
            found, after = self.view(lambda txn: documents.job_page(txn, after, _PAGE))  # noqa: B023 - called at once
            yield from found
            if after is None:
                return

    def offer(self, offer_id: str) -> dict[str, Any]:
        """One offer as a document. Raises NotFoundError."""
        from compute_market.offers import offers, standing

        check_id(offer_id, "offer")
        return self.view(lambda txn: standing.document(txn, offers.get(txn, offer_id)))

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

    def accept_clock(self) -> bool:
        """Take the clock as it is; False when it is believed anyway. See `clock.accept`."""
        return self.update(lambda txn: clocks.accept(txn, self.read()))

    def extend_deadlines(self, by_secs: int) -> int:
        """Move the deadline of every live job; how many. Overdue ones are not failed before."""
        from compute_market.jobs.extend import extend

        check_number(by_secs, "by_secs")
        return self.update(lambda txn: extend(txn, by_secs), sweep_limit=0)

    def tick(self) -> Due:
        """Do what is due and nothing else."""
        from compute_market.housekeeping import tick

        self.update(tick)
        return self.due

    def audit(self) -> "list[Violation]":
        """Every law of the market that is broken; none when all is well."""
        from compute_market import audit

        return self.view(lambda txn: list(audit.check(txn)))


def open_store(
    directory: str,
    config: Config,
    *,
    sleep: Callable[[float], float | None],
    creation: Creation | None = None,
) -> Store:
    """Open the store of a home directory; see `Store.open`."""
    return Store.open(
        os.path.join(directory, home.STORE),
        sleep=sleep,
        creation=creation,
        lock_timeout_ms=round(config.lock_timeout_secs * 1000),
        map_size=config.map_size_gib * 2**30,
        upgrade=_bring_up_to_date,
    )


def begin_instance(store: Store, instance_id: bytes, reason: str, *, now_ms: int) -> None:
    """Make a restored copy an instance of its own, and do nothing that is due; see `instance`.

    No flush has a bundle of it.
    """
    from compute_market import instance
    from compute_market.courier import leases

    def act(txn: Txn) -> None:
        instance.begin(txn, instance_id, reason)
        leases.free(txn)

    store.update(act, now_ms=now_ms)


def _bring_up_to_date(txn: Txn, schema: int) -> None:
    from compute_market.upgrades import bring_up_to_date

    bring_up_to_date(txn, schema)
