"""Verbs for programs on prices, parameters, mempool, settlement, capacity and files.

A program reaches them through the front door, `market`. They are those that the command line has
for these nouns, take plain values and return the documents that `tb-cli --json` prints.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from compute_market.engine import Engine
from compute_market.errors import UsageError
from compute_market.records import LANES, Lane, check_id, check_number, check_reason
from compute_market.store.txn import Txn
from compute_market.text import legible

if TYPE_CHECKING:
    from compute_market.price_records import Board

_PAGE = 1000
# Gets the key to go on after and how many records to read; returns the next key, None at the end.
Page = Callable[[Txn, bytes | None, int], tuple[list[dict[str, Any]], bytes | None]]


class Prices:
    """The price board of a market. Looking at it loads it, unless that was done before."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def load(self) -> "Board":
        """Read the board anew, for the transactions that follow; see `price_file.load`."""
        return self._engine.load_prices()

    def save(self) -> "Board | None":
        """Write the prices of this process to the board; see `Engine.save_prices`."""
        return self._engine.save_prices()

    def show(self) -> dict[Lane, dict[str, Any] | None]:
        """The quartiles of the last effective prices of each lane; None for one without any."""
        from compute_market.offers import board

        self._need()
        return self._engine.view(lambda txn: {lane: board.document(txn, lane) for lane in LANES})

    def suggest(self, lane: Lane = "industrial") -> dict[str, Any]:
        """What to bid in a lane.

        Raises UsageError for what is no lane, and RefusedError (`no_price_data`) where nothing was
        priced.
        """
        from compute_market.jobs import lanes
        from compute_market.offers import board

        if lane not in LANES:
            raise UsageError(f"{lane!a} is no lane, only {' and '.join(LANES)} are")
        self._need()
        return self._engine.view(
            lambda txn: board.suggested(txn, lane, lanes.waiting_in(txn, lane))
        )

    def _need(self) -> None:
        if self._engine.board is None:
            self.load()


class Parameters:
    """What governs a market: parameters that proposals change while it runs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def show(self) -> dict[str, Any]:
        """Those in force."""
        from compute_market.config import parameters

        return self._engine.view(lambda txn: parameters.document(txn.config))

    def propose(self, name: str, value: float | str, key: str | None = None) -> dict[str, Any]:
        """Propose a value, as a configuration file would have it; returns the proposal.

        Raises what `parameters.parse` and `proposals.propose` raise.
        """
        from compute_market.governance import parameters, proposals

        parsed = parameters.parse(name, str(value))
        return self._engine.update(lambda txn: proposals.propose(txn, name, parsed, key))[-1]

    def approve(self, proposal_id: int) -> dict[str, Any]:
        """Let a proposal come into force; returns it. Raises what `governance.approve` raises."""
        from compute_market.governance import proposals

        check_number(proposal_id, "proposal_id")
        return self._engine.update(lambda txn: proposals.approve(txn, proposal_id))[-1]

    def rollback(self, key: str | None = None) -> dict[str, Any]:
        """Undo the last activation; returns its proposal. Raises RefusedError without one."""
        from compute_market.governance import proposals

        return self._engine.update(lambda txn: proposals.roll_back(txn, key))[-1]

    def history(self) -> Iterator[dict[str, Any]]:
        """All proposals, the oldest first, read in short transactions."""
        from compute_market.governance import governance

        return pages(self._engine, governance.page)


class Mempool:
    """The consumer transactions that wait for a block."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def submit(self, sender: str, *, fee: int, size: int, key: str | None = None) -> dict[str, Any]:
        """Send a transaction of `size` bytes; returns it. With a `key` the same again is one.

        Raises UsageError, and RefusedError with the reason when the pool says no.
        """
        from compute_market.admission import mempool, transactions

        mempool.check_asked(sender, fee, size)
        found, refused = self._engine.update(
            lambda txn: transactions.submit(txn, sender, fee, size, key)
        )
        if refused is not None:
            raise refused.error()
        return found

    def stats(self) -> dict[str, Any]:
        """The pool, its fees and the comfort guard, and the lanes of jobs."""
        from compute_market.jobs import pools

        return self._engine.view(pools.document)


class Settlement:
    """The mode of a market, and what waits to be paid. `Market.arm` lets money move."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def status(self) -> dict[str, Any]:
        """The mode, and how many receipts are pending, applied and failed."""
        from compute_market.settlement import modes

        return self._engine.view(modes.document)

    def plan(self) -> dict[str, Any]:
        """What paying all that waits would move, and the root of the state it was made of."""
        from compute_market.settlement import settlement

        return self._engine.view(settlement.plan)

    def cancel_arm(self) -> None:
        """Take arming back. Raises RefusedError unless the mode is armed."""
        from compute_market.settlement import modes

        self._engine.update(modes.cancel_arm)

    def stop(self, reason: str) -> bool:
        """Stop moving money, and let receipts wait; False where none moves. The reason is kept."""
        from compute_market.settlement import modes

        check_reason(reason, "the reason")
        return self._engine.update(lambda txn: modes.to_dry_run(txn, reason))[1]


class Capacity:
    """What a market can do in a second."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, units_per_second: int, key: str | None = None) -> dict[str, Any]:
        """Record a sample; returns it with the estimate. With a `key` the same again is one."""
        from compute_market.admission import capacity

        check_number(units_per_second, "units_per_second")
        if key is not None:
            check_id(key, "key")
        return self._engine.update(lambda txn: capacity.record_once(txn, units_per_second, key))

    def show(self) -> dict[str, Any]:
        """The samples, what may still be admitted now, and what parties have used."""
        from compute_market.admission import capacity

        return self._engine.view(capacity.document)


class State:
    """The files of a market, and what it is as a whole."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def archive(self, path: str, *, before_secs: int, archive_id: bytes) -> dict[str, Any]:
        """Move what ended so long ago to a file, or go on with one; returns what has gone.

        `archive_id`, 16 random bytes, is that of a new file; the temporary file beside it is named
        after it. Raises what `archiving.archive` raises, and ConflictError for an id that another
        file has.
        """
        from compute_market.archive import archives, archiving

        check_number(before_secs, "before_secs")
        if not isinstance(archive_id, bytes) or len(archive_id) != archives.ID_BYTES:
            raise UsageError(f"the id of an archive is {archives.ID_BYTES} bytes")
        if type(path) is not str or not path or legible(path) != path:
            raise UsageError("the path is no text, or empty")
        engine = self._engine
        run = archiving.Runner(engine.view, engine.update, engine.wall_ms, engine.store.remap)
        before = engine.view(lambda txn: max(0, txn.now - before_secs))
        return archiving.archive(run, path, before, archive_id)

    def root(self) -> str:
        """One hash, in hex, of money, mode and receipts: the same root is the same state."""
        from compute_market.settlement import state_root

        return self._engine.view(state_root.root).hex()


def pages(engine: Engine, page: Page) -> Iterator[dict[str, Any]]:
    """Documents page by page, each read in a transaction of its own."""
    after: bytes | None = None
    while True:
        found, after = engine.view(partial(_from, page, after))
        yield from found
        if after is None:
            return


def _from(page: Page, after: bytes | None, txn: Txn) -> tuple[list[dict[str, Any]], bytes | None]:
    return page(txn, after, _PAGE)
