"""The engine of a market: the only runner of transactions, of a store under settings and a clock.

`Engine.update(fn)` does what is due, then `fn`, in one transaction; `Engine.view(fn)` only looks.
The command line and the simulation run everything through them, and so does the front door for
programs, `compute_market.market`.
"""

import errno
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec import Struct

from compute_market import clock as clocks
from compute_market import home
from compute_market.clock import Clock, Due, Reading, Time
from compute_market.config.settings import DEFAULTS, Config
from compute_market.errors import BusyError, ConflictError, MarketError, UsageError
from compute_market.records import Asked
from compute_market.store.environment import Creation
from compute_market.store.schema import PARAMETERS_SET
from compute_market.store.store import Store
from compute_market.store.txn import Txn

if TYPE_CHECKING:
    from compute_market.price_records import Board
    from compute_market.store.group import Outcome

T = TypeVar("T")

NOBODY = Asked()

# Overdue jobs that one change fails at most before its own effects.
SWEEP_LIMIT = 256
# Who saves the price board lets others wait no longer.
_SAVE_PATIENCE_MS = 1_000


class _Acted(Struct, Generic[T], frozen=True):
    """What an action did in its transaction."""

    result: T
    due: Due  # what was done first
    uncounted: "Board | None"  # the price board as it was loaded, if it is still to be counted
    priced_after: int | None  # the last price before its own; None without any


