"""One command's access to the market: configuration, clock, one transaction at a time.

Nothing is imported and no file is looked at before it is needed.
"""

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from compute_market.errors import BusyError, UsageError
from tb_cli.frame import home
from tb_cli.frame.verbs import Market, Verb, bound, parameters_of

if TYPE_CHECKING:
    from compute_market.config.settings import Config
    from compute_market.store.store import Store, Txn

T = TypeVar("T")
K = TypeVar("K")

PAGE = 1000  # records that a listing reads in one transaction
# Pages of a listing after which the data file is mapped anew.
_PAGES_MAPPED = 64


class _Opened:
    """What the lines of a batch have in common: each part is there once one of them needed it."""

    def __init__(self) -> None:
        self.store: Store | None = None
        self.config: Config | None = None
        self.throw_away: Any = None

    def close(self) -> None:
        if self.store is not None:
            self.store.close()
            self.store = None
        if self.throw_away is not None:
            self.throw_away.cleanup()


class Session:
    """What a command needs to act. The store is opened on first use."""

    def __init__(
        self,
        settings: dict[str, Any],
        market: Market = "needed",
        batch: "Session | None" = None,
    ) -> None:
        self.json: bool = settings.get("json", False)
        self.dry_run: bool = settings.get("dry_run", False)
        self.color: bool = not settings.get("no_color") and "NO_COLOR" not in os.environ
        self.home = home.locate(settings.get("home"))
        self.swept: list[str] = []  # overdue jobs that the last update failed first
        self._lock_timeout: float | None = settings.get("lock_timeout")
        if self._lock_timeout is not None and not 0 <= self._lock_timeout <= 86_400:
            raise UsageError(f"--lock-timeout {self._lock_timeout:g} is not 0…86400 seconds")
        self._market = market
        self._opened = _Opened()
        self._is_line = False
        if batch is not None:
            self.json = self.json or batch.json
            self.dry_run = self.dry_run or batch.dry_run
            if settings.get("home") is None or self.home == batch.home:
                self.home, self._opened, self._is_line = batch.home, batch._opened, True

    @classmethod
    @contextmanager
    def begin(
        cls,
        settings: dict[str, Any],
        market: Market = "needed",
        batch: "Session | None" = None,
    ) -> "Iterator[Session]":
        """A session for one command; a line of a batch uses the store and home of the batch."""
        _collect_garbage()
        session = cls(settings, market, batch)
        try:
            yield session
        finally:
            if not session._is_line:
                session._opened.close()

    @property
    def config(self) -> "Config":
        if self._opened.config is None:
            self._opened.config, _ = self.configuration()
        return self._opened.config

    def configuration(self) -> "tuple[Config, dict[str, str]]":
        """The configuration and the origin of each setting."""
        from compute_market.config import settings as config
        from compute_market.records import replace
        from tb_cli.frame import files

        path = self.home.config
        content = None
        try:
            content = files.read_kept(path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from error
        loaded, origins = config.load(content, path, os.environ)
        if self._lock_timeout is not None:
            origins["lock_timeout_secs"] = "--lock-timeout"
            loaded = replace(loaded, lock_timeout_secs=self._lock_timeout)
        return loaded, origins

    @property
    def is_open(self) -> bool:
        """Whether the store has been opened by this process."""
        return self._opened.store is not None

    @property
    def store(self) -> "Store":
        """The store of the home, made if there is none and the verb may; that is told.

        Raises NotFoundError if there is none and it may not.
        """
        if self._opened.store is None and self.open() and not self.dry_run:
            print(f"created a market in {self.home}", file=sys.stderr)
        assert self._opened.store is not None
        return self._opened.store

    def open(self) -> bool:
        """Open the store unless it is open, and return whether it had to be made.

        In a dry run one that had to be is thrown away afterwards.
        """
        from compute_market.store.store import Store

        if self._opened.store is not None:
            return False
        assert self._market != "unused", "the verb has declared that it needs no market"
        config = self.config
        is_new = not self.home.has_market()
        self._opened.store = Store.open(
            self._new_market() if is_new else self.home.market,
            now_ms=now_ms(),
            market_id=os.urandom(16),
            sleep=_sleep,
            lock_timeout_ms=round(config.lock_timeout_secs * 1000),
            map_size=config.map_size_gib * 2**30,
        )
        return is_new

    def update(
        self, fn: "Callable[[Txn], T]", *, sweep_limit: int | None = None, wait: bool = True
    ) -> T:
        """Run one action in one transaction, after what is due; rolled back if dry.

        Without `wait` the write lock is had at once or not at all.
        """
        from compute_market.jobs import lifecycle

        limit = lifecycle.SWEEP_LIMIT if sweep_limit is None else sweep_limit

        def action(txn: "Txn") -> T:
            self.swept = lifecycle.housekeeping(txn, self.config, limit)
            return fn(txn)

        result = self.store.update(
            action,
            now_ms=now_ms(),
            dry_run=self.dry_run,
            stopwatch=time.perf_counter_ns,
            lock_timeout_ms=None if wait else 0,
        )
        if not self.dry_run:
            self.follow_log()
        return result

    def view(self, fn: "Callable[[Txn], T]") -> T:
        """Look at one snapshot, after what is due was done.

        A reader does not wait for writers: if one is at work, what is due is left to it.
        """
        from compute_market.jobs import lifecycle

        if not self.store.readonly and self.snapshot(
            lambda txn: lifecycle.is_due(txn, self.config)
        ):
            with suppress(BusyError):
                self.update(lambda txn: None, wait=False)
        result = self.snapshot(fn)
        if not self.dry_run:
            self.follow_log()
        return result

    def snapshot(self, fn: "Callable[[Txn], T]") -> T:
        """Look at the market as it lies, with what is due left undone."""
        return self.store.view(fn, now_ms=now_ms())

    def pages(
        self, fetch: "Callable[[Txn, K, int], tuple[list[T], K | None]]", start: K
    ) -> Iterator[list[T]]:
        """What `fetch` finds page by page, each in a short transaction of its own.

        It gets the key to go on after and how many records to look at, and returns the next key or
        None. Memory stays flat however long a listing is.
        """
        after = start
        for number in count(1):
            found, last = self.view(partial(_from, fetch, after, PAGE))
            yield found
            if last is None:
                return
            after = last
            if number % _PAGES_MAPPED == 0:
                self.store.let_go()

    def follow_log(self) -> None:
        """Make `cancellations.log` whole; a failure is a warning, the table is the truth."""
        from compute_market.jobs import cancellations

        if self.store.readonly:
            return
        path = self.home.cancellations
        try:
            cancellations.follow(self.store, path, now_ms=now_ms())
        except OSError as error:
            print(
                f"warning: {path}: {error.strerror}; the next command makes it whole",
                file=sys.stderr,
            )

    def _new_market(self) -> str:
        """Where the store is to be made."""
        if self._market != "created":
            self.home.check_market()
        self.home.check()
        if not self.dry_run:
            self.home.make()
            return self.home.market
        import tempfile

        self._opened.throw_away = tempfile.TemporaryDirectory(prefix="tb-dry-run-")
        return os.path.join(self._opened.throw_away.name, "market")


def perform(
    verb: Verb,
    function: Callable[..., int | None],
    values: dict[str, Any],
    settings: dict[str, Any],
    batch: Session | None,
) -> int:
    """Run a verb to its exit code. Each of its parameters has a value."""
    with Session.begin(settings, verb.market, batch) as session:
        return function(session, **bound(parameters_of(function), values)) or 0


def _from(
    fetch: "Callable[[Txn, K, int], tuple[list[T], K | None]]", after: K, page: int, txn: "Txn"
) -> tuple[list[T], K | None]:
    return fetch(txn, after, page)


def _collect_garbage() -> None:
    """Start the collector that `entry` stopped; what start-up built is no garbage."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def _sleep(seconds: float) -> float:
    """Sleep, and return how long it really took: on a busy machine that is longer."""
    began = time.monotonic()
    time.sleep(seconds)
    return time.monotonic() - began


def now_ms() -> int:
    return time.time_ns() // 1_000_000
