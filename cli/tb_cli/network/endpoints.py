"""What a market answers to other markets: bundles are taken, and scores are listened to.

Whoever sends is known by a signature, which authorises all there is here to do.
"""

from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Final, TypeVar

from msgspec import DecodeError, Struct, ValidationError, convert, json
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from compute_market import chain
from compute_market.courier import deliveries, envelope
from compute_market.courier.deliveries import Brought
from compute_market.courier.envelope import Entry, Envelope
from compute_market.errors import IntegrityError, InternalError, MarketError, RefusedError
from compute_market.home import moved
from compute_market.offers import standing
from compute_market.reputation import gossip
from compute_market.signatures.canonical import malformed
from compute_market.signatures.keys import Key
from compute_market.store.txn import Txn
from compute_market.text import clipped
from tb_cli.frame import inbox
from tb_cli.frame.node_key import node_key
from tb_cli.frame.session import Session
from tb_cli.frame.signing import prepare_to_verify
from tb_cli.network import answers, destinations, peers
from tb_cli.network.bodies import Body, Memory
from tb_cli.network.server import Endpoint
from tb_cli.network.turns import Turns

T = TypeVar("T")

_WHAT: Final = "the envelope"
# The first line of an envelope, that of one bundle, and the last.
_ENVELOPE_LINES: Final = 3
# What comes over the net is gathered to so many bytes before it is written.
_PIECE_BYTES: Final = 2**18
# Of all requests together so much is held in memory.
BODIES_BYTES_MAX: Final = 32 * 2**20

# Of JSON-RPC 2.0, and one for what the market itself says no to.
_NO_JSON, _NO_REQUEST, _NO_METHOD, _BAD_PARAMS, _REFUSED = -32700, -32600, -32601, -32602, -32000


