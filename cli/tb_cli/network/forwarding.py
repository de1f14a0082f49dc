"""Forwarding: takes bundles that wait to where they are to go, and books what came of it.

Bundles are leased in pages of a window, so that memory stays flat, and go to a few threads by
destination. What failed waits in a heap for its next attempt while others go on. What came of
bundles is stored in batches, and the next page is leased in the same transaction; whatever ends a
flush, what it knows is stored and its leases are given back. One that is killed leaves leases that
end by themselves: its bundles are forwarded again then, which changes nothing where they were
taken.
"""

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from heapq import heappop, heappush
from random import Random
from typing import Literal

from msgspec import Struct

from compute_market import chain
from compute_market.courier import courier, leases, retries
from compute_market.courier.courier import Attempted, Claimed
from compute_market.courier.leases import HOLDER_BYTES
from compute_market.courier_records import BundleReceipt
from compute_market.errors import BusyError, MarketError
from compute_market.store.schema import BUNDLES_PENDING
from compute_market.store.txn import Txn
from compute_market.text import cause_of, clipped
from tb_cli.frame import bundles
from tb_cli.frame.node_key import node_key
from tb_cli.frame.session import Session
from tb_cli.network import destinations
from tb_cli.network.destinations import Answer, Destination, Sender
from tb_cli.network.forwarded import Forwarded

PARALLEL = 4
_THREADS = "forward"  # what the names of the threads begin with
WINDOW = 1000  # bundles that are leased and not booked yet, about
PAGE = 500  # that are leased, or booked, in one transaction
# Seconds after which what came of a bundle is booked even where there is little of it.
_BOOK_AFTER_S = 1.0
# Transactions after which the data file is mapped anew, so that memory stays flat.
_BOOKS_MAPPED = 4
_SHOW_EVERY_S = 1.0
_ERROR_MAX = 300  # characters of what went wrong that are kept
# A destination that took none of so many bundles in a row gets no more of them in this flush.
_GIVE_UP_AFTER = 100


class _Item(Struct, gc=False):
    """A bundle that is leased."""

    receipt: BundleReceipt
    attempts: int = 0
    failures: int = 0
    error: str | None = None


_Parcel = list[_Item]
_Outcome = Literal["acknowledged", "failed", "refused"]
# Told how far a flush came, and how many seconds it waits for, if it does.
Show = Callable[[Forwarded, float | None], None]


def forward(
    session: Session,
    *,
    only: int | None = None,
    parallel: int = PARALLEL,
    limit: int | None = None,
    max_attempts: int | None = None,
    show: Show | None = None,
) -> Forwarded:
    """Forward what waits, or the one bundle with the id `only`.

    At most `limit` bundles are tried, each as often as the settings or `max_attempts` say. `show`
    is told how far it came and how many seconds it waits for, if it does. Raises what an update of
    the market raises; whatever ends it, no lease is kept.
    """
    flush = _Flush(session, only, limit, max_attempts, parallel, show)
    try:
        flush.run()
    finally:
        flush.end()
    return flush.came()


