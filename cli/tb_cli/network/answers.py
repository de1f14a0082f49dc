"""What a server answers when something is wrong, and the line that a request leaves in the log.

Whoever asked learns nothing of this machine; the log tells all.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from msgspec import json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from compute_market.errors import (
    AlreadyDoneError,
    MarketError,
    NotFoundError,
    RefusedError,
    UsageError,
)
from compute_market.text import clipped
from tb_cli.frame.faults import answer_to
from tb_cli.frame.serve_token import Token

T = TypeVar("T")

_PATH_SHOWN_MAX: Final = 200  # characters
_ERROR: Final = "tb_error"  # where a request keeps for the log what was wrong

# The status of an error by its token, unless its reason has one.
_BY_TOKEN: Final = {
    "usage": 400,
    "integrity": 400,
    "refused": 403,
    "not_found": 404,
    "already_done": 409,
    "busy": 503,
}
_BY_REASON: Final = {"unauthorized": 401, "no_price_data": 404}
HEADERS: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
# What a client is told to do about a status.
_WAYS_OUT: Final = {401: {"www-authenticate": "Bearer"}, 503: {"retry-after": "1"}}
CUT_OFF: Final = "cut off by the end"  # why a request is not done that takes longer than that may
_BEARER: Final = b"bearer "


class Said(MarketError):
    """What the market said of what was asked, and so is for whoever asked."""

    def __init__(self, error: MarketError) -> None:
        super().__init__(error.message, reason=error.reason)
        self.token, self.exit_code = error.token, error.exit_code
        self.retryable = error.retryable


def said(fn: Callable[..., T], *arguments: Any) -> T:
    """What a function returns; what it raises of the caller's mistakes is `Said`."""
    try:
        return fn(*arguments)
    except (UsageError, NotFoundError, AlreadyDoneError) as error:
        raise Said(error) from error


def check_token(token: Token, request: Request) -> None:
    """Raise Said (`unauthorized`) unless a request has the bearer token."""
    given = request.headers.getlist("authorization")
    words = given[0].encode("latin-1") if len(given) == 1 else b""
    is_bearer = words[: len(_BEARER)].lower() == _BEARER
    if not (is_bearer and token.is_it(words[len(_BEARER) :].strip())):
        problem = "this changes the market: it needs the bearer token of this server"
        raise Said(RefusedError(problem, reason="unauthorized"))


async def to_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, MarketError)
    document = for_others(error)
    return _answered(request, status_of(document), document, error.message)


def for_others(error: MarketError) -> dict[str, Any]:
    """The document of an error for somebody else, who learns nothing of this machine.

    It says what is wrong with what was sent, without hints and details, which are the operator's.
    Damage of what is stored here has no reason to tell it by.
    """
    is_theirs = (
        isinstance(error, Said)
        or error.token == "refused"
        or (error.token == "integrity" and error.reason)
    )
    if is_theirs:
        document: dict[str, Any] = {"error": error.token}
        if error.reason is not None:
            document["reason"] = error.reason
        document["message"] = error.message
    elif error.retryable:
        document = {"error": "busy", "message": "not now; try again later"}
    else:
        document = {"error": "internal", "message": "this failed here"}
    return document | {"retryable": error.retryable}


def status_of(document: dict[str, Any]) -> int:
    """The HTTP status of an error by its document."""
    found = _BY_REASON.get(document.get("reason") or "")
    return _BY_TOKEN.get(document["error"], 500) if found is None else found


async def to_mistake(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    document = {"error": "usage", "message": error.detail, "retryable": error.status_code == 408}
    response = _answered(request, error.status_code, document, error.detail)
    response.headers.update(error.headers or {})
    return response


async def to_nobody(request: Request, error: Exception) -> Response:
    return _answered(request, 400, {"error": "usage"}, "the other side has gone")


async def to_bug(request: Request, error: Exception) -> Response:
    return await to_error(request, answer_to(error))


def _answered(request: Request, status: int, document: dict[str, Any], why: str) -> Response:
    tell(request, why)
    return json_response(document, status)


def json_response(document: Any, status: int = 200, *, indented: bool = False) -> Response:
    content = json.encode(document)
    if indented:
        content = json.format(content, indent=2)
    return json_bytes(content + b"\n", status)


def json_bytes(content: bytes, status: int = 200) -> Response:
    headers = HEADERS | _WAYS_OUT.get(status, {})
    return Response(content, status, headers, media_type="application/json")


def nothing() -> Response:
    """The answer to a notification, which says nothing."""
    return Response(status_code=204, headers=HEADERS)


def tell(request: Request, problem: str) -> None:
    """Let the line that a request leaves in the log say what was wrong with it."""
    request.scope[_ERROR] = problem


def entry(scope: Scope, status: int, took_ms: int) -> dict[str, Any]:
    """What the log says of a request."""
    client = scope.get("client")  # None for who has come by a socket in the file system
    line = {
        "client": "-" if client is None else f"{client[0]}:{client[1]}",
        "method": scope["method"],
        "path": clipped(scope["path"], _PATH_SHOWN_MAX),
        "status": status,
        "ms": took_ms,
    }
    if _ERROR in scope:
        line["error"] = scope[_ERROR]
    return line
