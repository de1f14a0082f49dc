"""What a server answers when something is wrong, and the line that a request leaves in the log.

Whoever asked learns nothing of this machine; the log tells all.
"""

from typing import Any, Final

from msgspec import json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from compute_market.errors import MarketError
from compute_market.text import clipped
from tb_cli.frame.faults import answer_to

_PATH_SHOWN_MAX: Final = 200  # characters
_ERROR: Final = "tb_error"  # where a request keeps for the log what was wrong

# What is busy or full now is looked at again after a moment that a person does not mind.
_RETRY_SECS: Final = 5

_STATUS: Final = {"integrity": 400, "refused": 403}


async def to_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, MarketError)
    document = for_others(error)
    status = 503 if error.retryable else _STATUS.get(document["error"], 500)
    return _answered(request, status, document, error.message)


def for_others(error: MarketError) -> dict[str, Any]:
    """The document of an error for somebody else, who learns nothing of this machine.

    It says what is wrong with what was sent, without hints and details, which are the operator's.
    Damage of what is stored here has no reason to tell it by.
    """
    is_theirs = error.token == "refused" or (error.token == "integrity" and error.reason)
    if is_theirs:
        document = {"error": error.token, "reason": error.reason, "message": error.message}
    elif error.retryable:
        document = {"error": "busy", "message": "not now; try again later"}
    else:
        document = {"error": "internal", "message": "this failed here"}
    return document | {"retryable": error.retryable}


async def to_mistake(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    document = {"error": "usage", "message": error.detail, "retryable": error.status_code == 408}
    return _answered(request, error.status_code, document, error.detail)


async def to_nobody(request: Request, error: Exception) -> Response:
    return _answered(request, 400, {"error": "usage"}, "the other side has gone")


async def to_bug(request: Request, error: Exception) -> Response:
    return await to_error(request, answer_to(error))


def _answered(request: Request, status: int, document: dict[str, Any], why: str) -> Response:
    tell(request, why)
    return json_response(document, status)


def json_response(document: Any, status: int = 200) -> Response:
    """A document; one that is for another time says when to ask again."""
    headers = {"Retry-After": str(_RETRY_SECS)} if status == 503 else None
    return Response(json.encode(document) + b"\n", status, headers, "application/json")


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
