"""The methods of the market over HTTP: by JSON-RPC 2.0, and each that only reads by its path.

`id` and `jsonrpc` of a call may be missing. One that has neither is answered by the result alone,
as a path is; what goes wrong with it has the form of JSON-RPC all the same.
"""

from asyncio import CancelledError
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal

from msgspec import (
    UNSET,
    DecodeError,
    Raw,
    Struct,
    UnsetType,
    ValidationError,
    convert,
    json,
)
from starlette.requests import Request
from starlette.responses import Response

from compute_market import rpc
from compute_market.errors import BusyError, MarketError, UsageError
from compute_market.field_errors import field_error, no_json
from compute_market.learned import learned
from compute_market.rpc import Document, Method
from compute_market.store.txn import Txn
from compute_market.text import clipped
from tb_cli.network import answers
from tb_cli.network.gossip_endpoint import listen
from tb_cli.network.node import Node
from tb_cli.network.server import Endpoint

# Calls that one request may have; they are answered in their order, each by a transaction.
BATCH_MAX: Final = 100
# Who has no token, that something is wrong here, and that it may be had another time.
_TOLD_BY_STATUS: Final = (401, 500, 503)


class Rpc:
    """Answers calls for one market."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def reader(self, method: Method) -> Endpoint:
        """What answers the path of a method that only reads: its document alone."""

        async def read(request: Request) -> Response:
            params = _query(request)
            return answers.json_response(await self._called(request, method, params), indented=True)

        return read

    async def post(self, request: Request) -> Response:
        """Calls, whatever the content type says."""
        try:
            with self._node.body(request) as body:
                text = await body.whole()
                calls = _calls_in(text)
                if calls is None:
                    return await self._single(request, text)
                return await self._batch(request, calls)
        except (_RpcError, MarketError) as error:
            return _response(_failure(request, None, error))

    async def _single(self, request: Request, text: bytes) -> Response:
        call = _call_in(text)
        answer = await self._answer(request, call)
        if answer.is_of_notification and answer.status == 200:
            return answers.nothing()
        return _response(answer, bare=call.jsonrpc is UNSET and call.id is UNSET)

    async def _batch(self, request: Request, calls: list[Raw]) -> Response:
        found: list[_Answer] = []
        cut: BusyError | None = None
        for text in calls:
            try:
                call = _call_in(text)
                found.append(await self._answer(request, call, cut))
            except _RpcError as error:
                found.append(_failure(request, None, error))
            except CancelledError:  # What was done before is told, and nothing more is done.
                cut = BusyError(answers.CUT_OFF)
                found.append(await self._answer(request, call, cut))
        statuses = {each.status for each in found}
        # Where nothing was done for one and the same reason, notifications are told of it as well.
        status = statuses.pop() if len(statuses) == 1 else 200
        told = [each.document for each in found if status != 200 or not each.is_of_notification]
        return answers.json_response(told, status) if told else answers.nothing()

    async def _answer(
        self, request: Request, call: "_Call", instead: MarketError | None = None
    ) -> "_Answer":
        """What a call is answered; with `instead` it is not made."""
        call_id = None if call.id is UNSET else call.id
        try:
            if instead is not None:
                raise instead
            method = rpc.METHODS.get(call.method)
            if method is None or method.params is None:
                raise _RpcError(rpc.METHOD_NOT_FOUND, _no_method(call.method, method))
            result = await self._called(request, method, call.params)
            answer = _Answer({"jsonrpc": "2.0", "id": call_id, "result": result})
        except (_RpcError, MarketError) as error:
            answer = _failure(request, call_id, error)
        answer.is_of_notification = call.id is UNSET and call.jsonrpc is not UNSET
        return answer

    async def _called(self, request: Request, method: Method, params: Any) -> Document:
        """What a method answers. Raises MarketError: `answers.Said` for mistakes of who asks."""
        if method.access == "token":
            self._node.check_here()  # Where the home has gone, its token has gone too.
            answers.check_token(self._node.token, request)
        asked = answers.said(_params_of, method, params)
        if isinstance(asked, rpc.Scores):
            return await listen(self._node, request, asked)
        act: Callable[[Txn], Document] = partial(_act, method, asked)
        return await (self._node.glance(act) if method.reads else self._node.update(act))


class _Call(Struct, gc=False):
    method: str
    params: Any = None
    id: str | int | float | UnsetType | None = UNSET
    jsonrpc: Literal["2.0"] | UnsetType = UNSET


class _Answer(Struct):
    """What one call is answered, and the HTTP status if it is the only one."""

    document: Document
    status: int = 200
    is_of_notification: bool = False


class _RpcError(Exception):
    """An error that JSON-RPC itself has a number for."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def _act(method: Method, params: Any, txn: Txn) -> Document:
    assert method.act is not None
    found: Document = answers.said(method.act, txn, params)
    return found


def _params_of(method: Method, params: Any) -> Struct:
    """The parameters of a call, which go by their names. Raises UsageError."""
    assert method.params is not None
    try:
        return convert({} if params is None else params, learned(method.params))
    except ValidationError as error:
        wrong = field_error(f"the parameters of {method.name}", str(error), method.params)
        raise UsageError(wrong.message) from error


def _query(request: Request) -> dict[str, str]:
    """The parameters that a path was asked with. Raises UsageError for one that comes twice."""
    pairs = request.query_params.multi_items()
    found = dict(pairs)
    if len(found) < len(pairs):
        raise answers.Said(UsageError("a parameter comes twice"))
    return found


def _calls_in(body: bytes) -> list[Raw] | None:
    """The calls of a batch, as they came; None for what is no batch. Raises _RpcError."""
    if body.lstrip(b" \t\r\n")[:1] != b"[":
        return None
    found: list[Raw] = _decoded(body, list[Raw])
    if not 0 < len(found) <= BATCH_MAX:
        raise _RpcError(rpc.INVALID_REQUEST, f"a batch has 1…{BATCH_MAX} calls, not {len(found)}")
    return found


def _call_in(text: bytes | Raw) -> _Call:
    found: _Call = _decoded(text, _Call)
    return found


def _decoded(text: bytes | Raw, kind: Any) -> Any:
    try:
        return json.decode(text, type=learned(kind))
    except ValidationError as error:
        wrong = field_error("this is no request", str(error), kind)
        raise _RpcError(rpc.INVALID_REQUEST, wrong.message) from error
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _RpcError(rpc.PARSE_ERROR, f"this is {no_json(error)}") from error


def _no_method(name: str, method: Method | None) -> str:
    if method is not None:
        return f"{name} takes bytes: POST /{name}"
    return f"there is no method {clipped(name)!a}"


def _failure(request: Request, call_id: Any, error: _RpcError | MarketError) -> _Answer:
    """The answer to a call of which nothing came, which the log is told of."""
    answers.tell(request, error.message)
    status = 200
    if isinstance(error, _RpcError):
        told: Document = {"code": error.code, "message": error.message}
    else:
        document = answers.for_others(error)
        told = {"code": rpc.code_of(document), "message": document["message"], "data": document}
        status = answers.status_of(document)
    # What is wrong with a call is told in the answer; what stands before all calls, by the status.
    by_status = status if status in _TOLD_BY_STATUS else 200
    return _Answer({"jsonrpc": "2.0", "id": call_id, "error": told}, by_status)


def _response(answer: _Answer, *, bare: bool = False) -> Response:
    document = answer.document
    if bare and "result" in document:
        document = document["result"]
    return answers.json_response(document, answer.status)
