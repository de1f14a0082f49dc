"""One command's access to the market: home, configuration, clock, one transaction at a time."""

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from compute_market.config import settings as config
from compute_market.config.settings import Config
from compute_market.errors import BusyError, UsageError
from compute_market.jobs import cancellations, lifecycle
from compute_market.records import replace
from compute_market.store.store import Store, Txn
from tb_cli.frame import files

if TYPE_CHECKING:
    from typer import Context

T = TypeVar("T")
K = TypeVar("K")

# Pages of a listing after which the data file is mapped anew.
_PAGES_MAPPED = 64


class Session:
    """What a command needs to act. The store is opened on first use."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.json: bool = settings.get("json", False)
        self.dry_run: bool = settings.get("dry_run", False)
        self.color: bool = not settings.get("no_color") and "NO_COLOR" not in os.environ
        self.home: str = _home(settings.get("home"))
        self._lock_timeout: float | None = settings.get("lock_timeout")
        self._store: Store | None = None
        self._config: Config | None = None
        self._throw_away: Any = None
        self.swept: list[str] = []  # overdue jobs that the last update failed first

    @classmethod
    @contextmanager
    def begin(
        cls, settings: dict[str, Any], within: "Session | None" = None
    ) -> "Iterator[Session]":
        """A session for one command; a line of a batch uses the store and home of the batch."""
        _collect_garbage()
        session = cls(settings)
        shared = within is not None and (
            settings.get("home") is None or session.home == within.home
        )
        if within is not None:
            session.json = session.json or within.json
            session.dry_run = session.dry_run or within.dry_run
            if shared:
                session._share(within)
        try:
            yield session
        finally:
            if not shared:
                session.close()

    @classmethod
    def of(cls, ctx: "Context") -> "Session":
        session = ctx.obj
        assert isinstance(session, cls)
        return session

    @property
    def config(self) -> Config:
        if self._config is None:
            self._config, _ = self.configuration()
        return self._config

    def configuration(self) -> tuple[Config, dict[str, str]]:
        """The configuration and the origin of each setting."""
        path = os.path.join(self.home, "config.toml")
        content = None
        try:
            content = files.read_kept(path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from error
        loaded, origins = config.load(content, path, os.environ)
        if self._lock_timeout is not None:
            if not 0 <= self._lock_timeout <= 86_400:
                raise UsageError(f"--lock-timeout {self._lock_timeout:g} is not 0…86400 seconds")
            origins["lock_timeout_secs"] = "--lock-timeout"
            loaded = replace(loaded, lock_timeout_secs=self._lock_timeout)
        return loaded, origins

    @property
    def store_path(self) -> str:
        return os.path.join(self.home, "market")

    @property
    def is_open(self) -> bool:
        """Whether the store has been opened by this process."""
        return self._store is not None

    @property
    def store(self) -> Store:
        if self._store is None:
            self._store = Store.open(
                self._path_to_open(),
                now_ms=now_ms(),
                market_id=os.urandom(16),
                sleep=_sleep,
                lock_timeout_ms=round(self.config.lock_timeout_secs * 1000),
                map_size=self.config.map_size_gib * 2**30,
            )
        return self._store

    def update(
        self, fn: Callable[[Txn], T], *, sweep_limit: int = lifecycle.SWEEP_LIMIT, wait: bool = True
    ) -> T:
        """Run one action in one transaction, after what is due; rolled back if dry.

        Without `wait` the write lock is had at once or not at all.
        """

        def action(txn: Txn) -> T:
            self.swept = lifecycle.housekeeping(txn, self.config, sweep_limit)
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

    def view(self, fn: Callable[[Txn], T]) -> T:
        """Look at one snapshot, after what is due was done.

        A reader does not wait for writers: if one is at work, what is due is left to it.
        """
        at = now_ms()
        if not self.store.readonly and self.store.view(
            lambda txn: lifecycle.is_due(txn, self.config), now_ms=at
        ):
            with suppress(BusyError):
                self.update(lambda txn: None, wait=False)
        result = self.store.view(fn, now_ms=at)
        if not self.dry_run:
            self.follow_log()
        return result

    def pages(
        self, fetch: Callable[[Txn, K], tuple[list[T], K | None]], start: K
    ) -> Iterator[list[T]]:
        """What `fetch` finds page by page, each in a short transaction of its own.

        It gets the key to go on after, and returns the next one or None. Memory stays flat however
        long a listing is.
        """
        after = start
        for number in count(1):
            found, last = self.view(partial(_from, fetch, after))
            yield found
            if last is None:
                return
            after = last
            if number % _PAGES_MAPPED == 0:
                self.store.let_go()

    def follow_log(self) -> None:
        """Make `cancellations.log` whole; a failure is a warning, the table is the truth."""
        if self.store.readonly:
            return
        path = os.path.join(self.home, "cancellations.log")
        try:
            cancellations.follow(self.store, path, now_ms=now_ms())
        except OSError as error:
            print(
                f"warning: {path}: {error.strerror}; the next command makes it whole",
                file=sys.stderr,
            )

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None
        if self._throw_away is not None:
            self._throw_away.cleanup()

    def _share(self, batch: "Session") -> None:
        self.home = batch.home
        self._config = batch.config
        self._store = batch.store

    def check_home(self) -> None:
        """Find out, and make nothing, whether files can be put into the home, there or not yet.

        Raises UsageError. Slow work whose result is kept there asks this first.
        """
        if os.path.exists(self.home) and not os.path.isdir(self.home):
            raise UsageError(f"{self.home} is not a directory", hint="give another --home")
        found = self.home
        while not os.path.lexists(found):
            found = os.path.dirname(found)
        problem = None
        if not os.path.isdir(found):
            problem = "not a directory"
        elif os.statvfs(found).f_flag & os.ST_RDONLY:
            problem = "read-only file system"
        elif not os.access(found, os.W_OK | os.X_OK):
            problem = "permission denied"
        if problem is not None:
            hint = "choose another directory with --home or TB_HOME"
            raise UsageError(f"{self.home}: {problem}", hint=hint)

    def make_home(self) -> None:
        """Create the home directory unless it is there."""
        try:
            os.makedirs(self.home, mode=0o700, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{self.home}: {(error.strerror or str(error)).lower()}") from error

    def _path_to_open(self) -> str:
        """The store of the home; for a dry run where there is none yet, one that is thrown away."""
        if os.path.exists(os.path.join(self.store_path, "data.mdb")):
            return self.store_path
        self.check_home()
        if not self.dry_run:
            self.make_home()
            return self.store_path
        import tempfile

        self._throw_away = tempfile.TemporaryDirectory(prefix="tb-dry-run-")
        return os.path.join(self._throw_away.name, "market")


def _from(
    fetch: Callable[[Txn, K], tuple[list[T], K | None]], after: K, txn: Txn
) -> tuple[list[T], K | None]:
    return fetch(txn, after)


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


def _home(option: str | None) -> str:
    home = option or os.environ.get("TB_HOME") or "~/.the_block"
    return files.check_text(os.path.abspath(os.path.expanduser(home)), "the home directory")
