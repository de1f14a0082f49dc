"""One command's access to the market: configuration, clock, one transaction at a time.

Nothing is imported and no file is looked at before it is needed.
"""

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from compute_market.errors import UsageError
from compute_market.text import printable
from tb_cli.frame import home
from tb_cli.frame.verbs import NeedOfMarket

if TYPE_CHECKING:
    from compute_market.clock import Clock, Due
    from compute_market.config.settings import Config
    from compute_market.engine import Engine
    from compute_market.records import Asked
    from compute_market.store.environment import Creation
    from compute_market.store.txn import Txn
    from tb_cli.frame.home import Home
    from tb_cli.frame.trial import Trial

T = TypeVar("T")
K = TypeVar("K")

# Characters of a command line that the log keeps.
_COMMAND_MAX = 1000


class _Opened:
    """What the lines of a batch have in common: each part is there once one of them needed it."""

    def __init__(self) -> None:
        self.market: Engine | None = None
        self.config: Config | None = None
        self.throw_away: Any = None
        self.told_of_clock = False
        self.told_of_owner = False
        self.told_of_variables = False
        self.priced_s: float | None = None  # since when matches have made prices to be saved

    def close_market(self) -> None:
        if self.market is not None:
            self.market.close()
            self.market = None

    def close(self) -> None:
        self.close_market()
        if self.throw_away is not None:
            self.throw_away.cleanup()


