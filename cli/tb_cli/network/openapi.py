"""The description of the endpoint, OpenAPI 3.1, made of the table of its methods.

Parameters and answers are described by their types. What is at other paths has a row here.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final, Literal, TypedDict

from msgspec import Struct, json

from compute_market import __version__, rpc
from compute_market.rpc import Method
from compute_market.rpc_results import ErrorDocument
from tb_cli.network.rpc_endpoint import BATCH_MAX

Schema = dict[str, Any]

_JSON: Final = "application/json"
_REF: Final = "#/components/schemas/{name}"
# What any request may be answered: it is none, it is for another server, this one fails or is busy.
_ALWAYS: Final = (400, 421, 500, 503)
_MEANINGS: Final = {
    400: "what is asked is none, or wrong",
    401: "it needs the token",
    403: "it is refused",
    404: "there is none",
    408: "the body does not come",
    413: "the body is too long",
    421: "this server goes by another name",
    500: "this failed here",
    503: "not now; try again later",
}
_NULL: Final[Schema] = {"type": "null"}
_TEXT: Final = {"schema": {"type": "string"}}
_HEADERS: Final = {401: {"WWW-Authenticate": _TEXT}, 503: {"Retry-After": _TEXT}}


class Health(TypedDict):
    """It serves, and for which market."""

    status: Literal["ok"]
    market_id: str


class Readiness(TypedDict):
    """The market could be changed now."""

    status: Literal["ready"]


class NotReady(TypedDict):
    """It could not."""

    status: Literal["not ready"]
    reason: str
    retryable: bool


class Operation(Struct, frozen=True):
    """What is at a path that is no method of the table: a GET without parameters."""

    path: str
    name: str
    summary: str
    result: Any  # the type of its answer
    media: tuple[str, ...] = (_JSON,)
    failure: Any = ErrorDocument  # the type of what it answers when it fails, beside that of any


OPERATIONS: Final = (
    Operation("/healthz", "healthz", "Whether it serves, and for which market.", Health),
    Operation(
        "/readyz",
        "readyz",
        "Whether the market could be changed now.",
        Readiness,
        failure=NotReady,
    ),
    Operation(
        "/metrics",
        "metrics",
        "Every metric, as Prometheus scrapes it.",
        str,
        ("text/plain", "application/openmetrics-text"),
    ),
    Operation("/openapi.json", "openapi", "This description.", dict[str, Any]),
)


@cache
def description() -> bytes:
    """The document, which is the same as long as the server runs."""
    return json.encode(_document()) + b"\n"


def _document() -> dict[str, Any]:
    methods = rpc.METHODS.values()
    types: list[Any] = [method.params for method in methods if method.params is not None]
    types += [kind for method in methods for kind in _results(method)]
    types += [kind for each in OPERATIONS for kind in (each.result, each.failure)]
    _, components = json.schema_components([*types, ErrorDocument], ref_template=_REF)
    paths: dict[str, Any] = {
        each.path: {
            "get": _operation(
                each.name,
                each.summary,
                _answer(each.result, each.media),
                failure=each.failure.__name__,
            )
        }
        for each in OPERATIONS
    }
    for method in methods:
        if method.reads:
            paths[f"/{method.name}"] = {"get": _read(method, components)}
        elif method.params is None:
            paths[f"/{method.name}"] = {"post": _deliver(method)}
    paths["/"] = {"post": _call()}  # What a GET shows there is for persons.
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Compute market",
            "version": __version__,
            "description": "What one market answers over HTTP.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components | _calls(),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "What `tb-cli serve token` prints.",
                }
            },
        },
    }


def _results(method: Method) -> list[Any]:
    """The types of what a method may answer."""
    return [method.result] if method.archived is None else [method.result, method.archived]


def _read(method: Method, components: dict[str, Schema]) -> Schema:
    """A method by its path, its parameters in the query."""
    assert method.params is not None
    params = components[method.params.__name__]
    operation = _operation(
        method.name, method.summary, _answer(method.result), (404,) if method.errors else ()
    )
    operation["parameters"] = [
        {
            "name": name,
            "in": "query",
            "required": name in params["required"],
            "schema": _given(schema),
        }
        for name, schema in params["properties"].items()
    ]
    return operation


def _given(schema: Schema) -> Schema:
    """The schema of a parameter that was given: null stands for one that was not."""
    choices = [each for each in schema.get("anyOf", ()) if each != _NULL]
    return choices[0] if len(choices) == 1 else schema


def _deliver(method: Method) -> Schema:
    operation = _operation(method.name, method.summary, _answer(method.result), (403, 408))
    operation["requestBody"] = {
        "description": "An envelope of one bundle, and its bytes behind it.",
        "required": True,
        "content": {"application/octet-stream": {}},
    }
    return operation


def _call() -> Schema:
    operation = _operation(
        "call",
        "Call methods by JSON-RPC 2.0. One without `id` and `jsonrpc` is answered by its result.",
        {"content": {_JSON: {"schema": _ref("Answer")}}, "description": "what is answered"},
        (401, 408, 413),
        failure="Failures",
    )
    operation["responses"]["204"] = {"description": "they were notifications"}
    operation["security"] = [{}, {"token": []}]
    operation["requestBody"] = {
        "description": "Its content type is not looked at.",
        "required": True,
        "content": {_JSON: {"schema": {"anyOf": [_ref("Call"), _ref("Batch")]}}},
    }
    return operation


def _calls() -> dict[str, Schema]:
    """What JSON-RPC is asked and answers, by the name of the schema."""
    called = [method for method in rpc.METHODS.values() if method.params is not None]
    results = [_ref(kind.__name__) for method in called for kind in _results(method)]
    call_id = {"type": ["string", "number", "null"]}
    version = {"const": "2.0"}
    answered = {"type": "object", "required": ["jsonrpc", "id"]}
    error = {
        "type": "object",
        "properties": {
            "code": {"enum": [code.number for code in rpc.CODES]},
            "message": {"type": "string"},
            "data": _ref(ErrorDocument.__name__),
        },
        "required": ["code", "message"],
    }
    return {
        "Call": {"oneOf": [_call_of(method, call_id, version) for method in called]},
        "Batch": {
            "type": "array",
            "items": _ref("Call"),
            "minItems": 1,
            "maxItems": BATCH_MAX,
        },
        "Success": answered
        | {
            "properties": {"jsonrpc": version, "id": call_id, "result": {"anyOf": results}},
            "required": ["jsonrpc", "id", "result"],
        },
        "Failure": answered
        | {
            "properties": {"jsonrpc": version, "id": call_id, "error": error},
            "required": ["jsonrpc", "id", "error"],
        },
        # Of a call, or of each of a batch.
        "Failures": {"anyOf": [_ref("Failure"), {"type": "array", "items": _ref("Failure")}]},
        "Answer": {
            "anyOf": [
                _ref("Success"),
                _ref("Failure"),
                {"type": "array", "items": {"anyOf": [_ref("Success"), _ref("Failure")]}},
                *results,
            ]
        },
    }


def _call_of(method: Method, call_id: Schema, version: Schema) -> Schema:
    assert method.params is not None
    fields = json.schema_components([method.params], ref_template=_REF)[1]
    needed = fields[method.params.__name__]["required"]
    params: Schema = _ref(method.params.__name__)
    return {
        "title": method.name,
        "description": method.summary,
        "type": "object",
        "properties": {
            "method": {"const": method.name},
            "params": params if needed else {"anyOf": [params, _NULL]},
            "id": call_id,
            "jsonrpc": version,
        },
        "required": ["method", "params"] if needed else ["method"],
    }


def _operation(
    name: str,
    summary: str,
    answer: Schema,
    statuses: Sequence[int] = (),
    *,
    failure: str = ErrorDocument.__name__,
) -> Schema:
    """An operation; what goes wrong with it is described by the schema `failure`."""
    responses: Schema = {"200": answer}
    for status in sorted({*_ALWAYS, *statuses}):
        schemas = [_ref(each) for each in dict.fromkeys((failure, ErrorDocument.__name__))]
        responses[str(status)] = {
            "description": _MEANINGS[status],
            "content": {_JSON: {"schema": {"anyOf": schemas} if schemas[1:] else schemas[0]}},
            **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
        }
    return {"operationId": name, "summary": summary, "security": [], "responses": responses}


def _answer(kind: Any, media: Sequence[str] = (_JSON,)) -> Schema:
    name = getattr(kind, "__name__", "")
    found, components = json.schema_components([kind], ref_template=_REF)
    schema = _ref(name) if name in components else found[0]
    content = {each: {"schema": schema} for each in media}
    return {"description": "what is answered", "content": content}


def _ref(name: str) -> Schema:
    return {"$ref": _REF.format(name=name)}