class _Flush:
    def __init__(
        self,
        session: Session,
        only: int | None,
        limit: int | None,
        max_attempts: int | None,
        parallel: int,
        show: Show | None,
    ) -> None:
        self._session = session
        self._only = only
        self._limit = limit
        self._max_attempts = max_attempts or session.config.courier_max_attempts
        self._parallel = parallel
        self._show = show
        self._random = Random(os.urandom(16))
        self._holder = os.urandom(HOLDER_BYTES)
        self._executor = ThreadPoolExecutor(parallel, _THREADS)
        self._sender = Sender(
            session.home.path,
            session.view(chain.market_id),
            partial(node_key, session),
            session.config.net_trusted,
            session.config.courier_timeout_secs,
            partial(bundles.open_checked, session.home),
        )
        self._destinations: dict[str, Destination | MarketError] = {}
        self._failed_in_a_row: dict[str, int] = {}
        self._after: int | None = None  # seq of the last bundle that was looked at
        self._is_at_end = limit == 0
        self._leased_until = 0.0  # monotonic; when to renew the leases
        self._items: dict[int, _Item] = {}  # all that are leased and not booked, by seq
        self._leased: Counter[str] = Counter()  # how many of them each destination has
        # By destination, of those that have any, in the order of their turns.
        self._ready: dict[str, deque[_Item]] = {}
        self._threads: Counter[str] = Counter()  # what is under way, by destination
        self._waiting: list[tuple[float, int, _Item]] = []  # a heap by the time of the next attempt
        self._under_way: dict[Future[list[Answer]], _Parcel] = {}
        self._done: list[Attempted] = []
        self._book_at = 0.0
        self._books = 0
        self._came = Forwarded()
        self._pending = session.view(lambda txn: txn.size(BUNDLES_PENDING))

    def run(self) -> None:
        while self._items or not self._is_at_end:
            if self._items:
                self._renew()
                self._hand_out()
                self._collect()
            if not self._items or self._is_to_be_booked():
                self._book()

    def came(self) -> Forwarded:
        self._came.left = self._session.view(lambda txn: txn.size(BUNDLES_PENDING))
        return self._came

    def end(self) -> None:
        """Stop what is under way, book what is known, and give every lease back."""
        for destination in self._destinations.values():
            if not isinstance(destination, MarketError):
                destination.close()
        self._executor.shutdown(cancel_futures=True)
        for thread in threading.enumerate():
            # One that an interrupt found starting is not known to the executor.
            if thread.name.startswith(_THREADS):
                thread.join()
        for future, parcel in self._under_way.items():
            if not future.cancelled() and future.exception() is None:
                self._answered(parcel, future.result())
        self._under_way.clear()
        booked = {each.seq for each in self._done}
        left = [each for each in self._items.values() if each.receipt.seq not in booked]
        self._done += (_attempted(each, "failed") for each in left)
        if self._done:
            self._session.update(
                lambda txn: courier.record(txn, self._done, self._holder), sweep_limit=0
            )

    # What is leased, and booked.

    def _book(self) -> None:
        """Store what came of bundles, and lease the next ones, in one transaction."""
        size = self._page()
        done, self._done = self._done, []

        def act(txn: Txn) -> Claimed | None:
            courier.record(txn, done, self._holder)
            if not size:
                return None
            return courier.claim(txn, self._holder, self._after, size, only=self._only)

        try:
            claimed = self._session.update(act)
        except BaseException:
            self._done = done  # None of it is stored.
            raise
        for each in done:
            self._forget(each.seq)
        self._book_at = time.monotonic() + _BOOK_AFTER_S
        self._books += 1
        if self._books % _BOOKS_MAPPED == 0:
            self._session.let_go()
        if claimed is not None:
            self._lease(claimed)

    def _page(self) -> int:
        """How many bundles to lease next."""
        if self._is_at_end or len(self._items) - len(self._done) > WINDOW - PAGE:
            return 0
        return PAGE if self._limit is None else min(PAGE, self._limit)

    def _lease(self, claimed: Claimed) -> None:
        self._after = claimed.after
        self._is_at_end = claimed.after is None
        self._came.refused += claimed.refused
        self._came.held += claimed.held
        self._came.held_until_ms = max(self._came.held_until_ms, claimed.held_until_ms)
        if not self._items:
            self._leased_until = time.monotonic() + self._session.config.courier_lease_secs / 2
        if self._limit is not None:
            self._limit -= len(claimed.receipts)
            self._is_at_end = self._is_at_end or not self._limit
        for receipt in claimed.receipts:
            item = self._items[receipt.seq] = _Item(receipt)
            self._leased[receipt.dest] += 1
            self._ready.setdefault(receipt.dest, deque()).append(item)

    def _forget(self, seq: int) -> None:
        item = self._items.pop(seq, None)
        if item is not None:
            self._leased[item.receipt.dest] -= 1
            if not self._leased[item.receipt.dest]:
                del self._leased[item.receipt.dest]

    def _renew(self) -> None:
        """Let no lease end while its bundle is under way; one that has ended is another's."""
        now = time.monotonic()
        if now < self._leased_until:
            return
        held = self._session.update(lambda txn: leases.renew(txn, self._holder, self._items))
        self._leased_until = now + self._session.config.courier_lease_secs / 2
        under_way = {item.receipt.seq for p in self._under_way.values() for item in p}
        done = {each.seq for each in self._done}
        lost = self._items.keys() - held - under_way - done
        # What they were tried counts all the same.
        tried = [self._items[each] for each in lost if self._items[each].attempts]
        self._done += (_attempted(item, "failed") for item in tried)
        for dest, queue in list(self._ready.items()):
            self._ready[dest] = deque(x for x in queue if x.receipt.seq not in lost)
            if not self._ready[dest]:
                del self._ready[dest]
        for seq in lost:
            self._forget(seq)

    def _is_to_be_booked(self) -> bool:
        if len(self._done) >= PAGE or (self._done and time.monotonic() >= self._book_at):
            return True
        if len(self._under_way) == self._parallel or self._next() is not None:
            return False
        # Somebody has nothing to do.
        return bool(self._page() or (self._done and not self._under_way))

    # What is tried.

    def _hand_out(self) -> None:
        """Give what is to be tried now to threads that have nothing to do, each its share."""
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            item = heappop(self._waiting)[2]
            if item.receipt.seq in self._items:
                self._ready.setdefault(item.receipt.dest, deque()).append(item)
        while len(self._under_way) < self._parallel and (dest := self._next()) is not None:
            queue = self._ready[dest]
            destination = self._destination(dest)
            if isinstance(destination, MarketError) or self._gave_up(dest):
                self._leave(queue, destination)
            else:
                parcel = [queue.popleft() for _ in range(min(len(queue), destination.batch))]
                receipts = [each.receipt for each in parcel]
                self._under_way[self._executor.submit(destination.send, receipts)] = parcel
                self._threads[dest] += 1
            if not queue:
                del self._ready[dest]
            elif len(self._ready) > 1:
                self._ready[dest] = self._ready.pop(dest)  # It has had its turn.

    def _next(self) -> str | None:
        """The destination whose turn it is: of those with the fewest threads that longest ago.

        One that hangs must not have all threads while there is, or may be, something for others.
        """
        dest = min(self._ready, key=self._threads.__getitem__, default=None)
        if dest is None:
            return None
        is_trusted = self._failed_in_a_row.get(dest) == 0
        is_alone = len(self._leased) == 1 and (is_trusted or self._is_at_end)
        is_full = self._threads[dest] >= max(1, self._parallel - 1)
        return None if is_full and not is_alone else dest

    def _leave(self, queue: deque[_Item], problem: Destination | MarketError) -> None:
        """Try no more of what is for a destination that cannot be, or takes nothing."""
        for item in queue:
            if isinstance(problem, MarketError):
                self._answered([item], [Answer("failed", problem.message, is_final=True)])
            else:
                self._finish(item, "failed")
        queue.clear()

    def _destination(self, dest: str) -> Destination | MarketError:
        found = self._destinations.get(dest)
        if found is None:
            try:
                found = destinations.opened(dest, self._sender)
            except MarketError as error:
                found = error
            except OSError as error:  # The certificates of those who are believed, say.
                found = BusyError(f"{dest}: {cause_of(error)}", reason="not_delivered")
            self._destinations[dest] = found
        return found

    def _gave_up(self, dest: str) -> bool:
        return self._failed_in_a_row.get(dest, 0) >= _GIVE_UP_AFTER

    def _collect(self) -> None:
        """Wait for an answer, or until something is to be done without one."""
        now = time.monotonic()
        due = self._waiting[0][0] - now if self._waiting else None
        if self._show is not None:
            self._came.left = self._pending - self._came.acknowledged - self._came.refused
            self._show(self._came, None if self._under_way else due)
        if not self._under_way:
            if due is not None and not self._is_to_be_booked():
                time.sleep(max(0.0, min(due, _SHOW_EVERY_S)))
            return
        times = [self._book_at - now if self._done else None, due, self._leased_until - now]
        is_free = len(self._under_way) < self._parallel
        timeout = min(max(0.0, each) for each in times if each is not None)
        if not is_free and due is not None and due <= 0:
            timeout = _BOOK_AFTER_S  # There is nobody who could try it.
        found = wait(self._under_way, timeout, FIRST_COMPLETED)
        for future in found.done:
            parcel = self._under_way.pop(future)
            self._threads[parcel[0].receipt.dest] -= 1
            try:
                answers = future.result()
            except MarketError as error:
                answers = [Answer("failed", error.message)] * len(parcel)
            except OSError as error:
                answers = [Answer("failed", cause_of(error))] * len(parcel)
            self._answered(parcel, answers)

    def _answered(self, parcel: _Parcel, answers: Sequence[Answer]) -> None:
        for item, answer in zip(parcel, answers, strict=True):
            item.attempts += 1
            item.error = None if answer.error is None else clipped(answer.error, _ERROR_MAX)
            self._came.attempts += 1
            self._came.retried += item.attempts > 1
            if answer.outcome == "failed":
                item.failures += 1
                self._came.failures += 1
                if not answer.is_final and item.attempts < self._max_attempts:
                    self._try_later(item)
                    continue
            self._finish(item, answer.outcome)

    def _try_later(self, item: _Item) -> None:
        base = self._session.config.courier_backoff_ms
        ms = retries.wait_ms(base, item.failures, self._random.randrange)
        heappush(self._waiting, (time.monotonic() + ms / 1000, item.receipt.seq, item))

    def _finish(self, item: _Item, outcome: _Outcome) -> None:
        dest = item.receipt.dest
        row = self._failed_in_a_row.get(dest, 0)
        self._failed_in_a_row[dest] = row + 1 if outcome == "failed" else 0
        if outcome == "failed" and item.receipt.kind == "handoff" and item.attempts:
            outcome = "refused"  # Its job stays where it is, and it is not tried another time.
        if outcome == "acknowledged":
            self._came.acknowledged += 1
        else:
            self._came.refused += outcome == "refused"
            self._came.failed += outcome == "failed" and item.attempts > 0
            self._came.note(dest, item.error)
        self._done.append(_attempted(item, outcome))


def _attempted(item: _Item, outcome: _Outcome) -> Attempted:
    return Attempted(item.receipt.seq, outcome, item.attempts, item.failures, item.error)