class Node:
    """A market that answers. What changes it is done in turn; who only looks waits for nobody."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._turns = Turns(session)
        self._patience_s = session.config.courier_timeout_secs
        self._key: Key | None = None
        self._under_way: set[inbox.Incoming] = set()
        self._memory = Memory(BODIES_BYTES_MAX)
        self._saving: Future[None] | None = None
        self.market_id = session.view(chain.market_id)

    def __enter__(self) -> "Node":
        prepare_to_verify()
        inbox.remove_left(self._session.home)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._turns.__exit__(kind, error, traceback)

    def save_prices(self) -> None:
        """Let what requests have priced be saved in its turn, if that has waited long enough."""
        if self._saving is None or self._saving.done():
            after_s = self._session.config.price_board_save_interval
            self._saving = self._turns.submit(self._session.save_prices, after_s)

    def endpoints(self) -> dict[str, tuple[str, Endpoint]]:
        return {
            "/healthz": ("GET", self._health),
            "/": ("POST", self._rpc),
            destinations.PATH: ("POST", self._deliver),
        }

    async def _health(self, request: Request) -> Response:
        await self._look(chain.market_id)
        return answers.json_response({"status": "ok", "market_id": self.market_id.hex()})

    # Bundles.

    async def _deliver(self, request: Request) -> Response:
        """An envelope of one bundle with its bytes behind it, answered by an acknowledgement."""
        with self._body(request) as body:
            found = await run_in_threadpool(envelope.parse, await _envelope_in(body), _WHAT)
            if len(found.entries) != 1:
                count = len(found.entries)
                raise malformed(f"{_WHAT} has {count} bundles, and one is taken at a time")
            (entry,) = found.entries
            brought = await self._look(partial(_known, found, entry))
            if brought is None:
                brought = await self._take(body, found, entry)
        if brought.taken.error is not None:
            answers.tell(request, brought.taken.error)
        key = await self._own_key()
        answer = await run_in_threadpool(
            envelope.acknowledgement, self.market_id, key, found, [brought.taken]
        )
        return Response(answer, media_type="application/json")

    async def _take(self, body: Body, found: Envelope, entry: Entry) -> Brought:
        """Bring a bundle to the disk, and take it."""
        body.hold(_PIECE_BYTES)
        home, content = self._session.home, entry.bundle_hash
        home.check_market()  # Or the inbox would be made where a home was that is elsewhere by now.
        with inbox.incoming(home, content, entry.size, self._under_way) as incoming:
            piece = bytearray()
            while chunk := await body.chunk():
                piece += chunk
                if len(piece) >= _PIECE_BYTES:
                    await run_in_threadpool(incoming.write, bytes(piece))
                    piece.clear()
            await run_in_threadpool(incoming.write, bytes(piece))
            await run_in_threadpool(incoming.finish)

            def act(txn: Txn) -> Brought:
                brought = deliveries.take(txn, found, entry)
                if brought.is_new:
                    incoming.keep()
                return brought

            return await self._turns.change(act)

    async def _own_key(self) -> Key:
        if self._key is None:
            try:
                self._key = await self._turns.take(node_key, self._session)
            except (IntegrityError, RefusedError) as error:  # Nothing of what was sent.
                raise InternalError(error.message) from error
        return self._key

    # JSON-RPC 2.0, of which `id` and `jsonrpc` may be missing.

    async def _rpc(self, request: Request) -> Response:
        """Whatever its content type says. An answer is one document, also when it says no."""
        call_id: Any = None
        try:
            with self._body(request) as body:
                call = _call_in(await body.whole())
                call_id = call.id
                method = self._methods().get(call.method)
                if method is None:
                    raise _RpcError(_NO_METHOD, f"there is no method {clipped(call.method)!a}")
                answer = {"result": await method(request, call.params)}
        except _RpcError as error:
            answers.tell(request, str(error))
            answer = {"error": error.document}
        except MarketError as error:
            answers.tell(request, error.message)
            document = answers.for_others(error)
            told = {"code": _REFUSED, "message": document["message"], "data": document}
            answer = {"error": told}
        return answers.json_response({"jsonrpc": "2.0", "id": call_id} | answer)

    def _methods(self) -> dict[str, Callable[[Request, Any], Awaitable[Any]]]:
        return {peers.METHOD: self._listen}

    async def _listen(self, request: Request, params: Any) -> dict[str, int]:
        """Take what is news in a message of scores."""
        text = _text_in(params)
        await self._look(gossip.check_listening)
        message = await run_in_threadpool(gossip.parse, text)
        await run_in_threadpool(gossip.verify, message, self._session.config.net_trusted)
        applied = await self._turns.change(lambda txn: standing.take_gossip(txn, message))
        if applied.ahead or applied.outside:
            answers.tell(request, f"{len(message.entries)} scores: {applied.text}")
        return {
            "applied": applied.applied,
            "ignored": applied.ignored,
            "from_the_future": applied.ahead,
        }

    def _body(self, request: Request) -> Body:
        return Body(request, self._patience_s, self._memory)

    async def _look(self, fn: Callable[[Txn], T]) -> T:
        found: T = await run_in_threadpool(self._view, fn)
        return found

    def _view(self, fn: Callable[[Txn], T]) -> T:
        """Raises ConflictError for a market that is elsewhere by now: it answers no more."""
        store = self._session.market.store
        if not store.is_here():
            raise moved(store.path)
        return self._session.view(fn)


class _Call(Struct, gc=False):
    method: str
    params: Any = None
    id: str | int | float | None = None


class _RpcError(Exception):
    """An error that JSON-RPC itself has a number for."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.document = {"code": code, "message": message}


class _Scores(Struct, forbid_unknown_fields=True, gc=False):
    """What `peers.METHOD` takes."""

    message: str


def _text_in(params: Any) -> bytes:
    """The message of scores that a call brings."""
    try:
        return convert(params, _Scores).message.encode()
    except (ValidationError, UnicodeEncodeError) as error:
        raise _RpcError(_BAD_PARAMS, f"the parameters of {peers.METHOD}: {error}") from error


def _call_in(body: bytes) -> _Call:
    try:
        return json.decode(body, type=_Call)
    except ValidationError as error:
        raise _RpcError(_NO_REQUEST, f"this is no request: {error}") from error
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _RpcError(_NO_JSON, f"this is not JSON: {error}") from error


async def _envelope_in(body: Body) -> bytes:
    """The bytes of the envelope that a request begins with. Raises as `envelope.read` does."""
    lines = [await body.line(envelope.LINE_BYTES_MAX + 1) for _ in range(_ENVELOPE_LINES)]
    each = iter(lines)
    return envelope.read(lambda most: next(each, b""), _WHAT)


def _known(found: Envelope, entry: Entry, txn: Txn) -> Brought | None:
    """The answer for a bundle that needs not be read. Raises RefusedError for who is no friend."""
    deliveries.check_sender(txn, found)
    return deliveries.wanted(txn, found, entry)