class Session:
    """What a command needs to act. The store is opened on first use."""

    def __init__(
        self,
        settings: dict[str, Any],
        market: NeedOfMarket = "needed",
        batch: "Session | None" = None,
        command: Sequence[str] = (),
    ) -> None:
        own_home: str | None = settings.get("home")
        if batch is not None:
            settings = batch._settings | settings
        self._settings: dict[str, Any] = settings
        self.json: bool = settings.get("json", False)
        self.dry_run: bool = settings.get("dry_run", False)
        # Whether it is told when the price board was loaded or saved; `serve` does in its log.
        self.tells_of_prices: bool = bool(settings.get("debug")) or "TB_DEBUG" in os.environ
        self.color: bool = not settings.get("no_color") and "NO_COLOR" not in os.environ
        self.amounts_are_text: bool = home.amounts_are_text(settings.get("json_amounts"))
        self._given_home: str | None = settings.get("home")
        # A verb that needs no market may need no home either, and then none need be known.
        self._home = None if market == "unused" else home.locate(self._given_home)
        self._command = command
        self._lock_timeout: float | None = settings.get("lock_timeout")
        if self._lock_timeout is not None and not 0 <= self._lock_timeout <= 86_400:
            raise UsageError(f"--lock-timeout {self._lock_timeout:g} is not 0…86400 seconds")
        self._market = market
        self._opened = _Opened()
        self._trial: Trial | None = None
        self.is_line = False  # one of a batch, on the same home
        if batch is not None and (own_home is None or self.home.path == batch.home.path):
            self._home, self._opened, self.is_line = batch._home, batch._opened, True

    @classmethod
    @contextmanager
    def begin(
        cls,
        settings: dict[str, Any],
        market: NeedOfMarket = "needed",
        batch: "Session | None" = None,
        command: Sequence[str] = (),
    ) -> "Iterator[Session]":
        """A session for one command; a line of a batch uses the store and home of the batch."""
        _collect_garbage()
        session = cls(settings, market, batch, command)
        try:
            yield session
        finally:
            session._end_trial()
            if not session.is_line:
                try:
                    session.save_prices()
                finally:
                    session._opened.close()

    @property
    def home(self) -> "Home":
        """The home that is meant. Raises UsageError if none is known."""
        if self._home is None:
            self._home = home.locate(self._given_home)
        return self._home

    @property
    def config(self) -> "Config":
        if self._opened.config is None:
            if self._lock_timeout is None and not self._has_settings():
                from compute_market.config.settings import DEFAULTS

                self._opened.config = DEFAULTS
            else:
                self._opened.config, _ = self.configuration()
        return self._opened.config

    def _has_settings(self) -> bool:
        """Whether a file or a variable may change a setting. Most often nothing does, and a command
        need not know how they are read."""
        return os.path.lexists(self.home.config) or any(
            name.startswith("TB_") and name not in home.OTHER_VARIABLES for name in os.environ
        )

    def configuration(self) -> "tuple[Config, dict[str, str]]":
        """The configuration and the origin of each setting."""
        from tb_cli.frame.configuration import load, warning_of

        loaded, origins, unknown = load(self.home.config, self._lock_timeout)
        if not self._opened.told_of_variables:
            self._opened.told_of_variables = True
            for name in unknown:
                _note(warning_of(name))
        return loaded, origins

    @property
    def is_open(self) -> bool:
        """Whether the store has been opened by this process."""
        return self._opened.market is not None

    @property
    def market(self) -> "Engine":
        """The market of the home. Where there is none, a verb that makes one has one to try on.

        Raises NotFoundError if there is none and the verb may not make one.
        """
        if self._trial is not None:
            return self._trial.market
        if self._opened.market is None:
            is_new = not self.home.has_market()
            if is_new and self._market == "created" and not self.dry_run:
                self._trial = self._begin_trial()
                return self._trial.market
            self._open(is_new)
        assert self._opened.market is not None
        return self._opened.market

    def open(self) -> bool:
        """Open the store unless it is open, and return whether it had to be made.

        In a dry run one that had to be is thrown away afterwards.
        """
        if self._opened.market is not None:
            return False
        is_new = not self.home.has_market()
        self._open(is_new)
        return is_new

    def open_told(self) -> None:
        """The same, and say so if it had to be made and stays."""
        if self.open() and not self.dry_run:
            _note(f"created a market in {printable(str(self.home))}")

    def _open(self, is_new: bool) -> None:
        assert self._market != "unused", "the verb has declared that it needs no market"
        warning = self.home.check_owner()
        if warning and not self._opened.told_of_owner:
            self._opened.told_of_owner = True
            _note(f"warning: {warning}")
        config = self.config
        # One that is there may be unfinished: whoever made it was killed, or is still at it.
        finishes = self._market == "created" and not self.dry_run
        # First of all: under a clock that cannot be right nothing is made.
        from tb_cli.frame.clocks import genesis, system_clock

        clock = system_clock()
        creation = genesis(clock) if is_new or finishes else None
        home = self.home.path
        if is_new:
            from tb_cli.frame import new_market

            if self._market != "created":
                self.home.check_market()
            home, self._opened.throw_away = new_market.directory(self.home, stays=not self.dry_run)
        self._opened.market = _market_in(home, config, clock, creation)
        if is_new and not self.dry_run:
            self._opened.market.asked = self.asked()
            new_market.begin(self._opened.market, self.home)

    def update(
        self, fn: "Callable[[Txn], T]", *, sweep_limit: int | None = None, tells: bool = True
    ) -> T:
        """Run one action in one transaction, after what is due; rolled back if dry.

        A home that is not there is made once an action has something to write. What was due is told
        in one line, unless the caller does that for several changes. The log of cancellations
        follows.
        """
        from compute_market.engine import SWEEP_LIMIT

        market = self.market
        if self._trial is not None:
            result, is_written = self._trial.attempt(fn)
            if not is_written:
                return result
            self._end_trial()
            self.open_told()
            market = self.market
        market.asked = self.asked()
        limit = SWEEP_LIMIT if sweep_limit is None else sweep_limit
        try:
            result = market.update(fn, dry_run=self.dry_run, sweep_limit=limit)
        finally:
            self.warn_of_clock()
        if tells:
            self.tell_of(market.due)
        if not self.dry_run:
            self.follow(market)
        return result

    def follow(self, market: "Engine", patience_ms: int | None = None) -> None:
        """What follows on a commit; see `follow_log`."""
        self.follow_log(patience_ms)
        if market.priced_after is not None:
            self.save_prices(after_s=self.config.price_board_save_interval)

    def asked(self) -> "Asked":
        """Who asks, for the log: user, host, process and command line."""
        import pwd

        from compute_market.records import Asked
        from compute_market.text import clipped

        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            user = str(os.getuid())
        words = clipped(" ".join(map(printable, self._command)), _COMMAND_MAX)
        return Asked(user, os.uname().nodename, os.getpid(), words)

    def save_prices(self, after_s: int = 0) -> None:
        """Save what matches have priced, if that waits for so long. A failure is a warning."""
        market = self._opened.market
        if market is None or market.priced_after is None:
            return
        now_s = time.monotonic()
        if self._opened.priced_s is None:
            self._opened.priced_s = now_s
        if now_s - self._opened.priced_s >= after_s:
            from tb_cli.frame.price_board import save  # Most commands match nothing.

            self._opened.priced_s = None
            save(self, market)

    def tell_of(self, due: "Due") -> None:
        """Say in one line what was due, if anything was."""
        if due.text:
            sys.stderr.write(f"{'dry_run: ' if self.dry_run else ''}{due.text}\n")

    def view(self, fn: "Callable[[Txn], T]", *, at_once: bool = False) -> T:
        """Look at one snapshot. It changes nothing, and leaves undone what is due.

        Raises ConflictError to a line of a batch that comes when another market is there by now.
        """
        if self.is_line and self.is_open:
            self.market.store.check_is_here()
        try:
            return self.market.view(fn, at_once=at_once)
        finally:
            self.warn_of_clock()

    def tells_of_clock(self) -> None:
        """Say nothing beside of a clock that is not believed: the verb itself does."""
        self._opened.told_of_clock = True

    def warn_of_clock(self) -> None:
        """Say once in one line that the clock is not believed, and again when it was meanwhile."""
        market = self._opened.market if self._trial is None else self._trial.market
        time = None if market is None else market.time
        if time is None:
            return
        if time.doubt is None:
            self._opened.told_of_clock = False
        elif not self._opened.told_of_clock:
            self._opened.told_of_clock = True
            print(time.text, file=sys.stderr)

    def pages(
        self, fetch: "Callable[[Txn, K, int], tuple[list[T], K | None]]", start: K
    ) -> Iterator[list[T]]:
        """What `fetch` finds page by page, each in a short transaction of its own.

        It gets the key to go on after and how many records to look at, and returns the next key or
        None. Memory stays flat however long a listing is. A store of an older schema, which every
        look brings up to date for itself, is looked at once.
        """
        from tb_cli.frame.paging import pages

        return pages(self, fetch, start)

    def let_go(self) -> None:
        """Give back what this process has read of the store: memory stays flat in a long run."""
        if self._opened.market is not None:
            self._opened.market.store.remap()

    def apart(self, call: "Callable[[], Any]") -> Any:
        """What `call` finds in a process of its own, which damage may end; see `apart`."""
        from tb_cli.frame.apart import apart

        if self._opened.throw_away is not None:
            return call()  # It was made just now, and would be gone.
        self.save_prices()
        self._opened.close_market()
        return apart(call)

    def follow_log(self, patience_ms: int | None = None) -> None:
        """Make `cancellations.log` whole; a failure is a warning, the table is the truth.

        Another process at it is waited for as long as for the write lock, or for `patience_ms`.
        """
        path = self.home.cancellations
        try:
            self.market.follow_log(path, patience_ms)
        except OSError as error:
            shown = printable(f"{path}: {error.strerror}")
            in_the_way = os.path.lexists(path) and (
                os.path.islink(path) or not os.path.isfile(path)
            )
            way_out = "move it away, and " if in_the_way else ""
            sys.stderr.write(f"warning: {shown}; {way_out}the next change makes it whole\n")

    def _begin_trial(self) -> "Trial":
        from tb_cli.frame.clocks import genesis, system_clock
        from tb_cli.frame.trial import Trial

        config = self.config
        clock = system_clock()
        creation = genesis(clock)
        self.home.check()
        return Trial(lambda directory: _market_in(directory, config, clock, creation))

    def _end_trial(self) -> None:
        if self._trial is not None:
            self._trial.end()
            self._trial = None


def _note(text: str) -> None:
    from tb_cli.frame.render import note

    note(text)


def _market_in(
    directory: str, config: "Config", clock: "Clock", creation: "Creation | None"
) -> "Engine":
    from compute_market.engine import Engine, open_store
    from tb_cli.frame.clocks import sleep

    store = open_store(directory, config, sleep=sleep, creation=creation)
    return Engine(store, config, clock=clock, stopwatch=time.perf_counter_ns)


def _collect_garbage() -> None:
    """Start the collector that `entry` stopped; what start-up built is no garbage."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
