"""A market that is served: what requests look at, and how they take turns to change it."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Final, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from compute_market import chain
from compute_market.errors import BusyError
from compute_market.home import moved
from compute_market.store.txn import Txn
from tb_cli.frame import inbox
from tb_cli.frame.serve_token import Token
from tb_cli.frame.session import Session
from tb_cli.frame.signing import prepare_to_verify
from tb_cli.network.bodies import Body, Memory
from tb_cli.network.turns import Turns

T = TypeVar("T")

# Of all requests together so much is held in memory.
BODIES_BYTES_MAX: Final = 32 * 2**20


class Node:
    """A market that answers. What changes it is done in turn; who only looks waits for nobody."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.patience_s = session.config.courier_timeout_secs
        self.market_id = session.view(chain.market_id)
        self.token = Token(session.home.serve_token)
        self._turns = Turns(session)
        self._memory = Memory(BODIES_BYTES_MAX)
        self._saving: Future[None] | None = None

    def __enter__(self) -> "Node":
        prepare_to_verify()
        inbox.remove_left(self.session.home)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._turns.end()

    def save_prices(self) -> None:
        """Let what requests have priced be saved in its turn, if that has waited long enough."""
        if self._saving is None or self._saving.done():
            after_s = self.session.config.price_board_save_interval
            self._saving = self._turns.submit(self.session.save_prices, after_s)

    def body(self, request: Request) -> Body:
        """What a request brings, in bounded time and memory."""
        return Body(request, self.patience_s, self._memory)

    async def look(self, fn: Callable[[Txn], T]) -> T:
        """Look at one snapshot, in a transaction that ends with the look."""
        found: T = await run_in_threadpool(self._view, fn)
        return found

    async def glance(self, fn: Callable[[Txn], T]) -> T:
        """The same for what takes no longer than to have it done by another thread."""
        self.check_here()
        with suppress(BusyError):
            return self.session.view(fn, at_once=True)
        return await self.look(fn)

    async def update(self, fn: Callable[[Txn], T]) -> T:
        """Change the market, in its turn and in one transaction."""
        return await self._turns.change(fn)

    async def in_turn(self, fn: Callable[..., T], *arguments: object) -> T:
        """Do something else in its turn."""
        return await self._turns.take(fn, *arguments)

    def _view(self, fn: Callable[[Txn], T]) -> T:
        self.check_here()
        self.session.market.store.keep_tables()
        return self.session.view(fn)

    def check_here(self) -> None:
        """Raise ConflictError for a market that is elsewhere by now: it answers no more."""
        store = self.session.market.store
        if not store.is_here():
            raise moved(store.path)
