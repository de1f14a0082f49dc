"""The description of the endpoint, OpenAPI 3.1, made of the table of its methods."""

from functools import cache

import msgspec


@cache
def description() -> bytes:
    """The document, which is the same as long as the server runs."""
    return msgspec.json.encode({"openapi": "3.1.0"})
