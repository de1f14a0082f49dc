"""Other markets that scores are told to, each over JSON-RPC at its address."""

from typing import Annotated, Final

from msgspec import Meta, Struct, json

from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import MarketError
from compute_market.reputation.gossip import METHOD
from compute_market.signatures.canonical import decoded
from compute_market.text import clipped, one_line
from tb_cli.network.http_client import Client

_PATH: Final = "/"
_ANSWER_BYTES_MAX: Final = 64 * 1024

_Number = Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]


class _Parameters(Struct, gc=False):
    message: str


class _Call(Struct, gc=False):
    method: str
    params: _Parameters
    jsonrpc: str = "2.0"
    id: int = 1


class _Result(Struct, gc=False):
    applied: _Number
    ignored: _Number
    from_the_future: _Number = 0  # of those that were ignored


class _Error(Struct, gc=False):
    message: str


class _Answer(Struct, gc=False):
    result: _Result | None = None
    error: _Error | None = None


class Peer:
    """One of them, and what it made of the scores that it was told."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self.url = url
        self.sent = self.applied = self.ignored = 0
        self.from_the_future = 0  # of those that were ignored: its clock is behind this one
        self.error: str | None = None  # why it was told no more
        self._client: Client | None = None
        try:
            self._client = Client(url, _PATH, timeout_s)
        except MarketError as error:
            self._fail(error.message)

    def tell(self, message: bytes, scores: int) -> None:
        """Send a message of so many scores. What goes wrong is in `error` afterwards."""
        if self._client is None or self.error is not None:
            return
        body = json.encode(_Call(METHOD, _Parameters(message.decode())))
        try:
            found = self._client.post(
                lambda: (body,), len(body), {"Content-Type": "application/json"}, _ANSWER_BYTES_MAX
            )
            answer = decoded(found, _Answer, "no answer of JSON-RPC")
        except MarketError as error:
            self._fail(error.message)
        else:
            if answer.result is None:
                self._fail(answer.error.message if answer.error else "an answer that says nothing")
            else:
                self._count(scores, answer.result)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _count(self, scores: int, found: _Result) -> None:
        if found.applied + found.ignored != scores or found.from_the_future > found.ignored:
            self._fail(
                f"it was told {scores} scores and says that it applied {found.applied} and "
                f"ignored {found.ignored}, {found.from_the_future} of them from the future"
            )
            return
        self.sent += scores
        self.applied += found.applied
        self.ignored += found.ignored
        self.from_the_future += found.from_the_future

    def _fail(self, problem: str) -> None:
        self.error = clipped(one_line(problem.removeprefix(f"{self.url}: ")))
