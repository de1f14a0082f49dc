"""Bundles that other markets bring: taken once, and acknowledged.

Whoever sends is known by a signature, which authorises it.
"""

from functools import partial
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from compute_market.courier import deliveries, envelope
from compute_market.courier.deliveries import Brought
from compute_market.courier.envelope import Entry, Envelope
from compute_market.errors import IntegrityError, InternalError, RefusedError
from compute_market.signatures.canonical import malformed
from compute_market.signatures.keys import Key
from compute_market.store.txn import Txn
from tb_cli.frame import inbox
from tb_cli.frame.node_key import node_key
from tb_cli.network import answers
from tb_cli.network.bodies import Body
from tb_cli.network.node import Node

_WHAT: Final = "the envelope"
# The first line of an envelope, that of one bundle, and the last.
_ENVELOPE_LINES: Final = 3
# What comes over the net is gathered to so many bytes before it is written.
_PIECE_BYTES: Final = 2**18


class Bundles:
    """Takes the bundles of one market in."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._key: Key | None = None
        self._under_way: set[inbox.Incoming] = set()

    async def deliver(self, request: Request) -> Response:
        """An envelope of one bundle with its bytes behind it, answered by an acknowledgement."""
        with self._node.body(request) as body:
            found = await run_in_threadpool(envelope.parse, await _envelope_in(body), _WHAT)
            if len(found.entries) != 1:
                count = len(found.entries)
                raise malformed(f"{_WHAT} has {count} bundles, and one is taken at a time")
            (entry,) = found.entries
            brought = await self._node.glance(partial(_known, found, entry))
            if brought is None:
                brought = await self._take(body, found, entry)
        if brought.taken.error is not None:
            answers.tell(request, brought.taken.error)
        key = await self._own_key()
        answer = await run_in_threadpool(
            envelope.acknowledgement, self._node.market_id, key, found, [brought.taken]
        )
        return answers.json_bytes(answer)

    async def _take(self, body: Body, found: Envelope, entry: Entry) -> Brought:
        """Bring a bundle to the disk, and take it."""
        body.hold(_PIECE_BYTES)
        home, content = self._node.session.home, entry.bundle_hash
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

            return await self._node.update(act)

    async def _own_key(self) -> Key:
        if self._key is None:
            try:
                self._key = await self._node.in_turn(node_key, self._node.session)
            except (IntegrityError, RefusedError) as error:  # Nothing of what was sent.
                raise InternalError(error.message) from error
        return self._key


async def _envelope_in(body: Body) -> bytes:
    """The bytes of the envelope that a request begins with. Raises as `envelope.read` does."""
    lines = [await body.line(envelope.LINE_BYTES_MAX + 1) for _ in range(_ENVELOPE_LINES)]
    each = iter(lines)
    return envelope.read(lambda most: next(each, b""), _WHAT)


def _known(found: Envelope, entry: Entry, txn: Txn) -> Brought | None:
    """The answer for a bundle that needs not be read. Raises RefusedError for who is no friend."""
    deliveries.check_sender(txn, found)
    return deliveries.wanted(txn, found, entry)