class Engine:
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
        self._has_file = False  # whether it was loaded from one, and which one that was
        self._saved: tuple[int, ...] | None = None
        self._acting: list[Txn] = []  # of the last update
        self._unsaved = 0  # receipts that could not be stored, which no counter tells yet
        # The last price before those that this process has made and not saved; None without any.
        self.priced_after: int | None = None

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the store, which has what was priced even where the price board was not saved."""
        self.store.close()

    def update(
        self,
        fn: Callable[[Txn], T],
        *,
        dry_run: bool = False,
        sweep_limit: int = SWEEP_LIMIT,
        lock_timeout_ms: int | None = None,
    ) -> T:
        """Run one action in one transaction, after what is due; rolled back with `dry_run`."""
        _housekeeping()  # Imported before the write lock is taken: nobody has to wait for that.
        self._look_at_prices_again()
        self.due = Due()
        self._acting = []
        try:
            acted = self.store.update(
                lambda txn: self._act(txn, fn, sweep_limit, self._uncounted),
                config=self.config,
                dry_run=dry_run,
                stopwatch=self.stopwatch,
                lock_timeout_ms=lock_timeout_ms,
            )
        except BusyError:
            if not dry_run:
                self._count_unsaved(self._acting)
            raise
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
        from compute_market.store.group import Outcome, attempt

        def group(txn: Txn) -> list[Outcome[_Acted[T]]]:
            self._acting = []
            found: list[Outcome[_Acted[T]]] = []
            uncounted = self._uncounted
            for fn in fns:
                act = partial(self._act, fn=fn, sweep_limit=SWEEP_LIMIT, uncounted=uncounted)
                outcome = attempt(self.store, txn, act)
                if outcome.error is None:
                    uncounted = outcome.result.uncounted
                elif isinstance(outcome.error, BusyError):
                    unsaved.append(self._acting[-1])
                found.append(outcome)
            return found

        self._look_at_prices_again()
        self.due = Due()
        outcomes: list[Outcome[T]] = []
        unsaved: list[Txn] = []
        try:
            acted = self.store.update(group, config=self.config, stopwatch=self.stopwatch)
        except BusyError:
            unsaved = self._acting
            raise
        finally:
            self._count_unsaved(unsaved)
        for each in acted:
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
        housekeeping, conclude = _housekeeping()
        self._acting.append(txn)
        # With the lock in hand: whoever waited for it would come with a time gone by.
        clocks.keep(txn, self._enter(txn, self.board))
        due = housekeeping(txn, sweep_limit)
        result = fn(txn)
        if self.board is not None and txn.noted:  # The same command again counts nothing.
            _, count = _board()
            count(txn, uncounted)
            uncounted = None
        conclude(txn, self.asked)
        return _Acted(result, due, uncounted, txn.priced_after)

    def _count_unsaved(self, txns: "list[Txn]") -> None:
        """Count the receipts of changes that could not be stored, now or after a later change."""
        self._unsaved += sum(txn.issued for txn in txns)
        if self._unsaved:
            with suppress(MarketError):  # What was in the way still is.
                self.store.update(self._count_failures, config=self.config, lock_timeout_ms=0)
                self._unsaved = 0

    def _count_failures(self, txn: Txn) -> None:
        from compute_market import metrics

        metrics.count(txn, "receipt_persist_fail_total", by=self._unsaved)

    def _keep(self, acted: "_Acted[Any]") -> None:
        """Keep in mind what was committed."""
        self._acting = []
        if self._unsaved:
            self._count_unsaved([])
        self._uncounted = acted.uncounted
        if self.priced_after is None:
            self.priced_after = acted.priced_after

    def view(self, fn: Callable[[Txn], T], *, at_once: bool = False) -> T:
        """Look at one snapshot. Changes nothing, not even what is due.

        Who wants to look `at_once` waits for nobody; see `Store.view_at_once`.
        """

        self._look_at_prices_again()
        # Another thread may save it meanwhile, with prices that this snapshot has not.
        board = self.board

        def look(txn: Txn) -> T:
            self._enter(txn, board)
            return fn(txn)

        view = self.store.view_at_once if at_once else self.store.view
        return view(look, config=self.config)

    def read(self) -> Reading:
        """What the clock says now. Raises BusyError for one that was never set."""
        return clocks.read(self.clock)

    def wall_ms(self) -> int:
        """The wall clock in unix milliseconds, believed or not."""
        return self.read().wall_ms

    def _enter(self, txn: Txn, board: "Board | None") -> Time:
        # Another thread may enter a transaction meanwhile, at another time.
        self.time = time = clocks.judge(txn, self.read())
        clocks.enter(txn, time)
        if txn.number(PARAMETERS_SET):
            from compute_market.governance import governance  # Most markets have no proposals.

            txn.config = governance.in_force(txn)
        if board is not None:
            begun, _ = _board()
            txn.board = begun(txn, board, self.priced_after)
            if self.board is board:
                self.board = txn.board
        return time

    def follow_log(self, path: str, patience_ms: int | None = None) -> None:
        """Append to `cancellations.log` at `path` what the table has and the file lacks.

        Runs after a commit and outside the write lock, and waits for another process at it no
        longer than `patience_ms`. Raises OSError when the file cannot be
        written, and where another market is by now: the next change makes it whole.
        """
        from compute_market.jobs import cancellations

        if self.store.readonly or self.view(cancellations.length) == cancellations.length_at(path):
            return

        def missing(offset: int) -> bytes:
            # The file was opened by its path, maybe in another home: it was waited for.
            self._check_here()
            return self.view(lambda txn: cancellations.text_from(txn, offset))

        try:
            self._check_here()
            cancellations.append(path, missing, self.store.patience(patience_ms))
        except ConflictError as error:
            raise OSError(errno.ESTALE, "another market has taken the place of this one") from error

    def load_prices(self) -> "Board":
        """Read the price board, for the transactions that follow; see `price_file.load`."""
        from compute_market.offers import price_file

        self._saved = price_file.stamp(self.store.path, self.config)
        self._has_file = True
        self.board = self._uncounted = price_file.load(self.store.path, self.config)
        return self.board

    def _look_at_prices_again(self) -> None:
        """Read the price board anew if its file is another by now, or gone.

        The board is what its file says, to a process that runs for long as well.
        """
        if not self._has_file:
            return
        from compute_market.offers import price_file

        saved = price_file.stamp(self.store.path, self.config)
        if saved != self._saved:
            self._saved = saved
            with suppress(UsageError):
                self.board = price_file.load(self.store.path, self.config)

    def save_prices(self) -> "Board | None":
        """Write the committed prices of this process to the board; None without any.

        Raises what `price_file.save` raises, and ConflictError where another market is by now,
        which has a board of its own; the store has them all the same.
        """
        after = self.priced_after
        if after is None:
            return None
        from compute_market.offers import price_file, price_window

        of_others = None if self.board is None else self.board.seq_of_others

        def change(found: "Board") -> "Board":
            self._check_here()  # It was opened by its path, and waited for.
            return self.view(lambda txn: price_window.joined(txn, found, after, of_others))

        self._check_here()
        self.board = price_file.save(
            self.store.path, self.config, self.store.patience(_SAVE_PATIENCE_MS), change
        )
        self._saved = price_file.stamp(self.store.path, self.config)
        self.priced_after = None
        return self.board

    def _check_here(self) -> None:
        """Raise ConflictError where the files beside the store are another market's by now."""
        if not self.store.is_here():
            raise home.moved(self.store.path)


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


# What not every command needs is imported late, and once: an import takes longer than a small call.


@cache
def _housekeeping() -> "tuple[Callable[[Txn, int], Due], Callable[[Txn, Asked], None]]":
    import compute_market.housekeeping as housekeeping

    return housekeeping.housekeeping, housekeeping.conclude


@cache
def _board() -> (
    "tuple[Callable[[Txn, Board, int | None], Board], Callable[[Txn, Board | None], None]]"
):
    import compute_market.offers.price_window as price_window

    return price_window.begun, price_window.count
