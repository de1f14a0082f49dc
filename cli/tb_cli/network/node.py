"""A market that is served: what requests look at, and how they take turns to change it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from compute_market import chain
from compute_market.home import moved
from compute_market.store.txn import Txn
from tb_cli.frame import inbox
from tb_cli.frame.serve_token import Token
from tb_cli.frame.session import Session
from tb_cli.frame.signing import prepare_to_verify
from tb_cli.network.bodies import Body, Memory

T = TypeVar("T")

# Of all requests together so much is held in memory.
BODIES_BYTES_MAX: Final = 32 * 2**20


class Node:
    """A market that answers. What changes it is done in a thread of its own, in turn.

    So no request waits for the write lock of another, and those that only look wait for none.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.patience_s = session.config.courier_timeout_secs
        self.market_id = session.view(chain.market_id)
        self.token = Token(session.home.serve_token)
        self._writer = ThreadPoolExecutor(1)
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
        self.session.market.store.give_up_waiting()
        self._writer.shutdown(cancel_futures=True)

    def save_prices(self) -> None:
        """Let what requests have priced be saved in its turn, if that has waited long enough."""
        if self._saving is None or self._saving.done():
            after_s = self.session.config.price_board_save_interval
            self._saving = self._writer.submit(self.session.save_prices, after_s)

    def body(self, request: Request) -> Body:
        """What a request brings, in bounded time and memory."""
        return Body(request, self.patience_s, self._memory)

    async def look(self, fn: Callable[[Txn], T]) -> T:
        """Look at one snapshot, in a transaction that ends with the look."""
        found: T = await run_in_threadpool(self._view, fn)
        return found

    async def update(self, fn: Callable[[Txn], T]) -> T:
        """Change the market, in its turn and in one transaction."""
        return await self.in_turn(self.session.update, fn)

    async def in_turn(self, fn: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, fn, *arguments)

    def _view(self, fn: Callable[[Txn], T]) -> T:
        """Raises ConflictError for a market that is elsewhere by now: it answers no more."""
        store = self.session.market.store
        if not store.is_here():
            raise moved(store.path)
        return self.session.view(fn)
